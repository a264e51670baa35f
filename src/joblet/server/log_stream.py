"""GetJobLogs: which part of a log a request wants, and the chunks in their wire form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple, TypeVar

from joblet.clock import now_ns
from joblet.errors import InvalidArgument
from joblet.logs.grep import Grep
from joblet.logs.hub import Chunk
from joblet.logs.pattern import Pattern
from joblet.logs.times import Stamps
from joblet.logs.view import View
from joblet.proto import joblet as pb
from joblet.server.descriptors import Descriptors
from joblet.server.rpc import Encoded

T = TypeVar("T")

_MOST = 2**63 - 1
_MATCHER = ThreadPoolExecutor(1, "grep")
"""one thread for all, apart from those that read files: patterns shall not hold up more than one another"""


def view_of(message: pb.GetJobLogsReq) -> View | None:
    """What the request wants to see, now; None for the whole log from its offset on. Raises InvalidArgument."""
    if message.offset > _MOST:
        raise InvalidArgument(f"offset {message.offset} is beyond any log (at most {_MOST})")
    for name, value in (("tailLines", message.tail_lines), ("tailBytes", message.tail_bytes)):
        if value is not None and value < 0:
            raise InvalidArgument(f"invalid {name}: {value} (allowed 0 and above)")
    view = View(
        message.offset,
        message.tail_lines,
        message.tail_bytes,
        _instant(message.since),
        _instant(message.until),
    )
    return view if message.timestamps or message.grep or view != View(message.offset) else None


def _instant(value: int | None) -> int | None:
    """Nanoseconds since the epoch of what counts back from now if it is negative."""
    return value if value is None or value >= 0 else now_ns() + value


async def shared(source: AsyncGenerator[Chunk]) -> AsyncGenerator[Encoded]:
    """Plain chunks, in the form that all followers of the job share."""
    async with aclosing(source):
        async for chunk in source:
            if chunk.wire is None:
                chunk.wire = bytes(pb.DataChunk(payload=chunk.payload))
            yield Encoded(chunk.wire)


async def pattern_of(message: pb.GetJobLogsReq) -> Pattern | None:
    """What lines are to match. Raises InvalidArgument."""
    if not message.grep:
        return None
    try:
        return await _in_thread(Pattern, message.grep)
    except ValueError as error:
        raise InvalidArgument(f"invalid grep: {error}") from None


class Teller:
    """Makes chunks that tell more than their bytes; by google's protobuf library: betterproto2 takes a hundred times
    as long for many times."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._message = descriptors.message("DataChunk")

    async def told(
        self, source: AsyncGenerator[Chunk], path: Path, start: int, *, timestamps: bool, pattern: Pattern | None
    ) -> AsyncGenerator[Encoded]:
        """Chunks that tell their offset, from `start` on, and with `timestamps` their times."""
        yield self._encode(offset=start)
        pieces = _whole(source) if pattern is None else _matching(source, Grep(pattern, start))
        stamps = await asyncio.to_thread(Stamps, path, start) if timestamps else None
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    marks = [] if stamps is None else await _marks_of(piece, stamps)
                    yield self._encode(
                        payload=b"".join(payload for _, payload in piece.runs),
                        offset=piece.runs[0][0],
                        end=piece.end,
                        times=[at for at, _ in marks],
                        starts=[start for _, start in marks],
                    )
        finally:
            if stamps is not None:
                stamps.close()

    def _encode(self, **fields: object) -> Encoded:
        return Encoded(self._message(**fields).SerializeToString())


class _Piece(NamedTuple):
    """Parts of the log for one message, each with its offset."""

    runs: list[tuple[int, bytes]]
    end: int | None = None


async def _whole(source: AsyncGenerator[Chunk]) -> AsyncGenerator[_Piece]:
    async with aclosing(source):
        async for chunk in source:
            yield _Piece([(chunk.start, chunk.payload)])


async def _matching(source: AsyncGenerator[Chunk], grep: Grep) -> AsyncGenerator[_Piece]:
    async with aclosing(source):
        async for chunk in source:
            if grep.passes_over(chunk.payload):
                grep.feed(chunk.payload)
                await asyncio.sleep(0)  # what is cached is read at once
            elif runs := await _in_thread(grep.feed, chunk.payload):
                yield _Piece(runs, grep.done)
    if runs := await _in_thread(grep.end):
        yield _Piece(runs, grep.done)


async def _marks_of(piece: _Piece, stamps: Stamps) -> list[tuple[int, int]]:
    """Times, with the places in the message of the bytes from there on."""
    found: list[tuple[int, int]] = []
    place = 0
    for offset, payload in piece.runs:
        marks = await stamps.within(offset, offset + len(payload))
        found += [(at, place + begin - offset) for at, begin in marks]
        place += len(payload)
    return found


async def _in_thread(call: Callable[..., T], *args: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_MATCHER, call, *args)
