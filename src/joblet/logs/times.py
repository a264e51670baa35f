"""When each byte of a log came, and by which stream: the index that its monitor writes beside it (shim/PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self, overload

from joblet.logs.file import LogFile

_RECORD = struct.Struct("=qQ")
_ERRORS = 1 << 63
"""of the offset's word"""
_BLOCK = 256 * _RECORD.size
"""bytes of index read at a time along a log"""


class Mark(NamedTuple):
    """Bytes from `offset` on, up to the next mark's, came at `at`."""

    at: int
    """nanoseconds since the epoch, to the millisecond"""
    offset: int
    errors: bool = False
    """of stderr, or of the monitor itself; says nothing where a log has the streams merged"""


def index_of(log: Path) -> Path:
    """Where the index of the log at this path is."""
    return log.with_name("index")


class Index(Sequence[Mark]):
    """The marks of a log, offsets rising, read one by one where they are asked for: a search reads a few.

    A torn last record does not count. What was damaged gives wrong times and no errors; times fall where the clock
    was set back.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError when there is none: nothing tells when that log came."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __len__(self) -> int:
        return os.fstat(self._fd).st_size // _RECORD.size

    @overload
    def __getitem__(self, place: int) -> Mark: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Mark]: ...
    def __getitem__(self, place: int | slice) -> Mark | Sequence[Mark]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        record = os.pread(self._fd, _RECORD.size, place * _RECORD.size) if place >= 0 else b""
        if len(record) < _RECORD.size:
            raise IndexError(place)
        return _mark(*_RECORD.unpack(record))

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _mark(at: int, word: int) -> Mark:
    return Mark(at, word & ~_ERRORS, word >= _ERRORS)


def marks_within(marks: Index, start: int, end: int) -> list[Mark]:
    """The marks of the bytes from `start` to `end`; the first may lie before. Reads from disk."""
    place = max(0, place_of(marks, start))
    found: list[Mark] = []
    with suppress(IndexError):
        while (mark := marks[place]).offset < end:
            found.append(mark)
            place += 1
    return found


def place_of(marks: Sequence[Mark], offset: int) -> int:
    """The place among `marks` of the one that tells when the byte at `offset` came; -1 when none does."""
    return bisect_right(marks, offset, key=lambda mark: mark.offset) - 1


def first_at(marks: Sequence[Mark], instant: int) -> int | None:
    """The first byte that came at `instant` or after; None when all marks are of before, or there are none.

    Bytes in front of the first mark count as if they had come with it. Where the clock was set back there can be
    several such places; it is one of them.
    """
    place = bisect_left(marks, instant, key=lambda mark: mark.at)
    if place == len(marks):
        return None
    return marks[place].offset if place else 0


class Stamps:
    """Gives the marks of a log to one who reads it from front to back. The mutable state is how far that is."""

    def __init__(self, log: Path, start: int) -> None:
        """Of bytes from `start` on. It may read from disk."""
        self._path = index_of(log)
        self._last: Mark | None = None
        self._file: LogFile | None = None
        with suppress(FileNotFoundError):
            self._file = LogFile(self._path)
        self._next = self._find(start)

    def _find(self, offset: int) -> int:
        """The place of the mark of that byte, or 0."""
        with suppress(FileNotFoundError), Index(self._path) as marks:
            return max(0, place_of(marks, offset))
        return 0

    async def within(self, start: int, end: int) -> list[Mark]:
        """The marks of the bytes from `start` to `end`, the first one moved to `start`: it began before."""
        rest: list[Mark] = []
        last = start
        while found := await self._read_block():
            if len(found) == _BLOCK // _RECORD.size and found[-1].offset <= start:
                # Far ahead, and what is between may be long. Beyond these in any case: the index may be damaged.
                self._last = found[-1]
                self._next = max(self._next + len(found) - 1, await asyncio.to_thread(self._find, start))
                continue
            # A mark of what is not written yet can still change: it is read anew next time.
            count = bisect_left(found, end, key=lambda mark: mark.offset)
            self._next += count
            for mark in found[:count]:
                if mark.offset <= start:
                    self._last = mark
                elif last < mark.offset < end:  # all but in a damaged index
                    last = mark.offset
                    rest.append(mark)
            if count < len(found):
                break
            await asyncio.sleep(0)  # what is cached is read at once
        marks = rest if self._last is None else [self._last._replace(offset=start), *rest]
        if rest:
            self._last = rest[-1]
        return marks

    async def _read_block(self) -> list[Mark]:
        if self._file is None:
            return []
        block = await self._file.read(self._next * _RECORD.size, _BLOCK)
        whole = len(block) // _RECORD.size * _RECORD.size
        return [_mark(*record) for record in _RECORD.iter_unpack(memoryview(block)[:whole])]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
