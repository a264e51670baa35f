"""The life of one job, from its time or its place in the queue to its final state: wait, launch, watch, conclude."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from joblet import clock
from joblet.errors import CannotPause, DiskUnusable, JobNotRunning, NoRoom, StoreFailed, TransitionRefused
from joblet.executor.base import STOPPED, Exit, Input, LaunchFailed, Lost, Running
from joblet.job import TIMEOUT, Ending, Job, Receipt, State, Stop, conclude, retry_delay
from joblet.log import fields
from joblet.pausing import Pause
from joblet.surroundings import Surroundings

T = TypeVar("T")

log = logging.getLogger(__name__)

_ISOLATION_STAGES = frozenset({"cgroup", "namespace", "rootfs", "privileges", "shim"})
"""launch stages whose failure says something of the host, not of the job"""

_RETRY_SECONDS = 1.0
"""until what the store refused is tried again"""
_LATE_NS = 10_000_000_000
"""by which a scheduled job is late that says so"""

_USUAL_STOP = Stop()

Found = Running | Exit | Lost
"""what a job of an earlier server has come to"""


class Live:
    """A job that has not ended. `job` is its last stored form."""

    def __init__(self, job: Job, around: Surroundings) -> None:
        self.job = job
        self.launched = asyncio.Event()
        """its command has been exec'd, or never will be"""
        self.ended = asyncio.Event()
        """its final state is stored and its log is complete"""
        self.unstored = asyncio.Event()
        """a change of its state cannot be stored for now"""
        self._around = around
        self._starting: Running | None = None
        """begun, and its command may not run yet"""
        self._running: Running | None = None
        self.stop_reason = job.stop_reason
        """why it was asked to stop; empty when it was not"""
        self.following: Job | None = None
        """its next attempt, made with its own end"""
        self._stop = job.stop
        self._pause = Pause(around.store, job.id, job.paused_by)
        self._changing = asyncio.Lock()
        """held while it is stopped, paused or resumed: one after the other"""
        self._timer: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def current(self) -> Job:
        """As it is now: `job`, and who keeps it from running, which changes without it."""
        by = self._pause.by
        return self.job if self.job.paused_by == by else replace(self.job, paused_by=by)

    async def live(self, turn: asyncio.Future[None] | None, found: Found | None) -> None:
        """From its `turn` in the timetable or the queue, or from where it was `found`, to its final state.

        Returns without one only when the server is closing, or its own state cannot be stored for good.
        """
        try:
            if turn is not None and not await self.wait_turn(turn):
                return
            if self.job.state is State.SCHEDULED and not await self.wait_turn(await self._join_queue()):
                return
            try:
                await self._run(found)
            finally:
                if not self._around.closing:
                    self._around.admission.release()
        except StoreFailed as error:
            log.error("job state cannot be stored", extra=fields(jobId=self.job.id, error=str(error)))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("job runner failed", extra=fields(jobId=self.job.id))
            await self._give_up()

    async def request_stop(self, reason: str, stop: Stop = _USUAL_STOP) -> None:
        """Have it stopped, in whatever state it is. The reason is on disk before the first signal, if it can be.

        The first reason stays. Of a stop under way another one can shorten the grace, and send another signal.
        """
        async with self._changing:
            if self.stop_reason and stop == self._stop:
                return
            try:
                await self._around.store.request_stop(self.job.id, reason, stop)
            except StoreFailed as error:
                # Should the server end before it can store the final state, its monitor knows that it was stopped.
                log.warning("stop cannot be stored", extra=fields(jobId=self.job.id, reason=reason, error=str(error)))
            self.stop_reason, self._stop = self.stop_reason or reason, stop
            if not self.withdraw() and (under_way := self._running or self._starting) is not None:
                await self._signal_stop(under_way)

    async def pause(self, who: str) -> None:
        """Keep its processes from running. Once this returns, they stand still, and that is on disk.

        A paused job stays as it is. Raises JobNotRunning, CannotPause or StoreFailed, and then it goes on.
        """
        async with self._changing:
            if self._pause.by:
                return
            running = self._running_now()
            if self.stop_reason:
                raise CannotPause("it is being stopped")
            await self._pause.begin(running, who)
            self.job = replace(self.job, paused_by=who)

    async def resume(self, who: str) -> None:
        """Let a paused job go on; one that is not paused does. Raises JobNotRunning or StoreFailed."""
        async with self._changing:
            await self._pause.end(self._running_now(), who)
            self.job = replace(self.job, paused_by="")

    async def open_input(self) -> Input:
        """A way into it. Raises JobNotRunning when it does not run, InputOver when its input is over, or OSError."""
        if self._running is None or self.ended.is_set():
            raise JobNotRunning(self.job.id, self.job.state)
        return await self._running.open_input()

    def set_timeout(self, timeout_ms: int) -> None:
        """Let it run for so long, from its exec."""
        self.job = replace(self.job, timeout_ms=timeout_ms)
        self._start_timer()

    def set_next(self, time: int) -> None:
        """The next time of its schedule is another one, and that is stored."""
        self.job = replace(self.job, scheduled_at=time)

    async def fail(self, reason: str) -> None:
        """End it where it waits, for what keeps it from going on."""
        if not self.job.state.final:
            await self._end(Ending(State.FAILED, -1, reason), clock.now_ns())

    async def leave(self) -> None:
        """Let go of its timer and of a stop under way, of which the store knows."""
        self.drop_timer()
        if self._stopping is not None:
            await asyncio.gather(self._stopping, return_exceptions=True)

    def drop_timer(self) -> None:
        """It has ended, or is not followed any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _give_up(self) -> None:
        """End a job that a fault of this program keeps from going on; it must not stay unfinished for ever."""
        if not self.job.state.final and self._running is None:
            with contextlib.suppress(StoreFailed):
                await self._end(Ending(State.FAILED, -1, "internal error"), clock.now_ns())

    def withdraw(self) -> bool:
        """Take it out of where it waits for its turn; False when it does not."""
        return self._around.timetable.withdraw(self.job.id) or self._around.admission.withdraw(self.job.id)

    async def wait_turn(self, turn: asyncio.Future[None]) -> bool:
        """Wait for its time or for a slot; False when the job was stopped there, and that is stored."""
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() or self._around.closing:
                raise
            await self._end(Ending(State.STOPPED, -1, self.stop_reason), clock.now_ns())
            return False
        return True

    async def _join_queue(self) -> asyncio.Future[None]:
        """Its time has come: a turn in the queue, which has come already where there is a slot."""
        admission, job = self._around.admission, self.job
        turn = admission.enqueue(job.id, job.priority, reserved=False, counted=job.counted)
        if self.stop_reason:  # since it was called
            admission.withdraw(job.id)
        elif not turn.done():
            self.job = await self._store_firmly(State.PENDING)
        return turn

    async def _run(self, found: Found | None) -> None:
        if self.job.state in (State.SCHEDULED, State.PENDING):
            now, epoch = clock.now_ns(), self._around.executor.epoch
            reason = self._lateness(now)
            try:
                self.job = await self._store_firmly(State.INITIALIZING, started_at=now, epoch=epoch, reason=reason)
            finally:
                self._around.admission.come(self.job.id)
        if found is None:
            try:
                found = await self._launch()
            except LaunchFailed as error:
                await self._conclude_launch(error, clock.now_ns())
                return
            if found is None:
                await self._end(Ending(State.STOPPED, -1, self.stop_reason), clock.now_ns())
                return
        elif not isinstance(found, (Exit, Lost)):
            async with self._changing:
                await self._pause.settle(found)
        if not isinstance(found, (Exit, Lost)):
            found = await self._watch(found)
        await self._conclude(found)

    def _lateness(self, now: int) -> str:
        """What there is to say of how late a scheduled job is: its server was away, or it had to wait."""
        late = now - (self.job.scheduled_at or now)
        if late < _LATE_NS:
            return ""
        text = clock.format_duration(late // 1_000_000_000)
        log.info("scheduled job begins late", extra=fields(jobId=self.job.id, late=text))
        return f"began {text} after its time"

    async def _launch(self) -> Running | None:
        """Start it; None when it was stopped before.

        An accepted job does not fail for a disk that is full just now: it waits.
        """
        try:
            dict(self.job.secret_environment)  # opens it, before anything is begun
        except StoreFailed as error:
            raise LaunchFailed("secrets", 0, str(error)) from error
        told = False
        while not self.stop_reason:
            try:
                return await self._around.executor.launch(self.job, self._on_begun)
            except (NoRoom, DiskUnusable) as error:
                if not told:
                    log.warning("job waits for the disk", extra=fields(jobId=self.job.id, error=str(error)))
                told = True
                await asyncio.sleep(_RETRY_SECONDS)
        return None

    def _on_begun(self, starting: Running) -> None:
        """It is being started, which may take as long as its limits make it: from now on that can be stopped."""
        self._starting = starting
        if self.stop_reason:  # and nobody has told it
            self._stopping = asyncio.create_task(self._signal_stop(starting))

    async def _watch(self, running: Running) -> Exit | Lost:
        """Follow a job whose command has been exec'd until it has ended."""
        if self.job.state is State.INITIALIZING:
            await self._record_start(running)
        self._running = running
        self.launched.set()
        if self.stop_reason:
            await self._signal_stop(running)
        else:
            self._start_timer()
        return await running.wait()

    def _running_now(self) -> Running:
        if self._running is None or self.job.state is not State.RUNNING:
            raise JobNotRunning(self.job.id, self.job.state)
        return self._running

    async def _signal_stop(self, running: Running) -> None:
        """Signal it, and let it go on if it is paused: it has to, to end. In this order it does nothing else before."""
        await running.stop(self._stop)
        if self._pause.by:
            await self._pause.undo(running)

    def _start_timer(self) -> None:
        self.drop_timer()
        if self._running is not None:
            left = self.job.timeout_ms / 1000 - self._running.elapsed()
            self._timer = asyncio.get_running_loop().call_later(max(left, 0), self._on_timeout)

    async def _record_start(self, running: Running) -> None:
        took = (running.started_at - (self.job.started_at or running.started_at)) // 1_000_000
        try:
            self.job = await self._around.store.transition(self.job.id, State.RUNNING, exec_at=running.started_at)
            self._around.measures.started(self.job)
        except StoreFailed as error:  # it runs all the same, and is watched; its end is recorded with its start
            log.error("job state cannot be stored", extra=fields(jobId=self.job.id, error=str(error)))
        log.info(
            "job started successfully",
            extra=fields(jobId=self.job.id, pid=running.pid, command=shown(self.job), duration=f"{max(took, 0)}ms"),
        )

    def _on_timeout(self) -> None:
        self._timer = None
        shown_time = clock.format_duration(self.job.timeout_ms / 1000)
        self._stopping = asyncio.create_task(self.request_stop(f"{TIMEOUT}{shown_time}"))

    async def _conclude(self, end: Exit | Lost) -> None:
        if isinstance(end, Lost):
            await self._end(Ending(State.FAILED, -1, end.reason), clock.now_ns())
            return
        if end.launch_error is not None:
            await self._conclude_launch(end.launch_error, end.ended_at)
            return
        if self.job.state is State.INITIALIZING:
            self.job = await self._store_firmly(State.RUNNING, exec_at=end.started_at)
        ending = conclude(
            code=end.code,
            killed_by=end.signal,
            stopped=end.stopped,
            stop_reason=self.stop_reason,
            oom_kills=end.receipt.oom_kills or 0,
        )
        self._around.measures.log_bytes += end.log_bytes
        self._around.measures.log_lost += end.log_lost
        if end.log_lost:
            log.warning("job output lost", extra=fields(jobId=self.job.id, bytes=end.log_lost))
        if end.outputs_error:
            ending = replace(ending, reason=f"{ending.reason} (its outputs were not taken: {end.outputs_error})")
        await self._end(ending, end.ended_at, end.receipt, end.outputs)

    async def _conclude_launch(self, error: LaunchFailed, ended_at: int) -> None:
        if self.stop_reason or error.stage == STOPPED:
            await self._end(Ending(State.STOPPED, -1, self.stop_reason or str(error)), ended_at)
            return
        await self._end(Ending(State.FAILED, error.exit_code, str(error)), ended_at)
        if error.stage in _ISOLATION_STAGES:
            await self._around.on_isolation_failure()

    async def _end(
        self, ending: Ending, ended_at: int, receipt: Receipt | None = None, outputs: Mapping[str, str] | None = None
    ) -> None:
        # The clock may have been set meanwhile; nothing ends before it has begun.
        ended_at = max(ended_at, self.job.exec_at or 0, self.job.started_at or 0)
        delay = retry_delay(self.job, ending, self.stop_reason)
        if delay is None:
            move = partial(self._around.store.transition, self.job.id, ending.state)
        else:
            now = clock.now_ns()
            retry_at = now + delay * 1_000_000
            move = partial(self._end_for_retry, ending.state, created_at=now, retry_at=retry_at)
        job = self.job = await self._firmly(
            partial(
                move,
                ended_at=ended_at,
                exit_code=ending.exit_code,
                reason=ending.reason,
                receipt=receipt,
                outputs=outputs,
                paused_by="",
            )
        )
        level = logging.ERROR if job.state is State.FAILED else logging.INFO
        took = clock.format_duration((ended_at - (job.exec_at or ended_at)) / 1e9)
        log.log(
            level,
            "job ended",
            extra=fields(jobId=job.id, status=job.state, exitCode=job.exit_code, reason=job.reason, duration=took),
        )

    async def _end_for_retry(self, target: State, **columns: Any) -> Job:
        """Store its end and its next attempt: one is never without the other."""
        job, self.following = await self._around.store.end_for_retry(self.job.id, target, **columns)
        return job

    async def _store_firmly(self, target: State, **columns: Any) -> Job:
        return await self._firmly(partial(self._around.store.transition, self.job.id, target, **columns))

    async def _firmly(self, change: Callable[[], Awaitable[T]]) -> T:
        """Make a change, however long the disk takes to have room for it: what it tells of has happened."""
        while True:
            try:
                done = await change()
            except TransitionRefused:
                raise
            except StoreFailed as error:
                if self._around.closing:
                    raise
                if not self.unstored.is_set():
                    log.error("job state cannot be stored yet", extra=fields(jobId=self.job.id, error=str(error)))
                self.unstored.set()
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.unstored.clear()
                return done


def shown(job: Job) -> str:
    """The command line for the server's log, cut to a readable length."""
    line = shlex.join([job.command, *job.args])
    return line if len(line) <= 200 else line[:200] + "..."
