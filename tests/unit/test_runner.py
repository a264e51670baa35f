# ruff: noqa: ASYNC110 -- turns of the loop are what these tests count
from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scripted import MEMORY, PATIENCE, Scripted, Site, everything

from joblet import clock, life
from joblet.errors import (
    CannotPause,
    HostUnable,
    InvalidArgument,
    JobNotFound,
    JobNotRunning,
    KeyReused,
    NoRoom,
    QueueFull,
    ShuttingDown,
    StoreFailed,
)
from joblet.executor.base import Exit, LaunchFailed, Lost
from joblet.ids import parse_id
from joblet.job import Job, Limits, Receipt, State, Stop
from joblet.order import Order
from joblet.store.secrets import KEY_FILE

# What never comes is a failure and not a wait.
pytestmark = pytest.mark.timeout(20)

NOTHING = Limits(0, 0, 0)
UNSTARTED = LaunchFailed("log", 28, "log setup failed: no space left on device")
NO_NAMESPACES = "failed to create isolated environment: operation not permitted"

Make = Callable[..., Site]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    sites: list[Site] = []

    def make(slots: int = 2, queue: int = 10, timeout: float = 3600) -> Site:
        sites.append(Site(tmp_path, slots, queue, timeout))
        return sites[-1]

    yield make
    for site in sites:
        for job in list(site.host.under_way.values()):
            job.end(code=0)
        await site.close()


@pytest.fixture
async def site(make: Make) -> Site:
    return make()


async def test_a_command_runs_and_its_exit_code_and_times_are_stored(site: Site) -> None:
    live = await site.submit("sh", "-c", "exit 3")
    assert (live.job.id, live.job.state, live.job.owner) == (1, State.INITIALIZING, "alice")
    assert await site.ended(live) == (State.FAILED, 3, "exit code 3")
    job = await site.stored(live)
    assert job.created_at <= job.started_at <= job.exec_at <= job.ended_at  # type: ignore[operator]
    assert site.runner.find("1") is None
    assert site.runner.live_names() == set()


async def test_a_follower_gets_the_output_of_a_job_to_its_end(site: Site) -> None:
    live = await site.submit("sh", "-c", "for i in 1 2 3 4 5; do echo $i; done")
    await live.launched.wait()
    chunks = [chunk.payload async for chunk in site.hub.follow(1, site.host.log_path(1), 0, live.ended)]
    assert b"".join(chunks) == b"1\n2\n3\n4\n5\n"
    assert await site.ended(live) == (State.COMPLETED, 0, "exit code 0")


async def test_a_command_killed_by_a_signal_fails_with_it(site: Site) -> None:
    live = await site.submit("sh", "-c", "kill -SEGV $$")
    assert await site.ended(live) == (State.FAILED, 139, "killed by signal 11 (SIGSEGV)")


async def test_absent_limits_are_the_policys(site: Site) -> None:
    live = await site.submit()
    assert live.job.limits == Limits(100, 512, 0)


async def test_a_stop_ends_the_job_before_it_answers(site: Site) -> None:
    live = await site.submit("sleep", "100")
    await live.launched.wait()
    job = await site.runner.stop("1", "stopped by bob")
    assert (job.state, job.exit_code, job.reason) == (State.STOPPED, -1, "stopped by bob")
    assert live.ended.is_set()


async def test_out_of_memory_is_told_by_the_hosts_count(site: Site) -> None:
    live, job = await site.running()
    job.end(signal=9, receipt=Receipt(oom_kills=1))
    assert await site.ended(live) == (State.FAILED, 137, "out of memory")


async def test_a_job_that_is_lost_fails_with_the_reason(site: Site) -> None:
    live, job = await site.running()
    job.lose("lost: its monitor was killed")
    assert await site.ended(live) == (State.FAILED, -1, "lost: its monitor was killed")


async def test_a_job_beyond_its_time_is_stopped(make: Make) -> None:
    site = make(timeout=0.05)
    live = await site.submit("sleep", "100")
    assert await site.ended(live) == (State.STOPPED, -1, "timeout after 50ms")


async def test_time_in_the_queue_does_not_count(make: Make) -> None:
    site = make(slots=1, timeout=0.2)
    first = await site.submit()
    second = await site.submit()
    await first.ended.wait()
    await second.launched.wait()
    assert not second.ended.is_set()
    assert (await site.ended(second))[2] == "timeout after 200ms"
    job = await site.stored(second)
    assert job.ended_at - job.exec_at >= 190_000_000  # type: ignore[operator]


async def test_an_unknown_or_ended_job_cannot_be_stopped(site: Site) -> None:
    with pytest.raises(JobNotFound, match=r"^job not found: 999$"):
        await site.runner.stop("999", "x")
    live = await site.submit("true")
    await live.ended.wait()
    with pytest.raises(JobNotRunning, match=r"^job is not running: 1 \(current status: COMPLETED\)$"):
        await site.runner.stop("1", "x")


