"""Which ended jobs go, and that none goes that is read, runs, or is to be kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet import retention
from joblet.errors import JobNotEnded, JobNotFound, JobOfWorkflow, WorkflowNotEnded, WorkflowNotFound
from joblet.executor.base import Exit, Lost
from joblet.job import Job, Limits, Part, State
from joblet.job import Uploads as JobUploads
from joblet.logs import LogHub
from joblet.order import Order
from joblet.retention import Ended, Janitor, Retention, due
from joblet.store import Events, Store, Workflows
from joblet.uploads import File, Uploads
from joblet.workflow.plan import Plan, Step, WorkflowState
from joblet.workflow.record import Workflow

SECOND = 10**9


def going_of(ended: list[Ended], bounds: Retention, now: int, seen: int | None = None) -> list[int]:
    """Ids of the jobs to be removed, of all that have ended or the first `seen` of them."""
    size = sum(size for _, _, size in ended)
    return [job_id for _, job_id, _ in due(ended[:seen], len(ended), size, bounds, now)]


def test_nothing_goes_without_a_bound() -> None:
    assert going_of([(0, 1, 10**15)], Retention(), 10**18) == []


def test_the_longest_ended_go_by_age_by_number_and_by_size() -> None:
    ended = [(10 * SECOND, 3, 5), (20 * SECOND, 1, 5), (30 * SECOND, 2, 5)]
    assert going_of(ended, Retention(max_age=15), 30 * SECOND) == [3]
    assert going_of(ended, Retention(max_jobs=1), 30 * SECOND) == [3, 1]
    assert going_of(ended, Retention(max_bytes=9), 30 * SECOND) == [3, 1]
    assert going_of(ended, Retention(max_bytes=10), 30 * SECOND) == [3]


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), max_size=20),
    st.builds(Retention, st.integers(0, 100), st.integers(0, 20), st.integers(0, 500)),
    st.integers(0, 20),
)
def test_what_stays_is_within_every_bound_and_no_more_goes_than_must(
    jobs: list[tuple[int, int]], bounds: Retention, seen: int
) -> None:
    ended = [(at * SECOND, number, size) for number, (at, size) in enumerate(sorted(jobs, key=lambda job: job[0]))]
    going = going_of(ended, bounds, 100 * SECOND)

    def within(kept: list[Ended]) -> bool:
        return (
            (not bounds.max_age or all(at > (100 - bounds.max_age) * SECOND for at, _, _ in kept))
            and (not bounds.max_jobs or len(kept) <= bounds.max_jobs)
            and (not bounds.max_bytes or sum(size for _, _, size in kept) <= bounds.max_bytes)
        )

    assert going == [job_id for _, job_id, _ in ended[: len(going)]]
    assert within(ended[len(going) :])
    if going:
        assert not within(ended[len(going) - 1 :])
    assert going_of(ended, bounds, 100 * SECOND, seen) == going[:seen]


class Files:
    """An executor whose jobs are files, for what a janitor asks of one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stuck: set[int] = set()

    def check_room(self) -> None: ...

    async def probe(self) -> None: ...

    async def launch(self, job: Job) -> None:  # type: ignore[override]
        raise NotImplementedError

    async def recover(self, job: Job) -> Exit | Lost | None:
        raise NotImplementedError

    def log_path(self, job_id: int) -> Path:
        return self.folder / str(job_id)

    async def disk_bytes(self, job_id: int) -> int:
        return self.log_path(job_id).stat().st_size

    async def remove(self, job_id: int) -> None:
        if job_id in self.stuck:
            raise OSError(16, "Device or resource busy")
        self.log_path(job_id).unlink(missing_ok=True)

    async def remove_shared(self, workflow_id: int) -> None:
        if workflow_id in self.stuck:
            raise OSError(16, "Device or resource busy")
        (self.folder.parent / f"shared-{workflow_id}").unlink(missing_ok=True)

    def left(self) -> set[int]:
        return {int(path.name) for path in self.folder.iterdir()}

    def left_of_workflows(self) -> set[str]:
        """Shared directories and uploads."""
        folder = self.folder.parent
        uploads = folder / "uploads"
        return {path.name for path in (*folder.glob("shared-*"), *(uploads.iterdir() if uploads.exists() else ()))}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open(tmp_path / "joblet.db")
    yield store
    await store.close()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "jobs").mkdir()
    return Files(tmp_path / "jobs")


async def make_jobs(store: Store, files: Files, *ends: int | None) -> None:
    """Jobs that ended at these instants, or run still; each with a log of ten bytes."""
    for end in ends:
        job, _ = await store.create(Order("x", (), Limits(1, 1, 0)), "alice", State.INITIALIZING, 1)
        await store.transition(job.id, State.RUNNING, exec_at=1)
        if end is not None:
            await store.transition(job.id, State.COMPLETED, ended_at=end)
        files.log_path(job.id).write_bytes(bytes(10))


