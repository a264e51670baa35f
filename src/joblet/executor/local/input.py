"""What is sent to a running job, as frames into its monitor's FIFO (shim/PROTOCOL.md, "Input")."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import struct
from pathlib import Path

from joblet.executor.base import InputOver

_HEADER = struct.Struct("=BBH")
_SIZE = struct.Struct("=HH")
_PAYLOAD = select.PIPE_BUF - _HEADER.size
"""bytes; a longer write would not be whole (pipe(7))"""
_DATA, _END, _RESIZE = b"des"


class Feeder:
    """The write end of a job's FIFO, one of any number. The mutable state is how much it has taken."""

    def __init__(self, fifo: int) -> None:
        """`fifo` does not wait, and is closed with this."""
        self.taken = 0
        self._fifo = fifo
        self._poll: select.epoll | None = None

    async def write(self, data: bytes) -> None:
        """Hand bytes over; waits as long as the job's input is full. Raises InputOver."""
        rest = memoryview(data)
        while rest:
            piece = rest[:_PAYLOAD]
            await self._send(_DATA, piece)
            self.taken += len(piece)
            rest = rest[len(piece) :]

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size, after what was written before. Raises InputOver."""
        await self._send(_RESIZE, _SIZE.pack(rows, columns))

    async def end(self) -> None:
        """Let it meet the end of its input, after what was written before. Raises InputOver."""
        await self._send(_END, b"")

    def close(self) -> None:
        """Let go of the FIFO, which goes on for others."""
        os.close(self._fifo)
        if self._poll is not None:
            self._poll.close()

    async def _send(self, kind: int, payload: bytes | memoryview) -> None:
        frame = _HEADER.pack(kind, 0, len(payload)) + payload
        while True:
            try:
                os.write(self._fifo, frame)
            except BlockingIOError:
                await self._room()
            except BrokenPipeError:
                raise InputOver from None
            else:
                return

    async def _room(self) -> None:
        """Wait until there is room, or nobody to read it.

        By an epoll descriptor of its own, for uvloop takes the latter (EPOLLERR) for a fault of the descriptor.
        """
        if self._poll is None:
            self._poll = select.epoll()
            self._poll.register(self._fifo, select.EPOLLOUT)
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._poll.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._poll.fileno())


def open_feeder(directory: Path) -> Feeder:
    """The input of the job with this directory; no link is followed. Raises InputOver, or OSError."""
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        fifo = os.open("input", flags, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENOENT):
            raise
        raise InputOver from None
    finally:
        os.close(folder)
    if not stat.S_ISFIFO(os.fstat(fifo).st_mode):
        os.close(fifo)
        raise OSError(errno.EINVAL, "the job's input is no FIFO")
    return Feeder(fifo)
