"""Workflows, their steps and events as they are stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from joblet.errors import StoreFailed, TransitionRefused, WorkflowNotFound
from joblet.job import MASK, Limits, Part, State, Uploads
from joblet.order import Order
from joblet.store import Events, Store, Workflows
from joblet.workflow.condition import All, Any, End, Is, Not, Wanted
from joblet.workflow.plan import Plan, Retry, Step, WorkflowState
from joblet.workflow.record import Event, StepRecord, Workflow

LIMITS = Limits(50, 64, 1024, 10, 20, 0, "0-1")
WORKFLOW = Workflow(
    id=0,
    file="pipeline.yaml",
    owner="alice",
    role="admin",
    state=WorkflowState.PENDING,
    created_at=1_000,
    name="pipeline",
    yaml="jobs: {}",
    parameters={"rate": "0.1", "token": MASK},
    uploads="f00d",
    key="nightly",
    fingerprint="abc",
    timeout=2.5,
    max_parallel=2,
)
PLAN = Plan(
    steps=(
        Step("fetch", Order("curl", ("-s", "${{ x }}"), LIMITS, environment={"A": "b"}, name="fetch")),
        Step(
            "train[rate=0.1]",
            Order("python3", (), LIMITS, 5_000, 7, secret_environment={"TOKEN": "hunter2"}, workdir="src"),
            All((Is("fetch", Wanted.COMPLETED), Any((Is("fetch", Wanted.FAILED), Not(Is("fetch", Wanted.STOPPED)))))),
            Retry(2, 1.5, 3.0, 60.0, frozenset({3, 7})),
            continue_on_failure=True,
            uploads=("data/in.csv", "lib"),
        ),
        Step("report", Order("cat", (), LIMITS), Is("train[rate=0.1]", Wanted.FINISHED)),
    ),
    name="pipeline",
    timeout=2.5,
    max_parallel=2,
    parameters={"rate": "0.1", "token": MASK},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "joblet.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    store = Store.open(path)
    yield store
    await store.close()


@pytest.fixture
def workflows(store: Store) -> Workflows:
    return Workflows(store.database, store.sealer)


@pytest.fixture
def events(store: Store) -> Events:
    return Events(store.database)


async def made(workflows: Workflows, **changed: object) -> Workflow:
    workflow, new = await workflows.create(replace(WORKFLOW, key="", **changed), PLAN)  # type: ignore[arg-type]
    assert new
    return workflow


async def attempt(store: Store, workflow_id: int, position: int, number: int = 1) -> int:
    """The job of a step's attempt, running."""
    order = replace(PLAN.steps[position].order, part=Part(workflow_id, position, number), uploads=Uploads("f00d"))
    job, _ = await store.create(order, "alice", State.INITIALIZING, 2_000)
    return (await store.transition(job.id, State.RUNNING, exec_at=2_500)).id


async def ended(workflows: Workflows, workflow_id: int, state: WorkflowState = WorkflowState.COMPLETED) -> None:
    await workflows.transition(workflow_id, state, ended_at=9_000)


async def test_a_workflow_is_as_it_was_given(store: Store, workflows: Workflows) -> None:
    workflow, new = await workflows.create(WORKFLOW, PLAN)
    assert new
    assert workflow == replace(WORKFLOW, id=1, timer_from=1_000, total=3)
    assert await workflows.get(1) == workflow
    assert await workflows.plan(1) == PLAN
    assert await workflows.steps(1) == [StepRecord(position, step.name) for position, step in enumerate(PLAN.steps)]
    for listed in (await workflows.newest(10, 2**62, unfinished=True), await workflows.unfinished()):
        assert listed == [replace(workflow, yaml="", parameters={})]


async def test_what_is_not_there(workflows: Workflows) -> None:
    assert await workflows.get(1) is None
    assert await workflows.status(1) is None
    assert await workflows.is_over(1)
    assert await workflows.delete(1) is None
    with pytest.raises(WorkflowNotFound):
        await workflows.plan(1)


