"""The part of the client that is about the output of jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from joblet.client._calls import Calls, check_text
from joblet.client._patience import Patience
from joblet.client.errors import InvalidArgument, JobletError, Unimplemented
from joblet.proto import joblet as pb

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OFFSETS = range(2**63)


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of a job's output."""

    payload: bytes
    offset: int
    """of its first byte in the log; with `grep` or of one stream what follows can be from further on"""
    times: tuple[tuple[int, int], ...]
    """places in the payload, rising, with when the bytes from there on came: nanoseconds since the epoch, to the
    millisecond. Of bytes before the first place no time is known"""
    stream: str = ""
    """`stdout` or `stderr`, where one or both were asked for"""


_STREAMS = {"": pb.Stream.MERGED, "stdout": pb.Stream.STDOUT, "stderr": pb.Stream.STDERR, "both": pb.Stream.BOTH}
_STREAM_NAMES = {pb.Stream.STDOUT: "stdout", pb.Stream.STDERR: "stderr"}


class LogCalls(Calls):
    """Read the output of jobs, from the beginning or a part of it."""

    async def logs(
        self,
        job_id: str,
        *,
        follow: bool = True,
        offset: int = 0,
        reconnect: bool = False,
        tail: int | None = None,
        tail_bytes: int | None = None,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        grep: str = "",
        stream: str = "",
    ) -> AsyncGenerator[bytes]:
        """The job's output (stdout and stderr merged) from byte `offset`, in order and complete.

        Of a job with `separate_streams` `stream` gives `stdout` or `stderr` alone; tails, times and `grep` are then of
        that one, offsets those of the log in any case. Raises FailedPrecondition for a job without.

        `tail` is how many last lines to begin with, `tail_bytes` how many last bytes. `since` and `until` are an
        instant or how long ago, by the server's clock: what came then or later, and what came before. Of `offset`, the
        tails and `since` the one that begins latest counts; with `until` tails are counted from there. Of that part
        `grep` leaves the lines that match a regular expression, as protos/joblet.proto describes it, each once it has
        ended.

        Ends when the job has ended, or without `follow` or with `until` after what there is now. With `reconnect` it
        goes on when the server is restarted meanwhile, each byte once; raises ConnectionLost when the server stays away
        for `config.patience` seconds. A consumer that is slow slows the stream; at most STREAM_WINDOW bytes wait here.
        Use contextlib.aclosing to leave early and at once.

        Raises InvalidArgument for a time without a zone or a negative number.
        """
        if stream == "both":
            raise InvalidArgument('invalid stream: "both" is for log_chunks, which tells them apart')
        request = _request(job_id, follow, offset, tail, tail_bytes, since, until, grep, stream)
        async with aclosing(self._log_stream(request, reconnect)) as chunks:
            async for chunk in chunks:
                yield chunk.payload

    async def log_chunks(
        self,
        job_id: str,
        *,
        follow: bool = True,
        offset: int = 0,
        reconnect: bool = False,
        tail: int | None = None,
        tail_bytes: int | None = None,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        grep: str = "",
        stream: str = "",
    ) -> AsyncGenerator[LogChunk]:
        """As `logs`, with the time at which each byte came.

        `stream` may be `both` too, which gives each chunk with its own; lines are then those of the log, to which both
        may have written.
        """
        request = _request(job_id, follow, offset, tail, tail_bytes, since, until, grep, stream)
        request.timestamps = True
        async with aclosing(self._log_stream(request, reconnect)) as chunks:
            async for chunk in chunks:
                times = tuple(zip(chunk.starts, chunk.times, strict=False))
                yield LogChunk(chunk.payload, chunk.offset or 0, times, _STREAM_NAMES.get(chunk.stream, ""))

    async def _log_start(self, job_id: str, offset: int, tail: int | None, tail_bytes: int | None) -> int:
        """Where a stream that is asked for in this way begins, as of now."""
        if tail is None and tail_bytes is None:
            return offset
        request = _request(job_id, False, offset, tail, tail_bytes, None, None, "", "")
        async with aclosing(self._log_messages(request)) as chunks:
            async for chunk in chunks:
                return chunk.offset or 0
        return offset

    async def _log_stream(self, request: pb.GetJobLogsReq, reconnect: bool) -> AsyncGenerator[pb.DataChunk]:
        """The chunks that have a payload, each once. Where the first begins, a second call goes on."""
        patience = Patience(self.config.patience if reconnect else 0)
        lost = False
        grouped = request.stream == pb.Stream.BOTH and bool(request.grep)
        while True:
            group: list[pb.DataChunk] = []
            try:
                if lost:  # a job that is silent does not show whether the server is there again, and still has it
                    await self._call(self._stub.get_job_status(pb.GetJobStatusReq(id=request.id)))
                    patience.renew()
                async with aclosing(self._log_messages(request)) as chunks:
                    async for chunk in chunks:
                        patience.renew()
                        if grouped and chunk.payload:  # what came as one counts once its last is there
                            group.append(chunk)
                            if chunk.end is None:
                                continue
                        begin = request.offset if chunk.offset is None else chunk.offset
                        request.offset = begin + len(chunk.payload) if chunk.end is None else chunk.end
                        request.tail_lines = request.tail_bytes = request.since = None
                        if group:
                            for part in group:
                                yield part
                            group = []
                        elif chunk.payload:
                            yield chunk
            except JobletError as error:
                await self._wait(patience, error)
                lost = True
            else:
                return

    async def _log_messages(self, request: pb.GetJobLogsReq) -> AsyncGenerator[pb.DataChunk]:
        viewed = (
            request.timestamps
            or request.grep
            or request.stream
            or (request.tail_lines, request.tail_bytes, request.since, request.until) != (None,) * 4
        )
        stub = self._stub
        with self._errors():
            async with aclosing(cast("AsyncGenerator[pb.DataChunk]", stub.get_job_logs(request))) as chunks:
                async for chunk in chunks:
                    if viewed and chunk.offset is None:
                        raise Unimplemented("the server is too old to send part of a log, or times")
                    if request.stream and chunk.payload and not chunk.stream:
                        raise Unimplemented("the server is too old to tell stdout and stderr apart")
                    yield chunk


