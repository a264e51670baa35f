"""A job as a row of the database."""

from __future__ import annotations

import json
from typing import Any

from joblet.job import Job, Limits, Order, Receipt, State

COLUMNS = (
    "id, command, args, max_cpu, max_memory, max_iobps, state, owner, "
    "created_at, started_at, exec_at, ended_at, exit_code, reason, stop_reason, "
    "max_processes, max_open_files, max_disk, cpu_cores, receipt, timeout_ms, priority, client_key, epoch"
)
"""what `job_of` reads"""


def columns_of(order: Order, owner: str, state: State, now: int, epoch: str) -> dict[str, int | str | None]:
    """The columns of a new job."""
    limits = order.limits
    return {
        "command": order.command,
        "args": json.dumps(order.args),
        "max_cpu": limits.max_cpu,
        "max_memory": limits.max_memory,
        "max_iobps": limits.max_iobps,
        "max_processes": limits.max_processes,
        "max_open_files": limits.max_open_files,
        "max_disk": limits.max_disk,
        "cpu_cores": limits.cpu_cores,
        "timeout_ms": order.timeout_ms,
        "priority": order.priority,
        "client_key": order.key,
        "state": state,
        "owner": owner,
        "created_at": now,
        "started_at": now if state is State.INITIALIZING else None,
        "epoch": epoch if state is State.INITIALIZING else "",
    }


def job_of(row: tuple[Any, ...]) -> Job:
    """The job of a row with COLUMNS."""
    (job_id, command, args, max_cpu, max_memory, max_iobps, state, owner,
     created_at, started_at, exec_at, ended_at, exit_code, reason, stop_reason,
     max_processes, max_open_files, max_disk, cpu_cores, receipt, timeout_ms, priority, key, epoch) = row  # fmt: skip
    return Job(
        id=job_id,
        command=command,
        args=tuple(json.loads(args)),
        limits=Limits(max_cpu, max_memory, max_iobps, max_processes, max_open_files, max_disk, cpu_cores),
        state=State[state],
        owner=owner,
        created_at=created_at,
        started_at=started_at,
        exec_at=exec_at,
        ended_at=ended_at,
        exit_code=exit_code,
        reason=reason,
        stop_reason=stop_reason,
        receipt=Receipt(**json.loads(receipt)) if receipt else None,
        timeout_ms=timeout_ms,
        priority=priority,
        key=key,
        epoch=epoch,
    )
