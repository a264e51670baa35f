"""What is asked of the store all the time costs the same after a hundred thousand jobs as after a thousand."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from history import write_ended_jobs

from joblet.job import Limits, State
from joblet.order import Order
from joblet.store import Store, Workflows
from joblet.workflow.condition import End, Is, Wanted
from joblet.workflow.plan import Plan, Step, WorkflowState
from joblet.workflow.record import StepRecord, Workflow

FEW, MANY = 1_000, 100_000
ORDER = Order("true", (), Limits(1, 1, 0), key="k")


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Databases with few and with many ended jobs."""
    paths = {count: tmp_path_factory.mktemp("history") / f"{count}.db" for count in (FEW, MANY)}
    for count, path in paths.items():
        write_ended_jobs(path, count)
    return paths


class Steps:
    """Counts what SQLite's virtual machine does for a store, in steps."""

    def __init__(self, store: Store) -> None:
        self.count = 0
        for connection in (store.database._read, store.database._write):
            connection.set_progress_handler(self._step, 1)

    def _step(self) -> int:
        self.count += 1
        return 0

    async def of(self, call: Awaitable[Any]) -> int:
        """How many steps it takes."""
        before = self.count
        await call
        return self.count - before


async def run_a_job(store: Store) -> None:
    job, _ = await store.create(ORDER, "admin", State.INITIALIZING, 1)
    await store.transition(job.id, State.RUNNING, exec_at=2)
    await store.request_stop(job.id, "stopped")
    await store.set_timeout(job.id, 5)
    await store.transition(job.id, State.STOPPED, ended_at=3)


async def remove_a_job(store: Store) -> None:
    await store.delete(500)
    await store.deleted()
    await store.forget(500)


CALLS: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "status": lambda store: store.get(700),
    "key": lambda store: store.find("admin", "absent"),
    "newest page": lambda store: store.newest(200, 2**63 - 1),
    "page": lambda store: store.newest(200, 800),
    "unfinished": lambda store: store.unfinished(),
    "longest ended": lambda store: store.ended(200, (-1, 0)),
    "life of a job": run_a_job,
    "removal": remove_a_job,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_the_cost_does_not_grow_with_history(
    databases: dict[int, Path], tmp_path: Path, call: Callable[[Store], Awaitable[Any]]
) -> None:
    steps = {}
    for count, path in databases.items():
        copy = tmp_path / path.name
        source, target = sqlite3.connect(path), sqlite3.connect(copy)
        source.backup(target)
        source.close()
        target.close()
        store = Store.open(copy)
        await store.get(1)  # now both connections have
        await store.forget(1)  # read the schema
        steps[count] = await Steps(store).of(call(store))
        await store.close()
    assert 0 < steps[MANY] <= steps[FEW] * 1.1, steps


PENDING = Workflow(0, "w.yaml", "admin", "admin", WorkflowState.PENDING, 1, yaml="jobs: {}")


def plan_of(count: int) -> Plan:
    """A chain of so many steps."""
    order = Order("python3", ("train.py",), Limits(100, 512, 0), environment={"A": "b"})
    steps = [Step("0", order)]
    steps += [Step(str(number), order, Is(str(number - 1), Wanted.COMPLETED)) for number in range(1, count)]
    return Plan(tuple(steps))


WORKFLOW_CALLS: dict[str, Callable[[Workflows], Awaitable[Any]]] = {
    "one": lambda workflows: workflows.get(70),
    "status": lambda workflows: workflows.status(70),
    "newest page": lambda workflows: workflows.newest(50, 2**63 - 1, unfinished=False),
    "page": lambda workflows: workflows.newest(50, 80, unfinished=False),
    "unfinished": lambda workflows: workflows.newest(50, 2**63 - 1, unfinished=True),
    "key": lambda workflows: workflows.create(replace(PENDING, key="k99"), plan_of(2)),
    "new": lambda workflows: workflows.create(PENDING, plan_of(2)),
    "longest ended": lambda workflows: workflows.ended(50, (-1, 0)),
    "end": lambda workflows: workflows.conclude(70, [StepRecord(0, "0", End.FAILED)]),
    "removal": lambda workflows: workflows.delete(70),
    "left to be removed": lambda workflows: workflows.deleted(),
}


async def test_the_cost_does_not_grow_with_the_number_of_workflows(tmp_path: Path) -> None:
    steps: dict[str, list[int]] = {name: [] for name in WORKFLOW_CALLS}
    for count in (100, 10_000):
        store = Store.open(tmp_path / f"{count}.db")
        workflows = Workflows(store.database, store.sealer)
        for first in range(0, count, 1_000):
            numbers = range(first, min(first + 1_000, count))
            await asyncio.gather(
                *(workflows.create(replace(PENDING, key=f"k{number}"), plan_of(2)) for number in numbers)
            )
        await store.database.execute("UPDATE workflows SET state = 'COMPLETED', ended_at = id")
        for name, call in WORKFLOW_CALLS.items():
            steps[name].append(await Steps(store).of(call(workflows)))
        await store.close()
    assert all(0 < many <= few * 1.1 for few, many in steps.values()), steps


async def test_a_workflow_of_many_steps_costs_as_much_a_step_as_one_of_few(tmp_path: Path) -> None:
    each: dict[str, list[float]] = {"create": [], "conclude": [], "status": [], "plan": [], "jobs": []}
    store = Store.open(tmp_path / "joblet.db")
    workflows = Workflows(store.database, store.sealer)
    for count in (100, 10_000):
        cost, plan = Steps(store), plan_of(count)
        each["create"].append(await cost.of(workflows.create(PENDING, plan)) / count)
        (workflow, *_) = await workflows.newest(1, 2**62, unfinished=True)
        first = [StepRecord(position, "", None, 1, retry_at=5) for position in range(count)]
        each["conclude"].append(await cost.of(workflows.conclude(workflow.id, first)) / count)
        each["status"].append(await cost.of(workflows.status(workflow.id)) / count)
        each["plan"].append(await cost.of(workflows.plan(workflow.id)) / count)
        each["jobs"].append(await cost.of(workflows.jobs(workflow.id)))
        await workflows.conclude(workflow.id, [replace(record, end=End.COMPLETED, retry_at=None) for record in first])
        ended = await workflows.get(workflow.id)
        assert ended is not None
        assert (ended.total, ended.completed) == (count, count)
        assert await workflows.plan(workflow.id) == plan
    await store.close()
    assert all(0 < many <= few * 1.1 < 300 for few, many in each.values()), each
