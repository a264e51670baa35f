# ruff: noqa: ASYNC240 -- blocking for a moment holds up nobody here
from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from joblet.errors import StoreDamaged, StoreFailed, TransitionRefused
from joblet.job import TRANSITIONS, Job, Limits, State, Stop
from joblet.order import Order
from joblet.store import Store
from joblet.store.schema import newest_schema

LIMITS = Limits(50, 64, 1024)
MEMORY = "/dev/shm" if os.path.ismount("/dev/shm") else None
"""where thousands of commits cost no disk"""

PATIENCE = 10.0
"""seconds in which a test that hangs fails"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "joblet.db"


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = Store.open(path)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with opened(path) as store:
        yield store


async def everything(store: Store) -> list[Job]:
    """All jobs, by id."""
    return (await store.newest(1_000_000, 2**62))[::-1]


async def create(store: Store, state: State = State.INITIALIZING, command: str = "echo", owner: str = "alice") -> Job:
    job, new = await store.create(Order(command, ("hello world", ""), LIMITS), owner, state, 1_000)
    assert new
    return job


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    """What an operator's sqlite3 does beside the server."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


async def test_a_new_job_is_as_it_was_given(store: Store) -> None:
    job = await create(store)
    assert job == Job(1, "echo", ("hello world", ""), LIMITS, State.INITIALIZING, "alice", 1_000, started_at=1_000)
    assert await store.get(1) == job
    assert await everything(store) == [job]


async def test_a_waiting_job_has_not_started(store: Store) -> None:
    assert (await create(store, State.PENDING)).started_at is None


async def test_an_unknown_id_is_no_job(store: Store) -> None:
    assert await store.get(1) is None
    assert await store.get(2**62) is None


async def test_what_was_acknowledged_is_there_after_reopening(path: Path) -> None:
    async with opened(path) as store:
        await create(store)
        await store.transition(1, State.RUNNING, exec_at=2_000)
        ended = await store.transition(1, State.FAILED, ended_at=3_000, exit_code=7, reason="exit code 7")
    async with opened(path) as store:
        assert await store.get(1) == ended
        assert (ended.exec_at, ended.ended_at, ended.exit_code, ended.reason) == (2_000, 3_000, 7, "exit code 7")


async def test_what_was_acknowledged_is_there_although_the_server_never_closed_the_database(
    path: Path, store: Store, tmp_path: Path
) -> None:
    job = await create(store)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in path.parent.glob("joblet.db*"):
        shutil.copy(file, crashed)
    async with opened(crashed / "joblet.db") as after:
        assert await after.get(1) == job


async def test_many_creates_at_once_get_distinct_consecutive_ids(path: Path) -> None:
    count = 700  # more than one commit holds
    async with opened(path) as store:
        jobs = await asyncio.gather(*(create(store, command=f"c{index}") for index in range(count)))
        assert [job.id for job in jobs] == list(range(1, count + 1))
    async with opened(path) as store:
        assert await everything(store) == jobs


async def test_creates_at_once_share_commits(path: Path, store: Store) -> None:
    """Each commit appends its pages to the WAL: so many jobs in so few pages were not committed one by one."""
    await create(store)
    one = Path(f"{path}-wal").stat().st_size
    await create(store)
    each = Path(f"{path}-wal").stat().st_size - one
    before = Path(f"{path}-wal").stat().st_size
    await asyncio.gather(*(create(store) for _ in range(200)))
    assert Path(f"{path}-wal").stat().st_size - before < 200 * each / 4


async def test_one_bad_change_does_not_fail_its_neighbours(store: Store) -> None:
    bad = Limits(2**64, 1, 1)  # beyond SQLite's integers
    results = await asyncio.gather(
        create(store),
        store.create(Order("bad", (), bad), "alice", State.PENDING, 1),
        create(store),
        store.transition(99, State.RUNNING),
        create(store),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Job, StoreFailed, Job, TransitionRefused, Job]
    assert [job.id for job in await everything(store)] == [1, 2, 3]