async def test_a_key_is_one_workflow_of_its_owner(workflows: Workflows) -> None:
    first, _ = await workflows.create(WORKFLOW, PLAN)
    made = await asyncio.gather(*(workflows.create(WORKFLOW, PLAN) for _ in range(3)))
    assert made == [(first, False)] * 3
    other, new = await workflows.create(replace(WORKFLOW, owner="bob"), PLAN)
    assert (other.id, new) == (2, True)
    await ended(workflows, 1)
    await workflows.delete(1)
    again, new = await workflows.create(WORKFLOW, PLAN)
    assert (again.id, new) == (3, True)


async def test_a_plan_that_cannot_be_stored_leaves_no_part_of_it(store: Store, workflows: Workflows) -> None:
    bad = replace(PLAN, steps=(*PLAN.steps, replace(PLAN.steps[0], name="\ud800")))
    results = await asyncio.gather(
        workflows.create(replace(WORKFLOW, key="a"), PLAN),
        workflows.create(replace(WORKFLOW, key="b"), bad),
        workflows.create(replace(WORKFLOW, key="c"), PLAN),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [tuple, StoreFailed, tuple]
    found = await workflows.newest(10, 2**62, unfinished=False)
    assert sorted(workflow.key for workflow in found) == ["a", "c"]
    assert await store.database.query("SELECT count(*) FROM workflow_steps") == [(6,)]


async def test_states_go_forward_only(workflows: Workflows) -> None:
    await made(workflows)
    running = await workflows.transition(1, WorkflowState.RUNNING, started_at=2_000)
    assert (running.state, running.started_at, running.ended_at) == (WorkflowState.RUNNING, 2_000, None)
    failed = await workflows.transition(1, WorkflowState.FAILED, ended_at=3_000, reason="fetch is FAILED")
    assert (failed.state, failed.started_at, failed.ended_at, failed.reason) == (
        WorkflowState.FAILED, 2_000, 3_000, "fetch is FAILED",
    )  # fmt: skip
    for state in WorkflowState:
        with pytest.raises(TransitionRefused, match=f"^job store failed: workflow 1 may not become {state}$"):
            await workflows.transition(1, state, ended_at=4_000 if state.final else None)


async def test_an_end_has_its_instant_and_nothing_else_has(workflows: Workflows) -> None:
    await made(workflows)
    with pytest.raises(StoreFailed, match="CHECK"):
        await workflows.transition(1, WorkflowState.COMPLETED)
    with pytest.raises(StoreFailed, match="CHECK"):
        await workflows.transition(1, WorkflowState.RUNNING, ended_at=1)


async def test_the_first_reason_to_stop_stays(workflows: Workflows) -> None:
    await made(workflows)
    await workflows.request_stop(1, "stopped by alice")
    await workflows.request_stop(1, "timeout after 1h")
    workflow = await workflows.get(1)
    assert workflow is not None
    assert workflow.stop_reason == "stopped by alice"


async def test_one_attempt_is_one_job(store: Store, workflows: Workflows) -> None:
    await made(workflows)
    order = replace(PLAN.steps[1].order, part=Part(1, 1, 1))
    made_at_once = await asyncio.gather(*(store.create(order, "alice", State.PENDING, 5) for _ in range(4)))
    assert sorted(new for _, new in made_at_once) == [False, False, False, True]
    assert {job.id for job, _ in made_at_once} == {1}
    another, new = await store.create(replace(order, part=Part(1, 1, 2)), "alice", State.PENDING, 5)
    assert (another.part, new) == (Part(1, 1, 2), True)


async def test_what_steps_come_to_is_recorded_and_counted(store: Store, workflows: Workflows) -> None:
    await made(workflows)
    fetched = StepRecord(0, "fetch", End.COMPLETED, 1, 0, 4, 10, 20, 0, "exit code 0", None, {"rows": "7"})
    retried = StepRecord(1, "train[rate=0.1]", None, 1, 0, 5, 10, 20, 3, "exit code 3", 99)
    await workflows.conclude(1, [fetched, retried])
    await workflows.conclude(1, [StepRecord(2, "report", End.CANCELED, ended_at=30, reason="stopped")])
    assert await workflows.steps(1) == [
        fetched, retried, StepRecord(2, "report", End.CANCELED, ended_at=30, reason="stopped"),
    ]  # fmt: skip
    workflow = await workflows.get(1)
    assert workflow is not None
    assert (workflow.completed, workflow.failed, workflow.stopped, workflow.canceled) == (1, 0, 0, 1)
    # an end stays
    await workflows.conclude(1, [replace(fetched, end=End.FAILED, attempts=2)])
    assert (await workflows.steps(1))[0] == fetched


async def test_jobs_of_attempts_under_way_are_found_again(store: Store, workflows: Workflows) -> None:
    await made(workflows)
    await made(workflows)
    first = await attempt(store, 1, 1)
    await attempt(store, 1, 0)
    await attempt(store, 2, 0)
    await store.transition(first, State.FAILED, ended_at=3_000, exit_code=3)
    await workflows.conclude(1, [StepRecord(1, "", None, 1, 0, first, retry_at=9)])
    second = await attempt(store, 1, 1, 2)
    assert [(job.id, job.part) for job in await workflows.jobs(1)] == [(2, Part(1, 0, 1)), (second, Part(1, 1, 2))]
    found = (await workflows.jobs(1))[1]
    assert found.secret_environment == {"TOKEN": "hunter2"}
    assert "hunter2" not in repr(found)


async def test_no_step_waits_for_an_attempt_that_is_there(store: Store, workflows: Workflows, events: Events) -> None:
    await made(workflows)
    first = await attempt(store, 1, 0)
    await store.transition(first, State.FAILED, ended_at=3_000, exit_code=3)
    await attempt(store, 1, 0, 2)
    before = (await events.bounds())[1]
    await workflows.conclude(1, [StepRecord(0, "", None, 1, 0, first, retry_at=9)])
    assert await events.after(before, 100) == []


async def test_a_status_is_of_one_moment(store: Store, workflows: Workflows, events: Events) -> None:
    workflow = await made(workflows)
    job = await attempt(store, 1, 1)
    await workflows.conclude(1, [StepRecord(0, "", End.COMPLETED, 1, 0, 77)])
    status = await workflows.status(1)
    assert status is not None
    assert status.workflow == replace(workflow, completed=1)
    assert status.sequence == (await events.bounds())[1]
    fetch, train, report = status.steps
    assert (fetch.record.end, fetch.record.job_id, fetch.job, fetch.condition) == (End.COMPLETED, 77, None, "")
    assert train.job is not None
    assert (train.job.id, train.job.state, train.job.secret_environment) == (job, State.RUNNING, {"TOKEN": MASK})
    assert (train.max_attempts, train.continue_on_failure, train.dependencies) == (3, True, ("fetch",))
    assert report.condition == "train[rate=0.1]=FINISHED"
    assert report.dependencies == ("train[rate=0.1]",)


async def test_an_ended_workflow_is_opened_again_from_chosen_steps(store: Store, workflows: Workflows) -> None:
    await made(workflows)
    await workflows.transition(1, WorkflowState.RUNNING, started_at=2_000)
    assert await workflows.reopen(1, [0], 5) is None
    await workflows.request_stop(1, "stopped by alice")
    done = StepRecord(0, "fetch", End.COMPLETED, 1, 0, 1, outputs={"rows": "7"})
    failed = StepRecord(1, "train[rate=0.1]", End.FAILED, 3, 0, 2, 10, 20, 3, "exit code 3", outputs={"x": "y"})
    await workflows.conclude(1, [done, failed, StepRecord(2, "", End.CANCELED)])
    await workflows.transition(1, WorkflowState.STOPPED, ended_at=3_000, reason="stopped by alice")
    opened = await workflows.reopen(1, [1, 2], 5_000)
    assert opened == replace(
        WORKFLOW, id=1, key="", yaml="", parameters={}, state=WorkflowState.RUNNING, started_at=2_000,
        timer_from=5_000, total=3, completed=1,
    )  # fmt: skip
    assert await workflows.steps(1) == [
        done, StepRecord(1, "train[rate=0.1]", attempts=3, base_attempts=3), StepRecord(2, "report"),
    ]  # fmt: skip
    status = await workflows.status(1)
    assert status is not None
    assert [step.max_attempts for step in status.steps] == [1, 6, 1]


async def test_jobs_of_a_workflow_that_has_not_ended_are_kept(store: Store, workflows: Workflows) -> None:
    await made(workflows)
    single, _ = await store.create(Order("x", (), LIMITS), "alice", State.PENDING, 5)
    job = await attempt(store, 1, 0)
    for number in (single.id, job):
        await store.transition(number, State.STOPPED, ended_at=3_000)
    assert not await store.delete(job)
    assert await store.delete_all() == [single.id]
    await ended(workflows, 1)
    assert await store.delete(job)


async def test_a_workflow_is_deleted_with_its_jobs(store: Store, workflows: Workflows) -> None:
    await made(workflows)
    await made(workflows)
    jobs = [await attempt(store, 1, 0), await attempt(store, 1, 1)]
    other = await attempt(store, 2, 0)
    for job in (*jobs, other):
        await store.transition(job, State.COMPLETED, ended_at=3_000)
    assert await workflows.delete(1) is None
    assert not await workflows.is_over(1)
    await ended(workflows, 1)
    await ended(workflows, 2)
    assert await workflows.is_over(1)
    assert await workflows.ended(10, (-1, 0)) == [(9_000, 1), (9_000, 2)]
    assert await workflows.delete(1) == jobs
    assert await workflows.delete(1) is None
    assert await workflows.get(1) is None
    assert await workflows.reopen(1, [0], 5) is None
    assert [workflow.id for workflow in await workflows.newest(10, 2**62, unfinished=False)] == [2]
    assert (await workflows.deleted(), await store.deleted()) == ([(1, "f00d")], jobs)
    assert await workflows.count_ended() == 1
    await workflows.forget(1)
    await workflows.forget(2)  # not deleted
    assert await workflows.deleted() == []
    assert await store.database.query("SELECT DISTINCT workflow_id FROM workflow_steps") == [(2,)]
    assert await store.database.query("SELECT workflow_id FROM workflow_files") == [(2,)]


async def test_an_id_is_never_used_twice(store: Store, workflows: Workflows) -> None:
    await made(workflows)
    await ended(workflows, 1)
    await workflows.delete(1)
    await workflows.forget(1)
    assert (await made(workflows)).id == 2
    assert await workflows.unknown([7, 2, 1]) == [1, 7]
    await workflows.skip_ids(41)
    assert (await made(workflows)).id == 42


async def test_folders_of_uploads_that_are_needed_still(store: Store, workflows: Workflows) -> None:
    await made(workflows)
    for folder in ("aa", "bb"):
        order = Order("x", (), LIMITS, uploads=Uploads(folder, ("in.csv",)))
        await store.create(order, "alice", State.PENDING, 5)
    await store.transition(1, State.STOPPED, ended_at=3_000)
    assert await workflows.upload_folders() == {"bb", "f00d"}
    job = await store.get(2)
    assert job is not None
    assert job.uploads == Uploads("bb", ("in.csv",))


async def test_events_tell_of_every_change_in_order(store: Store, workflows: Workflows, events: Events) -> None:
    calls = 0

    def committed() -> None:
        nonlocal calls
        calls += 1

    events.on_commit = committed
    single, _ = await store.create(Order("x", (), LIMITS, name="single"), "alice", State.PENDING, 1_000)
    assert calls == 1
    await store.transition(single.id, State.INITIALIZING, started_at=1_100)
    assert calls == 2
    await store.request_stop(single.id, "stopped")
    assert calls == 2  # it is no event
    await store.transition(single.id, State.FAILED, ended_at=1_200, exit_code=7, reason="exit code 7")
    await made(workflows)
    await workflows.transition(1, WorkflowState.RUNNING, started_at=2_000)
    job = await attempt(store, 1, 0)
    await store.transition(job, State.FAILED, ended_at=3_000, exit_code=3, reason="exit code 3")
    tried = StepRecord(0, "", None, 1, 0, job, ended_at=3_000, reason="again in 5s", retry_at=8_000)
    await workflows.conclude(1, [tried])
    await workflows.conclude(
        1,
        [
            replace(tried, end=End.FAILED, ended_at=3_500, exit_code=3, reason="exit code 3", retry_at=None),
            StepRecord(1, "", End.FAILED, 1, ended_at=3_600, exit_code=-1, reason="no such output"),
            StepRecord(2, "", End.CANCELED, ended_at=3_700, reason="requires"),
        ],
    )
    await workflows.transition(1, WorkflowState.FAILED, ended_at=4_000, reason="fetch is FAILED")
    await workflows.reopen(1, [1], 5_000)
    of = (1, None)
    told = await events.after(0, 100)
    assert {event.owner for event in told} == {"alice"}
    assert await events.after(0, 100, owner="alice") == told
    assert await events.after(0, 100, owner="bob") == []
    assert [replace(event, sequence=0, owner="") for event in told] == [
        Event(0, 1_000, "PENDING", None, 1, "single"),
        Event(0, 1_100, "INITIALIZING", None, 1, "single"),
        Event(0, 1_200, "FAILED", None, 1, "single", 7, "exit code 7"),
        Event(0, 1_000, "PENDING", *of),
        Event(0, 2_000, "RUNNING", *of),
        Event(0, 2_000, "INITIALIZING", 1, job, "fetch", attempt=1),
        Event(0, 2_500, "RUNNING", 1, job, "fetch", attempt=1),
        Event(0, 3_000, "FAILED", 1, job, "fetch", 3, "exit code 3", 1),
        Event(0, 3_000, "PENDING", *of, "fetch", 0, "again in 5s", 2),
        Event(0, 3_500, "FAILED", 1, job, "fetch", 3, "exit code 3", 1),
        Event(0, 3_600, "FAILED", *of, "train[rate=0.1]", -1, "no such output", 1),
        Event(0, 3_700, "CANCELED", *of, "report", 0, "requires", 0),
        Event(0, 4_000, "FAILED", *of, "", 0, "fetch is FAILED"),
        Event(0, 5_000, "RUNNING", *of),
        Event(0, 5_000, "PENDING", *of, "train[rate=0.1]", 0, "", 2),
    ]
    everything = await events.after(0, 100)
    assert [event.sequence for event in everything] == list(range(1, 16))
    assert await events.after(0, 100, workflow_id=1) == everything[3:]
    assert await events.after(4, 2, workflow_id=1) == everything[4:6]
    assert await events.after(0, 100, job_id=job) == [everything[at] for at in (5, 6, 7, 9)]
    assert await events.after(0, 100, workflow_id=1, job_id=single.id) == []


async def test_what_was_undone_is_no_event(store: Store, events: Events) -> None:
    await asyncio.gather(
        store.create(Order("x", (), LIMITS), "alice", State.PENDING, 1),
        store.create(Order("\ud800", (), LIMITS), "alice", State.PENDING, 1),
        store.transition(99, State.RUNNING),
        return_exceptions=True,
    )
    assert [event.job_id for event in await events.after(0, 100)] == [1]


async def test_old_events_go_and_the_numbers_go_on(
    store: Store, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await events.bounds() == (1, 0)
    monkeypatch.setattr("joblet.store.events._BATCH", 3)

    async def happen(count: int) -> None:
        orders = [Order("x", (), LIMITS)] * count
        await asyncio.gather(*(store.create(order, "alice", State.PENDING, 1) for order in orders))

    await happen(10)
    await events.trim(20)
    assert await events.bounds() == (1, 10)
    await events.trim(4)
    assert await events.bounds() == (7, 10)
    assert [event.sequence for event in await events.after(0, 2)] == [7, 8]
    await events.trim(0)
    assert await events.bounds() == (11, 10)
    await happen(1)
    assert await events.bounds() == (11, 11)