async def test_a_job_that_ends_by_itself_before_the_stop_arrives_was_not_stopped(site: Site) -> None:
    site.host.obedient = False
    live, job = await site.running()
    stopping = asyncio.create_task(site.runner.stop("1", "stopped by bob"))
    await job.signalled.wait()
    job.end(code=0)
    with pytest.raises(JobNotRunning, match="COMPLETED"):
        await stopping
    assert await site.ended(live) == (State.COMPLETED, 0, "exit code 0")


async def test_of_many_stops_at_once_the_first_gives_the_reason_and_all_answer(site: Site) -> None:
    await site.running()
    jobs = await asyncio.gather(*(site.runner.stop("1", f"stopped by {name}") for name in "abc"))
    assert {(job.state, job.reason) for job in jobs} == {(State.STOPPED, "stopped by a")}


async def test_the_reason_of_a_stop_is_stored_before_the_signal(site: Site) -> None:
    site.host.obedient = False
    _, job = await site.running()
    stopping = asyncio.create_task(site.runner.stop("1", "stopped by bob"))
    await job.signalled.wait()
    assert (await site.stored(1)).stop_reason == "stopped by bob"
    job.end(signal=9, stopped=True)
    await stopping


async def test_another_stop_is_passed_on_and_the_same_one_is_not(site: Site) -> None:
    site.host.obedient = False
    _, job = await site.running()
    wishes = [Stop(signal.SIGINT, 60_000), Stop(signal.SIGINT, 60_000), Stop(), Stop(), Stop(signal.SIGTERM, 0)]
    stopping = [asyncio.create_task(site.runner.stop("1", f"stopped by {n}", stop)) for n, stop in enumerate(wishes)]
    while len(job.stops) < 3:
        await asyncio.sleep(0)
    assert job.stops == wishes[::2]
    stored = await site.stored(1)
    assert (stored.stop_reason, stored.stop) == ("stopped by 0", wishes[-1])
    job.end(signal=9, stopped=True)
    assert {each.reason for each in await asyncio.gather(*stopping)} == {"stopped by 0"}


async def test_a_job_that_cannot_be_paused_goes_on_and_is_not_said_to_be(site: Site) -> None:
    await site.running()
    site.host.cannot_freeze = True
    with pytest.raises(CannotPause, match=r"^job cannot be paused: a test$"):
        await site.runner.pause("1", "bob")
    assert (await site.stored(1)).paused_by == ""
    with site.disk_full(), pytest.raises(StoreFailed):
        await site.runner.pause("1", "bob")
    assert site.host.frozen == set()


async def test_a_pause_is_finished_although_its_client_has_gone(site: Site) -> None:
    await site.running()
    pausing = asyncio.create_task(site.runner.pause("1", "bob"))
    await asyncio.sleep(0)
    pausing.cancel()
    while not site.host.frozen:
        await asyncio.sleep(0)
    assert (await site.stored(1)).paused_by == "bob"
    assert (await site.runner.pause("1", "alice")).paused_by == "bob"


async def test_a_job_that_is_being_stopped_cannot_be_paused(site: Site) -> None:
    site.host.obedient = False
    live, job = await site.running()
    await site.runner.pause("1", "bob")
    stopping = asyncio.create_task(site.runner.stop("1", "stopped by bob"))
    await job.signalled.wait()
    with pytest.raises(CannotPause, match="it is being stopped"):
        await site.runner.pause("1", "bob")
    assert site.host.frozen == set()
    job.end(signal=15, stopped=True)
    assert ((await stopping).paused_by, live.job.paused_by) == ("", "")


async def test_a_stop_lets_a_paused_job_go_on_although_nothing_can_be_stored(site: Site) -> None:
    live, _ = await site.running()
    await site.runner.pause("1", "bob")
    with site.disk_full(), pytest.raises(StoreFailed):
        await site.runner.stop("1", "stopped by bob")
    assert site.host.frozen == set()
    assert await site.ended(live) == (State.STOPPED, -1, "stopped by bob")


async def test_a_job_that_does_not_run_yet_can_be_neither_paused_nor_resumed(make: Make) -> None:
    site = make(slots=1)
    await site.running()
    await site.submit()
    for call in (site.runner.pause, site.runner.resume):
        with pytest.raises(JobNotRunning, match=r"^job is not running: 2 \(current status: PENDING\)$"):
            await call("2", "bob")


async def test_a_job_stopped_in_the_queue_ends_at_once_and_never_runs(make: Make) -> None:
    site = make(slots=1)
    _, first = await site.running()
    second, third = await site.submit(), await site.submit()
    assert [site.runner.place(live.job) for live in (second, third)] == [1, 2]
    job = await site.runner.stop("2", "stopped by bob")
    assert (job.state, job.exit_code, job.reason, job.started_at) == (State.STOPPED, -1, "stopped by bob", None)
    assert second.launched.is_set()
    assert site.runner.place(third.job) == 1
    first.end(code=0)
    await third.launched.wait()
    assert site.host.launches == [1, 3]


