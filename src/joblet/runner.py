"""Which jobs there are: accept, find, stop, and take up those of an earlier server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace

from joblet import clock, schedule
from joblet.admission import Admission
from joblet.errors import (
    HostUnable,
    InvalidArgument,
    JobNotFound,
    JobNotRunning,
    KeyReused,
    QueueFull,
    ShuttingDown,
    StoreFailed,
    TooManyScheduled,
)
from joblet.executor.base import Executor, Lost
from joblet.ids import parse_id
from joblet.job import LOST, Job, State, Stop, cause_of
from joblet.life import Found, Live, shown
from joblet.log import fields
from joblet.logs import LogHub
from joblet.order import MAX_TIMEOUT_MS, Order, Policy, made_by, settle
from joblet.quotas import Need, Quotas, Room, need_of
from joblet.recurrence import Recurrences
from joblet.store import Store
from joblet.surroundings import Surroundings

log = logging.getLogger(__name__)

_USUAL_STOP = Stop()


class Runner:
    """Runs jobs. The mutable state is the live jobs; what is not live has ended and is in the store."""

    def __init__(self, store: Store, executor: Executor, admission: Admission, hub: LogHub, policy: Policy) -> None:
        self._store = store
        self._executor = executor
        self._admission = admission
        self._hub = hub
        self._policy = policy
        self.quotas = Quotas(policy.quotas)
        self._around = Surroundings(store, executor, admission, hub, self.probe, quotas=self.quotas)
        self._live: dict[int, Live] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._accepting: set[asyncio.Task[Live]] = set()
        self._scheduling = 0
        """scheduled jobs that are being accepted"""
        self._recurrences = Recurrences(self._around, self._runs_of, self._begin)
        self._changing: set[asyncio.Task[None]] = set()
        self._host_error: HostUnable | None = None
        self.on_end: Callable[[Job], None] = lambda job: None
        """told of every job whose final state has been stored"""
        self.on_made: Callable[[Job], None] = lambda job: None
        """told of every new job once it is stored"""

    @property
    def around(self) -> Surroundings:
        """What its jobs live with."""
        return self._around

    @property
    def host_error(self) -> HostUnable | None:
        """Why new jobs are refused, if the host cannot isolate and limit them."""
        return self._host_error

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

    async def submit(self, order: Order, owner: str, role: str, room: Room | None = None) -> Live:
        """Accept a job of a client with that name and role. When this returns, it is on disk and will run.

        With a key that the client has used before, the job is the one that it was used for, ended or not; so too for
        what is the same part of a workflow. Those have their place in the queue without taking one from clients. With a
        schedule it waits for its time first. `room` has been waited for, and is the caller's to leave.
        Raises InvalidArgument, KeyReused, NoRoom, DiskUnusable, QuotaExceeded, QueueFull, TooManyScheduled, HostUnable,
        StoreFailed or ShuttingDown, and then there is no job.
        """
        order = settle(order, self._policy, role)
        if (live := await self._made(order, owner)) is not None:
            return live
        if self._around.closing:
            raise ShuttingDown
        self.check_room()
        if self._host_error is not None:
            await self.probe()
            if self._host_error is not None:
                raise self._host_error
        if order.schedule is not None or order.retries:
            self._check_times()
        time = None if order.schedule is None else schedule.first(order.schedule, clock.now_ns())
        taken = room or self.quotas.take(owner, role, self._need(order, role))
        try:
            state = self._reserve(order)
        except QueueFull:
            taken.leave()
            raise
        # What was begun is finished whether or not the client stays: no row without a runner.
        accepting = asyncio.create_task(self._accept(order, owner, role, state, time, taken))
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepting.discard)
        return await asyncio.shield(accepting)

    def room(self, order: Order, owner: str, role: str) -> asyncio.Future[Room]:
        """Room in the client's quota for a job that can wait for it.

        Raises InvalidArgument, or QuotaExceeded when there never is any.
        """
        order = settle(order, self._policy, role)
        return self.quotas.queue(owner, role, self._need(order, role))

    def _need(self, order: Order, role: str) -> Need:
        """What an order takes of its client's quota.

        Raises QuotaExceeded when there never is room for it, or for even one job of a recurring schedule beside it.
        """
        need = need_of(order.limits, order.schedule)
        recurring = order.schedule is not None and order.schedule.recurring
        self.quotas.check(role, need.plus(need_of(order.limits, None)) if recurring else need)
        return need

    def _reserve(self, order: Order) -> State:
        """Take a slot or a place in the queue, or one of those that wait for their time. Raises QueueFull."""
        if order.schedule is not None:
            self._scheduling += 1
            return State.SCHEDULED
        return State.INITIALIZING if self._admission.reserve(counted=order.part is None) else State.PENDING

    async def made(self, order: Order, owner: str, role: str) -> Live | None:
        """The job that the client's order with this key has made before. Raises InvalidArgument or KeyReused."""
        return await self._made(settle(order, self._policy, role), owner)

    async def _made(self, order: Order, owner: str) -> Live | None:
        present = await self._store.find(owner, order.key) if order.key else None
        return None if present is None else self._again(present, order)

    def _check_times(self) -> None:
        """Raise TooManyScheduled when so many jobs wait for their time, be it that of another attempt."""
        if self._around.timetable.count + self._scheduling >= self._policy.max_scheduled:
            raise TooManyScheduled(self._policy.max_scheduled)

    async def _accept(self, order: Order, owner: str, role: str, state: State, time: int | None, room: Room) -> Live:
        new = False
        try:
            job, new = await self._store.create(
                order, owner, state, clock.now_ns(), self._executor.epoch, time, role=role
            )
        finally:
            if state is State.SCHEDULED:
                self._scheduling -= 1
            elif not new:
                if state is State.PENDING:
                    self._admission.cancel_reservation(counted=order.part is None)
                else:
                    self._admission.release()
            if not new:
                room.leave()
        if not new:  # the same key came twice at the same time
            return self._again(job, order)
        self.on_made(job)
        live = self._start(job, reserved=state is State.PENDING)
        room.leave()
        log.info("job accepted", extra=fields(jobId=job.id, status=job.state, command=shown(job), owner=owner))
        return live

    def _again(self, job: Job, order: Order) -> Live:
        """The job that an order with its key, or its part in a workflow, has made before."""
        # The timeout may have been changed since, and the same files come to lie in another folder each time.
        made = replace(made_by(job), timeout_ms=0, uploads=None)
        if order.part is None and made != replace(order, timeout_ms=0, uploads=None):
            raise KeyReused(job.key, job.id)
        live = self._live.get(job.id)
        if live is None:
            live = Live(job, self._around)
            live.launched.set()
            live.ended.set()
        return live

    def check(self, order: Order, role: str) -> None:
        """Raise InvalidArgument or QuotaExceeded for an order that `submit` would refuse for what it asks."""
        order = settle(order, self._policy, role)
        self._need(order, role)
        if order.schedule is not None:
            schedule.first(order.schedule, clock.now_ns())

    def check_room(self) -> None:
        """Raise NoRoom or DiskUnusable while the disk takes nothing new."""
        self._executor.check_room()

    def find(self, job_id: str) -> Live | None:
        """A job that has not ended."""
        return self._live.get(parse_id(job_id))

    async def get(self, job_id: str) -> Job:
        """A job as it is now. Raises JobNotFound."""
        number = parse_id(job_id)
        if (live := self._live.get(number)) is not None:
            return live.current
        job = await self._store.get(number)
        if job is None:
            raise JobNotFound(job_id)
        return job

    async def newest(self, count: int, before: int, owner: str | None = None) -> list[Job]:
        """At most `count` jobs, or jobs of an owner, with ids below `before`, newest first."""
        return await self._store.newest(count, before, owner)

    def live_names(self) -> set[str]:
        """Ids of the jobs that have not ended."""
        return {str(job_id) for job_id in self._live}

    def unended(self) -> list[Job]:
        """Those that have not ended."""
        return [live.job for live in self._live.values()]

    def running(self) -> list[Job]:
        """Those whose command runs, by id."""
        return sorted((job for job in self.unended() if job.state is State.RUNNING), key=lambda job: job.id)

    def place(self, job: Job) -> int:
        """A waiting job's place in the queue, from 1."""
        return self._admission.place(job.id)

    async def stop(self, job_id: str, reason: str, stop: Stop = _USUAL_STOP) -> Job:
        """End a job; returns when it has ended and nothing of it is left. To ask again can hasten it.

        Raises JobNotFound, or JobNotRunning when it has ended otherwise, before this or meanwhile.
        """
        live = self.find(job_id)
        if live is not None:
            await self._finish_alone(live.request_stop(reason, stop))
            await first_of(live.ended, live.unstored)
            if not live.ended.is_set():
                raise StoreFailed(f"job {job_id} is being stopped, but its state cannot be stored now")
        job = await self.get(job_id)
        if live is None or job.state is not State.STOPPED:
            raise JobNotRunning(job.id, job.state)
        return job

    async def pause(self, job_id: str, who: str) -> Job:
        """Keep a running job's processes from running, until `resume`. Its timeout goes on.

        Raises JobNotFound, JobNotRunning, CannotPause or StoreFailed.
        """
        return await self._change(job_id, lambda live: live.pause(who))

    async def resume(self, job_id: str, who: str) -> Job:
        """Let a paused job go on. Raises JobNotFound, JobNotRunning or StoreFailed."""
        return await self._change(job_id, lambda live: live.resume(who))

    async def _change(self, job_id: str, change: Callable[[Live], Coroutine[None, None, None]]) -> Job:
        live = self.find(job_id)
        if live is None:
            job = await self.get(job_id)
            raise JobNotRunning(job.id, job.state)
        await self._finish_alone(change(live))
        return await self.get(job_id)

    async def _finish_alone(self, change: Coroutine[None, None, None]) -> None:
        """Wait for a change of a job, which is finished whether or not the client stays to hear of it."""
        changing = asyncio.create_task(change)
        self._changing.add(changing)
        changing.add_done_callback(self._changing.discard)
        await asyncio.shield(changing)

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
        if (live := self._live.get(job.id)) is not None:
            live.set_timeout(timeout_ms)
        length = clock.format_duration(timeout_ms / 1000)
        log.info("job timeout changed", extra=fields(jobId=job.id, timeout=length, owner=job.owner, by=who))
        return job

    async def recover(self) -> None:
        """Take up every unfinished job of an earlier server where it is now.

        All are found before one is launched: until then it is not known which slots and ids of users are taken.
        """
        jobs = await self._store.unfinished()
        begun = [job for job in jobs if job.state not in (State.SCHEDULED, State.PENDING)]
        for job, found in zip(begun, await asyncio.gather(*map(self._recover, begun)), strict=True):
            self._admission.occupy()
            self._start(job, found)
        for job in sorted(jobs, key=lambda job: (-job.priority, job.id)):
            if job.state is State.PENDING:
                self._start(job)
        waiting = [job for job in jobs if job.state is State.SCHEDULED]
        for job in waiting:
            self._start(job)
        for schedule_id in {job.schedule_id for job in waiting if job.schedule_id is not None and job.queued}:
            self._recurrences.call_queued(schedule_id)

    async def _recover(self, job: Job) -> Found | None:
        found = await self._executor.recover(job)
        if found is None and job.state is State.RUNNING:  # it has run; it must not run again
            found = Lost(f"{LOST}nothing of it was found")
        log.info("job found again", extra=fields(jobId=job.id, status=job.state, found=type(found).__name__))
        return found

    async def close(self) -> None:
        """Stop following jobs; they go on, and the next server finds them again."""
        self._around.closing = True
        self._around.timetable.close()
        await asyncio.gather(*self._accepting, *self._changing, return_exceptions=True)
        tasks, live = list(self._tasks.values()), list(self._live.values())
        for job in live:
            job.drop_timer()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(job.leave() for job in live), return_exceptions=True)

    def _begin(self, job: Job) -> Live:
        """Let a job live that a schedule or another attempt has made."""
        self.on_made(job)
        return self._start(job)

    def _start(self, job: Job, found: Found | None = None, *, reserved: bool = False) -> Live:
        live = self._live[job.id] = Live(job, self._around)
        self.quotas.add(job.owner, need_of(job.limits, job.schedule))
        turn = None
        if job.state is State.PENDING:
            turn = self._admission.enqueue(job.id, job.priority, reserved=reserved, counted=job.counted)
        elif job.state is State.SCHEDULED and not job.recurring:
            turn = self._around.timetable.wait(job.id, None if job.queued else job.scheduled_at)
        if job.stop_reason:  # an earlier server was asked to stop it and did not come to do so
            live.withdraw()
        self._tasks[job.id] = asyncio.create_task(self._follow(live, turn, found), name=f"job-{job.id}")
        return live

    def _runs_of(self, schedule_id: int) -> list[Live]:
        """The jobs of a recurring schedule that have not ended, by id."""
        return [live for _, live in sorted(self._live.items()) if live.job.schedule_id == schedule_id]

    async def _follow(self, live: Live, turn: asyncio.Future[None] | None, found: Found | None) -> None:
        try:
            if live.job.recurring:
                await self._recurrences.follow(live)
            else:
                await live.live(turn, found)
        finally:
            self._finish(live)

    def _finish(self, live: Live) -> None:
        live.drop_timer()
        del self._tasks[live.job.id]
        if self._around.closing and not live.job.state.final:
            return
        del self._live[live.job.id]
        if live.following is not None and not self._around.closing:
            at = clock.rfc3339(live.following.scheduled_at)
            log.info("job is run again", extra=fields(jobId=live.following.id, retryOf=live.job.id, at=at))
            self._begin(live.following)
        self.quotas.give_back(live.job.owner, need_of(live.job.limits, live.job.schedule))
        live.launched.set()
        live.ended.set()
        self._hub.wake(live.job.id)
        if live.job.schedule_id is not None:
            self._recurrences.call_queued(live.job.schedule_id)
        if live.job.state.final:
            self._around.measures.ended[cause_of(live.job)] += 1
            self.on_end(live.job)


async def first_of(*events: asyncio.Event) -> None:
    """Wait for the first of some events."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