def _request(
    job_id: str,
    follow: bool,
    offset: int,
    tail: int | None,
    tail_bytes: int | None,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    grep: str,
    stream: str,
) -> pb.GetJobLogsReq:
    if stream not in _STREAMS:
        raise InvalidArgument(f'invalid stream: "{stream}" (allowed stdout, stderr and, of log_chunks, both)')
    for name, value in (("tail", tail), ("tail_bytes", tail_bytes)):
        if value is not None and value not in _OFFSETS:
            raise InvalidArgument(f"invalid {name}: {value} (allowed 0 to {_OFFSETS[-1]})")
    check_text("grep", grep)
    return pb.GetJobLogsReq(
        id=job_id,
        no_follow=not follow,
        offset=offset,
        tail_lines=tail,
        tail_bytes=tail_bytes,
        since=_instant("since", since),
        until=_instant("until", until),
        grep=grep,
        stream=_STREAMS[stream],
    )


def _instant(name: str, value: datetime | timedelta | None) -> int | None:
    """Nanoseconds since the epoch, or below 0 before the server's present."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise InvalidArgument(f"invalid {name}: {value} ago is in the future (allowed 0 and above)")
        # 0 would be the epoch
        return min(-1, -_nanoseconds(value))
    if value.tzinfo is None:
        raise InvalidArgument(f"invalid {name}: {value} has no time zone")
    return max(0, _nanoseconds(value - _EPOCH))


def _nanoseconds(length: timedelta) -> int:
    """At most what the protocol's field holds: 292 years."""
    return min(length // timedelta(microseconds=1) * 1000, _OFFSETS[-1])