async def test_a_job_stopped_as_its_turn_comes_ends_stopped_and_gives_its_slot_on(make: Make) -> None:
    site = make(slots=1)
    _, first = await site.running()
    second, third = await site.submit(), await site.submit()
    stopping = asyncio.create_task(site.runner.stop("2", "stopped by bob"))
    first.end(code=0)
    job = await stopping
    assert (job.state, job.reason) == (State.STOPPED, "stopped by bob")
    assert second.ended.is_set()
    await third.launched.wait()


async def test_a_job_stopped_while_it_is_launched_is_stopped_once_it_runs(site: Site) -> None:
    site.host.hold = asyncio.Event()
    live = await site.submit()
    await site.host.launching.wait()
    stopping = asyncio.create_task(site.runner.stop("1", "stopped by bob"))
    while not live.stop_reason:
        await asyncio.sleep(0)
    site.host.hold.set()
    job = await stopping
    assert (job.state, job.exit_code, job.reason) == (State.STOPPED, -1, "stopped by bob")


async def test_a_job_stopped_while_its_launch_fails_is_stopped(site: Site) -> None:
    site.host.hold = asyncio.Event()
    site.host.failures[1] = UNSTARTED
    live = await site.submit()
    await site.host.launching.wait()
    stopping = asyncio.create_task(site.runner.stop("1", "stopped by bob"))
    while not live.stop_reason:
        await asyncio.sleep(0)
    site.host.hold.set()
    assert (await stopping).state is State.STOPPED


@pytest.mark.parametrize(
    ("stage", "errno", "reason", "code"),
    [
        ("exec", 2, "command not found: nope", 127),
        ("exec", 13, "cannot execute nope: permission denied", 126),
        ("log", 28, "log setup failed: no space left on device", -1),
        ("cgroup", 13, "cgroup setup failed: permission denied", -1),
    ],
)
async def test_a_launch_that_fails_gives_its_sentence_and_exit_code(
    site: Site, stage: str, errno: int, reason: str, code: int
) -> None:
    site.host.failures[1] = LaunchFailed(stage, errno, reason)
    live = await site.submit()
    assert await site.ended(live) == (State.FAILED, code, reason)
    assert live.launched.is_set()
    assert (await site.stored(live)).exec_at is None


async def test_a_host_that_has_become_unable_refuses_new_jobs_until_it_is_able_again(site: Site) -> None:
    site.host.failures[1] = LaunchFailed("namespace", 1, NO_NAMESPACES)
    site.host.unable = HostUnable(NO_NAMESPACES)
    await site.ended(await site.submit())
    with pytest.raises(HostUnable, match=f"^{NO_NAMESPACES}$"):
        await site.submit()
    assert [job.id for job in await everything(site.store)] == [1]
    site.host.unable = None
    assert (await site.submit()).job.id == 2


async def test_a_host_that_is_unable_from_the_start_refuses_jobs_at_once(site: Site) -> None:
    site.host.unable = HostUnable("cgroup setup failed: permission denied")
    await site.runner.probe()
    with pytest.raises(HostUnable, match=r"^cgroup setup failed: permission denied$"):
        await site.submit()
    assert await everything(site.store) == []


async def test_a_command_that_is_not_found_says_nothing_of_the_host(site: Site) -> None:
    site.host.failures[1] = LaunchFailed("exec", 2, "command not found: nope")
    site.host.unable = HostUnable("not asked")
    await site.ended(await site.submit())
    assert (await site.submit()).job.id == 2


@pytest.mark.parametrize("failure", [UNSTARTED, RuntimeError("a fault of ours")], ids=["launch", "fault"])
async def test_a_job_that_could_not_be_launched_gives_its_slot_on(make: Make, failure: Exception) -> None:
    site = make(slots=1)
    site.host.failures[1] = failure
    first, second = await site.submit(), await site.submit()
    async with asyncio.timeout(PATIENCE):
        await first.ended.wait()
        await second.launched.wait()
    assert site.host.launches == [1, 2]


async def test_what_is_refused_leaves_no_job(make: Make) -> None:
    site = make(slots=1, queue=0)
    for command, limits in (("", NOTHING), ("a;b", NOTHING), ("x", Limits(500, 0, 0)), ("x", Limits(0, -1, 0))):
        with pytest.raises(InvalidArgument):
            await site.runner.submit(Order(command, (), limits), "alice", "admin")
    await site.running()
    with pytest.raises(QueueFull):
        await site.submit()
    assert [job.id for job in await everything(site.store)] == [1]


async def test_no_more_jobs_run_at_once_than_there_are_slots_and_they_start_in_order(make: Make) -> None:
    site = make(slots=3, queue=50)
    lives = [await site.submit() for _ in range(30)]
    for live in lives:
        await live.launched.wait()
        site.host.under_way[live.job.id].end(code=0)
        await live.ended.wait()
    assert site.host.most_at_once == 3
    assert site.host.launches == list(range(1, 31))


