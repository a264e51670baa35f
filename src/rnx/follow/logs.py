"""The output of a workflow's jobs, line by line, several at a time."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from joblet.command_line import one_line
from rnx.follow.screen import Screen

if TYPE_CHECKING:
    from types import TracebackType

    from joblet.client import Client

_AT_A_TIME = 32
"""logs that are read at a time; those of other jobs wait, and are read as a whole then"""
_LONGEST = 8192
"""characters after which a line is shown in pieces"""


class Logs:
    """Reads the log of each job that it is told of, to its end. To be used in `async with`, which waits for that.

    The mutable state is the set of jobs that it was told of, and the tasks that read.
    """

    def __init__(self, client: Client, screen: Screen) -> None:
        self._client = client
        self._screen = screen
        self._known: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._room = asyncio.Semaphore(_AT_A_TIME)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not a TaskGroup: what ends the block shall leave it as it is, not in a group.
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=kind is not None)

    def read(self, name: str, job_id: str) -> None:
        """Read the log of a job, once."""
        if job_id and job_id not in self._known:
            self._known.add(job_id)
            self._tasks.append(asyncio.create_task(self._read(name, job_id)))

    async def _read(self, name: str, job_id: str) -> None:
        from joblet.client import JobletError

        lines = Splitter()
        async with self._room:
            try:
                stream = self._client.logs(job_id, reconnect=True)
                async with aclosing(stream) as chunks:
                    async for chunk in chunks:
                        for line in lines.feed(chunk):
                            await self._screen.log(name, line)
                for line in lines.end():
                    await self._screen.log(name, line)
            except JobletError as error:  # of this log; the workflow is watched by itself
                await self._screen.log(name, f"[{one_line(str(error))}]")


class Splitter:
    """Bytes to lines that can command no terminal. The mutable state is what is left of a line."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are whole now."""
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        for line in lines:
            yield from _pieces(line)
        while len(self._rest) > _LONGEST:
            piece, self._rest = self._rest[:_LONGEST], self._rest[_LONGEST:]
            yield from _pieces(piece)

    def end(self) -> Iterator[str]:
        """What is left at the end."""
        rest = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        if rest:
            yield from _pieces(rest)


def _pieces(line: str) -> Iterator[str]:
    line = line.removesuffix("\r")
    for start in range(0, max(1, len(line)), _LONGEST):
        yield one_line(line[start : start + _LONGEST].expandtabs())
