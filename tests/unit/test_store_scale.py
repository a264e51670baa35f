"""What is asked of the store all the time costs the same after a hundred thousand jobs as after a thousand."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from history import write_ended_jobs

from joblet.job import Limits, Order, State
from joblet.store import Store

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