async def test_a_client_that_goes_away_while_its_job_is_accepted_has_a_job_nevertheless(site: Site) -> None:
    asking = asyncio.create_task(site.submit("true"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    while (live := site.runner.find("1")) is None:
        await asyncio.sleep(0)
    assert (await site.ended(live))[0] is State.COMPLETED


# The store fails.


@pytest.mark.parametrize("waiting", [False, True], ids=["slot", "place in the queue"])
async def test_a_job_that_cannot_be_stored_is_refused_and_takes_nothing(make: Make, waiting: bool) -> None:
    site = make(slots=1, queue=1)
    if waiting:
        await site.running()
    with site.disk_full("INSERT"), pytest.raises(StoreFailed, match="disk is full"):
        await site.submit()
    assert len(site.host.launches) == waiting
    live = await site.submit()
    assert live.job.state is (State.PENDING if waiting else State.INITIALIZING)


async def test_a_job_that_has_no_room_is_refused_and_takes_nothing(make: Make) -> None:
    site = make(slots=1, queue=0)
    site.host.full = True
    with pytest.raises(NoRoom, match="no space left on the disk of /jobs"):
        await site.submit()
    site.host.full = False
    assert (await site.submit()).job.state is State.INITIALIZING
    assert [job.id for job in await everything(site.store)] == [1]


async def test_a_job_that_has_its_turn_waits_for_room_and_can_be_stopped(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "_RETRY_SECONDS", 0.01)
    site = make(slots=1)
    _, first = await site.running()
    second, third = await site.submit(), await site.submit()
    site.host.full = True
    first.end(code=0)
    async with asyncio.timeout(PATIENCE):
        assert (await site.runner.stop("2", "stopped by alice")).state is State.STOPPED
    assert site.host.launches == [1]
    site.host.full = False
    async with asyncio.timeout(PATIENCE):
        await third.launched.wait()
    assert site.host.launches == [1, 3]
    assert second.ended.is_set()


async def test_a_job_whose_turn_cannot_be_stored_has_it_when_there_is_room_again(make: Make) -> None:
    site = make(slots=1)
    _, first = await site.running()
    second, third = await site.submit(), await site.submit()
    with site.disk_full(when="NEW.id = 2"):
        first.end(code=0)
        async with asyncio.timeout(PATIENCE):
            await second.unstored.wait()
        assert site.host.launches == [1]
        assert (await site.stored(second)).state is State.PENDING
    async with asyncio.timeout(PATIENCE):
        await second.launched.wait()
    site.host.under_way[2].end(code=0)
    async with asyncio.timeout(PATIENCE):
        await third.launched.wait()
    assert site.host.launches == [1, 2, 3]


async def test_an_end_that_cannot_be_stored_is_stored_when_there_is_room_again(site: Site) -> None:
    live, job = await site.running()
    with site.disk_full():
        job.end(code=5)
        async with asyncio.timeout(PATIENCE):
            await live.unstored.wait()
        assert (await site.stored(live)).state is State.RUNNING
        assert not live.ended.is_set()
    assert await site.ended(live) == (State.FAILED, 5, "exit code 5")


async def test_an_end_that_cannot_be_stored_is_concluded_by_the_next_server(site: Site) -> None:
    live, job = await site.running()
    with site.disk_full():
        job.end(code=5)
        async with asyncio.timeout(PATIENCE):
            await live.unstored.wait()
        await site.close()
    site.host.found[1] = Exit(ended_at=9, started_at=8, code=5)
    site.open()
    await site.runner.recover()
    with contextlib.suppress(JobNotFound):
        if again := site.runner.find("1"):
            await again.ended.wait()
    assert (await site.stored(1)).reason == "exit code 5"


async def test_a_stop_that_cannot_be_stored_stops_the_job_and_says_so(site: Site) -> None:
    live, job = await site.running()
    with site.disk_full():
        with pytest.raises(StoreFailed, match="job 1 is being stopped, but its state cannot be stored now"):
            await site.runner.stop("1", "stopped by bob")
        assert job.signalled.is_set()
    assert await site.ended(live) == (State.STOPPED, -1, "stopped by bob")


async def test_a_job_that_runs_keeps_its_slot_although_its_start_cannot_be_stored(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    site = make(slots=1)
    with site.disk_full(when="NEW.state = 'RUNNING'"):
        await site.submit()
        await site.submit()
        while "cannot be stored" not in caplog.text:
            await asyncio.sleep(0)
        for _ in range(20):  # time enough for the second to be launched
            await everything(site.store)
    assert site.host.most_at_once == 1


# The server is closed and another takes over.


async def test_jobs_go_on_when_the_server_is_closed_and_the_next_finds_them_in_every_state(make: Make) -> None:
    site = make(slots=2)
    _, running = await site.running()
    site.host.hold = asyncio.Event()
    site.host.launching.clear()
    await site.submit()  # is launched
    await site.host.launching.wait()
    await site.submit()  # waits
    await site.submit()
    await site.close()
    assert not running.signalled.is_set()
    site.open()
    assert [(job.id, job.state) for job in await site.store.unfinished()] == [
        (1, State.RUNNING),
        (2, State.INITIALIZING),
        (3, State.PENDING),
        (4, State.PENDING),
    ]
    site.host.hold = None
    await site.runner.recover()
    assert site.runner.live_names() == {"1", "2", "3", "4"}
    lives = [site.live(job_id) for job_id in (1, 2, 3, 4)]
    for live in lives:
        await live.launched.wait()
        site.host.under_way[live.job.id].end(code=0)
        assert (await site.ended(live))[0] is State.COMPLETED
    assert site.host.launches == [1, 2, 2, 3, 4]
    assert site.host.most_at_once == 2


async def test_a_closing_server_accepts_no_job(site: Site) -> None:
    await site.runner.close()
    with pytest.raises(ShuttingDown):
        await site.submit()


async def test_nothing_is_launched_after_the_server_is_closed(site: Site) -> None:
    """A client asks while the server closes: the job is on disk, and the next server launches it."""
    asking = asyncio.create_task(site.submit())
    await asyncio.sleep(0)  # its job is on the way to the disk
    await site.runner.close()
    launched = list(site.host.launches)
    await asyncio.wait([asking])
    await everything(site.store)
    for _ in range(20):
        await asyncio.sleep(0)
    assert site.host.launches == launched
    await site.restart()
    live = site.live(1)
    async with asyncio.timeout(PATIENCE):
        await live.launched.wait()


@pytest.mark.parametrize("turns", range(12))
async def test_close_at_any_moment_loses_no_job(make: Make, turns: int) -> None:
    site = make(slots=1)
    asking = [asyncio.create_task(site.submit("sh", "-c", f"exit {code}")) for code in (1, 2, 3)]
    for _ in range(turns * turns):
        await asyncio.sleep(0)
    await site.runner.close()
    await asyncio.wait(asking)
    accepted = [task for task in asking if not task.exception()]
    site.host.found = dict.fromkeys(range(1, 4), Lost("lost: not of this test"))
    site.host.found |= {job_id: None for job_id in (1, 2, 3) if job_id not in site.host.launches}
    await site.restart()
    assert len(await everything(site.store)) == len(accepted)
    async with asyncio.timeout(PATIENCE):
        for job_id in range(1, len(accepted) + 1):
            if live := site.runner.find(str(job_id)):
                await live.ended.wait()
            job = await site.stored(job_id)
            assert job.reason in (f"exit code {job_id}", "lost: not of this test")
    assert sorted(site.host.launches) == list(range(1, len(accepted) + 1)), "none was launched twice"


ENDED = Exit(ended_at=4_000_000_000, started_at=3_000_000_000, code=7)


async def left_behind(site: Site, state: State, stop_reason: str = "") -> None:
    """Job 1 as an earlier server left it."""
    job, _ = await site.store.create(Order("scripted", (), Limits(100, 512, 0), 3_600_000), "alice", State.PENDING, 1)
    for step in (State.INITIALIZING, State.RUNNING):
        if state in (step, State.RUNNING):
            await site.store.transition(job.id, step)
    if stop_reason:
        await site.store.request_stop(job.id, stop_reason)


async def recovered(site: Site) -> tuple[State, int, str]:
    await site.runner.recover()
    return await site.ended(site.live(1))


@pytest.mark.parametrize("state", [State.INITIALIZING, State.RUNNING])
async def test_a_job_that_ended_while_no_server_ran_has_the_end_of_its_record(site: Site, state: State) -> None:
    await left_behind(site, state)
    site.host.found[1] = ENDED
    assert await recovered(site) == (State.FAILED, 7, "exit code 7")
    job = await site.stored(1)
    assert job.ended_at == 4_000_000_000
    assert job.exec_at == (3_000_000_000 if state is State.INITIALIZING else None)


@pytest.mark.parametrize("state", [State.INITIALIZING, State.RUNNING])
async def test_a_job_that_was_lost_while_no_server_ran_failed(site: Site, state: State) -> None:
    await left_behind(site, state)
    site.host.found[1] = Lost("lost: the host was rebooted")
    assert await recovered(site) == (State.FAILED, -1, "lost: the host was rebooted")
    assert site.host.launches == []


@pytest.mark.parametrize("state", [State.INITIALIZING, State.RUNNING])
async def test_a_job_that_still_runs_is_followed_to_its_end(site: Site, state: State) -> None:
    await left_behind(site, state)
    running = site.host.under_way[1] = Scripted(site.host, 1)
    await site.runner.recover()
    live = site.live(1)
    await live.launched.wait()
    assert (await site.stored(1)).state is State.RUNNING
    running.end(code=0)
    assert await site.ended(live) == (State.COMPLETED, 0, "exit code 0")
    assert site.host.launches == []


async def test_a_launch_that_failed_while_no_server_ran_is_told(site: Site) -> None:
    await left_behind(site, State.INITIALIZING)
    error = LaunchFailed("exec", 2, "command not found: scripted")
    site.host.found[1] = Exit(ended_at=5, launch_error=error)
    assert await recovered(site) == (State.FAILED, 127, "command not found: scripted")


async def test_a_job_of_which_nothing_was_started_is_launched(site: Site) -> None:
    await left_behind(site, State.INITIALIZING)
    await site.runner.recover()
    await site.live(1).launched.wait()
    assert site.host.launches == [1]


async def test_nothing_is_launched_before_all_that_runs_is_found(make: Make) -> None:
    """What runs has slots and ids of users, which nobody else may be given."""
    site = make(slots=2)
    for state in (State.INITIALIZING, State.PENDING, State.RUNNING, State.RUNNING):
        await left_behind(site, state)
    for job_id in (3, 4):
        site.host.under_way[job_id] = Scripted(site.host, job_id)
        site.host.slow_to_find.add(job_id)
    await site.runner.recover()
    await site.live(1).launched.wait()
    assert not site.host.launched_too_early
    assert site.host.launches == [1]  # job 2 waits, although it is older than those that run


async def test_a_free_slot_goes_to_the_highest_priority_of_those_found_waiting(make: Make) -> None:
    site = make(slots=1)
    for priority in (0, 5):
        order = Order("scripted", (), Limits(100, 512, 0), 3_600_000, priority)
        await site.store.create(order, "alice", State.PENDING, 1)
    await site.runner.recover()
    await site.live(2).launched.wait()
    assert site.host.launches == [2]


async def test_a_job_has_the_life_of_its_machine_in_which_it_left_the_queue(make: Make) -> None:
    site = make(slots=1)
    first, _ = await site.running()
    waiting = await site.submit()
    assert (first.job.epoch, waiting.job.epoch) == ("since this test began", "")
    await site.restart()
    assert (await site.stored(1)).epoch == "since this test began"
    site.host.epoch = "since a reboot"
    site.host.under_way[1].end(code=0)
    await site.live(2).launched.wait()
    assert (await site.stored(2)).epoch == "since a reboot"


async def test_a_command_that_has_run_is_never_run_again(site: Site) -> None:
    """Its directory is gone, so there is no knowing how it ended."""
    await left_behind(site, State.RUNNING)
    await site.runner.recover()
    live = site.live(1)
    done = [asyncio.ensure_future(event.wait()) for event in (live.ended, live.launched)]
    await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.cancel()
    assert site.host.launches == []
    state, code, reason = await site.ended(live)
    assert (state, code) == (State.FAILED, -1)
    assert reason.startswith("lost: ")


async def test_a_stop_that_an_earlier_server_did_not_finish_is_finished(site: Site) -> None:
    await left_behind(site, State.RUNNING, "stopped by bob")
    site.host.under_way[1] = Scripted(site.host, 1)
    assert await recovered(site) == (State.STOPPED, -1, "stopped by bob")


async def test_a_job_stopped_before_anything_of_it_was_started_is_not_started(site: Site) -> None:
    await left_behind(site, State.INITIALIZING, "stopped by bob")
    assert await recovered(site) == (State.STOPPED, -1, "stopped by bob")
    assert site.host.launches == []


async def test_a_waiting_job_stopped_by_an_earlier_server_needs_no_slot_to_end(make: Make) -> None:
    site = make(slots=1)
    await left_behind(site, State.PENDING, "stopped by bob")
    await left_behind(site, State.PENDING)
    site.sql("UPDATE jobs SET state = 'RUNNING', id = 0 WHERE id = 2")
    site.host.under_way[0] = Scripted(site.host, 0)  # before it, with the only slot
    assert await recovered(site) == (State.STOPPED, -1, "stopped by bob")
    assert site.host.launches == []


async def test_a_recovered_jobs_time_is_counted_from_its_start(make: Make) -> None:
    site = make()
    await left_behind(site, State.RUNNING)
    site.host.under_way[1] = Scripted(site.host, 1, clock.now_ns() - 3601 * 10**9)
    assert await recovered(site) == (State.STOPPED, -1, "timeout after 1h")


async def test_recovered_jobs_hold_slots_and_those_that_wait_keep_their_order(make: Make) -> None:
    site = make(slots=1)
    _, running = await site.running()
    for _ in range(3):
        await site.submit()
    await site.restart()
    lives = [site.live(job_id) for job_id in (1, 2, 3, 4)]
    assert [site.runner.place(live.job) for live in lives] == [0, 1, 2, 3]
    running.end(code=0)
    for live in lives[1:]:
        await live.launched.wait()
        site.host.under_way[live.job.id].end(code=0)
    assert site.host.launches == [1, 2, 3, 4]


# Any course of events.

actions = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "submit", "finish", "stop", "lose", "fail", "restart", "pause"]),
        st.integers(0, 10),
    ),
    max_size=30,
)

