# ruff: noqa: ASYNC110 -- turns of the loop are what these tests count
from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import MEMORY, PATIENCE, Scripted, Works, everything

from joblet import life
from joblet.engine import run
from joblet.errors import (
    HostUnable,
    InvalidWorkflow,
    JobOfWorkflow,
    NothingToRetry,
    QueueFull,
    ShuttingDown,
    StoreFailed,
    TooManyWorkflows,
    WorkflowKeyReused,
    WorkflowNotEnded,
    WorkflowNotFound,
    WorkflowNotRunning,
)
from joblet.job import State
from joblet.retention import Janitor, Retention
from joblet.store import Events
from joblet.store.secrets import KEY_FILE
from joblet.uploads import File
from joblet.workflow.attempt import MOST_VARIABLES
from joblet.workflow.condition import End
from joblet.workflow.plan import Schedule, WorkflowState
from joblet.workflow.record import Workflow

# What never comes is a failure and not a wait.
pytestmark = pytest.mark.timeout(20)

BOB = "stopped by bob"
PAIR = {"a": {}, "b": {"requires": ["a"]}}
"""of which the second requires the first"""

Make = Callable[..., Works]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr(life, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(run, "_RETRY_SECONDS", 0.01)
    sites: list[Works] = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:

        def make(**bounds: int) -> Works:
            sites.append(Works(Path(folder), **bounds))
            return sites[-1]

        yield make
        for site in sites:
            for job in list(site.host.under_way.values()):
                job.end(code=0)
            await site.close()


@pytest.fixture
async def site(make: Make) -> Works:
    return make()


async def ends(site: Works) -> dict[str, tuple[End | None, str]]:
    return {name: (record.end, record.reason) for name, record in (await site.records()).items()}


async def stopped(site: Works) -> Workflow:
    async with asyncio.timeout(PATIENCE):
        return await site.engine.stop("1", BOB)


def shown(workflow: Workflow) -> tuple[WorkflowState, str]:
    return workflow.state, workflow.reason


# What steps write for those that require them.


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_a_step_writes_reaches_those_that_require_it(site: Works, restarted: bool) -> None:
    jobs = {
        "fetch.it": {},
        "train": {
            "requires": ["fetch.it"],
            "args": ["--rows=${{ jobs.fetch.it.outputs.rows }}", "$${{ x }}"],
            "environment": {"ROWS": "${{ jobs.fetch.it.outputs.rows }}!"},
            "secret_environment": {"TOKEN": "t-${{ jobs.fetch.it.outputs.rows }}"},
        },
        "after": {"requires": ["train"]},
    }
    await site.order(jobs)
    (fetch,) = await site.under_way("fetch.it")
    if restarted:
        await site.engine.close()  # what follows from its end is for the next server
    fetch.end(code=0, outputs={"rows": "5 ${{ jobs.x.outputs.y }}", "path": "/workflow/a"})
    if restarted:
        await site.restart()
    (train,) = await site.under_way("train")
    job = site.host.jobs[2]
    value = "5 ${{ jobs.x.outputs.y }}"
    assert job.args == (f"--rows={value}", "${{ x }}")
    assert dict(job.environment) == {
        "JOBLET_OUTPUT_FETCH_IT__ROWS": value,
        "JOBLET_OUTPUT_FETCH_IT__PATH": "/workflow/a",
        "ROWS": value + "!",
    }
    assert dict(job.secret_environment) == {"TOKEN": f"t-{value}"}
    assert job.part is not None
    assert (job.name, job.part.position, job.part.attempt) == ("train", 1, 1)
    train.end(code=0)
    (after,) = await site.under_way("after")
    assert dict(site.host.jobs[3].environment) == {}, "what it does not require is not its business"
    after.end(code=0)
    assert (await site.over()).state is WorkflowState.COMPLETED


async def test_a_step_fails_without_a_job_when_an_output_that_it_uses_was_not_written(site: Works) -> None:
    jobs = {
        "a": {},
        "b": {"requires": ["a"], "args": ["${{ jobs.a.outputs.rows }}"], "retries": 3},
        "c": {"requires": [{"b": "FAILED"}]},
        "d": {"requires": ["b"]},
    }
    await site.order(jobs)
    (first,) = await site.under_way("a")
    first.end(code=0, outputs={"columns": "5"})
    (handler,) = await site.under_way("c")
    handler.end(code=0)
    assert shown(await site.over()) == (WorkflowState.FAILED, "b is FAILED")
    assert await ends(site) == {
        "a": (End.COMPLETED, "exit code 0"),
        "b": (End.FAILED, "a has not written the output rows"),
        "c": (End.COMPLETED, "exit code 0"),
        "d": (End.CANCELED, "requires b=COMPLETED, but b is FAILED"),
    }
    record = (await site.records())["b"]
    assert (record.attempts, record.job_id, record.started_at) == (0, None, None)
    assert record.ended_at is not None


async def test_a_step_fails_without_a_job_when_it_would_be_given_too_much(site: Works) -> None:
    await site.order(PAIR)
    (first,) = await site.under_way("a")
    first.end(code=0, outputs={f"k{number}": "é" * 32_000 for number in range(5)})
    await site.over()
    size = 5 * (64_000 + len("JOBLET_OUTPUT_A__K0") + 2)
    reason = f"the outputs of what it requires take {size} bytes of environment (at most {MOST_VARIABLES})"
    assert (await ends(site))["b"] == (End.FAILED, reason)


async def test_a_step_whose_secrets_cannot_be_opened_any_more_fails_and_says_so(site: Works) -> None:
    await site.order({"a": {}, "b": {"requires": ["a"], "secret_environment": {"TOKEN": "hunter2"}}})
    (first,) = await site.under_way("a")
    await site.close()
    (site.folder / KEY_FILE).unlink()
    site.open()
    await site.runner.recover()
    await site.engine.recover()
    first.end(code=0)
    await site.over()
    reason = "job store failed: a secret cannot be opened: it was sealed with another secret.key"
    assert (await ends(site))["b"] == (End.FAILED, reason)


# Stops and timeouts.


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_step_that_waits_for_its_next_attempt_ends_as_the_last_one_when_all_is_stopped(
    site: Works, restarted: bool
) -> None:
    await site.order({"a": {"retries": {"limit": 3, "backoff": "1h"}}, "b": {"requires": [{"a": "FAILED"}]}})
    (first,) = await site.under_way("a")
    first.end(code=7)
    while (record := (await site.records())["a"]).retry_at is None:
        await asyncio.sleep(0)
    assert record.end is None
    if restarted:
        await site.restart()
    assert shown(await stopped(site)) == (WorkflowState.STOPPED, BOB)
    assert await ends(site) == {"a": (End.FAILED, "attempt 1 of 4: exit code 7"), "b": (End.CANCELED, BOB)}
    assert site.host.launches == [1]


async def test_a_step_that_waits_for_a_place_for_its_next_attempt_ends_as_the_last_one_when_all_is_stopped(
    site: Works,
) -> None:
    await site.order({"a": {"retries": 3, "priority": 0}, "b": {"priority": -1}}, max_parallel=1)
    (first,) = await site.under_way("a")
    first.end(code=7)
    await site.under_way("b")  # whose turn it is while the other one pauses
    workflow = await stopped(site)
    assert (workflow.state, workflow.failed, workflow.stopped) == (WorkflowState.STOPPED, 1, 1)
    assert await ends(site) == {
        "a": (End.FAILED, "attempt 1 of 4: exit code 7"),
        "b": (End.STOPPED, f"workflow 1: {BOB}"),
    }


async def test_a_step_that_has_timed_out_and_waits_for_its_next_attempt_is_stopped_with_all(site: Works) -> None:
    await site.order({"a": {"retries": {"limit": 1, "backoff": "1h"}, "timeout": "20ms"}})
    while (await site.records())["a"].retry_at is None:
        await asyncio.sleep(0)
    await site.restart()
    await stopped(site)
    assert await ends(site) == {"a": (End.STOPPED, "attempt 1 of 2: timeout after 20ms")}


async def test_a_workflow_is_stopped_while_its_jobs_wait_in_the_queue(make: Make) -> None:
    site = make(slots=1)
    await site.running()
    await site.order(PAIR)
    while not site.runner.find("2"):
        await asyncio.sleep(0)
    assert shown(await stopped(site)) == (WorkflowState.STOPPED, BOB)
    assert await ends(site) == {"a": (End.STOPPED, f"workflow 1: {BOB}"), "b": (End.CANCELED, BOB)}
    assert site.host.launches == [1]


async def test_a_workflow_stopped_before_any_of_its_jobs_is_there_is_canceled_and_begins_when_tried_again(
    site: Works,
) -> None:
    with site.disk_full("INSERT"):
        await site.order(PAIR)
        assert shown(await stopped(site)) == (WorkflowState.CANCELED, BOB)
    assert await ends(site) == {"a": (End.CANCELED, BOB), "b": (End.CANCELED, BOB)}
    assert (await site.engine.retry("1")).state is WorkflowState.PENDING
    for name in PAIR:
        (job,) = await site.under_way(name)
        job.end(code=0)
    workflow = await site.over()
    assert workflow.state is WorkflowState.COMPLETED
    assert workflow.started_at is not None
    assert workflow.stop_reason == ""


async def test_a_stop_while_the_disk_is_full_answers_and_starts_nothing(site: Works) -> None:
    await site.order(PAIR)
    (first,) = await site.under_way("a")
    site.host.full = True
    first.end(code=0)
    while (await site.records())["a"].end is None:
        await asyncio.sleep(0)
    assert shown(await stopped(site)) == (WorkflowState.STOPPED, BOB)
    site.host.full = False
    assert (await ends(site))["b"] == (End.CANCELED, BOB)
    assert site.host.launches == [1]


async def test_a_step_waits_while_the_disk_is_full(site: Works) -> None:
    await site.order(PAIR)
    (first,) = await site.under_way("a")
    site.host.full = True
    first.end(code=0)
    while (await site.records())["a"].end is None:
        await asyncio.sleep(0)
    site.host.full = False
    (second,) = await site.under_way("b")
    second.end(code=0)
    assert (await site.over()).state is WorkflowState.COMPLETED


async def test_a_stop_that_cannot_be_stored_stops_the_jobs_and_says_so(site: Works) -> None:
    await site.order(PAIR)
    (first,) = await site.under_way("a")
    site.sql("CREATE TRIGGER refuse BEFORE UPDATE ON workflows BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(StoreFailed, match="workflow 1 is being stopped, but its state cannot be stored now"):
        await stopped(site)
    async with asyncio.timeout(PATIENCE):
        await first.signalled.wait()
    site.sql("DROP TRIGGER refuse")
    assert shown(await site.over()) == (WorkflowState.STOPPED, BOB)


async def test_a_workflow_that_ends_by_itself_before_the_stop_arrives_was_not_stopped(site: Works) -> None:
    site.host.obedient = False
    await site.order({"a": {}})
    (job,) = await site.under_way("a")
    stopping = asyncio.create_task(site.engine.stop("1", BOB))
    await job.signalled.wait()
    job.end(code=0)
    assert shown(await stopping) == (WorkflowState.STOPPED, BOB)  # its last job was signalled all the same
    with pytest.raises(WorkflowNotRunning):
        await site.engine.stop("1", BOB)
    with pytest.raises(WorkflowNotFound):
        await site.engine.stop("2", BOB)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_workflow_beyond_its_time_is_stopped_also_by_the_next_server(site: Works, restarted: bool) -> None:
    await site.order(PAIR, timeout="1h" if restarted else "50ms")
    if restarted:
        await site.under_way("a")
        site.sql("UPDATE workflows SET timer_from = timer_from - 3601000000000")
        await site.restart()
    told = f"timeout after {'1h' if restarted else '50ms'}"
    workflow = await site.over()
    assert shown(workflow) == (WorkflowState.STOPPED, told)
    assert await ends(site) == {"a": (End.STOPPED, f"workflow 1: {told}"), "b": (End.CANCELED, told)}


async def test_time_counts_anew_when_a_workflow_is_tried_again(site: Works) -> None:
    await site.order({"a": {}}, timeout="1h")
    (job,) = await site.under_way("a")
    job.end(code=1)
    await site.over()
    site.sql("UPDATE workflows SET timer_from = timer_from - 3601000000000")
    await site.engine.retry("1")
    (job,) = await site.under_way("a")
    job.end(code=0)
    assert (await site.over()).state is WorkflowState.COMPLETED


# Trying again.


async def test_what_completed_is_kept_and_what_it_wrote_is_there_when_a_workflow_is_tried_again(site: Works) -> None:
    await site.order({"a": {}, "b": {"requires": ["a"], "retries": 1}, "c": {"requires": ["b"]}})
    (first,) = await site.under_way("a")
    first.end(code=0, outputs={"rows": "5"})
    for _ in range(2):
        (second,) = await site.under_way("b")
        second.end(code=1)
        while second in site.host.under_way.values():
            await asyncio.sleep(0)
    await site.over()
    kept = (await site.records())["a"]
    await site.engine.retry("1")
    with pytest.raises(WorkflowNotEnded):
        await site.engine.retry("1")
    (second,) = await site.under_way("b")
    assert dict(site.host.jobs[4].environment) == {"JOBLET_OUTPUT_A__ROWS": "5"}
    second.end(code=1)  # its limit counts from here
    (second,) = await other(site, second)
    second.end(code=0)
    (third,) = await site.under_way("c")
    third.end(code=0)
    assert (await site.over()).state is WorkflowState.COMPLETED
    records = await site.records()
    assert records["a"] == kept
    assert (records["b"].attempts, records["b"].base_attempts) == (4, 2)
    with pytest.raises(NothingToRetry):
        await site.engine.retry("1")


async def other(site: Works, before: Scripted) -> list[Scripted]:
    """What runs next of those under way."""
    async with asyncio.timeout(PATIENCE):
        while not (jobs := [job for job in site.host.under_way.values() if job is not before]):
            await asyncio.sleep(0)
    return jobs


async def test_of_two_who_try_a_workflow_again_at_once_one_does(site: Works) -> None:
    await site.order({"a": {}})
    (job,) = await site.under_way("a")
    job.end(code=1)
    await site.over()
    results = await asyncio.gather(*(site.engine.retry("1") for _ in range(2)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Workflow", "WorkflowNotEnded"]
    (job,) = await site.under_way("a")
    job.end(code=0)
    assert (await site.over()).state is WorkflowState.COMPLETED
    assert site.host.launches == [1, 2]


# Who may submit what.


async def test_a_key_gives_the_same_workflow_running_ended_after_a_restart_and_among_too_many(make: Make) -> None:
    site = make(most=1)
    await site.order({"a": {}}, key="nightly", files=[File("x", b"1")])
    assert (await site.order({"a": {}}, key="nightly", files=[File("x", b"1")])).id == 1
    await site.restart()
    assert (await site.order({"a": {}}, key="nightly", files=[File("x", b"1")])).id == 1
    for jobs, files in (({"b": {}}, [File("x", b"1")]), ({"a": {}}, [File("x", b"2")]), ({"a": {}}, [])):
        with pytest.raises(WorkflowKeyReused, match="key 'nightly' belongs to workflow 1"):
            await site.order(jobs, key="nightly", files=files)
    with pytest.raises(TooManyWorkflows, match=r"1 workflows have not ended \(at most 1, joblet.maxWorkflows\)"):
        await site.order({"a": {}})
    (job,) = await site.under_way("a")
    job.end(code=0)
    await site.over()
    assert (await site.order({"a": {}}, key="nightly", files=[File("x", b"1")])).state is WorkflowState.COMPLETED
    assert (await site.order({"a": {}})).id == 2
    assert [folder.name for folder in (site.folder / "uploads").iterdir()] == [(await site.engine.get("1")).uploads]


async def test_a_key_that_comes_twice_at_once_is_one_workflow(site: Works) -> None:
    made = await asyncio.gather(*(site.order({"a": {}}, key="k", files=[File("x", b"1")]) for _ in range(3)))
    assert [workflow.id for workflow in made] == [1, 1, 1]
    assert len(list((site.folder / "uploads").iterdir())) == 1


@pytest.mark.parametrize("turns", range(0, 24, 2))
async def test_a_client_that_goes_away_while_its_workflow_is_accepted_leaves_none_or_one_that_runs(
    site: Works, turns: int
) -> None:
    asking = asyncio.create_task(site.order({"a": {}}, files=[File("x", b"1")]))
    for _ in range(turns * turns):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    await site.engine.close()  # which waits for what is being accepted
    accepted = await site.workflows.newest(10, 2**62, unfinished=False)
    root = site.folder / "uploads"
    assert len(list(root.iterdir()) if root.exists() else []) == len(accepted)
    await site.restart()
    if accepted:
        (job,) = await site.under_way("a")
        job.end(code=0)
        assert (await site.over()).state is WorkflowState.COMPLETED


async def test_a_closing_server_accepts_no_workflow(site: Works) -> None:
    await site.engine.close()
    with pytest.raises(ShuttingDown):
        await site.order({"a": {}})


async def test_limits_above_the_ceilings_are_refused_before_anything_runs_and_the_jobs_are_named(site: Works) -> None:
    jobs = {
        "a": {},
        "b": {"resources": {"max_cpu": 500}},
        "c": {"matrix": {"x": ["1"]}, "resources": {"max_memory": 9999}},
    }
    with pytest.raises(InvalidWorkflow) as refused:
        await site.order(jobs)
    assert str(refused.value).removeprefix("invalid workflow: ").splitlines() == [
        'test.yaml: job "b": job creation failed: maxCPU exceeds system limits (500, allowed 0 to 400)',
        'test.yaml: job "c[x=1]": job creation failed: maxMemory exceeds system limits (9999, allowed 0 to 4096)',
    ]
    assert await site.workflows.newest(10, 2**62, unfinished=False) == []


async def test_steps_take_no_places_in_the_queue_from_clients(make: Make) -> None:
    site = make(slots=1, queue=1)
    await site.order({f"s{number}": {} for number in range(5)})
    while len(await everything(site.store)) < 5:
        await asyncio.sleep(0)
    await site.submit()
    with pytest.raises(QueueFull):
        await site.submit()
    assert (await stopped(site)).stopped == 5


# What goes wrong.


async def test_a_host_that_is_unable_fails_the_step_once_and_for_all(site: Works) -> None:
    await site.order({**PAIR, "c": {"requires": [{"b": "FAILED"}]}})
    (first,) = await site.under_way("a")
    site.host.unable = HostUnable("cgroup setup failed: permission denied")
    await site.runner.probe()
    site.sql("CREATE TRIGGER refuse BEFORE UPDATE ON workflow_steps WHEN new.name = 'b' "
             "BEGIN SELECT RAISE(ABORT, 'no'); END")  # fmt: skip
    first.end(code=0)
    while not (await site.stored(1)).state.final:
        await asyncio.sleep(0)
    for _ in range(50):  # time enough for what requires that it failed
        await everything(site.store)
    assert len(await everything(site.store)) == 1, "nothing follows from what is not on disk"
    site.host.unable = None
    site.sql("DROP TRIGGER refuse")
    await site.under_way("c")
    await site.restart()
    (handler,) = await site.under_way("c")
    handler.end(code=0)
    await site.over()
    assert site.host.launches == [1, 2]
    assert (await ends(site))["b"] == (End.FAILED, "cgroup setup failed: permission denied")


@pytest.mark.parametrize("what", ["plan", "file"])
async def test_a_workflow_whose_plan_cannot_be_read_any_more_is_lost_and_its_jobs_are_stopped(
    site: Works, what: str
) -> None:
    await site.order(PAIR)
    (first,) = await site.under_way("a")
    site.sql("UPDATE workflow_steps SET spec = '{'" if what == "plan" else "DELETE FROM workflow_files")
    await site.restart()
    assert first.signalled.is_set()
    (workflow,) = await site.workflows.newest(10, 2**62, unfinished=False)
    assert workflow.state is WorkflowState.FAILED
    assert workflow.reason.startswith("lost: ")
    records = {record.name: record for record in await site.workflows.steps(1)}
    if what == "plan":
        assert (records["b"].end, records["b"].reason) == (End.CANCELED, workflow.reason)
    while (await site.stored(1)).state is not State.STOPPED:
        await asyncio.sleep(0)


async def test_a_fault_of_the_engine_ends_the_workflow_and_every_step_of_it(
    site: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.order({"a": {}, "b": {}, "c": {"requires": ["a"]}})
    first, second = await site.under_way("a", "b")

    def fail(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as broken:
        broken.setattr(Schedule, "ended", fail)
        first.end(code=0)
        assert shown(await site.over()) == (WorkflowState.FAILED, "internal error")
    assert second.signalled.is_set()
    assert await ends(site) == {
        "a": (End.COMPLETED, "exit code 0"),
        "b": (End.STOPPED, "workflow 1: internal error"),
        "c": (End.CANCELED, "internal error"),
    }
    await site.engine.retry("1")
    assert await site.under_way("b", "c")


async def test_a_failure_that_may_be_is_none_of_the_workflows(site: Works) -> None:
    await site.order({"a": {"continue_on_failure": True}, "b": {"requires": ["a"]}})
    (first,) = await site.under_way("a")
    first.end(code=1)
    (second,) = await site.under_way("b")
    second.end(code=0)
    workflow = await site.over()
    assert (workflow.state, workflow.failed, workflow.completed) == (WorkflowState.COMPLETED, 1, 1)


async def test_jobs_of_a_workflow_that_has_not_ended_cannot_be_deleted(site: Works) -> None:
    await site.order(PAIR)
    (first,) = await site.under_way("a")
    first.end(code=0)
    (second,) = await site.under_way("b")
    events = Events(site.store.database)
    janitor = Janitor(site.store, site.workflows, events, site.host, site.uploads, site.hub, Retention(max_jobs=1))
    try:
        with pytest.raises(JobOfWorkflow):
            await janitor.delete("1")
        assert (await janitor.delete_all())[0] == 0
        second.end(code=0)
        await site.over()
        await janitor.delete("1")
    finally:
        await janitor.close()
    assert [job.id for job in await everything(site.store)] == [2]
