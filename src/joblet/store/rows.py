"""A job as a row of the database."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from joblet.job import MASK, Job, Limits, Part, Receipt, Schedule, State, Stop, Terminal, Uploads
from joblet.order import Order
from joblet.store.secrets import Sealer, Secrets

COLUMNS = (
    "id, command, args, max_cpu, max_memory, max_iobps, state, owner, "
    "created_at, started_at, exec_at, ended_at, exit_code, reason, stop_reason, "
    "max_processes, max_open_files, max_disk, cpu_cores, receipt, timeout_ms, priority, client_key, epoch, "
    "name, environment, secret_names, workdir, uploads, workflow_id, position, attempt, outputs, "
    "labels, schedule, scheduled_at, schedule_id, retries, retry_delay_ms, tries, retry_of, retried_by, "
    "takes_input, terminal, separate_streams, paused_by, stop_signal, stop_grace_ms, queued, role"
)
"""what `shown_job` reads"""

_NO_VALUES = "{}"
"""as most jobs have it: not worth a parser's time"""

ALL_COLUMNS = f"{COLUMNS}, secrets"
"""what `job_of` reads"""


def columns_of(
    order: Order, owner: str, state: State, now: int, epoch: str, scheduled_at: int | None = None, role: str = ""
) -> dict[str, int | str | bytes | None]:
    """The columns of a new job, but for its secrets."""
    limits, part = order.limits, order.part
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
        "role": role,
        "created_at": now,
        "started_at": now if state is State.INITIALIZING else None,
        "epoch": epoch if state is State.INITIALIZING else "",
        "name": order.name,
        "environment": object_text(order.environment),
        "secret_names": json.dumps(list(order.secret_environment)) if order.secret_environment else "[]",
        "workdir": order.workdir,
        "uploads": uploads_text(order.uploads),
        "workflow_id": part.workflow_id if part else None,
        "position": part.position if part else None,
        "attempt": part.attempt if part else None,
        "labels": object_text(order.labels),
        "schedule": json.dumps(dataclasses.asdict(order.schedule)) if order.schedule else None,
        "scheduled_at": scheduled_at,
        "retries": order.retries,
        "retry_delay_ms": order.retry_delay_ms,
        "takes_input": order.stdin,
        "terminal": json.dumps(dataclasses.astuple(order.terminal)) if order.terminal else None,
        "separate_streams": order.separate_streams,
    }


def job_of(row: tuple[Any, ...], sealer: Sealer) -> Job:
    """The job of a row with ALL_COLUMNS. Its secrets are opened when they are asked for."""
    job = shown_job(row[:-1])
    names = tuple(job.secret_environment)
    return replace(job, secret_environment=Secrets(sealer, names, row[-1])) if names else job


def shown_job(row: tuple[Any, ...]) -> Job:
    """The job of a row with COLUMNS, its secrets masked."""
    (job_id, command, args, max_cpu, max_memory, max_iobps, state, owner,
     created_at, started_at, exec_at, ended_at, exit_code, reason, stop_reason,
     max_processes, max_open_files, max_disk, cpu_cores, receipt, timeout_ms, priority, key, epoch,
     name, environment, secret_names, workdir, uploads, workflow_id, position, attempt, outputs,
     labels, schedule, scheduled_at, schedule_id, retries, retry_delay_ms, tries, retry_of, retried_by,
     stdin, terminal, separate_streams, paused_by, stop_signal, stop_grace_ms, queued, role) = row  # fmt: skip
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
        stop=Stop(stop_signal, stop_grace_ms),
        receipt=Receipt(**json.loads(receipt)) if receipt else None,
        timeout_ms=timeout_ms,
        priority=priority,
        key=key,
        epoch=epoch,
        name=name,
        environment=object_of(environment),
        secret_environment=dict.fromkeys(json.loads(secret_names), MASK) if secret_names != "[]" else {},
        workdir=workdir,
        uploads=uploads_of(uploads),
        part=None if workflow_id is None else Part(workflow_id, position, attempt),
        outputs=object_of(outputs),
        labels=object_of(labels),
        schedule=Schedule(**json.loads(schedule)) if schedule else None,
        scheduled_at=scheduled_at,
        schedule_id=schedule_id,
        retries=retries,
        retry_delay_ms=retry_delay_ms,
        attempt=tries,
        retry_of=retry_of,
        retried_by=retried_by,
        stdin=bool(stdin),
        terminal=Terminal(*json.loads(terminal)) if terminal else None,
        separate_streams=bool(separate_streams),
        paused_by=paused_by,
        queued=bool(queued),
        role=role,
    )


def object_text(values: Mapping[str, str]) -> str:
    """Strings by name as a column has them."""
    return json.dumps(dict(values)) if values else _NO_VALUES


def object_of(text: str) -> dict[str, str]:
    """What `object_text` has written."""
    values: dict[str, str] = {} if text == _NO_VALUES else json.loads(text)
    return values


def uploads_text(uploads: Uploads | None) -> str | None:
    """As a column has them."""
    return None if uploads is None else json.dumps([uploads.folder, *uploads.paths])


def uploads_of(text: str | None) -> Uploads | None:
    """What `uploads_text` has written."""
    if text is None:
        return None
    folder, *paths = json.loads(text)
    return Uploads(folder, tuple(paths))