TWO_SLOTS_AT_ONCE = [
    ("restart", 0),
    ("finish", 8),
    ("submit", 9),
    ("finish", 0),
    ("submit", 0),
    ("lose", 0),
    ("submit", 0),
    ("restart", 8),
    ("restart", 3),
    ("submit", 1),
    ("submit", 1),
    ("lose", 3),
    ("finish", 6),
    ("submit", 10),
    ("submit", 0),
    ("pause", 9),
    ("restart", 0),
    ("submit", 5),
    ("submit", 8),
    ("submit", 0),
    ("lose", 9),
    ("submit", 0),
    ("submit", 10),
    ("submit", 0),
    ("submit", 0),
    ("fail", 1),
    ("submit", 0),
    ("submit", 0),
    ("fail", 0),
    ("submit", 4),
]
"""both slots of two come free just when jobs are put into the queue"""


@settings(max_examples=40, deadline=None)
@given(actions, st.integers(1, 3))
@example([("submit", 0)] * 4 + [("stop", 2), ("restart", 0), ("finish", 0), ("restart", 0)], 1)
@example(TWO_SLOTS_AT_ONCE, 2)
def test_whatever_happens_every_job_ends_once_and_slots_are_never_exceeded(
    course: list[tuple[str, int]], slots: int
) -> None:
    async def perform() -> None:
        with tempfile.TemporaryDirectory(dir=MEMORY) as name:
            site = Site(Path(name), slots, 100, 3600)
            stops: list[asyncio.Task[Job]] = []
            overtaken: list[int] = []

            def look_who_waits(job: Job) -> None:
                waiting = (site.runner.find(str(job_id)) for job_id in range(1, job.id))
                overtaken.extend(live.job.id for live in waiting if live and site.runner.place(live.job))

            site.host.on_launch = look_who_waits
            for action, pick in course:
                ids = sorted(site.host.under_way)
                match action:
                    case "submit":
                        await site.submit()
                    case "fail":
                        site.host.failures[len(await everything(site.store)) + 1] = UNSTARTED
                    case "stop":
                        stops.append(asyncio.create_task(site.runner.stop(str(pick), "stopped by bob")))
                    case "finish" if ids:
                        site.host.under_way[ids[pick % len(ids)]].end(code=pick)
                    case "lose" if ids:
                        site.host.under_way[ids[pick % len(ids)]].lose("lost: x")
                    case "restart":
                        await settled(site)
                        for task in stops:
                            task.cancel()
                        site.host.found = {
                            job.id: Lost("lost: between servers") for job in await everything(site.store)
                        }
                        site.host.found |= site.host.under_way
                        await site.restart()
                    case "pause":
                        for _ in range(pick):
                            await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                while site.runner.live_names():
                    for job in list(site.host.under_way.values()):
                        job.end(code=0)
                    await asyncio.sleep(0)
            for stop in await asyncio.gather(*stops, return_exceptions=True):
                assert isinstance(stop, (Job, JobNotFound, JobNotRunning, asyncio.CancelledError))
            for stored in await everything(site.store):
                assert stored.state.final
                assert stored.reason
                assert stored.ended_at is not None
                assert stored.state is not State.COMPLETED or stored.id in site.host.launches
            assert site.host.most_at_once <= slots
            assert len(site.host.launches) == len(set(site.host.launches)), "none is launched twice"
            # Two that both have slots are launched in either order.
            assert overtaken == [], "none waits for a slot when a younger one is launched"
            await site.close()

    async def settled(site: Site) -> None:
        """Until no job is between two states of rest: it waits, or runs, or has ended."""
        async with asyncio.timeout(PATIENCE):
            while any(
                live.job.state is State.INITIALIZING
                or (live.job.state is State.RUNNING and live.job.id not in site.host.under_way)
                for live in map(site.live, map(int, site.runner.live_names()))
            ):
                await asyncio.sleep(0)

    asyncio.run(perform())


