"""What running jobs use, read again and again: once for all who watch at the same interval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

from joblet.clock import now_ns, rfc3339
from joblet.executor.base import Executor, Usage
from joblet.job import Job
from joblet.runner import Runner
from joblet.server.descriptors import Descriptors
from joblet.server.page import entry
from joblet.server.rpc import Encoded

T = TypeVar("T")

_JOBS = 2
"""number of the field UsageSample.jobs"""
_MOST_ARGUMENTS = 1024
"""characters of a job's arguments that a sample tells"""


class Sample:
    """All jobs that ran at an instant, in their wire form."""

    def __init__(self, head: bytes, jobs: dict[int, bytes], owners: Mapping[int, str]) -> None:
        """`owners` tells whose each of the jobs is."""
        self._head = head
        self._jobs = jobs
        self._owners = owners
        self._whole: Encoded | None = None

    def message(self, job_ids: Collection[int], owner: str | None = None) -> Encoded:
        """A UsageSample of those of these jobs that ran, or of all if none is named; only of one owner if so asked."""
        if job_ids or owner is not None:
            chosen = (
                wire
                for job_id, wire in self._jobs.items()
                if (not job_ids or job_id in job_ids) and owner in (None, self._owners[job_id])
            )
            return Encoded(self._head + b"".join(chosen))
        if self._whole is None:
            self._whole = Encoded(self._head + b"".join(self._jobs.values()))
        return self._whole


class Rhythms(Generic[T]):
    """Reads while somebody watches. The mutable state is a rhythm for each interval that somebody has asked for."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read_sample = read
        self._rhythms: dict[int, Rhythm[T]] = {}

    @asynccontextmanager
    async def watching(self, interval_ms: int) -> AsyncGenerator[Watcher[T]]:
        """Samples so many milliseconds apart."""
        rhythm = self._rhythms.get(interval_ms)
        if rhythm is None:
            rhythm = self._rhythms[interval_ms] = Rhythm(self._read_sample, interval_ms / 1000)
        watcher = Watcher(rhythm)
        rhythm.watchers.add(watcher)
        try:
            yield watcher
        finally:
            rhythm.watchers.discard(watcher)
            if not rhythm.watchers:
                del self._rhythms[interval_ms]
                await rhythm.end()

    def wake(self) -> None:
        """Let all who watch look about."""
        for rhythm in self._rhythms.values():
            rhythm.wake()


class Samples(Rhythms[Sample]):
    """What running jobs use."""

    def __init__(self, runner: Runner, executor: Executor, descriptors: Descriptors) -> None:
        super().__init__(self._read)
        self._runner = runner
        self._executor = executor
        self._sample: Any = descriptors.message("UsageSample")
        self._job: Any = descriptors.message("JobUsage")

    async def _read(self) -> Sample:
        jobs = self._runner.running()
        used = await self._executor.usage([job.id for job in jobs])
        head = self._sample(time=now_ns()).SerializeToString()
        return await asyncio.to_thread(self._encoded, head, jobs, used)

    def _encoded(self, head: bytes, jobs: list[Job], used: Any) -> Sample:
        told = {job.id: entry(_JOBS, self._encode(job, used[job.id])) for job in jobs if job.id in used}
        return Sample(head, told, {job.id: job.owner for job in jobs})

    def _encode(self, job: Job, used: Usage) -> bytes:
        wire: bytes = self._job(
            id=str(job.id),
            name=job.name,
            command=job.command,
            args=_first(job.args),
            cpuUsec=used.cpu_usec,
            throttledUsec=used.throttled_usec,
            memoryBytes=used.memory,
            memoryPeakBytes=used.memory_peak,
            ioReadBytes=used.io_read,
            ioWriteBytes=used.io_write,
            processes=used.processes,
            maxCPU=job.limits.max_cpu,
            maxMemory=job.limits.max_memory,
            maxProcesses=job.limits.max_processes,
            startTime=rfc3339(job.started_at),
            pausedBy=job.paused_by,
        ).SerializeToString()
        return wire


class Rhythm(Generic[T]):
    """Reads at one interval, for all its watchers. The mutable state is the latest sample, and who waits for the next.

    Who is slow misses samples; none are kept for him.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], interval: float) -> None:
        self.watchers: set[Watcher[T]] = set()
        self.latest: T | None = None
        self._read = read
        self._interval = interval
        self.reading = asyncio.create_task(self._read_on(), name="samples")
        self.reading.add_done_callback(lambda _: self.wake())

    async def end(self) -> None:
        """Nobody watches any more."""
        self.reading.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(self.reading, return_exceptions=True)

    def wake(self) -> None:
        """Set what all wait for."""
        for watcher in self.watchers:
            watcher.news.set()

    async def _read_on(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.latest = await self._read()
            self.wake()
            due = max(due + self._interval, loop.time())
            await asyncio.sleep(due - loop.time())


class Watcher(Generic[T]):
    """The mutable state is the sample that was given last."""

    def __init__(self, rhythm: Rhythm[T]) -> None:
        self.news = asyncio.Event()
        """set when there is another sample; and by whoever wants the watcher to look about"""
        self.news.set()
        self._rhythm = rhythm
        self._given: T | None = None

    def sample(self) -> T | None:
        """The latest one, once. Raises what has kept it from being read."""
        if self._rhythm.reading.done():
            self._rhythm.reading.result()
        if self._rhythm.latest is self._given:
            return None
        self._given = self._rhythm.latest
        return self._given


def _first(args: tuple[str, ...]) -> list[str]:
    """As many arguments as a sample tells; where more are left out, the last one ends with `…`."""
    room = _MOST_ARGUMENTS
    kept: list[str] = []
    for arg in args:
        if len(arg) >= room:
            return [*kept, arg[:room] + "…"]
        kept.append(arg)
        room -= len(arg) + 1
    return kept
