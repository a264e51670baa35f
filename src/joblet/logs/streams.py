"""stdout and stderr of a log that tells them apart: which of its bytes are whose (shim/PROTOCOL.md, "Index")."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from joblet.logs.file import CHUNK, LogFile
from joblet.logs.times import Index, Mark, Stamps, index_of, marks_within

_MANY = 1000
"""marks that are gone through in a thread: a job may write to the other stream byte by byte"""


class Run(NamedTuple):
    """Bytes of one stream that lie together in the log."""

    offset: int
    payload: bytes
    errors: bool
    """of stderr, or a line of joblet's own"""


def runs_of(offset: int, payload: bytes, marks: Sequence[Mark]) -> list[Run]:
    """The payload, which begins at `offset` of the log, by stream; `marks` are those of its bytes, in order.

    What no mark tells of is of joblet itself: the job's bytes are not written without one.
    """
    runs: list[Run] = []
    begin, errors = offset, True
    end = offset + len(payload)
    for mark in (*marks, Mark(0, end, errors=False)):
        at_end = mark.offset >= end
        if (mark.errors is not errors or at_end) and mark.offset > begin:
            stop = min(mark.offset, end)
            runs.append(Run(begin, payload[begin - offset : stop - offset], errors))
            begin = stop
        if at_end:
            break
        errors = mark.errors
    return runs


class Streams:
    """Tells them apart for one who reads a log from front to back. The mutable state is its Stamps'."""

    def __init__(self, log: Path, start: int) -> None:
        """Of bytes from `start` on. It may read from disk."""
        self._stamps = Stamps(log, start)

    async def split(self, offset: int, payload: bytes) -> list[Run]:
        """The runs of bytes that have been read from the log at `offset`."""
        marks = await self._stamps.within(offset, offset + len(payload))
        if len(marks) > _MANY:
            return await asyncio.to_thread(runs_of, offset, payload, marks)
        return runs_of(offset, payload, marks)

    def close(self) -> None:
        self._stamps.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Places:
    """Where the bytes of one stream are in the log. The mutable state is those that have not been passed."""

    def __init__(self) -> None:
        self._parts: deque[tuple[int, int, int]] = deque()  # place in the stream, offset in the log, length
        self._length = 0

    def add(self, offset: int, length: int) -> None:
        """The stream goes on with so many bytes of the log."""
        self._parts.append((self._length, offset, length))
        self._length += length

    def located(self, place: int, payload: bytes) -> list[tuple[int, bytes]]:
        """Bytes of the stream from `place` on, with their offsets in the log. What is before them is passed."""
        self.passed(place)
        found = []
        for begin, offset, length in self._parts:
            first, last = max(place, begin), min(place + len(payload), begin + length)
            if first >= last:
                break
            found.append((offset + first - begin, payload[first - place : last - place]))
        return found

    def passed(self, place: int) -> int | None:
        """Forget what is before `place`: the offset of what is there now, None when there is nothing yet."""
        while self._parts and self._parts[0][0] + self._parts[0][2] <= place:
            self._parts.popleft()
        if not self._parts:
            return None
        begin, offset, _ = self._parts[0]
        return offset + max(0, place - begin)


async def find_last(
    log: LogFile, path: Path, errors: bool, start: int, end: int, *, lines: int | None, size: int | None
) -> int:
    """Where the last `lines` lines, or the last `size` bytes, of one stream of the log at `path` begin.

    Of the log's bytes from `start` to `end`; of both the one that begins later.
    """
    if (lines == 0 or size == 0) and start < end:
        return end
    position, last = end, True
    try:
        index = await asyncio.to_thread(Index, index_of(path))
    except FileNotFoundError:
        return start
    with index as marks:
        while position > start:
            block = await log.read(max(start, position - CHUNK), min(CHUNK, position - start))
            position -= len(block)
            runs = await asyncio.to_thread(_runs_in, marks, position, block)
            for run in reversed(runs):
                if run.errors is not errors:
                    continue
                payload = run.payload
                # The end of the last line begins no line.
                stop = len(payload) - 1 if last else len(payload)
                last = False
                newlines = payload.count(b"\n", 0, stop)
                found: list[int] = []
                if lines is not None and newlines >= lines:
                    for _ in range(lines):
                        stop = payload.rfind(b"\n", 0, stop)
                    found.append(run.offset + stop + 1)
                if size is not None and len(payload) >= size:
                    found.append(run.offset + len(payload) - size)
                if found:
                    return max(found)
                lines = None if lines is None else lines - newlines
                size = None if size is None else size - len(payload)
    return start


def _runs_in(marks: Index, offset: int, block: bytes) -> list[Run]:
    return runs_of(offset, block, marks_within(marks, offset, offset + len(block)))