@given(st.one_of(st.text(max_size=25), st.integers(-5, 10**20).map(str), st.text("0123456789 +-_\u0663", max_size=20)))
@example("0")
@example("01")
@example("\u0661")
@example("1_0")
@example("9" * 5000)
def test_an_id_is_a_plain_decimal_number_or_of_no_job(text: str) -> None:
    try:
        number = parse_id(text)
    except JobNotFound as error:
        told = str(error)
    else:
        assert str(number) == text
        assert 0 <= number < 2**63
        return
    assert told == f"job not found: {text}"
    assert not (text.isascii() and text.isdigit() and len(text) <= 18 and (text[0] != "0" or text == "0"))


async def test_a_key_gives_the_same_job_running_ended_and_after_a_restart(site: Site) -> None:
    order = Order("scripted", key="nightly")
    live = await site.runner.submit(order, "alice", "admin")
    assert await site.runner.submit(order, "alice", "admin") is live
    await live.launched.wait()
    site.host.under_way[1].end(code=3)
    await site.ended(live)
    for _ in range(2):
        again = await site.runner.submit(order, "alice", "admin")
        assert (again.job.id, again.job.state, again.job.exit_code) == (1, State.FAILED, 3)
        assert again.launched.is_set()
        await site.restart()
    assert site.host.launches == [1]


