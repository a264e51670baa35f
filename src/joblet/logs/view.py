"""Which part of a log somebody wants to see, found without reading the rest."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from joblet.logs import streams
from joblet.logs.file import CHUNK, LogFile
from joblet.logs.times import Index, first_at, index_of


@dataclass(frozen=True, slots=True)
class View:
    """A part of a log. Of `offset`, the tails and `since` the one that begins latest counts.

    The tails count back from where `until` cuts the log. Bytes of which no time is known are never cut off by time.
    """

    offset: int = 0
    """first byte"""
    tail_lines: int | None = None
    """so many last lines; one without its end counts too"""
    tail_bytes: int | None = None
    since: int | None = None
    """what came at this instant or after; nanoseconds since the epoch"""
    until: int | None = None
    """what came before this instant"""
    errors: bool | None = None
    """tails are counted in stderr only, or in stdout only; None in all there is"""

    async def find(self, path: Path) -> tuple[int, int]:
        """The first byte of this view of the log at `path` as it is now, and the one after its last.

        Reads the last lines only, in blocks, and a few marks. Raises FileNotFoundError when there is no log.
        """
        with LogFile(path) as log:
            start, end = await asyncio.to_thread(self._by_time, path, log.size())
            start = max(start, self.offset)
            if self.errors is not None:
                if self.tail_lines is None and self.tail_bytes is None:
                    return start, end
                lines, size = self.tail_lines, self.tail_bytes
                return await streams.find_last(log, path, self.errors, start, end, lines=lines, size=size), end
            if self.tail_bytes is not None:
                start = max(start, end - self.tail_bytes)
            if self.tail_lines is not None:
                start = max(start, await find_last_lines(log, self.tail_lines, start, end))
        return start, end

    def _by_time(self, path: Path, size: int) -> tuple[int, int]:
        if self.since is None and self.until is None:
            return 0, size
        try:
            index = Index(index_of(path))
        except FileNotFoundError:
            return 0, size
        with index as marks:
            start = 0 if self.since is None or not marks else first_at(marks, self.since)
            end = None if self.until is None else first_at(marks, self.until)
        # The index is written before the log: it may know of bytes that are not there yet, or never came to be.
        end = size if end is None else min(end, size)
        return end if start is None else min(start, end), end


async def find_last_lines(log: LogFile, count: int, start: int, end: int) -> int:
    """Where the last `count` lines of the log's bytes from `start` to `end` begin."""
    if count == 0 or start >= end:
        return max(start, end)
    position = end
    while position > start:
        size = min(CHUNK, position - start)
        block = await log.read(position - size, size)
        position -= size
        # The end of the last line begins no line.
        stop = len(block) - 1 if position + size == end else len(block)
        newlines = block.count(b"\n", 0, stop)
        if newlines >= count:
            for _ in range(count):
                stop = block.rfind(b"\n", 0, stop)
            return position + stop + 1
        count -= newlines
        await asyncio.sleep(0)  # what is cached is read at once
    return start
