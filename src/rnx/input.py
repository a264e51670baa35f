"""Input that may never come: read by a thread, a piece ahead."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import suppress

_PIECE = 64 << 10
"""bytes that are read at a time"""


async def pieces(descriptor: int) -> AsyncGenerator[bytes]:
    """What comes from a descriptor, to its end.

    The thread cannot be interrupted while it reads. It is a daemon, so that it keeps nobody from leaving.
    """
    loop = asyncio.get_running_loop()
    handed: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(1)

    def read() -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            while True:
                room.acquire()
                try:
                    data = os.read(descriptor, _PIECE)
                except OSError:
                    data = b""
                loop.call_soon_threadsafe(handed.put_nowait, data)
                if not data:
                    return

    threading.Thread(target=read, name="input", daemon=True).start()
    while data := await handed.get():
        room.release()
        yield data