async def test_a_key_that_comes_twice_at_once_is_one_job_and_takes_one_slot(make: Make) -> None:
    site = make(slots=2, queue=0)
    order = Order("scripted", key="k")
    lives = await asyncio.gather(*(site.runner.submit(order, "alice", "admin") for _ in range(2)))
    assert lives[0] is lives[1]
    assert len(await everything(site.store)) == 1
    await site.submit()  # the second slot is free


async def test_a_key_belongs_to_its_owner_and_its_order(site: Site) -> None:
    first = await site.runner.submit(Order("scripted", key="k"), "alice", "admin")
    other = await site.runner.submit(Order("scripted", key="k"), "bob", "admin")
    assert {first.job.id, other.job.id} == {1, 2}
    for changed in (Order("scripted", ("x",), key="k"), Order("scripted", key="k", priority=1)):
        with pytest.raises(KeyReused, match="key 'k' belongs to job 1, which was ordered otherwise"):
            await site.runner.submit(changed, "alice", "admin")


async def test_who_waits_goes_by_priority_then_by_age_also_after_a_restart(make: Make) -> None:
    site = make(slots=1)
    await site.running()
    for priority in (0, 5, 0, 5, -1):
        await site.runner.submit(Order("scripted", priority=priority), "alice", "admin")

    def places() -> list[int]:
        return [site.runner.place(site.live(job_id).job) for job_id in (2, 3, 4, 5, 6)]

    assert places() == [3, 1, 4, 2, 5]
    await site.restart()
    assert places() == [3, 1, 4, 2, 5]
    for done in (1, 3, 5, 2, 4):
        async with asyncio.timeout(PATIENCE):
            await site.live(done).launched.wait()
        site.host.under_way[done].end(code=0)
    async with asyncio.timeout(PATIENCE):
        await site.live(6).launched.wait()


