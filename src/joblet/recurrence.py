"""Recurring schedules: jobs that run nothing themselves, and make another job at each of their times."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from joblet import clock, schedule
from joblet.errors import InvalidArgument, PermissionDenied, QuotaExceeded, StoreFailed
from joblet.job import Job, Schedule
from joblet.life import Live
from joblet.log import fields
from joblet.quotas import Room, need_of
from joblet.schedule import Cron
from joblet.store.later import replaced
from joblet.surroundings import Surroundings

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
"""until what the store refused is tried again"""
_MOST_RUNS = 100
"""jobs of a schedule at a time that have not ended, however many may overlap"""


class Recurrences:
    """Makes the jobs of recurring schedules: each once, whenever the server is killed.

    A job is stored with the schedule's next time in one change. The jobs themselves begin at once, but for those that
    are `queued`: they wait for the end of the others of their schedule, held in the timetable.
    """

    def __init__(self, around: Surroundings, runs: Callable[[int], list[Live]], start: Callable[[Job], Live]) -> None:
        """`runs` gives the jobs of a schedule that have not ended; `start` lets a new one live."""
        self._around = around
        self._runs = runs
        self._start = start

    async def follow(self, live: Live) -> None:
        """Go from one time of a schedule to the next until it is stopped."""
        try:
            what = live.job.schedule
            assert what is not None
            cron = schedule.cron_of(what)
            while await self._wait(live, cron, what) and await self._tick(live, cron, what):
                pass
        except InvalidArgument as error:  # its timezone is gone from the host
            await live.fail(str(error))
        except StoreFailed as error:
            log.error("job state cannot be stored", extra=fields(jobId=live.job.id, error=str(error)))
        except Exception:
            log.exception("schedule failed", extra=fields(jobId=live.job.id))
            await live.fail("internal error")

    def call_queued(self, schedule_id: int) -> None:
        """Let the job begin that waits for the others of a schedule, if these have ended."""
        held = [live.job.id for live in self._runs(schedule_id) if self._is_held(live)]
        if held and len(held) == len(self._runs(schedule_id)):
            self._around.timetable.call(held[0])

    def _is_held(self, live: Live) -> bool:
        return self._around.timetable.is_held(live.job.id)

    async def _wait(self, live: Live, cron: Cron, what: Schedule) -> bool:
        """Until its next time; False when it was stopped."""
        job, timetable = live.job, self._around.timetable
        if live.stop_reason:  # while its last job was made, or a server ago
            turn = timetable.wait(job.id, None)
            timetable.withdraw(job.id)
        else:
            turn = timetable.wait(job.id, schedule.start(cron, what, job.id, job.scheduled_at or 0))
        return await live.wait_turn(turn)

    async def _tick(self, live: Live, cron: Cron, what: Schedule) -> bool:
        """Make what is due; False when no time is left to wait for."""
        told = False
        while not live.stop_reason:
            job, now = live.job, clock.now_ns()
            due = await asyncio.to_thread(schedule.due, cron, what, job.id, job.scheduled_at or 0, now)
            if due.following is None:
                await live.fail("its schedule has no time any more")
                return False
            try:
                await self._make(live, what, due, due.following, now)
            except StoreFailed as error:
                if not told:
                    log.error("scheduled job cannot be stored yet", extra=fields(jobId=job.id, error=str(error)))
                told = True
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                break
        return True

    async def _make(self, live: Live, what: Schedule, due: schedule.Due, following: int, now: int) -> None:
        job, policy = live.job, what.overlap or "skip"
        others = self._runs(job.id)
        times, why = self._wanted(due.times, policy, others)
        rooms, excess = self._rooms(job, len(times))
        times, why = times[: len(rooms)], excess or why
        try:
            made = await self._around.store.make_runs(
                job.id,
                due=job.scheduled_at or 0,
                following=following,
                times=times,
                now=now,
                replacing=policy == "replace",
                queued=bool(others) and policy in ("queue", "replace"),
            )
            for run in made or ():
                at = clock.rfc3339(run.scheduled_at)
                log.info("scheduled job made", extra=fields(jobId=run.id, schedule=job.id, at=at))
                self._start(run)
        finally:
            for room in rooms:
                room.leave()
        if made is None:  # it has been asked to stop, by somebody who may be gone since
            stored = await self._around.store.get(job.id)
            live.stop_reason = live.stop_reason or (stored.stop_reason if stored else "") or "stopped"
            return
        live.set_next(following)
        if due.missed:
            made_up = len(times) if what.catch_up != "none" else 0
            log.warning("scheduled times have passed", extra=fields(jobId=job.id, madeUpFor=made_up))
        if why and due.times:
            log.info("scheduled job left out", extra=fields(jobId=job.id, at=clock.rfc3339(due.times[-1]), reason=why))
        if made and policy == "replace":
            new = {run.id for run in made}
            # One that is being stopped goes on to be, as somebody has asked for it.
            others = [other for other in self._runs(job.id) if other.job.id not in new and not other.stop_reason]
            await asyncio.gather(*(other.request_stop(replaced(made[-1].id)) for other in others))
        self.call_queued(job.id)

    def _rooms(self, job: Job, count: int) -> tuple[list[Room], str]:
        """Room in its owner's quota for so many of its jobs, or as many as there is, and why not for all."""
        rooms: list[Room] = []
        try:
            while len(rooms) < count:
                rooms.append(self._around.quotas.take(job.owner, job.role, need_of(job.limits, None)))
        except (QuotaExceeded, PermissionDenied) as error:
            return rooms, str(error)
        return rooms, ""

    def _wanted(self, times: list[int], policy: str, others: list[Live]) -> tuple[list[int], str]:
        """For which of the times a job is made, and if not for all, why not."""
        if not others:
            return times[-_MOST_RUNS:], ""
        if policy == "skip":
            return [], f"job {others[0].job.id} has not ended"
        if policy == "queue" and any(map(self._is_held, others)):
            return [], "one is waiting already"
        if policy == "allow" and len(others) + len(times) > _MOST_RUNS:
            return times[: _MOST_RUNS - len(others)], f"{_MOST_RUNS} of its jobs have not ended"
        return times, ""
