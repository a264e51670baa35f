"""Input that may not come for long: read by a thread, no more than is asked for."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from contextlib import suppress

_MOST = 64 << 10
"""bytes of one read"""


class Input:
    """A descriptor read by a thread, which does not keep the process from its exit: it is a daemon.

    Nothing is read ahead, and nothing once it is closed (but on Windows): what is typed for the next program is left to
    it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._wanted = threading.Semaphore(0)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed, self._closing = os.pipe()
        self._over = False
        self._thread: threading.Thread | None = None

    async def read(self) -> bytes:
        """What comes next; empty at the end."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._read_all, args=(loop,), name="input", daemon=True)
            self._thread.start()
        self._wanted.release()
        return await self._pieces.get()

    def close(self) -> None:
        """Read no more."""
        self._over = True
        os.close(self._closing)
        self._wanted.release()
        if self._thread is None:
            os.close(self._closed)

    def _read_all(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            while True:
                self._wanted.acquire()
                try:
                    if self._over or not self._comes():
                        break
                    data = os.read(self._descriptor, _MOST)
                except BlockingIOError:  # another reader of the same has been faster
                    self._wanted.release()
                    continue
                except OSError:  # a terminal that has gone
                    data = b""
                loop.call_soon_threadsafe(self._pieces.put_nowait, data)
        os.close(self._closed)

    def _comes(self) -> bool:
        """Wait until there is something to read; False when this is closed before."""
        if sys.platform == "win32":  # whose select() knows sockets only
            return True
        ready, _, _ = select.select([self._descriptor, self._closed], [], [])
        return self._closed not in ready
