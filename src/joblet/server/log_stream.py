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
from joblet.logs.streams import Places, Streams
from joblet.logs.times import Stamps
from joblet.logs.view import View
from joblet.proto import joblet as pb
from joblet.server.descriptors import Descriptors
from joblet.server.rpc import Encoded

T = TypeVar("T")

_STREAMS: dict[int, bool | None] = {
    pb.Stream.MERGED: None,
    pb.Stream.STDOUT: False,
    pb.Stream.STDERR: True,
    pb.Stream.BOTH: None,
}
"""of which bytes alone it is: those of stderr, those of stdout, or all"""
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
    if message.stream not in _STREAMS:
        raise InvalidArgument(f"invalid stream: {int(message.stream)} (allowed 0 to {len(_STREAMS) - 1})")
    view = View(
        message.offset,
        message.tail_lines,
        message.tail_bytes,
        _instant(message.since),
        _instant(message.until),
        _STREAMS[message.stream],
    )
    plain = not (message.timestamps or message.grep or message.stream)
    return None if plain and view == View(message.offset) else view


def _instant(value: int | None) -> int | None:
    """Nanoseconds since the epoch of what counts back from now if it is negative."""
    return value if value is None or value >= 0 else now_ns() + value


async def pattern_of(message: pb.GetJobLogsReq) -> Pattern | None:
    """What lines are to match. Raises InvalidArgument."""
    if not message.grep:
        return None
    try:
        return await _in_thread(Pattern, message.grep)
    except ValueError as error:
        raise InvalidArgument(f"invalid grep: {error}") from None


class Teller:
    """Makes messages of chunks, by google's protobuf library: betterproto2 takes seventy times as long for a short one,
    and a hundred times for one with many times."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._message = descriptors.message("DataChunk")

    async def shared(self, source: AsyncGenerator[Chunk]) -> AsyncGenerator[Encoded]:
        """Plain chunks, in the form that all followers of the job share."""
        async with aclosing(source):
            async for chunk in source:
                if chunk.wire is None:
                    chunk.wire = self._message(payload=chunk.payload).SerializeToString()
                yield Encoded(chunk.wire)

    async def told(
        self,
        source: AsyncGenerator[Chunk],
        path: Path,
        start: int,
        *,
        timestamps: bool,
        pattern: Pattern | None,
        stream: int = pb.Stream.MERGED,
    ) -> AsyncGenerator[Encoded]:
        """Chunks that tell their offset, from `start` on, and with `timestamps` their times."""
        yield self._encode(offset=start)
        if (errors := _STREAMS[stream]) is not None:
            pieces = _filtered(source, path, start, errors)
            if pattern is not None:
                pieces = _matching_of_stream(pieces, Grep(pattern, 0))
        else:
            pieces = _whole(source) if pattern is None else _matching(source, Grep(pattern, start))
        if stream == pb.Stream.BOTH:
            pieces = _split(pieces, path, start)
        stamps = await asyncio.to_thread(Stamps, path, start) if timestamps else None
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if not piece.runs:
                        continue
                    marks = [] if stamps is None else await _marks_of(piece, stamps)
                    yield self._encode(
                        payload=b"".join(payload for _, payload in piece.runs),
                        offset=piece.runs[0][0],
                        end=piece.end,
                        stream=piece.stream,
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
    stream: int = pb.Stream.MERGED


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


async def _filtered(source: AsyncGenerator[Chunk], path: Path, start: int, errors: bool) -> AsyncGenerator[_Piece]:
    """One stream's bytes; a piece without any tells how far the log has been read."""
    stream = pb.Stream.STDERR if errors else pb.Stream.STDOUT
    async with aclosing(source):
        with await asyncio.to_thread(Streams, path, start) as streams:
            async for chunk in source:
                runs = await streams.split(chunk.start, chunk.payload)
                yield _Piece([(run.offset, run.payload) for run in runs if run.errors is errors], chunk.end, stream)


async def _matching_of_stream(source: AsyncGenerator[_Piece], grep: Grep) -> AsyncGenerator[_Piece]:
    """The lines of one stream that match, whatever of the other one lies between their parts."""
    places = Places()
    end, stream = None, 0
    async with aclosing(source):
        async for piece in source:
            payload = b"".join(part for _, part in piece.runs)
            for offset, part in piece.runs:
                places.add(offset, len(part))
            _, end, stream = piece
            over = grep.passes_over(payload)
            found = grep.feed(payload) if over else await _in_thread(grep.feed, payload)
            located = [each for run in found for each in places.located(*run)]
            settled = places.passed(grep.done)
            if located:
                yield _Piece(located, end if settled is None else settled, stream)
            elif over:
                await asyncio.sleep(0)  # what is cached is read at once
    if found := await _in_thread(grep.end):
        yield _Piece([each for run in found for each in places.located(*run)], end, stream)


async def _split(source: AsyncGenerator[_Piece], path: Path, start: int) -> AsyncGenerator[_Piece]:
    """A piece for each change of stream. What has come as one ends with the last of them."""
    async with aclosing(source):
        with await asyncio.to_thread(Streams, path, start) as streams:
            async for piece in source:
                runs = [run for part in piece.runs for run in await streams.split(*part)]
                for place, run in enumerate(runs, 1):
                    end = piece.end if place == len(runs) else None
                    stream = pb.Stream.STDERR if run.errors else pb.Stream.STDOUT
                    yield _Piece([(run.offset, run.payload)], end, stream)


async def _marks_of(piece: _Piece, stamps: Stamps) -> list[tuple[int, int]]:
    """Times, with the places in the message of the bytes from there on."""
    found: list[tuple[int, int]] = []
    place = 0
    for offset, payload in piece.runs:
        marks = await stamps.within(offset, offset + len(payload))
        found += [(mark.at, place + mark.offset - offset) for mark in marks]
        place += len(payload)
    return found


async def _in_thread(call: Callable[..., T], *args: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_MATCHER, call, *args)