@pytest.mark.parametrize("field", ["command", "owner"])
async def test_a_text_that_cannot_be_stored_fails_its_own_change_only(store: Store, field: str) -> None:
    async with asyncio.timeout(PATIENCE):
        results = await asyncio.gather(
            create(store), create(store, **{field: "\ud800"}), create(store), return_exceptions=True
        )
        assert [type(result) for result in results] == [Job, StoreFailed, Job]
        assert (await create(store)).id == 3


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(), st.lists(st.text(), max_size=4), st.text(), st.text())
def test_any_text_is_given_back_as_it_was(tmp_path: Path, command: str, args: list[str], owner: str, why: str) -> None:
    async def through() -> None:
        async with opened(tmp_path / "any.db") as store:
            job, _ = await store.create(Order(command, tuple(args), LIMITS), owner, State.INITIALIZING, 5)
            await store.request_stop(job.id, why)
            await store.transition(job.id, State.STOPPED, reason=why, ended_at=6)
            stored = await store.get(job.id)
            assert stored == replace(
                job, state=State.STOPPED, reason=why, stop_reason=why, ended_at=6, command=command, args=tuple(args)
            )
            assert stored.owner == owner

    asyncio.run(through())


async def test_the_first_stop_reason_stays(store: Store) -> None:
    await create(store)
    await store.request_stop(1, "stopped by alice")
    await store.request_stop(1, "timeout after 1h", Stop(2, 500))
    job = await store.get(1)
    assert job is not None
    assert (job.stop_reason, job.stop) == ("stopped by alice", Stop(2, 500))


async def test_unfinished_jobs_are_those_in_no_final_state(store: Store) -> None:
    for state in (State.PENDING, State.INITIALIZING, State.INITIALIZING, State.INITIALIZING, State.INITIALIZING):
        await create(store, state)
    await store.transition(3, State.RUNNING)
    await store.transition(4, State.FAILED)
    await store.transition(5, State.STOPPED)
    assert [(job.id, job.state) for job in await store.unfinished()] == [
        (1, State.PENDING),
        (2, State.INITIALIZING),
        (3, State.RUNNING),
    ]


async def test_of_two_endings_at_once_one_wins(store: Store) -> None:
    await create(store)
    endings = await asyncio.gather(
        store.transition(1, State.FAILED, exit_code=1),
        store.transition(1, State.STOPPED, exit_code=-1),
        return_exceptions=True,
    )
    (won,) = [ending for ending in endings if isinstance(ending, Job)]
    (lost,) = [ending for ending in endings if not isinstance(ending, Job)]
    assert isinstance(lost, StoreFailed)
    assert await store.get(1) == won


async def test_an_id_is_never_used_twice_even_when_its_row_is_deleted(path: Path) -> None:
    async with opened(path) as store:
        for _ in range(3):
            await create(store)
        sql(path, "DELETE FROM jobs WHERE id = 3")
        assert (await create(store)).id == 4
        sql(path, "DELETE FROM jobs")
    async with opened(path) as store:
        assert (await create(store)).id == 5


async def test_a_database_of_a_newer_joblet_is_refused_and_left_alone(path: Path) -> None:
    async with opened(path) as store:
        await create(store)
    sql(path, "PRAGMA user_version = 99")
    with pytest.raises(StoreFailed, match=f"schema 99, this joblet knows up to {newest_schema()}: use a newer joblet"):
        Store.open(path)
    assert sql(path, "PRAGMA user_version") == [(99,)]
    assert sql(path, "SELECT count(*) FROM jobs") == [(1,)]


async def test_what_is_no_database_is_refused_by_its_name(path: Path) -> None:
    path.write_bytes(b"not a database at all, but long enough to have a header" * 20)
    with pytest.raises(StoreDamaged, match=r"joblet\.db is damaged \(file is not a database\); .*joblet restore"):
        Store.open(path)
    assert path.read_bytes().startswith(b"not a database")


