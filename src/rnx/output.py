"""Output that may be slow: written by a thread, bounded."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from queue import SimpleQueue
from typing import Self

from joblet.command_line import output_error

_LIMIT = 2**20
"""bytes that wait for stdout before the stream has to"""


class Output:
    """A descriptor written from a thread, with at most _LIMIT bytes (and a chunk) waiting.

    A reader that stalls then stops neither the event loop (keepalive, Ctrl-C) nor the process's exit: the thread is a
    daemon and holds no lock of sys.stdout. A reader that leaves ends the block, even while the job is silent.

    The count of unwritten bytes belongs to the loop; the thread reports to it and touches only the queue.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pieces: SimpleQueue[bytes] = SimpleQueue()
        self._unwritten = 0
        self._progress = asyncio.Event()
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        threading.Thread(target=self._write_all, name="output", daemon=True).start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not asyncio.CancelledError:
                await self._until(0)
        finally:
            if self._error is not None:
                raise self._error from None

    async def write(self, data: bytes) -> None:
        """Hand `data` over; return when there is room for more. The block ends in OutputClosed or Failure."""
        self._unwritten += len(data)
        self._pieces.put(data)
        await self._until(_LIMIT)

    async def _until(self, most: int) -> None:
        while self._unwritten > most:
            self._progress.clear()
            await self._progress.wait()

    def _write_all(self) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            while True:
                pieces = [self._pieces.get()]
                pieces += [self._pieces.get() for _ in range(self._pieces.qsize())]
                rest = memoryview(b"".join(pieces))
                size = len(rest)
                try:
                    while rest:
                        rest = rest[os.write(self._descriptor, rest) :]
                except OSError as error:
                    self._loop.call_soon_threadsafe(self._fail, output_error(error))
                    return
                self._loop.call_soon_threadsafe(self._advance, size)

    def _advance(self, size: int) -> None:
        self._unwritten -= size
        self._progress.set()

    def _fail(self, error: Exception) -> None:
        self._error = error
        if self._task is not None:
            self._task.cancel()


async def write_streams(source: AsyncGenerator[tuple[bool, bytes]], header: bytes = b"") -> None:
    """Write a job's stdout to stdout, after the header, and its stderr (True) to stderr. Ends as Output does."""
    async with aclosing(source) as pieces, Output(sys.stdout.fileno()) as stdout, Output(sys.stderr.fileno()) as stderr:
        await stdout.write(header)
        async for errors, payload in pieces:
            await (stderr if errors else stdout).write(payload)
