"""A store with a long past, made in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

from joblet.job import Limits, State
from joblet.order import Order
from joblet.store import Store
from joblet.store.rows import columns_of
from joblet.store.steps import workflow_columns
from joblet.workflow.plan import WorkflowState
from joblet.workflow.record import Workflow

ENDS = (State.COMPLETED, State.FAILED, State.STOPPED)
RECEIPT = '{"wall_usec": 5000000, "cpu_usec": 4000000, "memory_peak": 33554432, "processes_peak": 3, "oom_kills": 0}'


def write_ended_jobs(database: Path, count: int) -> None:
    """A database with `count` jobs that have ended in every way, and no other."""
    asyncio.run(_create(database))
    order = Order("python3", ("train.py", "--epochs", "100"), Limits(100, 512, 0, 1024, 65536), timeout_ms=3_600_000)
    now = time.time_ns()
    columns = columns_of(order, "admin", State.INITIALIZING, now, "")
    columns |= {"exec_at": now, "exit_code": 0, "reason": "exit code 0", "receipt": RECEIPT}
    names = ", ".join(("id", "ended_at", *columns))
    marks = ", ".join("?" * (len(columns) + 2))
    rows = ((number, now + number, *(columns | {"state": ENDS[number % 3]}).values()) for number in range(1, count + 1))
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(f"INSERT INTO jobs ({names}) VALUES ({marks})", rows)


def write_ended_workflows(database: Path, count: int) -> None:
    """A database with `count` workflows that have ended in every way, without jobs, and nothing else."""
    asyncio.run(_create(database))
    now, ends = time.time_ns(), [state for state in WorkflowState if state.final]
    plain = Workflow(0, "train.yaml", "admin", "admin", WorkflowState.PENDING, created_at=now, name="training")
    columns = workflow_columns(plain, 10) | {"started_at": now, "reason": "stopped by admin"}
    names = ", ".join(("id", "ended_at", *columns))
    marks = ", ".join("?" * (len(columns) + 2))
    rows = (
        (number, now + number, *(columns | {"state": ends[number % len(ends)]}).values())
        for number in range(1, count + 1)
    )
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(f"INSERT INTO workflows ({names}) VALUES ({marks})", rows)
        connection.executemany("INSERT INTO workflow_files VALUES (?, '', '{}')", ((n,) for n in range(1, count + 1)))


async def _create(database: Path) -> None:
    await Store.open(database).close()
