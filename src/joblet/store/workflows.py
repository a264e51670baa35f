"""The workflows in the database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from joblet.errors import StoreFailed, TransitionRefused, WorkflowNotFound
from joblet.job import Job
from joblet.store.database import NEWEST_EVENT, Database, of_owner
from joblet.store.rows import ALL_COLUMNS, COLUMNS, job_of, shown_job
from joblet.store.secrets import Sealer
from joblet.store.steps import (
    RECORD_COLUMNS,
    RECORD_UPDATE,
    STATUS_COLUMNS,
    STEP_COLUMNS,
    WORKFLOW_COLUMNS,
    record_of,
    record_values,
    status_of,
    step_of,
    step_rows,
    workflow_columns,
    workflow_of,
)
from joblet.workflow.plan import Plan, WorkflowState
from joblet.workflow.record import Status, StepRecord, StepStatus, Workflow

T = TypeVar("T")

_OPEN_JOBS = (
    "FROM jobs WHERE workflow_id = ? AND deleted = 0 AND attempt > (SELECT attempts FROM workflow_steps AS step "
    "WHERE step.workflow_id = jobs.workflow_id AND step.position = jobs.position) ORDER BY position, attempt"
)
"""jobs of attempts that have not been concluded"""
_SAME_KEY = "owner = ? AND client_key = ? AND client_key != '' AND deleted = 0"
_ENDED = "ended_at IS NOT NULL AND deleted = 0"
"""as the index workflows_ended has it"""


class Workflows:
    """Workflows on disk. A method that cannot do its part raises StoreFailed, or StoreFull for want of room.

    What a step has come to is in its own row, so that it stays when its jobs are deleted; what its attempt does that is
    under way is in that job's row only. Counts are kept in the workflow's row by the database itself.
    """

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def create(self, workflow: Workflow, plan: Plan) -> tuple[Workflow, bool]:
        """Record a new workflow, PENDING, with its steps: as it is stored with its id, and whether it is new.

        It is not when the owner has a workflow with the same key already; that is the one, and nothing has changed.
        What of `workflow` the database decides (id, state, counts) is not looked at.
        """
        if self._database.damaged:
            raise StoreFailed("the database is damaged")
        columns = workflow_columns(workflow, len(plan.steps))
        steps = await asyncio.to_thread(lambda: list(step_rows(plan, self._sealer)))
        parameters = json.dumps(dict(workflow.parameters))

        def insert(connection: sqlite3.Connection) -> tuple[tuple[Any, ...], bool]:
            present = _select(connection, _SAME_KEY, workflow.owner, workflow.key)
            if present is not None:
                return present, False
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            row = connection.execute(
                f"INSERT INTO workflows ({names}) VALUES ({marks}) RETURNING {WORKFLOW_COLUMNS}",
                tuple(columns.values()),
            ).fetchone()
            connection.execute("INSERT INTO workflow_files VALUES (?, ?, ?)", (row[0], workflow.yaml, parameters))
            connection.executemany(
                f"INSERT INTO workflow_steps (workflow_id, position, dependencies, {STEP_COLUMNS}) "
                f"VALUES ({row[0]}, ?, ?, ?, ?, ?, ?, ?, ?)",
                steps,
            )
            return (*row, workflow.yaml, parameters), True

        row, new = await self._database.change(insert)
        return self._decode([row], _whole)[0], new

    async def transition(
        self,
        workflow_id: int,
        state: WorkflowState,
        *,
        started_at: int | None = None,
        ended_at: int | None = None,
        reason: str = "",
    ) -> Workflow:
        """Move a workflow to `state`; as it is then, without its file. A start that is recorded already stays.

        `ended_at` must be given for a final state and for no other. Raises TransitionRefused when it has ended, or
        would not go on.
        """
        sources = {
            WorkflowState.PENDING: (),
            WorkflowState.RUNNING: (WorkflowState.PENDING,),
        }.get(state, (WorkflowState.PENDING, WorkflowState.RUNNING))
        row = await self._database.execute(
            "UPDATE workflows SET state = ?, started_at = coalesce(started_at, ?), ended_at = ?, reason = ? "
            f"WHERE id = ? AND state IN ({', '.join('?' * len(sources))}) RETURNING {WORKFLOW_COLUMNS}",
            (state, started_at, ended_at, reason, workflow_id, *sources),
        )
        if row is None:
            raise TransitionRefused(workflow_id, state, "workflow")
        return workflow_of(row)

    async def request_stop(self, workflow_id: int, reason: str) -> None:
        """Record why a workflow is about to be stopped; the first reason stays, and what has ended has none."""
        sql = "UPDATE workflows SET stop_reason = ? WHERE id = ? AND stop_reason = '' AND ended_at IS NULL"
        await self._database.execute(sql, (reason, workflow_id))

    async def conclude(self, workflow_id: int, records: Sequence[StepRecord]) -> None:
        """Record what steps have come to. An attempt after which there is another has no end and a `retry_at`.

        An end that is recorded stays. `name` and `base_attempts` are not looked at.
        """
        if len(records) == 1:
            await self._database.execute(RECORD_UPDATE, record_values(workflow_id, records[0]))
            return

        def update(connection: sqlite3.Connection) -> None:
            connection.executemany(RECORD_UPDATE, (record_values(workflow_id, record) for record in records))

        await self._database.change(update)

    async def reopen(self, workflow_id: int, positions: Iterable[int], now: int) -> Workflow | None:
        """Have an ended workflow go on, and these of its steps without an end; None unless it has ended.

        It is RUNNING, or PENDING when none of its jobs was ever started.

        Its time counts from `now`, its steps' limits of retries from the attempts that there have been. Without its
        file.
        """
        changed = [(workflow_id, position) for position in positions]

        def reopen(connection: sqlite3.Connection) -> Any:
            row = connection.execute(
                "UPDATE workflows SET state = iif(started_at IS NULL, 'PENDING', 'RUNNING'), ended_at = NULL, "
                f"reason = '', stop_reason = '', timer_from = ? WHERE id = ? AND {_ENDED} RETURNING id",
                (now, workflow_id),
            ).fetchone()
            if row is None:
                return None
            connection.executemany(
                "UPDATE workflow_steps SET ended_as = NULL, base_attempts = attempts, job_id = NULL, "
                "started_at = NULL, ended_at = NULL, exit_code = 0, reason = '', retry_at = NULL, outputs = '{}' "
                "WHERE workflow_id = ? AND position = ?",
                changed,
            )
            sql = f"SELECT {WORKFLOW_COLUMNS} FROM workflows WHERE id = ?"  # with the counts as they are now
            return connection.execute(sql, (workflow_id,)).fetchone()

        row = await self._database.change(reopen)
        return None if row is None else workflow_of(row)

    async def delete(self, workflow_id: int) -> list[int] | None:
        """Take an ended workflow and its jobs out of every answer; the jobs' ids, None when there is no such workflow.

        The rows stay until they are forgotten, so that whoever starts next knows what is to be removed.
        """

        def delete(connection: sqlite3.Connection) -> list[int] | None:
            sql = f"UPDATE workflows SET deleted = 1 WHERE id = ? AND {_ENDED} RETURNING id"
            if connection.execute(sql, (workflow_id,)).fetchone() is None:
                return None
            jobs = "UPDATE jobs SET deleted = 1 WHERE workflow_id = ? AND ended_at IS NOT NULL RETURNING id"
            return sorted(job_id for (job_id,) in connection.execute(jobs, (workflow_id,)))

        return await self._database.change(delete)

    async def forget(self, workflow_id: int) -> None:
        """Remove the rows of a deleted workflow, of which nothing else is left."""

        def forget(connection: sqlite3.Connection) -> None:
            sql = "DELETE FROM workflows WHERE id = ? AND deleted = 1 RETURNING id"
            if connection.execute(sql, (workflow_id,)).fetchone() is not None:
                connection.execute("DELETE FROM workflow_files WHERE workflow_id = ?", (workflow_id,))
                connection.execute("DELETE FROM workflow_steps WHERE workflow_id = ?", (workflow_id,))

        await self._database.change(forget)

    async def skip_ids(self, highest: int) -> None:
        """Never give out an id up to `highest` again: what has its number is there, if this database is older."""
        await self._database.skip_ids("workflows", highest)

    async def unknown(self, workflow_ids: Iterable[int]) -> list[int]:
        """Those of the ids that no workflow has, not even a deleted one; in order."""
        return await self._database.unknown("workflows", workflow_ids)

    async def get(self, workflow_id: int) -> Workflow | None:
        """The workflow with this id, if there is one, with its file."""
        row = await self._database.snapshot(
            lambda connection: _select(connection, "id = ? AND deleted = 0", workflow_id)
        )
        return None if row is None else self._decode([row], _whole)[0]

    async def is_over(self, workflow_id: int) -> bool:
        """Whether a workflow has ended, or there is none any more."""
        sql = "SELECT 1 FROM workflows WHERE id = ? AND ended_at IS NULL"
        return not await self._database.query(sql, workflow_id)

    async def find(self, owner: str, key: str) -> Workflow | None:
        """The owner's workflow with this key, if there is one, with its file."""
        row = await self._database.snapshot(lambda connection: _select(connection, _SAME_KEY, owner, key))
        return None if row is None else self._decode([row], _whole)[0]

    async def newest(self, count: int, before: int, *, unfinished: bool, owner: str | None = None) -> list[Workflow]:
        """At most `count` workflows with ids below `before`, newest first, without their files (yaml, parameters).

        `unfinished`: only those that have not ended. `owner`: only those of this one.
        """
        whose, values = of_owner(owner)
        which = "ended_at IS NULL" if unfinished else "deleted = 0"
        clause = f"WHERE id < ? AND {which}{whose} ORDER BY id DESC LIMIT ?"
        return await self._workflows(clause, before, *values, count)

    async def owner(self, workflow_id: int) -> str | None:
        """Whose the workflow with this id is; None when there is no such workflow."""
        rows = await self._database.query("SELECT owner FROM workflows WHERE id = ? AND deleted = 0", workflow_id)
        return rows[0][0] if rows else None

    async def unfinished(self) -> list[Workflow]:
        """The workflows not in a final state, by id, without their files."""
        return await self._workflows("WHERE ended_at IS NULL ORDER BY id")

    async def deleted(self) -> list[tuple[int, str]]:
        """(id, uploads) of the workflows of which something is left to be removed."""
        return await self._database.query("SELECT id, uploads FROM workflows WHERE deleted = 1")

    async def ended(self, count: int, after: tuple[int, int]) -> list[tuple[int, int]]:
        """(ended_at, id) of the `count` longest ended workflows that come after this (ended_at, id)."""
        where = f"{_ENDED} AND (ended_at, id) > (?, ?) ORDER BY ended_at, id LIMIT ?"
        return await self._database.query(f"SELECT ended_at, id FROM workflows WHERE {where}", *after, count)

    async def count_ended(self) -> int:
        """How many workflows have ended and are not deleted."""
        ((count,),) = await self._database.query(f"SELECT count(*) FROM workflows WHERE {_ENDED}")
        return int(count)

    async def upload_folders(self) -> set[str]:
        """The folders in the store of uploads that a workflow, or a job that has not ended, still has."""
        rows = await self._database.query(
            "SELECT uploads FROM workflows WHERE uploads != '' UNION SELECT json_extract(uploads, '$[0]') FROM jobs "
            "WHERE state IN ('SCHEDULED', 'PENDING', 'INITIALIZING', 'RUNNING') AND uploads IS NOT NULL"
        )
        return {folder for (folder,) in rows}

    async def plan(self, workflow_id: int) -> Plan:
        """The plan that a workflow was made with, secrets included. Raises WorkflowNotFound."""

        def read(connection: sqlite3.Connection) -> tuple[Any, list[Any]]:
            steps = f"SELECT {STEP_COLUMNS} FROM workflow_steps WHERE workflow_id = ? ORDER BY position"
            return _select(connection, "id = ?", workflow_id), connection.execute(steps, (workflow_id,)).fetchall()

        row, rows = await self._database.snapshot(read)
        if row is None:
            raise WorkflowNotFound(str(workflow_id))
        steps = await asyncio.to_thread(self._decode, rows, lambda row: step_of(row, self._sealer))
        workflow = _whole(row)
        return Plan(tuple(steps), workflow.name, workflow.timeout, workflow.max_parallel, workflow.parameters)

    async def steps(self, workflow_id: int) -> list[StepRecord]:
        """What a workflow's steps have come to, in order."""
        sql = f"SELECT {RECORD_COLUMNS} FROM workflow_steps WHERE workflow_id = ? ORDER BY position"
        rows = await self._database.query(sql, workflow_id)
        return await asyncio.to_thread(self._decode, rows, record_of)

    async def job_ids(self, workflow_id: int) -> list[int]:
        """Ids of all of a workflow's jobs that are not deleted."""
        rows = await self._database.query("SELECT id FROM jobs WHERE workflow_id = ? AND deleted = 0", workflow_id)
        return [job_id for (job_id,) in rows]

    async def jobs(self, workflow_id: int) -> list[Job]:
        """Those of a workflow's jobs whose attempts have not been concluded, by position."""
        rows = await self._database.query(f"SELECT {ALL_COLUMNS} {_OPEN_JOBS}", workflow_id)
        return self._decode(rows, lambda row: job_of(row, self._sealer))

    async def status(self, workflow_id: int) -> Status | None:
        """A workflow with all its steps and the newest event, of one moment; None when there is no such workflow."""

        def read(connection: sqlite3.Connection) -> tuple[Any, list[Any], list[Any], int]:
            steps = f"SELECT {STATUS_COLUMNS} FROM workflow_steps WHERE workflow_id = ? ORDER BY position"
            return (
                _select(connection, "id = ? AND deleted = 0", workflow_id),
                connection.execute(steps, (workflow_id,)).fetchall(),
                connection.execute(f"SELECT {COLUMNS} {_OPEN_JOBS}", (workflow_id,)).fetchall(),
                connection.execute(NEWEST_EVENT).fetchone()[0],
            )

        row, steps, jobs, sequence = await self._database.snapshot(read)
        if row is None:
            return None

        def decode() -> tuple[StepStatus, ...]:
            current = {job.part.position: job for job in self._decode(jobs, shown_job) if job.part}
            return tuple(self._decode(steps, lambda row: status_of(row, current.get(row[0]))))

        return Status(self._decode([row], _whole)[0], await asyncio.to_thread(decode), sequence)

    async def _workflows(self, clause: str, *values: Any) -> list[Workflow]:
        rows = await self._database.query(f"SELECT {WORKFLOW_COLUMNS} FROM workflows {clause}", *values)
        return self._decode(rows, workflow_of)

    def _decode(self, rows: list[tuple[Any, ...]], decode: Callable[[tuple[Any, ...]], T]) -> list[T]:
        try:
            return [decode(row) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise self._database.unreadable("the row of a workflow", error) from error


def _select(connection: sqlite3.Connection, where: str, *values: Any) -> tuple[Any, ...] | None:
    """One workflow with its file."""
    files = "workflows JOIN workflow_files ON workflow_id = id"
    sql = f"SELECT {WORKFLOW_COLUMNS}, yaml, parameters FROM {files} WHERE {where}"
    row: tuple[Any, ...] | None = connection.execute(sql, values).fetchone()
    return row


def _whole(row: tuple[Any, ...]) -> Workflow:
    return workflow_of(row[:-2], *row[-2:])
