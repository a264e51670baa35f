"""Input that may not come for long: read by a thread, no more than is asked for."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from contextlib import suppress

_MOST = 64 << 10
"""bytes of one read"""


class Input:
    """A descriptor read by a thread, which does not keep the process from its exit: it is a daemon.

    Nothing is read ahead: what is not asked for stays for whoever reads the descriptor next.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._wanted = threading.Semaphore(0)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._thread: threading.Thread | None = None

    async def read(self) -> bytes:
        """What comes next; empty at the end."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._read_all, args=(loop,), name="input", daemon=True)
            self._thread.start()
        self._wanted.release()
        return await self._pieces.get()

    def _read_all(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            while True:
                self._wanted.acquire()
                loop.call_soon_threadsafe(self._pieces.put_nowait, self._read())

    def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, _MOST)
            except BlockingIOError:  # whoever has it too has set it so
                select.select([self._descriptor], [], [])
            except OSError:  # a terminal that has gone
                return b""
