"""Workflows and their steps as rows of the database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from joblet.job import Job, Limits
from joblet.order import Order
from joblet.store.rows import object_of, object_text, uploads_of, uploads_text
from joblet.store.secrets import Sealer, Secrets
from joblet.workflow.condition import End
from joblet.workflow.expression import parse_stored
from joblet.workflow.plan import Plan, Retry, Step, WorkflowState
from joblet.workflow.record import StepRecord, StepStatus, Workflow

WORKFLOW_COLUMNS = (
    "id, file, owner, role, state, created_at, name, uploads, client_key, fingerprint, started_at, ended_at, reason, "
    "stop_reason, timeout, max_parallel, timer_from, total, completed, failed, stopped, canceled"
)
"""what `workflow_of` reads"""
RECORD_COLUMNS = (
    "position, name, ended_as, attempts, base_attempts, job_id, started_at, ended_at, exit_code, reason, retry_at, "
    "outputs"
)
"""what `record_of` reads"""
RECORD_UPDATE = (
    "UPDATE workflow_steps SET ended_as = ?, attempts = ?, job_id = ?, started_at = ?, ended_at = ?, exit_code = ?, "
    "reason = ?, retry_at = ?, outputs = ? "
    "WHERE workflow_id = ? AND position = ? AND ended_as IS NULL AND attempts <= ?"
)
"""an end stays, and attempts do not become fewer"""
STATUS_COLUMNS = f"{RECORD_COLUMNS}, condition, dependencies, base_attempts + retry_limit + 1, continue_on_failure"
"""what `status_of` reads, beside a job"""
STEP_COLUMNS = "name, spec, secrets, condition, retry_limit, continue_on_failure"
"""what `step_of` reads"""


def workflow_columns(workflow: Workflow, total: int) -> dict[str, int | float | str]:
    """The columns of a new workflow, whose id is given by the database."""
    return {
        "file": workflow.file,
        "name": workflow.name,
        "owner": workflow.owner,
        "role": workflow.role,
        "client_key": workflow.key,
        "fingerprint": workflow.fingerprint,
        "uploads": workflow.uploads,
        "timeout": workflow.timeout,
        "max_parallel": workflow.max_parallel,
        "state": WorkflowState.PENDING,
        "created_at": workflow.created_at,
        "timer_from": workflow.timer_from or workflow.created_at,
        "total": total,
    }


def workflow_of(row: tuple[Any, ...], yaml: str = "", parameters: str = "{}") -> Workflow:
    """The workflow of a row with WORKFLOW_COLUMNS and, where they have been read, of its file."""
    (number, file, owner, role, state, created_at, name, uploads, key, fingerprint, started_at, ended_at, reason,
     stop_reason, timeout, max_parallel, timer_from, total, completed, failed, stopped, canceled) = row  # fmt: skip
    return Workflow(
        id=number,
        file=file,
        owner=owner,
        role=role,
        state=WorkflowState[state],
        created_at=created_at,
        name=name,
        yaml=yaml,
        parameters=json.loads(parameters),
        uploads=uploads,
        key=key,
        fingerprint=fingerprint,
        started_at=started_at,
        ended_at=ended_at,
        reason=reason,
        stop_reason=stop_reason,
        timeout=timeout,
        max_parallel=max_parallel,
        timer_from=timer_from,
        total=total,
        completed=completed,
        failed=failed,
        stopped=stopped,
        canceled=canceled,
    )


def step_rows(plan: Plan, sealer: Sealer) -> Iterator[tuple[Any, ...]]:
    """The columns position, dependencies and STEP_COLUMNS of each of a plan's steps."""
    for position, step in enumerate(plan.steps):
        order, retry = step.order, step.retry
        spec = {
            "command": order.command,
            "args": order.args,
            "limits": [getattr(order.limits, name) for name in Limits.__slots__],
            "timeout_ms": order.timeout_ms,
            "priority": order.priority,
            "name": order.name,
            "environment": dict(order.environment),
            "secret_names": list(order.secret_environment),
            "workdir": order.workdir,
            "labels": dict(order.labels),
            "files": uploads_text(order.uploads),
            "backoff": retry.backoff,
            "factor": retry.factor,
            "max_backoff": retry.max_backoff,
            "exit_codes": sorted(retry.exit_codes),
            "uploads": step.uploads,
        }
        yield (
            position,
            json.dumps(step.dependencies),
            step.name,
            json.dumps(spec),
            sealer.seal_all(order.secret_environment),
            str(step.condition),
            retry.limit,
            step.continue_on_failure,
        )


def step_of(row: tuple[Any, ...], sealer: Sealer) -> Step:
    """The step of a row with STEP_COLUMNS. Its secrets are opened when they are asked for."""
    name, text, sealed, condition, limit, continue_on_failure = row
    spec = json.loads(text)
    names = tuple(spec["secret_names"])
    order = Order(
        command=spec["command"],
        args=tuple(spec["args"]),
        limits=Limits(*spec["limits"]),
        timeout_ms=spec["timeout_ms"],
        priority=spec["priority"],
        name=spec["name"],
        environment=spec["environment"],
        secret_environment=Secrets(sealer, names, sealed) if names else {},
        workdir=spec["workdir"],
        labels=spec.get("labels", {}),  # which those of earlier versions have not
        uploads=uploads_of(spec["files"]),
    )
    retry = Retry(limit, spec["backoff"], spec["factor"], spec["max_backoff"], frozenset(spec["exit_codes"]))
    return Step(name, order, parse_stored(condition), retry, bool(continue_on_failure), tuple(spec["uploads"]))


def record_of(row: tuple[Any, ...]) -> StepRecord:
    """The record of a row with RECORD_COLUMNS."""
    (position, name, end, attempts, base_attempts, job_id,
     started_at, ended_at, exit_code, reason, retry_at, outputs) = row  # fmt: skip
    return StepRecord(
        position=position,
        name=name,
        end=None if end is None else End[end],
        attempts=attempts,
        base_attempts=base_attempts,
        job_id=job_id,
        started_at=started_at,
        ended_at=ended_at,
        exit_code=exit_code,
        reason=reason,
        retry_at=retry_at,
        outputs=object_of(outputs),
    )


def record_values(workflow_id: int, record: StepRecord) -> tuple[Any, ...]:
    """What RECORD_UPDATE takes."""
    return (
        record.end,
        record.attempts,
        record.job_id,
        record.started_at,
        record.ended_at,
        record.exit_code,
        record.reason,
        record.retry_at,
        object_text(record.outputs),
        workflow_id,
        record.position,
        record.attempts,
    )


def status_of(row: tuple[Any, ...], job: Job | None) -> StepStatus:
    """The step of a row with STATUS_COLUMNS; `job` is that of its attempt under way."""
    *record, condition, dependencies, max_attempts, continue_on_failure = row
    return StepStatus(
        record=record_of(tuple(record)),
        job=job,
        condition=condition,
        dependencies=tuple(json.loads(dependencies)),
        max_attempts=max_attempts,
        continue_on_failure=bool(continue_on_failure),
    )
