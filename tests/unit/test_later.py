# ruff: noqa: ASYNC110 -- turns of the loop are what is waited for
"""Jobs that run later and again, on a host whose clock and whose jobs' ends the test decides."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from scripted import PATIENCE, Site, everything

from joblet import clock
from joblet.access import Quota
from joblet.errors import JobNotRunning, KeyReused, QuotaExceeded, TooManyScheduled
from joblet.executor.base import LaunchFailed
from joblet.job import Job, Limits, Schedule, State
from joblet.life import Live
from joblet.order import Order

pytestmark = pytest.mark.timeout(30)

SECOND = 1_000_000_000
HOUR = 3600
HOURLY = Schedule("0 * * * *")
NEW_YEAR = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp()) * SECOND


class Later(Site):
    """A site with a clock of its own."""

    now = NEW_YEAR
    _real = 0

    def now_ns(self) -> int:
        return self.now + time.time_ns() - self._real

    async def go_on(self, seconds: float) -> None:
        """Set the clock forward, and let happen what that brings about."""
        self.now += round(seconds * SECOND)
        self.look()
        await self.settle()

    def look(self) -> None:
        self.runner._around.timetable._look()

    async def settle(self) -> None:
        """Until nothing changes any more by itself."""
        last = None
        while self.is_busy() or last != (last := [replace(job) for job in await everything(self.store)]):
            for _ in range(5):
                await asyncio.sleep(0.001)

    def is_busy(self) -> bool:
        """Whether some job waits neither for its time, nor for a slot, nor its end, or does and is not stored so."""
        live = self.runner._live
        running = {job_id for job_id in self.host.under_way if live[job_id].launched.is_set()}
        queued = {job_id for job_id in self.runner._admission._waiting if live[job_id].job.state is State.PENDING}
        waiting = {*self.runner._around.timetable._waiting, *queued, *running}
        return not live.keys() <= waiting

    async def order(self, **what: object) -> Live:
        live = await self.runner.submit(Order("scripted", **what), "alice", "admin")  # type: ignore[arg-type]
        await self.settle()
        return live

    async def states(self) -> dict[int, str]:
        return {job.id: str(job.state) for job in await everything(self.store)}

    async def job(self, job_id: int) -> Job:
        return await self.stored(job_id)

    async def end(self, job_id: int, code: int = 0) -> None:
        async with asyncio.timeout(PATIENCE):
            while job_id not in self.host.under_way:
                await asyncio.sleep(0)
        self.host.under_way[job_id].end(code=code)
        async with asyncio.timeout(PATIENCE):
            while self.runner.find(str(job_id)) is not None:
                await asyncio.sleep(0)
        await self.settle()

    async def begin_again(self, away: float = 0) -> None:
        """The server was killed, and another one starts after a while."""
        await self.close()
        self.now += round(away * SECOND)
        self.open()
        await self.runner.recover()
        await self.settle()


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Later]:
    site = Later(tmp_path, 3, 10, 10 * HOUR)
    site._real = time.time_ns()
    monkeypatch.setattr(clock, "now_ns", site.now_ns)
    yield site
    for job in list(site.host.under_way.values()):
        job.end(code=0)
    await site.close()


def hour(number: int) -> int:
    return NEW_YEAR + number * HOUR * SECOND


# -- once


async def test_a_job_waits_for_its_time_without_a_slot_and_runs_then(site: Later) -> None:
    live = await site.order(schedule=Schedule("1h"))
    assert (live.job.state, live.job.started_at) == (State.SCHEDULED, None)
    assert hour(1) <= (live.job.scheduled_at or 0) < hour(1) + 10 * SECOND
    others = [await site.order() for _ in range(3)]
    assert all(other.job.state is State.RUNNING for other in others)
    await site.go_on(HOUR - 60)
    assert site.host.launches == [2, 3, 4]
    await site.go_on(70)
    assert (await site.job(1)).state is State.PENDING  # as any other, while there is no slot
    await site.end(2)
    assert (await site.states())[1] == "RUNNING"
    await site.end(1, 3)
    job = await site.job(1)
    assert (job.state, job.exit_code, job.reason) == (State.FAILED, 3, "exit code 3")


async def test_a_scheduled_job_that_is_stopped_never_runs(site: Later) -> None:
    await site.order(schedule=Schedule("1h"))
    job = await site.runner.stop("1", "stopped by bob")
    assert (job.state, job.exit_code, job.reason) == (State.STOPPED, -1, "stopped by bob")
    await site.go_on(2 * HOUR)
    assert site.host.launches == []
    with pytest.raises(JobNotRunning):
        await site.runner.stop("1", "stopped by bob")


@pytest.mark.parametrize("away", [60, 3 * HOUR])
async def test_a_job_whose_time_came_while_no_server_ran_starts_at_once(site: Later, away: int) -> None:
    await site.order(schedule=Schedule("1h"))
    await site.begin_again(away)
    assert (await site.states())[1] == ("SCHEDULED" if away < HOUR else "RUNNING")
    if away > HOUR:
        assert (await site.job(1)).reason == "began 2h after its time"


async def test_a_stop_that_a_killed_server_did_not_come_to_holds(site: Later) -> None:
    await site.order(schedule=Schedule("1h"))
    await site.order(schedule=HOURLY)
    await site.store.request_stop(1, "stopped by bob")
    await site.store.request_stop(2, "stopped by bob")
    await site.begin_again(3 * HOUR)
    assert await site.states() == {1: "STOPPED", 2: "STOPPED"}


async def test_a_stop_whose_client_went_away_ends_a_schedule_at_its_next_time(site: Later) -> None:
    await site.order(schedule=HOURLY)
    await site.store.request_stop(1, "stopped by bob")  # and the call was cancelled before more of it
    await site.go_on(HOUR)
    job = await site.job(1)
    assert (job.state, job.reason) == (State.STOPPED, "stopped by bob")
    assert len(await everything(site.store)) == 1


async def test_a_key_names_the_scheduled_job_and_only_it(site: Later) -> None:
    first = await site.order(schedule=HOURLY, key="nightly")
    assert (await site.order(schedule=HOURLY, key="nightly")).job.id == first.job.id
    with pytest.raises(KeyReused):
        await site.order(schedule=Schedule("@daily"), key="nightly")
    await site.go_on(HOUR)
    run = await site.job(2)
    assert (run.key, run.schedule_id, run.schedule) == ("", 1, None)
    assert (await site.order(schedule=HOURLY, key="nightly")).job.id == 1


async def test_so_many_jobs_may_be_scheduled(site: Later) -> None:
    site.runner._policy = replace(site.runner._policy, max_scheduled=2)
    await site.order(schedule=HOURLY)
    await site.order(schedule=Schedule("1h"))
    with pytest.raises(TooManyScheduled, match=r"^2 jobs are scheduled \(at most 2, joblet.maxScheduledJobs\)$"):
        await site.order(schedule=Schedule("1h"))
    with pytest.raises(TooManyScheduled):
        await site.order(retries=1)
    await site.order()
    await site.go_on(HOUR)  # what they make does not count
    assert len(await everything(site.store)) == 4
    await site.order(retries=1)


async def test_a_full_queue_refuses_no_job_whose_time_has_come(site: Later) -> None:
    await site.order(schedule=Schedule("1h"))
    for _ in range(3 + 10):
        await site.order()
    await site.go_on(HOUR + 60)
    assert (await site.job(1)).state is State.PENDING
    assert site.runner.place(await site.job(1)) == 1  # by age


# -- again and again


async def test_each_time_makes_a_job_with_the_whole_order(site: Later) -> None:
    order = Order(
        "scripted",
        ("a", "b"),
        environment={"A": "1"},
        secret_environment={"TOKEN": "hush"},
        labels={"app": "x"},
        name="nightly",
        priority=3,
        schedule=HOURLY,
    )
    template = await site.runner.submit(order, "alice", "admin")
    for number in (1, 2, 3):
        await site.go_on(HOUR)
        run = site.host.jobs[1 + number]
        assert (run.schedule_id, run.scheduled_at, run.owner) == (1, hour(number), "alice")
        assert (run.args, run.environment, run.labels, run.name) == (("a", "b"), {"A": "1"}, {"app": "x"}, "nightly")
        assert dict(run.secret_environment) == {"TOKEN": "hush"}
        assert (await site.job(1)).scheduled_at == hour(number + 1)
        await site.end(1 + number)
    assert template.job.state is State.SCHEDULED
    await site.runner.stop("1", "stopped by bob")
    await site.go_on(HOUR)
    assert await site.states() == {1: "STOPPED", 2: "COMPLETED", 3: "COMPLETED", 4: "COMPLETED"}


async def test_the_end_of_a_schedule_leaves_what_it_has_made(site: Later) -> None:
    await site.order(schedule=HOURLY)
    await site.go_on(HOUR)
    await site.runner.stop("1", "stopped by bob")
    assert await site.states() == {1: "STOPPED", 2: "RUNNING"}


async def test_overlap_skip_makes_none_while_one_runs(site: Later) -> None:
    await site.order(schedule=HOURLY)
    await site.go_on(HOUR)
    await site.go_on(HOUR)
    assert await site.states() == {1: "SCHEDULED", 2: "RUNNING"}
    await site.end(2)
    await site.go_on(HOUR)
    assert await site.states() == {1: "SCHEDULED", 2: "COMPLETED", 3: "RUNNING"}


@pytest.mark.parametrize("restart", [False, True])
async def test_overlap_queue_lets_one_wait_for_the_end_of_the_last(site: Later, restart: bool) -> None:
    await site.order(schedule=replace(HOURLY, overlap="queue"))
    for _ in range(4):
        await site.go_on(HOUR)
    if restart:
        await site.begin_again()
    assert await site.states() == {1: "SCHEDULED", 2: "RUNNING", 3: "SCHEDULED"}
    await site.end(2)
    assert await site.states() == {1: "SCHEDULED", 2: "COMPLETED", 3: "RUNNING"}
    await site.go_on(HOUR)
    assert (await site.states())[4] == "SCHEDULED"
    await site.runner.stop("4", "stopped by bob")
    await site.end(3)
    await site.go_on(HOUR)
    assert await site.states() == {1: "SCHEDULED", 2: "COMPLETED", 3: "COMPLETED", 4: "STOPPED", 5: "RUNNING"}


async def test_overlap_allow_lets_them_run_side_by_side(site: Later) -> None:
    await site.order(schedule=replace(HOURLY, overlap="allow"))
    for _ in range(4):
        await site.go_on(HOUR)
    assert list((await site.states()).values()) == ["SCHEDULED", "RUNNING", "RUNNING", "RUNNING", "PENDING"]


@pytest.mark.parametrize("killed", [False, True])
async def test_overlap_replace_stops_the_last_and_starts_when_it_has_ended(site: Later, killed: bool) -> None:
    site.host.obedient = False
    await site.order(schedule=replace(HOURLY, overlap="replace"))
    await site.go_on(HOUR)
    first = site.host.under_way[2]
    await site.go_on(HOUR)
    if killed:
        first.signalled.clear()
        await site.begin_again()
    await asyncio.wait_for(first.signalled.wait(), PATIENCE)
    assert await site.states() == {1: "SCHEDULED", 2: "RUNNING", 3: "SCHEDULED"}
    await site.go_on(HOUR)  # who was to replace it is replaced too, for the last is slow to end
    assert await site.states() == {1: "SCHEDULED", 2: "RUNNING", 3: "STOPPED", 4: "SCHEDULED"}
    first.end(signal=15, stopped=True)
    await site.settle()
    assert await site.states() == {1: "SCHEDULED", 2: "STOPPED", 3: "STOPPED", 4: "RUNNING"}
    assert (await site.job(2)).reason == "replaced by job 3"


@pytest.mark.parametrize(
    ("catch_up", "made"), [("", [hour(5)]), ("none", []), ("all", [hour(number) for number in range(1, 6)])]
)
async def test_times_that_passed_are_made_up_for_as_was_asked(site: Later, catch_up: str, made: list[int]) -> None:
    overlap = "allow" if catch_up == "all" else ""
    await site.order(schedule=replace(HOURLY, catch_up=catch_up, overlap=overlap))
    await site.begin_again(5.5 * HOUR)
    jobs = await everything(site.store)
    assert [job.scheduled_at for job in jobs[1:]] == made
    assert jobs[0].scheduled_at == hour(6)
    await site.begin_again()
    assert len(await everything(site.store)) == 1 + len(made)


async def test_a_server_that_is_killed_anywhere_makes_each_job_once(site: Later) -> None:
    """Each time it is killed at another turn of the loop around a time of the schedule."""
    await site.order(schedule=replace(HOURLY, overlap="allow", catch_up="all"))
    chance = random.Random(7)
    for number in range(1, 17):
        site.now = max(site.now, hour(number) - SECOND // 100)
        if chance.random() < 0.8:
            site.now = hour(number)
            site.look()
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
        await site.begin_again()
        for job in list(site.host.under_way.values()):
            job.end(code=0)
    site.now = hour(16) + SECOND
    await site.begin_again()
    jobs = await everything(site.store)
    assert [job.scheduled_at for job in jobs[1:]] == [hour(number) for number in range(1, 17)]
    assert max(map(site.host.launches.count, site.host.launches)) == 1


async def test_a_job_that_cannot_be_stored_is_made_when_it_can(site: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblet.recurrence._RETRY_SECONDS", 0.01)
    await site.order(schedule=HOURLY)
    with site.disk_full("INSERT"):
        site.now = hour(1)
        site.look()
        await asyncio.sleep(0.1)
        assert await site.states() == {1: "SCHEDULED"}
        assert (await site.job(1)).scheduled_at == hour(1)
    await site.settle()
    assert (await site.states(), (await site.job(1)).scheduled_at) == ({1: "SCHEDULED", 2: "RUNNING"}, hour(2))


async def test_a_timeout_that_is_changed_is_that_of_the_next_jobs(site: Later) -> None:
    await site.order(schedule=HOURLY)
    await site.runner.set_timeout("1", 5000, "bob")
    await site.go_on(HOUR)
    assert (await site.job(2)).timeout_ms == 5000
    assert (await site.job(1)).scheduled_at == hour(2)


async def test_a_schedule_whose_zone_is_gone_fails_with_the_reason(site: Later) -> None:
    await site.order(schedule=Schedule("0 * * * *", "Europe/Berlin"))
    site.sql("UPDATE jobs SET schedule = replace(schedule, 'Berlin', 'Bonn')")
    await site.begin_again()
    job = await site.job(1)
    assert job.state is State.FAILED
    assert job.reason.startswith('invalid schedule: there is no timezone "Europe/Bonn"')


# -- another attempt


async def fail(site: Later, job_id: int) -> Job:
    await site.end(job_id, 1)
    return await site.job(job_id)


async def test_a_job_that_fails_is_run_again_later_and_later(site: Later) -> None:
    first = await site.order(retries=3, retry_delay_ms=60_000, labels={"a": "b"}, key="k")
    assert (first.job.attempt, first.job.retry_of) == (1, None)
    delay = 60
    for number in (1, 2, 3):
        old, new = await fail(site, number), await site.job(number + 1)
        assert (old.state, old.retried_by) == (State.FAILED, new.id)
        assert (new.state, new.attempt, new.retry_of) == (State.SCHEDULED, number + 1, 1)
        assert (new.labels, new.key, new.retries) == ({"a": "b"}, "", 3)
        assert abs((new.scheduled_at or 0) - (old.ended_at or 0) - delay * SECOND) < 5 * SECOND
        await site.go_on(delay - 10)
        assert (await site.job(new.id)).state is State.SCHEDULED
        await site.go_on(20)
        delay *= 2
    last = await fail(site, 4)
    assert (last.state, last.retried_by) == (State.FAILED, None)
    assert len(await everything(site.store)) == 4


async def test_what_completes_is_not_run_again(site: Later) -> None:
    await site.order(retries=3)
    await fail(site, 1)
    await site.go_on(5)
    await site.end(2)
    assert await site.states() == {1: "FAILED", 2: "COMPLETED"}


async def test_what_took_too_long_is_run_again_and_what_a_user_stopped_is_not(site: Later) -> None:
    live = await site.order(retries=1, timeout_ms=50)
    async with asyncio.timeout(PATIENCE):
        await live.ended.wait()
    await site.settle()
    await site.runner.stop("2", "stopped by bob")  # the chain ends with it
    assert await site.states() == {1: "STOPPED", 2: "STOPPED"}
    await site.order(retries=1)
    await site.runner.stop("3", "stopped by bob")
    await site.go_on(HOUR)
    assert await site.states() == {1: "STOPPED", 2: "STOPPED", 3: "STOPPED"}


async def test_what_fails_while_it_is_being_stopped_is_not_run_again(site: Later) -> None:
    site.host.obedient = False
    await site.order(retries=1)
    stopping = asyncio.create_task(site.runner.stop("1", "stopped by bob"))
    await site.host.under_way[1].signalled.wait()
    await fail(site, 1)
    with pytest.raises(JobNotRunning):
        await stopping
    # As when the stop was stored just before its end, and not yet told to who follows the job.
    await site.order(retries=1)
    await site.store.request_stop(2, "stopped by bob")
    await fail(site, 2)
    assert await site.states() == {1: "FAILED", 2: "FAILED"}


async def test_a_launch_that_fails_is_tried_again(site: Later) -> None:
    site.host.failures[1] = LaunchFailed("log", 28, "log setup failed: no space left on device")
    await site.order(retries=1)
    await site.go_on(5)
    assert await site.states() == {1: "FAILED", 2: "RUNNING"}


async def test_an_attempt_is_never_without_the_end_before_it(site: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblet.life._RETRY_SECONDS", 0.01)
    await site.order(retries=1)
    with site.disk_full("INSERT"):
        site.host.under_way[1].end(code=1)
        await asyncio.sleep(0.1)
        assert await site.states() == {1: "RUNNING"}
    await site.settle()
    assert await site.states() == {1: "FAILED", 2: "SCHEDULED"}


async def test_a_server_that_is_killed_anywhere_makes_each_attempt_once(site: Later) -> None:
    chance = random.Random(3)
    await site.order(retries=100, retry_delay_ms=1000)
    for number in range(1, 17):
        async with asyncio.timeout(PATIENCE):
            while number not in site.host.under_way:
                await site.go_on(HOUR + 1)
        site.host.under_way[number].end(code=1)
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        await site.begin_again()
    jobs = await everything(site.store)
    assert [job.attempt for job in jobs] == list(range(1, 18))
    assert [job.retried_by for job in jobs] == [*range(2, 18), None]
    assert max(map(site.host.launches.count, site.host.launches)) == 1


async def test_a_recurring_job_is_tried_again_and_its_attempts_are_of_the_schedule(site: Later) -> None:
    await site.order(schedule=replace(HOURLY, overlap="queue"), retries=1, retry_delay_ms=HOUR // 2 * 1000)
    await site.go_on(HOUR)
    await fail(site, 2)
    retry = await site.job(3)
    assert (retry.state, retry.schedule_id, retry.retry_of, retry.attempt) == (State.SCHEDULED, 1, 2, 2)
    await site.go_on(HOUR / 2 + 60)
    assert await site.states() == {1: "SCHEDULED", 2: "FAILED", 3: "RUNNING"}
    await site.go_on(HOUR / 2)  # the next time waits for the other attempt
    assert await site.states() == {1: "SCHEDULED", 2: "FAILED", 3: "RUNNING", 4: "SCHEDULED"}
    await fail(site, 3)
    assert (await site.states())[4] == "RUNNING"


# -- quotas


async def test_a_run_beyond_its_owner_s_quota_is_left_out(site: Later, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    site.quotas = {"admin": Quota(jobs=3)}
    await site.begin_again()
    schedule = replace(HOURLY, overlap="allow")
    await site.order(schedule=schedule)  # which is one itself
    for _ in range(4):
        await site.go_on(HOUR)
    assert await site.states() == {1: "SCHEDULED", 2: "RUNNING", 3: "RUNNING"}
    assert "quota exceeded: jobs would be 4" in str([vars(record) for record in caplog.records])
    await site.begin_again()
    await site.go_on(HOUR)
    assert len(await site.states()) == 3
    await site.end(2)
    await site.go_on(HOUR)
    assert (await site.job(4)).state is State.RUNNING
    assert (await site.job(4)).role == "admin"


async def test_a_schedule_no_run_of_which_there_is_ever_room_for_is_refused(site: Later) -> None:
    site.quotas = {"admin": Quota(jobs=2, memory=600)}
    await site.begin_again()
    with pytest.raises(QuotaExceeded, match=r"memory would be 601 "):
        await site.order(schedule=HOURLY, limits=Limits(0, 601, 0))
    site.quotas = {"admin": Quota(jobs=1)}
    await site.begin_again()
    with pytest.raises(QuotaExceeded, match=r"jobs would be 2 "):
        await site.order(schedule=HOURLY)
    assert await site.states() == {}


async def test_another_attempt_takes_the_place_of_the_last(site: Later) -> None:
    site.quotas = {"admin": Quota(jobs=1, memory=512)}
    await site.begin_again()
    await site.order(retries=2)
    for number in (1, 2):
        await site.end(number, 1)
        with pytest.raises(QuotaExceeded, match="jobs would be 2"):
            await site.order()
        await site.begin_again()
        with pytest.raises(QuotaExceeded, match="jobs would be 2"):
            await site.order()
        await site.go_on(10)
    await site.end(3, 1)
    await site.order()