@asynccontextmanager
async def janitor_of(
    store: Store, files: Files, bounds: Retention, hub: LogHub | None = None
) -> AsyncIterator[Janitor]:
    used = hub or LogHub()
    workflows, events = Workflows(store.database, store.sealer), Events(store.database)
    uploads = Uploads(files.folder.parent)
    janitor = Janitor(store, workflows, events, files, uploads, used, bounds)  # type: ignore[arg-type]
    try:
        yield janitor
    finally:
        await janitor.close()
        if hub is None:
            await used.close()


async def until(files: Files, left: set[int]) -> None:
    await until_so(lambda: files.left() == left)


async def until_so(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)


async def make_workflow(store: Store, files: Files, end: int | None) -> tuple[Workflow, int]:
    """A workflow with uploads and a shared directory, that ended at `end` if it did, and its one job, which has."""
    workflows, uploads = Workflows(store.database, store.sealer), Uploads(files.folder.parent)
    folder = await uploads.save([File("in.csv", b"1,2")])
    plan = Plan((Step("only", Order("x", (), Limits(1, 1, 0))),))
    new = Workflow(0, "w.yaml", "alice", "admin", WorkflowState.PENDING, 1, uploads=folder)
    workflow, _ = await workflows.create(new, plan)
    order = replace(plan.steps[0].order, part=Part(workflow.id, 0, 1), uploads=JobUploads(folder))
    job, _ = await store.create(order, "alice", State.INITIALIZING, 1)
    await store.transition(job.id, State.FAILED, ended_at=end or 1)
    files.log_path(job.id).write_bytes(bytes(10))
    (files.folder.parent / f"shared-{workflow.id}").touch()
    if end is not None:
        await workflows.transition(workflow.id, WorkflowState.FAILED, ended_at=end)
    return workflow, job.id


async def test_what_is_over_a_bound_is_removed_from_the_record_and_the_disk(store: Store, files: Files) -> None:
    await make_jobs(store, files, 10, None, 20, 30)
    async with janitor_of(store, files, Retention(max_jobs=1)):
        await until(files, {2, 4})
        while await store.unknown([1, 2, 3, 4]) != [1, 3]:  # noqa: ASYNC110 - nor of this
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("bounds", [Retention(max_jobs=2), Retention(max_bytes=20), Retention(max_age=1e-9)])
async def test_a_long_history_goes_in_batches_around_what_is_read(
    store: Store, files: Files, monkeypatch: pytest.MonkeyPatch, bounds: Retention
) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)
    await make_jobs(store, files, 30, 30, 10, 20, 40, 50, 60, 2**62, 2**62)
    hub = LogHub()
    reading = hub.read(4, files.log_path(4), 0)  # the second to go
    await anext(reading)
    async with janitor_of(store, files, bounds, hub):
        await until(files, {4, 8, 9})
    await reading.aclose()
    await hub.close()


async def test_size_is_measured_where_it_counts(store: Store, files: Files) -> None:
    await make_jobs(store, files, 10, 20, 30)
    async with janitor_of(store, files, Retention(max_bytes=20)):
        await until(files, {2, 3})


