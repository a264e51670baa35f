"""MonitoringService: what running jobs use, and how the server and its host are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import cast

from joblet.errors import InvalidArgument, JobNotFound, ShuttingDown
from joblet.executor.base import Executor
from joblet.life import Live
from joblet.proto import joblet as pb
from joblet.runner import Runner
from joblet.server.auth import caller
from joblet.server.descriptors import Descriptors
from joblet.server.page import ClosedAtOnce
from joblet.server.samples import Rhythms, Sample, Samples, Watcher
from joblet.server.system import KINDS, System, only

_LEAST, _MOST = 200, 60_000
"""milliseconds between two samples"""
_USUAL = 1_000
_USUAL_SECONDS, _MOST_SECONDS = 5, 3600
"""between two samples of the system"""


class MonitoringService(ClosedAtOnce, pb.MonitoringServiceBase):
    """Streams of samples. The mutable state is that the server is closing."""

    def __init__(self, runner: Runner, executor: Executor, system: System) -> None:
        self._runner = runner
        self._system = system
        self._metrics = Rhythms(system.metrics)
        self._samples = Samples(runner, executor, Descriptors())
        self._closing = False

    def close(self) -> None:
        """End the streams with ShuttingDown."""
        self._closing = True
        self._samples.wake()
        self._metrics.wake()

    async def get_system_status(self, message: pb.EmptyRequest) -> pb.SystemStatusRes:
        """As of now."""
        return await self._system.status()

    async def stream_system_metrics(self, message: pb.StreamSystemMetricsReq) -> AsyncGenerator[pb.SystemMetricsRes]:
        """At once and then at each interval; a client that is slow gets those that are there when it reads."""
        seconds = message.interval_seconds or _USUAL_SECONDS
        if not 1 <= seconds <= _MOST_SECONDS:
            raise InvalidArgument(f"invalid intervalSeconds: {seconds} (allowed 1 to {_MOST_SECONDS}, or 0)")
        kinds = set(message.metric_types)
        if unknown := sorted(kinds - set(KINDS)):
            raise InvalidArgument(f"invalid metricTypes: {unknown[0][:100]!r} (allowed {', '.join(KINDS)})")
        async with self._metrics.watching(seconds * 1000) as watcher:
            while True:
                await watcher.news.wait()
                watcher.news.clear()
                if self._closing:
                    raise ShuttingDown
                if (sample := watcher.sample()) is not None:
                    yield only(sample, kinds)

    async def stream_job_usage(self, message: pb.StreamJobUsageReq) -> AsyncGenerator[pb.UsageSample]:
        """A sample at once and then at each interval; a client that is slow gets those that are there when it reads."""
        interval = message.interval_ms or _USUAL
        if not _LEAST <= interval <= _MOST:
            raise InvalidArgument(f"invalid intervalMs: {interval} (allowed {_LEAST} to {_MOST}, or 0)")
        owner = caller.get().sees
        wanted = {(await self._runner.get(job_id)).id for job_id in message.ids}
        left = await self._unended(wanted)
        if wanted and not left:
            return
        async with self._watching(interval, left) as watcher:
            while True:
                await watcher.news.wait()
                watcher.news.clear()
                if self._closing:
                    raise ShuttingDown
                if wanted and not (left := await self._unended(left)):
                    return
                if (sample := watcher.sample()) is not None:
                    yield cast(pb.UsageSample, sample.message(wanted, owner))  # in its wire form already: Codec

    @asynccontextmanager
    async def _watching(self, interval: int, job_ids: Iterable[int]) -> AsyncGenerator[Watcher[Sample]]:
        """Samples, and news when all of these jobs have ended."""
        lives = [live for job_id in job_ids if (live := self._runner.find(str(job_id))) is not None]
        async with self._samples.watching(interval) as watcher:
            waiting = asyncio.create_task(_tell_of_end(lives, watcher)) if lives else None
            try:
                yield watcher
            finally:
                if waiting is not None:
                    waiting.cancel()
                    await asyncio.gather(waiting, return_exceptions=True)

    async def _unended(self, job_ids: Iterable[int]) -> set[int]:
        """Those that have not ended."""
        return {job_id for job_id in job_ids if not await self._has_ended(str(job_id))}

    async def _has_ended(self, job_id: str) -> bool:
        if self._runner.find(job_id) is not None:
            return False
        try:
            return (await self._runner.get(job_id)).state.final
        except JobNotFound:  # deleted meanwhile
            return True


async def _tell_of_end(lives: Iterable[Live], watcher: Watcher[Sample]) -> None:
    for live in lives:
        await live.ended.wait()
    watcher.news.set()
