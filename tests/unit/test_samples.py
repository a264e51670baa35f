"""One reading for all who watch at an interval, and none when nobody does."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from joblet.executor.base import Usage
from joblet.job import Job, Limits, State
from joblet.proto import joblet as pb
from joblet.server.descriptors import Descriptors
from joblet.server.samples import Samples, Watcher

DESCRIPTORS = Descriptors()


class Machine:
    """Jobs that run, what they use, and how often it was asked."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = list(jobs)
        self.readings = 0
        self.gone: set[int] = set()
        self.broken = False

    async def usage(self, job_ids: list[int]) -> dict[int, Usage]:
        self.readings += 1
        if self.broken:
            raise RuntimeError("broken")
        return {job_id: Usage(memory=job_id << 20) for job_id in job_ids if job_id not in self.gone}

    def samples(self) -> Samples:
        runner: Any = SimpleNamespace(running=lambda: self.jobs)
        executor: Any = self
        return Samples(runner, executor, DESCRIPTORS)


def job(number: int, *args: str, **fields: Any) -> Job:
    return Job(number, "sleep", args, Limits(50, 64, 0, 16), State.RUNNING, "admin", 0, started_at=0, **fields)


async def told(watcher: Watcher, *job_ids: int) -> pb.UsageSample:
    while (sample := watcher.sample()) is None:
        watcher.news.clear()
        await watcher.news.wait()
    return pb.UsageSample.parse(sample.message(job_ids).wire)


async def test_all_who_watch_share_a_reading() -> None:
    machine = Machine(job(1), job(2))
    samples = machine.samples()
    async with AsyncExitStack() as stack:
        watchers = [await stack.enter_async_context(samples.watching(60_000)) for _ in range(20)]
        seen = [await told(watcher) for watcher in watchers]
        assert len({sample.time for sample in seen}) == 1
        assert [usage.id for usage in seen[0].jobs] == ["1", "2"]
        late = await stack.enter_async_context(samples.watching(60_000))
        assert late.sample() is not None  # at once, what the others have seen
        assert machine.readings == 1
        await told(await stack.enter_async_context(samples.watching(50_000)))
        assert machine.readings == 2


async def test_nothing_is_read_when_nobody_watches() -> None:
    machine = Machine(job(1))
    samples = machine.samples()
    async with samples.watching(10) as watcher:
        await told(watcher)
    readings, tasks = machine.readings, asyncio.all_tasks()
    await asyncio.sleep(0.05)
    assert machine.readings == readings
    assert not [task for task in tasks if task.get_name() == "samples"]
    async with samples.watching(10) as watcher:
        await told(watcher)
    assert machine.readings > readings


async def test_who_is_slow_misses_samples_and_holds_nobody_up() -> None:
    machine = Machine(job(1))
    samples = machine.samples()
    async with samples.watching(10) as slow, samples.watching(10) as quick:
        first = await told(slow)
        times = [(await told(quick)).time for _ in range(4)]
        assert (await told(slow)).time == times[-1]
        assert slow.sample() is None
        assert first.time < times[-1]


async def test_a_sample_tells_of_the_jobs_that_are_asked_for_and_there() -> None:
    machine = Machine(job(1), job(2, name="n", paused_by="alice"), job(3))
    machine.gone = {3}
    async with machine.samples().watching(10) as watcher:
        assert [usage.id for usage in (await told(watcher)).jobs] == ["1", "2"]
        (usage,) = (await told(watcher, 2, 3)).jobs
    assert (usage.id, usage.name, usage.command, usage.args) == ("2", "n", "sleep", [])
    assert (usage.memory_bytes, usage.cpu_usec, usage.processes) == (2 << 20, None, None)
    assert (usage.max_cpu, usage.max_memory, usage.max_processes) == (50, 64, 16)
    assert (usage.start_time, usage.paused_by) == ("1970-01-01T00:00:00Z", "alice")


async def until_broken(watcher: Watcher) -> None:
    while True:
        await told(watcher)


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (("a", "b"), ["a", "b"]),
        (("a" * 2000, "b"), ["a" * 1024 + "…"]),
        (("a" * 1000, "b" * 100, "c"), ["a" * 1000, "b" * 23 + "…"]),
        (("",) * 5000, [""] * 1024 + ["…"]),
    ],
)
async def test_long_command_lines_are_cut(args: tuple[str, ...], shown: list[str]) -> None:
    async with Machine(job(1, *args)).samples().watching(10) as watcher:
        assert (await told(watcher)).jobs[0].args == shown


async def test_what_keeps_it_from_being_read_ends_all_who_watch() -> None:
    machine = Machine(job(1))
    samples = machine.samples()
    async with samples.watching(10) as one, samples.watching(10) as other:
        await told(one)
        machine.broken = True
        for watcher in (one, other):
            with pytest.raises(RuntimeError, match="broken"):
                await until_broken(watcher)