async def test_a_log_that_is_read_is_kept_and_goes_later(
    store: Store, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_PAUSE_SECONDS", 0.01)
    await make_jobs(store, files, 10, 20)
    hub = LogHub()
    reading = hub.read(1, files.log_path(1), 0)
    await anext(reading)
    async with janitor_of(store, files, Retention(max_jobs=1, max_age=1e12), hub):
        await make_jobs(store, files, 30)
        await until(files, {1, 3})
        await reading.aclose()
        await until(files, {3})
    await hub.close()


async def test_what_could_not_be_removed_is_removed_by_the_next_server(store: Store, files: Files) -> None:
    await make_jobs(store, files, 10, 20)
    files.stuck = {1}
    async with janitor_of(store, files, Retention()) as janitor:
        await janitor.delete("1")
        assert await store.get(1) is None
        assert await store.deleted() == [1]
    files.stuck = set()
    async with janitor_of(store, files, Retention()):
        await until(files, {2})


async def test_only_ended_jobs_can_be_deleted(store: Store, files: Files) -> None:
    await make_jobs(store, files, None, 20)
    async with janitor_of(store, files, Retention()) as janitor:
        with pytest.raises(JobNotEnded, match=r"^job has not ended: 1 \(current status: RUNNING\)$"):
            await janitor.delete("1")
        await janitor.delete("2")
        for gone in ("2", "3", "x"):
            with pytest.raises(JobNotFound):
                await janitor.delete(gone)
        assert files.left() == {1}


async def test_all_that_has_ended_can_be_deleted_at_once(store: Store, files: Files) -> None:
    await make_jobs(store, files, 10, None, 20)
    async with janitor_of(store, files, Retention()) as janitor:
        assert await janitor.delete_all() == (2, 1)
        assert await store.get(1) is None
        await until(files, {2})


async def test_an_id_is_not_given_again_and_a_key_is_free_again(store: Store, files: Files) -> None:
    order = Order("x", (), Limits(1, 1, 0), key="k")
    job, _ = await store.create(order, "alice", State.INITIALIZING, 1)
    await store.transition(job.id, State.STOPPED, ended_at=2)
    async with janitor_of(store, files, Retention()) as janitor:
        await janitor.delete(str(job.id))
    again, new = await store.create(order, "alice", State.INITIALIZING, 3)
    assert (again.id, new) == (2, True)


async def test_a_workflow_is_deleted_with_its_jobs_and_files(store: Store, files: Files) -> None:
    going, _ = await make_workflow(store, files, 10)
    staying, staying_job = await make_workflow(store, files, 20)
    async with janitor_of(store, files, Retention()) as janitor:
        await janitor.delete_workflow(str(going.id))
        assert files.left() == {staying_job}
        assert files.left_of_workflows() == {f"shared-{staying.id}", staying.uploads}
        assert await store.unknown([1, 2]) == [1]
        for gone in (str(going.id), "3", "x", ""):
            with pytest.raises(WorkflowNotFound):
                await janitor.delete_workflow(gone)


async def test_jobs_of_a_workflow_that_has_not_ended_push_no_others_out(store: Store, files: Files) -> None:
    await make_jobs(store, files, 10)
    await make_workflow(store, files, None)
    await make_workflow(store, files, None)
    await make_jobs(store, files, 20, 30)
    async with janitor_of(store, files, Retention(max_jobs=2)):
        await until(files, {2, 3, 4, 5})
        while await store.deleted():  # noqa: ASYNC110 - nor of this
            await asyncio.sleep(0.001)
    assert await store.count_ended() == 4


async def test_nothing_of_a_workflow_that_has_not_ended_goes(store: Store, files: Files) -> None:
    workflow, job = await make_workflow(store, files, None)
    await make_jobs(store, files, 10, None)
    async with janitor_of(store, files, Retention(max_jobs=1, max_age=1e-9, max_bytes=1, max_workflows=1)) as janitor:
        await until(files, {job, 3})
        with pytest.raises(WorkflowNotEnded, match=r"^workflow has not ended: 1 \(current status: PENDING\)$"):
            await janitor.delete_workflow(str(workflow.id))
        with pytest.raises(JobOfWorkflow, match=r"^job 1 belongs to workflow 1, which has not ended$"):
            await janitor.delete(str(job))
        assert await janitor.delete_all() == (0, 2)
    assert files.left() == {job, 3}
    assert files.left_of_workflows() == {"shared-1", workflow.uploads}


@pytest.mark.parametrize("bounds", [Retention(max_workflows=1), Retention(max_age=1e-9)])
async def test_ended_workflows_go_by_number_and_age_unless_a_log_of_theirs_is_read(
    store: Store, files: Files, monkeypatch: pytest.MonkeyPatch, bounds: Retention
) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)
    jobs = [(await make_workflow(store, files, end))[1] for end in (30, 10, 20, 40, 2**62)]
    hub = LogHub()
    reading = hub.read(jobs[1], files.log_path(jobs[1]), 0)
    await anext(reading)
    async with janitor_of(store, files, bounds, hub):
        await until_so(lambda: {name for name in files.left_of_workflows() if "-" in name} == {"shared-2", "shared-5"})
        await until(files, {jobs[1], jobs[4]})
    await reading.aclose()
    await hub.close()


async def test_what_could_not_be_removed_of_a_workflow_is_removed_by_the_next_server(
    store: Store, files: Files
) -> None:
    workflow, _ = await make_workflow(store, files, 10)
    files.stuck = {1}
    async with janitor_of(store, files, Retention()) as janitor:
        await janitor.delete_workflow("1")
    assert files.left_of_workflows() == {"shared-1", workflow.uploads}
    files.stuck = set()
    workflows = Workflows(store.database, store.sealer)
    async with janitor_of(store, files, Retention()):
        await until_so(lambda: files.left_of_workflows() == set())
        while await workflows.deleted():  # noqa: ASYNC110 - nor of this
            await asyncio.sleep(0.001)
    assert files.left() == set()


async def test_files_of_a_job_go_when_it_has_ended_and_those_of_a_workflow_stay(store: Store, files: Files) -> None:
    uploads = Uploads(files.folder.parent)
    workflow, job_id = await make_workflow(store, files, None)
    folder = await uploads.save([File("in.csv", b"1,2")])
    single, _ = await store.create(
        Order("x", (), Limits(1, 1, 0), uploads=JobUploads(folder)), "alice", State.PENDING, 1
    )
    await store.transition(single.id, State.STOPPED, ended_at=2)
    async with janitor_of(store, files, Retention()) as janitor:
        for number in (single.id, job_id):
            job = await store.get(number)
            assert job is not None
            janitor.on_end(job)
        await until_so(lambda: folder not in files.left_of_workflows())
    assert files.left_of_workflows() == {"shared-1", workflow.uploads}


async def test_the_newest_events_are_kept(store: Store, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_EVENTS", 4)
    await make_jobs(store, files, 10, 20, 30)
    events = Events(store.database)
    async with janitor_of(store, files, Retention()):
        while await events.bounds() != (6, 9):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)