async def test_a_jobs_own_timeout_is_kept_across_restarts_and_may_be_changed(make: Make) -> None:
    site = make(timeout=3600)
    live = await site.runner.submit(Order("scripted", timeout_ms=50_000), "alice", "admin")
    await live.launched.wait()
    await site.restart()
    assert site.live(1).job.timeout_ms == 50_000
    await site.runner.set_timeout("1", 7_200_000, "bob")  # more than any job can ask for
    site.host.under_way[1].started_at -= 7201 * 10**9
    assert (await site.stored(1)).timeout_ms == 7_200_000
    await site.runner.set_timeout("1", 7_200_000, "bob")  # counted anew, and it is over
    assert await site.ended(site.live(1)) == (State.STOPPED, -1, "timeout after 2h")


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        (Order("x", timeout_ms=3_600_001), r"invalid timeout: 3600001 ms \(allowed 0 to 1h, joblet.jobTimeout\)"),
        (Order("x", timeout_ms=-1), "invalid timeout: -1 ms"),
        (Order("x", priority=1001), "invalid priority: 1001"),
        (Order("x", key="k" * 129), "invalid key: "),
        (Order("x", key="a\nb"), "invalid key: "),
    ],
)
async def test_what_an_order_may_not_ask_for_is_named(site: Site, order: Order, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        await site.runner.submit(order, "alice", "admin")
    assert await everything(site.store) == []


async def test_the_timeout_of_an_ended_job_cannot_be_changed(site: Site) -> None:
    live, job = await site.running()
    job.end(code=0)
    await site.ended(live)
    with pytest.raises(JobNotRunning):
        await site.runner.set_timeout("1", 1000, "bob")
    with pytest.raises(JobNotFound):
        await site.runner.set_timeout("2", 1000, "bob")
    for wrong in (0, -1, 10**15):
        with pytest.raises(InvalidArgument):
            await site.runner.set_timeout("1", wrong, "bob")


async def test_a_job_whose_secrets_cannot_be_opened_any_more_fails_and_is_not_launched(make: Make) -> None:
    site = make(slots=1)
    _, first = await site.running()
    await site.runner.submit(Order("scripted", secret_environment={"TOKEN": "hunter2"}), "alice", "admin")
    await site.close()
    (site.folder / KEY_FILE).unlink()
    site.open()
    await site.runner.recover()
    first.end(code=0)
    reason = "job store failed: a secret cannot be opened: it was sealed with another secret.key"
    assert await site.ended(site.live(2)) == (State.FAILED, -1, reason)
    assert site.host.launches == [1]
