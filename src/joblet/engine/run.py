"""One workflow under way: a task that follows its schedule, and one for each attempt of a step.

The jobs' own rows are the truth of what has happened. What steps have come to is recorded after the fact, in the
background; after a restart it is derived again from the jobs, so that nothing runs twice and nothing is left out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from joblet import clock
from joblet.errors import (
    DiskUnusable,
    HostUnable,
    InvalidArgument,
    NoRoom,
    PermissionDenied,
    QuotaExceeded,
    ShuttingDown,
    StoreFailed,
    TransitionRefused,
)
from joblet.job import TIMEOUT, Job
from joblet.life import Live
from joblet.log import fields
from joblet.order import Order
from joblet.quotas import Room, Turns
from joblet.runner import Runner
from joblet.store import Workflows
from joblet.workflow.attempt import OutputsTooLarge, concluded, last_end, order_of
from joblet.workflow.condition import End, Ended
from joblet.workflow.plan import Cancel, Decision, Plan, Schedule, Start, WorkflowState
from joblet.workflow.record import StepRecord, Workflow
from joblet.workflow.template import MissingOutput

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
"""until what the store or the disk refused is tried again"""


@dataclass(frozen=True, slots=True)
class _NotRun:
    """An attempt that came to no job."""

    end: End
    reason: str


class Run:
    """A workflow that has not ended.

    The mutable state is the schedule, what each step has come to, the attempts under way, and what is yet to be stored.
    """

    def __init__(
        self,
        workflow: Workflow,
        plan: Plan,
        records: Sequence[StepRecord],
        jobs: Iterable[Job],
        store: Workflows,
        runner: Runner,
        most: int,
    ) -> None:
        """`jobs` are those whose attempts `records` do not tell of. At most `most` steps run at a time."""
        self.workflow = workflow
        """as it was last stored, without its counts"""
        self.ended = asyncio.Event()
        """its final state is stored"""
        self.unstored = asyncio.Event()
        """a change of its state cannot be stored for now"""
        self.stop_reason = workflow.stop_reason
        self._plan = plan
        self._positions = {step.name: position for position, step in enumerate(plan.steps)}
        self._records = list(records)
        self._found = {job.part.position: job for job in jobs if job.part is not None}
        self._store = store
        self._runner = runner
        ended = {
            record.name: Ended(record.end, tolerated=step.continue_on_failure)
            for record, step in zip(records, plan.steps, strict=True)
            if record.end is not None
        }
        self._schedule = Schedule(plan, ended, most=most)
        self._started = bool(self._found) or any(record.attempts for record in records)
        self._news: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lives: dict[int, Live] = {}
        self._turns = Turns()
        self._pauses: dict[int, asyncio.TimerHandle] = {}
        self._unwritten: dict[int, StepRecord] = {}
        self._begun = False
        """that it has begun is yet to be stored"""
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def live(self) -> None:
        """From where it is to its final state. Cancelled, it leaves everything to who takes it up again."""
        try:
            try:
                await self._follow_schedule()
            except Exception:
                log.exception("workflow engine failed", extra=fields(workflowId=self.workflow.id))
                await self._abandon("internal error")
        finally:
            await self._let_go()

    async def request_stop(self, reason: str) -> None:
        """Start no more of its steps and stop those that run. The reason is on disk before, if it can be."""
        if self._was_asked():
            return
        try:
            await self._store.request_stop(self.workflow.id, reason)
        except StoreFailed as error:
            log.warning(
                "stop cannot be stored",
                extra=fields(workflowId=self.workflow.id, reason=reason, error=str(error)),
            )
        if self._was_asked():  # by another request, meanwhile
            return
        self.stop_reason = reason
        self._news.put_nowait(self._stop)

    async def _follow_schedule(self) -> None:
        self._take_up()
        while not self._schedule.over:
            (await self._news.get())()
            self._write_soon()
        while self._writer is not None:
            await self._writer
        await self._end(*self._schedule.outcome(started=self._started))

    async def _abandon(self, reason: str) -> None:
        """End it for a fault of this program: no step of it is left running, nor without an end."""
        self.stop_reason = self.stop_reason or reason  # which attempts under way look at
        self._turns.withdraw()
        for live in list(self._lives.values()):
            self._spawn(live.request_stop(self._stop_text()))
        while self._tasks:
            await asyncio.wait(self._tasks)
        jobs = {job.part.position: job for job in await self._store.jobs(self.workflow.id) if job.part is not None}
        for position, record in enumerate(self._records):
            job = jobs.get(position)
            if record.end is None and job is not None and job.state.final:
                self._records[position] = replace(concluded(record, job), end=End[job.state.name])
            elif record.end is None:
                self._settle(position, *self._without_attempt(record, reason))
        await self._firmly(partial(self._store.conclude, self.workflow.id, self._records))
        await self._end(WorkflowState.FAILED, reason)

    def _take_up(self) -> None:
        if self._plan.timeout:
            left = self._plan.timeout - (clock.now_ns() - self.workflow.timer_from) / 1e9
            left = min(max(left, 0), self._plan.timeout)
            self._timer = asyncio.get_running_loop().call_later(left, self._on_timeout)
        waiting = [
            record
            for record in self._records
            if record.end is None and record.retry_at is not None and record.position not in self._found
        ]
        decisions = self._schedule.begin([*self._found, *(record.position for record in waiting)])
        for position, job in self._found.items():
            self._spawn(self._attempt(position, job))
        self._follow(decisions)
        for record in waiting:
            self._pause(record.position, last_end(record), record.retry_at or 0)
        if self.stop_reason:
            self._stop()
        self._write_soon()

    def _follow(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Start(position):
                    self._spawn(self._attempt(position, None))
                case Cancel(position, reason):
                    self._settle(position, *self._without_attempt(self._records[position], reason))

    async def _attempt(self, position: int, found: Job | None) -> None:
        """One attempt, from its start or from where it was found, to its end."""
        try:
            result = await (self._submit(position) if found is None else self._rejoin(position, found))
        except Exception:
            log.exception("step failed", extra=fields(workflowId=self.workflow.id, job=self._records[position].name))
            result = _NotRun(End.FAILED, "internal error")
        finally:
            self._lives.pop(position, None)
        if isinstance(result, _NotRun) and result.end is End.FAILED:
            # No job's row tells of this, and what follows from it must not come before it.
            self._settle(position, result.end, result.reason)
            await self._firmly(partial(self._store.conclude, self.workflow.id, [self._records[position]]))
        self._news.put_nowait(partial(self._conclude, position, result))

    async def _submit(self, position: int) -> Job | _NotRun:
        """Submit the step's job; what could not be accepted for want of room is, when there is some."""
        try:
            order = self._next_order(position)
            room = await self._room(order)
        except (MissingOutput, OutputsTooLarge, StoreFailed, InvalidArgument, QuotaExceeded, PermissionDenied) as error:
            return _NotRun(End.FAILED, str(error))
        if room is None:
            return _NotRun(End.CANCELED, self.stop_reason)
        try:
            return await self._submit_order(position, order, room)
        finally:
            room.leave()

    async def _room(self, order: Order) -> Room | None:
        """Wait for room in its client's quota; None when the workflow is stopped meanwhile."""
        turn = self._runner.room(order, self.workflow.owner, self.workflow.role)
        if not turn.done():
            log.info("step waits for its client's quota", extra=fields(workflowId=self.workflow.id, job=order.name))
        return await self._turns.wait(turn)

    async def _submit_order(self, position: int, order: Order, room: Room) -> Job | _NotRun:
        told = False
        while not self.stop_reason:
            try:
                live = await self._runner.submit(order, self.workflow.owner, self.workflow.role, room)
            except (NoRoom, DiskUnusable, StoreFailed, ShuttingDown) as error:
                if not told:
                    log.warning(
                        "step cannot be started yet",
                        extra=fields(workflowId=self.workflow.id, job=order.name, error=str(error)),
                    )
                told = True
                await asyncio.sleep(_RETRY_SECONDS)
            except (InvalidArgument, HostUnable) as error:
                return _NotRun(End.FAILED, str(error))
            else:
                room.leave()
                self._begin(live.job)
                return await self._wait(position, live)
        return _NotRun(End.CANCELED, self.stop_reason)

    async def _rejoin(self, position: int, job: Job) -> Job | _NotRun:
        self._begin(job)
        live = self._runner.find(str(job.id))
        if live is not None:
            return await self._wait(position, live)
        if not job.state.final:  # it has ended meanwhile
            job = await self._runner.get(str(job.id))
        return job if job.state.final else _unstored(job)

    async def _wait(self, position: int, live: Live) -> Job | _NotRun:
        self._lives[position] = live
        if self.stop_reason:
            await live.request_stop(self._stop_text())
        await live.ended.wait()
        return live.job if live.job.state.final else _unstored(live.job)

    def _next_order(self, position: int) -> Order:
        """Raises as `order_of`."""
        step = self._plan.steps[position]
        outputs = {name: self._records[self._positions[name]].outputs for name in step.dependencies}
        return order_of(self.workflow, step, position, self._records[position].attempts + 1, outputs)

    def _begin(self, job: Job) -> None:
        self._started = True
        if self.workflow.state is WorkflowState.PENDING:
            self.workflow = replace(self.workflow, state=WorkflowState.RUNNING, started_at=job.created_at)
            self._begun = True
            self._write_soon()

    def _conclude(self, position: int, result: Job | _NotRun) -> None:
        """An attempt is over: the step has ended, or waits for the next one."""
        if self.stop_reason:  # asked for since, and nothing is to follow from what ends now
            self._stop()
        record, step = self._records[position], self._plan.steps[position]
        if isinstance(result, _NotRun):
            if record.end is None:  # nothing of it was begun, for the workflow was stopped
                self._settle(position, *self._without_attempt(record, result.reason))
            self._follow(self._schedule.ended(position, self._records[position].end or End.CANCELED))
            return
        end = End[result.state.name]
        record = self._records[position] = concluded(record, result)
        tries = record.attempts - record.base_attempts
        pause = step.retry.pause(tries, end, result.exit_code, timed_out=result.timed_out)
        if pause is None or self.stop_reason:
            self._records[position] = self._unwritten[position] = replace(record, end=end)
            self._follow(self._schedule.ended(position, end))
            return
        retry_at = (result.ended_at or clock.now_ns()) + round(pause * 1e9)
        told = f"attempt {tries} of {step.retry.limit + 1}: {result.reason}"
        self._records[position] = self._unwritten[position] = replace(record, reason=told, retry_at=retry_at)
        self._pause(position, end, retry_at)

    def _pause(self, position: int, end: End, retry_at: int) -> None:
        left = (retry_at - clock.now_ns()) / 1e9
        left = min(max(left, 0), self._plan.steps[position].retry.max_backoff)
        loop = asyncio.get_running_loop()
        self._pauses[position] = loop.call_later(left, self._news.put_nowait, partial(self._again, position))
        self._follow(self._schedule.paused(position, end))

    def _again(self, position: int) -> None:
        if self._pauses.pop(position, None) is not None:  # not stopped meanwhile
            self._follow(self._schedule.again(position))

    def _without_attempt(self, record: StepRecord, reason: str) -> tuple[End, str]:
        """How a step ends, and why, of which no other attempt is begun for that reason."""
        if record.attempts > record.base_attempts:
            return last_end(record), record.reason
        return End.CANCELED, reason

    def _settle(self, position: int, end: End, reason: str) -> None:
        """A step has ended without a job of its own, or without another one."""
        record = replace(self._records[position], end=end, reason=reason, retry_at=None)
        if record.ended_at is None:
            record = replace(record, ended_at=clock.now_ns())
        self._records[position] = self._unwritten[position] = record

    def _on_timeout(self) -> None:
        self._timer = None
        self._spawn(self.request_stop(f"{TIMEOUT}{clock.format_duration(self._plan.timeout)}"))

    def _stop(self) -> None:
        for timer in self._pauses.values():
            timer.cancel()
        self._pauses.clear()
        self._turns.withdraw()
        self._follow(self._schedule.stop(self.stop_reason))
        for live in self._lives.values():
            self._spawn(live.request_stop(self._stop_text()))

    def _stop_text(self) -> str:
        return f"workflow {self.workflow.id}: {self.stop_reason}"

    def _was_asked(self) -> bool:
        return bool(self.stop_reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _write_soon(self) -> None:
        if self._writer is None and (self._begun or self._unwritten):
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Store what has come about, until there is no more of it."""
        identity = self.workflow.id
        try:
            while self._begun or self._unwritten:
                if self._begun:
                    self._begun, started_at = False, self.workflow.started_at
                    running = WorkflowState.RUNNING
                    await self._firmly(partial(self._store.transition, identity, running, started_at=started_at))
                records, self._unwritten = list(self._unwritten.values()), {}
                if records:
                    await self._firmly(partial(self._store.conclude, identity, records))
        finally:
            self._writer = None

    async def _firmly(self, change: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Make a change, however long the disk takes to have room for it: what it tells of has happened."""
        while True:
            try:
                await change()
            except TransitionRefused:
                log.error("workflow has ended already", extra=fields(workflowId=self.workflow.id))
            except StoreFailed as error:
                if not self.unstored.is_set():
                    log.error(
                        "workflow state cannot be stored yet",
                        extra=fields(workflowId=self.workflow.id, error=str(error)),
                    )
                self.unstored.set()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self.unstored.clear()
            return

    async def _end(self, state: WorkflowState, reason: str) -> None:
        # The clock may have been set meanwhile; nothing ends before it has begun.
        begun = (record.ended_at or 0 for record in self._records)
        ended_at = max(clock.now_ns(), self.workflow.created_at, self.workflow.started_at or 0, *begun)
        self.workflow = replace(self.workflow, state=state, reason=reason, ended_at=ended_at)
        identity = self.workflow.id
        await self._firmly(partial(self._store.transition, identity, state, ended_at=ended_at, reason=reason))
        log.log(
            logging.ERROR if state is WorkflowState.FAILED else logging.INFO,
            "workflow ended",
            extra=fields(workflowId=identity, status=state, reason=reason),
        )
        self.ended.set()

    async def _let_go(self) -> None:
        for timer in (*self._pauses.values(), *([self._timer] if self._timer else ())):
            timer.cancel()
        tasks = (*self._tasks, *([self._writer] if self._writer else ()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _unstored(job: Job) -> _NotRun:
    return _NotRun(End.FAILED, f"the state of job {job.id} could not be stored")