async def test_a_directory_that_is_absent_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="unable to open database file"):
        Store.open(tmp_path / "absent" / "joblet.db")


async def test_a_change_goes_on_when_who_asked_for_it_goes_away(store: Store) -> None:
    asking = asyncio.create_task(create(store))
    await asyncio.sleep(0)  # it has handed its change over
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (await create(store)).id == 2
    assert len(await everything(store)) == 2


async def test_changes_under_way_are_committed_by_close(path: Path) -> None:
    store = Store.open(path)
    asking = [asyncio.create_task(create(store)) for _ in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert [(await each).id for each in asking] == list(range(1, 51))
    assert sql(path, "SELECT count(*) FROM jobs") == [(50,)]


@pytest.mark.parametrize("ask", [create, everything], ids=["change", "query"])
async def test_a_closed_store_fails_what_it_is_asked(path: Path, ask: Callable[[Store], object]) -> None:
    store = Store.open(path)
    await store.close()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(StoreFailed):
            await ask(store)  # type: ignore[misc]


async def test_a_failing_disk_fails_the_change_and_not_the_next(path: Path, store: Store) -> None:
    await create(store)
    sql(path, "CREATE TRIGGER full BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    with pytest.raises(StoreFailed, match=r"^job store failed: disk is full$"):
        await store.transition(1, State.RUNNING)
    sql(path, "DROP TRIGGER full")
    assert (await store.transition(1, State.RUNNING)).state is State.RUNNING


async def test_a_query_that_fails_is_told(path: Path, store: Store) -> None:
    sql(path, "ALTER TABLE jobs RENAME TO other")
    with pytest.raises(StoreFailed, match="no such table"):
        await everything(store)


class StoreAgainstModel(RuleBasedStateMachine):
    """Any sequence of moves, asked for singly or at once, against the table of transitions; reopened in between."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.store = self.loop.run_until_complete(self.open())
        self.states: dict[int, State] = {}
        self.endings: dict[int, Job] = {}

    async def open(self) -> Store:
        return Store.open(Path(self.folder.name) / "joblet.db")

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()
        self.folder.cleanup()

    @rule(state=st.sampled_from([State.PENDING, State.INITIALIZING]))
    def create(self, state: State) -> None:
        job = self.loop.run_until_complete(create(self.store, state))
        assert job.id == len(self.states) + 1
        self.states[job.id] = state

    @rule(moves=st.lists(st.tuples(st.integers(1, 4), st.sampled_from(State)), min_size=1, max_size=4))
    def move(self, moves: list[tuple[int, State]]) -> None:
        async def all_at_once() -> list[Job | BaseException]:
            changes = (self.store.transition(job_id, target, reason=target) for job_id, target in moves)
            return await asyncio.gather(*changes, return_exceptions=True)

        for (job_id, target), result in zip(moves, self.loop.run_until_complete(all_at_once()), strict=True):
            if target in TRANSITIONS.get(self.states.get(job_id, target), ()):
                assert isinstance(result, Job)
                assert (result.id, result.state, result.reason) == (job_id, target, target)
                self.states[job_id] = target
                if target.final:
                    assert job_id not in self.endings
                    self.endings[job_id] = result
            else:
                assert isinstance(result, StoreFailed)

    @rule()
    def reopen(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.store = self.loop.run_until_complete(self.open())

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        jobs = {job.id: job for job in self.loop.run_until_complete(everything(self.store))}
        assert {job_id: job.state for job_id, job in jobs.items()} == self.states
        for job_id, ending in self.endings.items():
            assert jobs[job_id] == ending, "a final state changed"


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)


async def test_ids_that_no_job_has_are_told(store: Store) -> None:
    made = [await create(store) for _ in range(3)]
    assert [job.id for job in made] == [1, 2, 3]
    assert await store.unknown([7, 2, 0, 5]) == [0, 5, 7]
    assert await store.unknown([]) == []
