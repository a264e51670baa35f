"""Whole workflows against the reference, on a server that is stopped, restarted and short of disk at any moment."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import (
    NOT_LAUNCHED,
    RESULTS,
    SIGNAL,
    STOPPED_BY_USER,
    Result,
    attempts_of,
    ends_of,
    is_failed,
    is_true_reason,
    random_plan,
    to_run_again,
    tolerated_of,
    truth,
)
from scripted import MEMORY, Works, everything, file_of

from joblet import life
from joblet.engine import run
from joblet.errors import StoreFailed, WorkflowNotRunning
from joblet.executor.base import LaunchFailed
from joblet.job import TIMEOUT, Job
from joblet.workflow.condition import End
from joblet.workflow.plan import Plan, WorkflowState
from joblet.workflow.record import StepRecord

BOB = "stopped by bob"
REFUSALS = ("INSERT ON jobs", "UPDATE ON jobs", "UPDATE ON workflow_steps", "UPDATE ON workflows")
"""changes that the store may refuse for a while"""


class Course:
    """One workflow, with all that befalls it. What the engine says of it is looked at only when it is over."""

    def __init__(self, site: Works, plan: Plan, random: Random) -> None:
        self.site = site
        self.plan = plan
        self.random = random
        self.tolerated = tolerated_of(plan)
        self.results = {step.name: [random.choice(RESULTS) for _ in range(15)] for step in plan.steps}
        """of each attempt that there may be"""
        self.over: dict[str, list[Result]] = {name: [] for name in self.results}
        """attempts of this life of the workflow"""
        self.base = dict.fromkeys(self.results, 0)
        """attempts of its earlier lives"""
        self.kept: dict[str, End] = {}
        self.launched: set[tuple[str, int]] = set()
        self.stopped_waiting: set[tuple[str, int]] = set()
        self.faults: list[str] = []
        self.refusing = False
        site.host.on_launch = self.look_at

    def look_at(self, job: Job) -> Exception | None:
        """A job is launched: whether it may be, and whether it can."""
        name, attempt = attempt_of(job)
        condition = next(step.condition for step in self.plan.steps if step.name == name)
        bound = min(self.site.bounds["most_steps"], self.plan.max_parallel or len(self.plan.steps))
        if (name, attempt) in self.launched:
            self.faults.append(f"{name} is launched twice as attempt {attempt}")
        if truth(condition, ends_of(self.plan, self.over, self.kept), self.tolerated) != 1:
            self.faults.append(f"{name} is launched, and what it requires has not come about")
        if len(self.site.host.under_way) >= bound:
            self.faults.append(f"{name} is launched, and {bound} others run")
        self.launched.add((name, attempt))
        if (name, attempt) in self.stopped_waiting:
            return None
        if attempt != self.base[name] + len(self.over[name]) + 1:
            self.faults.append(f"{name} is launched as attempt {attempt} after {len(self.over[name])}")
        if self.result(job) == NOT_LAUNCHED:
            self.over[name].append(NOT_LAUNCHED)
            return LaunchFailed("exec", 2, "command not found: scripted")
        return None

    def result(self, job: Job) -> Result:
        name, attempt = attempt_of(job)
        return self.results[name][attempt - 1]

    def is_over(self, job: Job) -> bool:
        name, attempt = attempt_of(job)
        return len(self.over[name]) >= attempt - self.base[name]

    async def end_one(self) -> None:
        """One of the jobs that run comes to its result."""
        running = [job_id for job_id in self.site.host.under_way if not self.is_over(self.site.host.jobs[job_id])]
        if not running:
            return
        job_id = self.random.choice(running)
        result = self.result(self.site.host.jobs[job_id])
        if result.end is End.STOPPED and self.refusing:
            return
        self.over[self.site.host.jobs[job_id].name].append(result)
        if result.end is End.STOPPED:
            await self.site.live(job_id).request_stop(f"{TIMEOUT}1s" if result.timed_out else BOB)
        elif result.exit_code > SIGNAL:
            self.site.host.under_way[job_id].end(signal=result.exit_code - SIGNAL)
        else:
            self.site.host.under_way[job_id].end(code=result.exit_code)

    async def stop_one_that_waits(self) -> None:
        lives = [self.site.live(int(job_id)) for job_id in sorted(self.site.runner.live_names())]
        waiting = [live.job for live in lives if self.site.runner.place(live.job) and not live.stop_reason]
        if waiting and not self.refusing:
            job = self.random.choice(waiting)
            name, attempt = attempt_of(job)
            self.results[name][attempt - 1] = STOPPED_BY_USER
            self.stopped_waiting.add((name, attempt))
            self.over[name].append(STOPPED_BY_USER)
            await self.site.runner.stop(str(job.id), BOB)

    async def stop(self) -> None:
        """The workflow is stopped; perhaps the server is restarted before that has been done."""
        self.allow()
        if self.random.random() < 0.5:
            stopping = asyncio.create_task(self.site.engine.stop("1", BOB))
            await self.turns(20)
            stopping.cancel()
            await asyncio.wait([stopping])
            await self.site.restart()
            return
        try:
            await self.site.engine.stop("1", BOB)
        except (WorkflowNotRunning, StoreFailed):
            return  # it had just ended by itself; or has yet to find out that the store refuses no more
        launched = set(self.launched)
        await self.turns(20)
        assert self.launched == launched, "nothing starts after a stop"

    def refuse(self) -> None:
        self.refusing = True
        change = self.random.choice(REFUSALS)
        self.site.sql(f"CREATE TRIGGER refuse BEFORE {change} BEGIN SELECT RAISE(ABORT, 'no'); END")

    def allow(self) -> None:
        if self.refusing:
            self.site.sql("DROP TRIGGER refuse")
        self.refusing = False

    async def turns(self, most: int) -> None:
        for _ in range(self.random.randint(0, most)):
            await asyncio.sleep(0)

    async def live(self, *, stops: bool, restarts: bool, refusals: bool) -> None:
        """To its end."""
        moment = self.random.randint(0, 3 * len(self.plan.steps)) if stops else -1
        turn = 0
        while (await self.site.engine.get("1")).ended_at is None:
            chance = self.random.random()
            if turn == moment:
                await self.stop()
            elif restarts and chance < 0.03:
                await self.site.restart()
            elif self.refusing and chance < 0.1:
                self.allow()
            elif refusals and not self.refusing and chance < 0.1:
                self.refuse()
            elif chance < 0.15:
                await self.stop_one_that_waits()
            else:
                await self.end_one()
            await self.turns(5)
            turn += 1
        self.allow()

    async def look_back(self) -> dict[str, StepRecord]:
        """What is stored is what the reference says."""
        assert self.faults == []
        workflow, records = await self.site.engine.get("1"), await self.site.records()
        ends = {name: record.end for name, record in records.items() if record.end is not None}
        counts = [list(ends.values()).count(end) for end in End]
        assert [workflow.completed, workflow.failed, workflow.stopped, workflow.canceled] == counts
        assert sum(counts) == len(self.plan.steps) == workflow.total
        jobs: dict[str, list[Job]] = {step.name: [] for step in self.plan.steps}
        for job in await everything(self.site.store):
            jobs[job.name].append(job)
        stopped = workflow.state in (WorkflowState.STOPPED, WorkflowState.CANCELED)
        for step in self.plan.steps:
            self.look_at_step(step.name, records[step.name], jobs[step.name], stopped=stopped)
            if step.name not in self.kept and ends[step.name] is not End.CANCELED:
                assert truth(step.condition, ends, self.tolerated) == 1
            elif step.name not in self.kept:
                reason = records[step.name].reason
                assert is_true_reason(step, reason, ends, self.tolerated) or (stopped and reason == BOB)
        if stopped:
            assert workflow.reason == BOB
            assert (workflow.state is WorkflowState.CANCELED) == (not any(jobs.values()))
        else:
            expected = ends_of(self.plan, {name: self.since(name) for name in self.results}, self.kept)
            assert ends == expected
            assert workflow.state is (WorkflowState.FAILED if is_failed(self.plan, ends) else WorkflowState.COMPLETED)
        return records

    def look_at_step(self, name: str, record: StepRecord, jobs: list[Job], *, stopped: bool) -> None:
        step = next(step for step in self.plan.steps if step.name == name)
        assert [attempt_of(job) for job in jobs] == [(name, number + 1) for number in range(record.attempts)]
        assert all(job.state.final for job in jobs)
        if name in self.kept:
            assert record.end is self.kept[name]
            return
        made = record.attempts - self.base[name]
        if made == 0:
            assert record.end is End.CANCELED
            return
        last = jobs[-1]
        assert (record.end, record.job_id, record.exit_code) == (End[last.state.name], last.id, last.exit_code)
        if not stopped:
            assert made == attempts_of(step, self.since(name))
            told = [Result(End[job.state.name], job.exit_code, job.timed_out) for job in jobs[-made:]]
            assert told == self.since(name)[:made]

    def since(self, name: str) -> list[Result]:
        return self.results[name][self.base[name] :]

    async def try_again(self, records: dict[str, StepRecord]) -> None:
        ends = {name: record.end for name, record in records.items() if record.end is not None}
        again = to_run_again(self.plan, ends)
        await self.site.engine.retry("1")
        self.base = {name: record.attempts for name, record in records.items()}
        self.kept = {name: end for name, end in ends.items() if name not in again}
        self.over = {name: [] for name in self.results}


def attempt_of(job: Job) -> tuple[str, int]:
    assert job.part is not None
    return job.name, job.part.attempt


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """What the store refuses is tried again at once, and what fails is not told."""
    logging.disable(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(life, "_RETRY_SECONDS", 0.001)
        patch.setattr(run, "_RETRY_SECONDS", 0.001)
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.load
@pytest.mark.usefixtures("quick")
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32), st.integers(1, 4), *[st.booleans()] * 3)
def test_whatever_happens_a_workflow_ends_as_the_reference_says(
    count: int, seed: int, slots: int, stops: bool, restarts: bool, refusals: bool
) -> None:
    async def perform() -> None:
        random = Random(seed)
        plan = random_plan(random, count)
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            site = Works(Path(folder), slots=slots, queue=0, most_steps=random.choice((2, 1000)))
            course = Course(site, plan, random)
            try:
                async with asyncio.timeout(30):
                    await site.order(file_of(plan), max_parallel=plan.max_parallel)
                    await course.live(stops=stops, restarts=restarts, refusals=refusals)
                    records = await course.look_back()
                    if (await site.engine.get("1")).state is not WorkflowState.COMPLETED:
                        await course.try_again(records)
                        await course.live(stops=False, restarts=restarts, refusals=refusals)
                        await course.look_back()
            finally:
                await site.close()
            assert site.host.most_at_once <= slots

    asyncio.run(perform())
