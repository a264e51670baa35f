"""GetJobLogs: which part of a log a request wants, and the chunks in their wire form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from pathlib import Path

from joblet.clock import now_ns
from joblet.errors import InvalidArgument
from joblet.logs.hub import Chunk
from joblet.logs.times import Stamps
from joblet.logs.view import View
from joblet.proto import joblet as pb
from joblet.server.rpc import Encoded

_MOST = 2**63 - 1


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
    return view if message.timestamps or view != View(message.offset) else None


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


async def told(source: AsyncGenerator[Chunk], path: Path, start: int, *, timestamps: bool) -> AsyncGenerator[Encoded]:
    """Chunks that tell their offset, from `start` on, and with `timestamps` their times."""
    yield Encoded(bytes(pb.DataChunk(offset=start)))
    async with aclosing(source):
        if not timestamps:
            async for chunk in source:
                yield Encoded(bytes(pb.DataChunk(payload=chunk.payload, offset=chunk.start)))
            return
        with closing(await asyncio.to_thread(Stamps, path, start)) as stamps:
            async for chunk in source:
                marks = await stamps.within(chunk.start, chunk.end)
                times = [mark.at for mark in marks]
                starts = [mark.offset - chunk.start for mark in marks]
                yield Encoded(
                    bytes(pb.DataChunk(payload=chunk.payload, offset=chunk.start, times=times, starts=starts))
                )
