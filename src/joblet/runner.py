"""The life of one job: queue, launch, watch, conclude; and finding the jobs of an earlier server again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from joblet import clock
from joblet.admission import Admission
from joblet.errors import (
    DiskUnusable,
    HostUnable,
    InvalidArgument,
    JobNotFound,
    JobNotRunning,
    KeyReused,
    NoRoom,
    ShuttingDown,
    StoreFailed,
    TransitionRefused,
)
from joblet.executor.base import Executor, Exit, LaunchFailed, Lost, Running
from joblet.job import MAX_TIMEOUT_MS, TIMEOUT, Ending, Job, Order, Policy, Receipt, State, conclude, settle
from joblet.log import fields
from joblet.logs import LogHub
from joblet.store import Store

log = logging.getLogger(__name__)

_ISOLATION_STAGES = frozenset({"cgroup", "namespace", "rootfs", "privileges", "shim"})
"""launch stages whose failure says something of the host, not of the job"""

_RETRY_SECONDS = 1.0
"""until what the store refused is tried again"""


@dataclass(eq=False, slots=True)
class Live:
    """A job that has not ended. `job` is its last stored form."""

    job: Job
    launched: asyncio.Event = field(default_factory=asyncio.Event)
    """its command has been exec'd, or never will be"""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """its final state is stored and its log is complete"""
    unstored: asyncio.Event = field(default_factory=asyncio.Event)
    """a change of its state cannot be stored for now"""
    running: Running | None = None
    stop_reason: str = ""
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class Runner:
    """Runs jobs. The mutable state is the live jobs; what is not live has ended and is in the store."""

    def __init__(self, store: Store, executor: Executor, admission: Admission, hub: LogHub, policy: Policy) -> None:
        self._store = store
        self._executor = executor
        self._admission = admission
        self._hub = hub
        self._policy = policy
        self._live: dict[int, Live] = {}
        self._accepting: set[asyncio.Task[Live]] = set()
        self._stopping: set[asyncio.Task[None]] = set()
        self._host_error: HostUnable | None = None
        self._closing = False
        self.on_end: Callable[[Job], None] = lambda job: None
        """told of every job whose final state has been stored"""

    async def probe(self) -> None:
        """Find out whether the host can isolate and limit jobs; until it can, new jobs are refused."""
        try:
            await self._executor.probe()
        except HostUnable as error:
            if str(error) != str(self._host_error):
                log.error("host cannot run jobs", extra=fields(error=str(error)))
            self._host_error = error
        else:
            self._host_error = None

    async def submit(self, order: Order, owner: str, role: str) -> Live:
        """Accept a job of a client with that name and role. When this returns, it is on disk and will run.

        With a key that the client has used before, the job is the one that it was used for, ended or not.
        Raises InvalidArgument, KeyReused, NoRoom, DiskUnusable, QueueFull, HostUnable, StoreFailed or ShuttingDown, and
        then there is no job.
        """
        order = settle(order, self._policy, role)
        if order.key and (present := await self._store.find(owner, order.key)) is not None:
            return self._again(present, order)
        if self._closing:
            raise ShuttingDown
        self._executor.check_room()
        if self._host_error is not None:
            await self.probe()
            if self._host_error is not None:
                raise self._host_error
        admitted = self._admission.reserve()
        state = State.INITIALIZING if admitted else State.PENDING
        # What was begun is finished whether or not the client stays: no row without a runner.
        accepting = asyncio.create_task(self._accept(order, owner, state))
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepting.discard)
        return await asyncio.shield(accepting)

    async def _accept(self, order: Order, owner: str, state: State) -> Live:
        new = False
        try:
            job, new = await self._store.create(order, owner, state, clock.now_ns(), self._executor.epoch)
        finally:
            if not new:
                if state is State.PENDING:
                    self._admission.cancel_reservation()
                else:
                    self._admission.release()
        if not new:  # the same key came twice at the same time
            return self._again(job, order)
        live = self._start(job, None, reserved=True)
        log.info("job accepted", extra=fields(jobId=job.id, status=job.state, command=_shown(job), owner=owner))
        return live

    def _again(self, job: Job, order: Order) -> Live:
        """The job that an order with its key has made before."""
        made = Order(job.command, job.args, job.limits, job.timeout_ms, job.priority, job.key)
        # The timeout may have been changed since.
        if replace(made, timeout_ms=0) != replace(order, timeout_ms=0):
            raise KeyReused(job.key, job.id)
        live = self._live.get(job.id)
        if live is None:
            live = Live(job)
            live.launched.set()
            live.ended.set()
        return live

    def find(self, job_id: str) -> Live | None:
        """A job that has not ended."""
        return self._live.get(parse_id(job_id))

    async def get(self, job_id: str) -> Job:
        """A job as it is now. Raises JobNotFound."""
        number = parse_id(job_id)
        job = await self._store.get(number)
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def newest(self, count: int, before: int) -> list[Job]:
        """At most `count` jobs with ids below `before`, newest first."""
        return await self._store.newest(count, before)

    def live_names(self) -> set[str]:
        """Ids of the jobs that have not ended."""
        return {str(job_id) for job_id in self._live}

    def place(self, job: Job) -> int:
        """A waiting job's place in the queue, from 1."""
        return self._admission.place(job.id)

    async def stop(self, job_id: str, reason: str) -> Job:
        """End a job; returns when it has ended and nothing of it is left.

        Raises JobNotFound, or JobNotRunning when it has ended otherwise, before this or meanwhile.
        """
        live = self.find(job_id)
        if live is not None:
            await self._request_stop(live, reason)
            await _either(live.ended, live.unstored)
            if not live.ended.is_set():
                raise StoreFailed(f"job {job_id} is being stopped, but its state cannot be stored now")
        job = await self.get(job_id)
        if live is None or job.state is not State.STOPPED:
            raise JobNotRunning(job.id, job.state)
        return job

    async def set_timeout(self, job_id: str, timeout_ms: int, who: str) -> Job:
        """Change how long a job may run, counted from its exec; it may be more than any job can ask for.

        Raises InvalidArgument, JobNotFound or, when it has ended, JobNotRunning.
        """
        if not 0 < timeout_ms <= MAX_TIMEOUT_MS:
            raise InvalidArgument(f"invalid timeout: {timeout_ms} ms (allowed 1 to {MAX_TIMEOUT_MS})")
        job = await self._store.set_timeout(parse_id(job_id), timeout_ms)
        if job is None:
            job = await self.get(job_id)
            raise JobNotRunning(job.id, job.state)
        live = self._live.get(job.id)
        if live is not None:
            live.job = replace(live.job, timeout_ms=timeout_ms)
            self._start_timer(live)
        shown = clock.format_duration(timeout_ms / 1000)
        log.info("job timeout changed", extra=fields(jobId=job.id, timeout=shown, owner=job.owner, by=who))
        return job

    async def recover(self) -> None:
        """Take up every unfinished job of an earlier server where it is now.

        All are found before one is launched: until then it is not known which slots and ids of users are taken.
        """
        jobs = await self._store.unfinished()
        begun = [job for job in jobs if job.state is not State.PENDING]
        for job, found in zip(begun, await asyncio.gather(*map(self._recover, begun)), strict=True):
            self._admission.occupy()
            self._start(job, found, reserved=False)
        for job in sorted(jobs, key=lambda job: (-job.priority, job.id)):
            if job.state is State.PENDING:
                self._start(job, None, reserved=False)

    async def _recover(self, job: Job) -> Running | Exit | Lost | None:
        found = await self._executor.recover(job)
        if found is None and job.state is State.RUNNING:  # it has run; it must not run again
            found = Lost("lost: nothing of it was found")
        log.info("job found again", extra=fields(jobId=job.id, status=job.state, found=type(found).__name__))
        return found

    async def close(self) -> None:
        """Stop following jobs; they go on, and the next server finds them again."""
        self._closing = True
        await asyncio.gather(*self._accepting, return_exceptions=True)
        tasks = [live.task for live in self._live.values() if live.task]
        for live in self._live.values():
            if live.timer:
                live.timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._stopping, return_exceptions=True)

    def _start(self, job: Job, found: Running | Exit | Lost | None, *, reserved: bool) -> Live:
        live = self._live[job.id] = Live(job, stop_reason=job.stop_reason)
        turn = None
        if job.state is State.PENDING:
            turn = self._admission.enqueue(job.id, job.priority, reserved=reserved)
        if job.stop_reason:  # an earlier server was asked to stop it and did not come to do so
            self._admission.withdraw(job.id)
        live.task = asyncio.create_task(self._live_through(live, turn, found), name=f"job-{job.id}")
        return live

    async def _live_through(
        self, live: Live, turn: asyncio.Future[None] | None, found: Running | Exit | Lost | None
    ) -> None:
        """One job from its place in the queue to its final state."""
        try:
            if turn is not None and not await self._wait_turn(live, turn):
                return
            try:
                await self._run(live, found)
            finally:
                if not self._closing:
                    self._admission.release()
        except StoreFailed as error:
            log.error("job state cannot be stored", extra=fields(jobId=live.job.id, error=str(error)))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("job runner failed", extra=fields(jobId=live.job.id))
            await self._give_up(live)
        finally:
            self._finish(live)

    async def _give_up(self, live: Live) -> None:
        """End a job that a fault of this program keeps from going on; it must not stay unfinished for ever."""
        if not live.job.state.final and live.running is None:
            with contextlib.suppress(StoreFailed):
                await self._end(live, Ending(State.FAILED, -1, "internal error"), clock.now_ns())

    async def _wait_turn(self, live: Live, turn: asyncio.Future[None]) -> bool:
        """Wait in the queue; False when the job was stopped there."""
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() or self._closing:
                raise
            await self._end(live, Ending(State.STOPPED, -1, live.stop_reason), clock.now_ns())
            return False
        return True

    async def _run(self, live: Live, found: Running | Exit | Lost | None) -> None:
        if live.job.state is State.PENDING:
            now, epoch = clock.now_ns(), self._executor.epoch
            try:
                live.job = await self._store_firmly(live, State.INITIALIZING, started_at=now, epoch=epoch)
            finally:
                self._admission.come(live.job.id)
        if found is None:
            await self._wait_for_room(live)
            if live.stop_reason:
                await self._end(live, Ending(State.STOPPED, -1, live.stop_reason), clock.now_ns())
                return
            try:
                found = await self._executor.launch(live.job)
            except LaunchFailed as error:
                await self._conclude_launch(live, error, clock.now_ns())
                return
        if not isinstance(found, (Exit, Lost)):
            found = await self._watch(live, found)
        await self._conclude(live, found)

    async def _wait_for_room(self, live: Live) -> None:
        """An accepted job does not fail for a disk that is full just now; it waits, until it is stopped."""
        told = False
        while not live.stop_reason:
            try:
                self._executor.check_room()
            except (NoRoom, DiskUnusable) as error:
                if not told:
                    log.warning("job waits for the disk", extra=fields(jobId=live.job.id, error=str(error)))
                told = True
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _watch(self, live: Live, running: Running) -> Exit | Lost:
        """Follow a job whose command has been exec'd until it has ended."""
        if live.job.state is State.INITIALIZING:
            await self._record_start(live, running)
        live.running = running
        live.launched.set()
        if live.stop_reason:
            running.stop()
        else:
            self._start_timer(live)
        return await running.wait()

    def _start_timer(self, live: Live) -> None:
        if live.timer is not None:
            live.timer.cancel()
        if live.running is not None:
            left = live.job.timeout_ms / 1000 - live.running.elapsed()
            live.timer = asyncio.get_running_loop().call_later(max(left, 0), self._on_timeout, live)

    async def _record_start(self, live: Live, running: Running) -> None:
        took = (running.started_at - (live.job.started_at or running.started_at)) // 1_000_000
        try:
            live.job = await self._store.transition(live.job.id, State.RUNNING, exec_at=running.started_at)
        except StoreFailed as error:  # it runs all the same, and is watched; its end is recorded with its start
            log.error("job state cannot be stored", extra=fields(jobId=live.job.id, error=str(error)))
        log.info(
            "job started successfully",
            extra=fields(jobId=live.job.id, pid=running.pid, command=_shown(live.job), duration=f"{max(took, 0)}ms"),
        )

    def _on_timeout(self, live: Live) -> None:
        live.timer = None
        stopping = asyncio.create_task(self._stop_for_time(live))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)

    async def _stop_for_time(self, live: Live) -> None:
        await self._request_stop(live, f"{TIMEOUT}{clock.format_duration(live.job.timeout_ms / 1000)}")

    async def _request_stop(self, live: Live, reason: str) -> None:
        """Have a job stopped, in whatever state it is. The reason is on disk before the first signal, if it can be."""
        if _was_asked(live):
            return
        try:
            await self._store.request_stop(live.job.id, reason)
        except StoreFailed as error:
            # Should the server end before it can store the final state, its monitor still knows that it was stopped.
            log.warning("stop cannot be stored", extra=fields(jobId=live.job.id, reason=reason, error=str(error)))
        if _was_asked(live):  # by another request, meanwhile
            return
        live.stop_reason = reason
        if not self._admission.withdraw(live.job.id) and live.running is not None:
            live.running.stop()

    async def _conclude(self, live: Live, end: Exit | Lost) -> None:
        if isinstance(end, Lost):
            await self._end(live, Ending(State.FAILED, -1, end.reason), clock.now_ns())
            return
        if end.launch_error is not None:
            await self._conclude_launch(live, end.launch_error, end.ended_at)
            return
        if live.job.state is State.INITIALIZING:
            live.job = await self._store_firmly(live, State.RUNNING, exec_at=end.started_at)
        ending = conclude(
            code=end.code,
            killed_by=end.signal,
            stopped=end.stopped,
            stop_reason=live.stop_reason,
            oom_kills=end.receipt.oom_kills or 0,
        )
        if end.log_lost:
            log.warning("job output lost", extra=fields(jobId=live.job.id, bytes=end.log_lost))
        await self._end(live, ending, end.ended_at, end.receipt)

    async def _conclude_launch(self, live: Live, error: LaunchFailed, ended_at: int) -> None:
        if live.stop_reason:
            await self._end(live, Ending(State.STOPPED, -1, live.stop_reason), ended_at)
            return
        await self._end(live, Ending(State.FAILED, error.exit_code, str(error)), ended_at)
        if error.stage in _ISOLATION_STAGES:
            await self.probe()

    async def _end(self, live: Live, ending: Ending, ended_at: int, receipt: Receipt | None = None) -> None:
        # The clock may have been set meanwhile; nothing ends before it has begun.
        ended_at = max(ended_at, live.job.exec_at or 0, live.job.started_at or 0)
        job = live.job = await self._store_firmly(
            live,
            ending.state,
            ended_at=ended_at,
            exit_code=ending.exit_code,
            reason=ending.reason,
            receipt=receipt,
        )
        level = logging.ERROR if job.state is State.FAILED else logging.INFO
        took = clock.format_duration((ended_at - (job.exec_at or ended_at)) / 1e9)
        log.log(
            level,
            "job ended",
            extra=fields(jobId=job.id, status=job.state, exitCode=job.exit_code, reason=job.reason, duration=took),
        )

    async def _store_firmly(
        self, live: Live, target: State, *, receipt: Receipt | None = None, **columns: int | str | None
    ) -> Job:
        """Store a transition, however long the disk takes to have room for it: what it tells of has happened."""
        while True:
            try:
                job = await self._store.transition(live.job.id, target, receipt=receipt, **columns)
            except TransitionRefused:
                raise
            except StoreFailed as error:
                if self._closing:
                    raise
                if not live.unstored.is_set():
                    log.error("job state cannot be stored yet", extra=fields(jobId=live.job.id, error=str(error)))
                live.unstored.set()
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                live.unstored.clear()
                return job

    def _finish(self, live: Live) -> None:
        if live.timer is not None:
            live.timer.cancel()
        if self._closing and not live.job.state.final:
            return
        del self._live[live.job.id]
        live.launched.set()
        live.ended.set()
        self._hub.wake(live.job.id)
        if live.job.state.final:
            self.on_end(live.job)


async def _either(*events: asyncio.Event) -> None:
    """Wait for the first of some events."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def parse_id(text: str) -> int:
    """The number of a job id. Raises JobNotFound for a text that no job's id can be."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and text == str(int(text))):
        raise JobNotFound(text)
    return int(text)


def _was_asked(live: Live) -> bool:
    return bool(live.stop_reason)


def _shown(job: Job) -> str:
    """The command line for the server's log, cut to a readable length."""
    line = shlex.join([job.command, *job.args])
    return line if len(line) <= 200 else line[:200] + "..."
