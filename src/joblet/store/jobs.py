"""The jobs in the database."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from joblet.errors import StoreFailed, TransitionRefused
from joblet.job import Job, Part, Receipt, State, Stop, sources
from joblet.order import Order
from joblet.store import later
from joblet.store.database import Database, of_owner
from joblet.store.rows import ALL_COLUMNS, COLUMNS, columns_of, job_of, object_text, shown_job
from joblet.store.secrets import KEY_FILE, Sealer, load_key

_USUAL_STOP = Stop()
_ENDED = "ended_at IS NOT NULL AND deleted = 0"
"""as the index jobs_ended has it"""
_DELETABLE = f"{_ENDED} AND NOT EXISTS (SELECT 1 FROM workflows AS w WHERE w.id = workflow_id AND w.ended_at IS NULL)"
"""a workflow that has not ended still has to learn how its jobs did"""


class Store:
    """Jobs on disk. A method that cannot do its part raises StoreFailed, or StoreFull for want of room.

    `get` and `newest` are for those who show jobs: there, secrets are masked. Elsewhere a job has them as `Secrets`,
    opened when a value is asked for; that raises StoreFailed when the key is not the one that they were sealed with.
    """

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self.database = database
        self.sealer = sealer
        self._job_of: Callable[[tuple[Any, ...]], Job] = partial(job_of, sealer=sealer)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open or create the database at `path`, migrate it, and make the key beside it if there is none."""
        return cls(Database(path), Sealer(load_key(path.with_name(KEY_FILE))))

    async def close(self) -> None:
        """Commit what is under way and close the database."""
        await self.database.close()

    async def create(
        self,
        order: Order,
        owner: str,
        state: State,
        now: int,
        epoch: str = "",
        scheduled_at: int | None = None,
        *,
        role: str = "",
    ) -> tuple[Job, bool]:
        """Record a new job in `state` (PENDING, INITIALIZING, or SCHEDULED with its time) of a client with this name
        and role: the job with its id, and whether it is new.

        It is not when the owner has a job with the order's key already, or there is one for the same attempt of a
        workflow's step; that is the one, and nothing has changed. A database that was found damaged takes no more: they
        would be lost with it.
        """
        if self.database.damaged:
            raise StoreFailed("the database is damaged")
        columns = columns_of(order, owner, state, now, epoch, scheduled_at, role)
        columns["secrets"] = self.sealer.seal_all(order.secret_environment)
        marks = ", ".join("?" * len(columns))
        sql = f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING RETURNING {ALL_COLUMNS}"
        row = await self.database.execute(sql, tuple(columns.values()))
        if row is not None:
            return self._job_of(row), True
        present = await self._find_part(order.part) if order.part else await self.find(owner, order.key)
        if present is None:
            raise StoreFailed("the job that this order has made before has just been deleted")
        return present, False

    async def transition(
        self,
        job_id: int,
        target: State,
        *,
        receipt: Receipt | None = None,
        outputs: Mapping[str, str] | None = None,
        **columns: int | str | None,
    ) -> Job:
        """Move a job to `target`, setting `columns` with it, and return it as it is now.

        Raises TransitionRefused when the state machine does not allow the move: a final state stays.
        """
        sql, values = _move(job_id, target, receipt, outputs, columns)
        # That its command runs its monitor tells too, and after a power failure it does not run any more.
        row = await self.database.execute(sql, values, lasting=target is State.RUNNING)
        if row is None:
            raise TransitionRefused(job_id, target)
        return self._job_of(row)

    async def end_for_retry(
        self,
        job_id: int,
        target: State,
        *,
        created_at: int,
        retry_at: int,
        receipt: Receipt | None = None,
        outputs: Mapping[str, str] | None = None,
        **columns: int | str | None,
    ) -> tuple[Job, Job | None]:
        """As `transition` to a final state, and with it the next attempt, SCHEDULED for `retry_at`: both as they are.

        There is none when somebody has asked for the job's end meanwhile.
        """
        sql, values = _move(job_id, target, receipt, outputs, columns)

        def end(connection: sqlite3.Connection) -> tuple[Any, Any]:
            ended = connection.execute(sql, values).fetchone()
            if ended is None:
                raise TransitionRefused(job_id, target)
            return later.add_attempt(connection, job_id, created_at, retry_at) or (ended, None)

        ended, following = await self.database.change(end)
        return self._job_of(ended), None if following is None else self._job_of(following)

    async def make_runs(
        self,
        schedule_id: int,
        *,
        due: int,
        following: int,
        times: Sequence[int],
        now: int,
        replacing: bool,
        queued: bool,
    ) -> list[Job] | None:
        """Make a job for each of the times of a recurring schedule, SCHEDULED, and set its next time.

        None, and nothing has changed, when its next time was not `due`, or it has been asked to stop. `replacing`: the
        jobs of it that have not ended are asked to stop. `queued`: those made wait for the end of these.
        """
        if self.database.damaged:
            raise StoreFailed("the database is damaged")

        def make(connection: sqlite3.Connection) -> list[Any] | None:
            if not later.set_next(connection, schedule_id, due, following):
                return None
            runs = [later.add_run(connection, schedule_id, time, now, queued=queued) for time in times]
            if replacing and runs:
                later.replace_runs(connection, schedule_id, [run[0] for run in runs])
            return runs

        rows = await self.database.change(make)
        return None if rows is None else [self._job_of(row) for row in rows]

    async def needs_uploads(self, folder: str) -> bool:
        """Whether a job that has not ended, or one that such a job will make, is to have the files of this folder."""
        sql = f"SELECT 1 FROM jobs WHERE {later.UNFINISHED} AND json_extract(uploads, '$[0]') = ? LIMIT 1"
        return bool(await self.database.query(sql, folder))

    async def request_stop(self, job_id: int, stop_reason: str, stop: Stop = _USUAL_STOP) -> None:
        """Record why and how a job is about to be stopped; the first reason stays, of ways the last one."""
        sql = (
            "UPDATE jobs SET stop_reason = iif(stop_reason = '', ?, stop_reason), stop_signal = ?, stop_grace_ms = ? "
            "WHERE id = ? AND ended_at IS NULL"
        )
        await self.database.execute(sql, (stop_reason, int(stop.signal), stop.grace_ms, job_id))

    async def set_timeout(self, job_id: int, timeout_ms: int) -> Job | None:
        """Change how long a job may run; None when it has ended."""
        sql = f"UPDATE jobs SET timeout_ms = ? WHERE id = ? AND ended_at IS NULL RETURNING {ALL_COLUMNS}"
        row = await self.database.execute(sql, (timeout_ms, job_id))
        return None if row is None else self._job_of(row)

    async def set_paused(self, job_id: int, paused_by: str) -> Job | None:
        """Record who has paused a running job, or by an empty name that it goes on; None when it does not run."""
        sql = f"UPDATE jobs SET paused_by = ? WHERE id = ? AND state = 'RUNNING' RETURNING {ALL_COLUMNS}"
        row = await self.database.execute(sql, (paused_by, job_id))
        return None if row is None else self._job_of(row)

    async def set_disk_bytes(self, job_id: int, size: int) -> None:
        """Record what an ended job's directory takes of the disk."""
        await self.database.execute("UPDATE jobs SET disk_bytes = ? WHERE id = ?", (size, job_id))

    async def delete(self, job_id: int) -> bool:
        """Take an ended job out of every answer; False when there is none with this id that has ended.

        Nor is one deleted whose workflow has not ended. Its row stays until `forget`, so that whoever starts next knows
        what of it is to be removed.
        """
        sql = f"UPDATE jobs SET deleted = 1 WHERE id = ? AND {_DELETABLE} RETURNING id"
        return await self.database.execute(sql, (job_id,)) is not None

    async def delete_all(self, owner: str | None = None) -> list[int]:
        """Take every ended job, or those of an owner, out of every answer, but those of workflows that have not ended;
        their ids.
        """
        which, values = of_owner(owner)

        def delete(connection: sqlite3.Connection) -> list[int]:
            rows = connection.execute(f"UPDATE jobs SET deleted = 1 WHERE {_DELETABLE}{which} RETURNING id", values)
            return sorted(job_id for (job_id,) in rows)

        return await self.database.change(delete)

    async def forget(self, job_id: int) -> None:
        """Remove the row of a deleted job, of which nothing is left."""
        await self.database.execute("DELETE FROM jobs WHERE id = ? AND deleted = 1", (job_id,))

    async def skip_ids(self, highest: int) -> None:
        """Never give out an id up to `highest` again: what has its number is there, if this database is older."""
        await self.database.skip_ids("jobs", highest)

    async def get(self, job_id: int) -> Job | None:
        """The job with this id, if there is one."""
        jobs = await self._shown("WHERE id = ? AND deleted = 0", job_id)
        return jobs[0] if jobs else None

    async def newest(self, count: int, before: int, owner: str | None = None) -> list[Job]:
        """At most `count` jobs, or jobs of an owner, with ids below `before`, newest first."""
        which, values = of_owner(owner)
        clause = f"WHERE id < ? AND deleted = 0{which} ORDER BY id DESC LIMIT ?"
        return await self._shown(clause, before, *values, count)

    async def owner(self, job_id: int) -> str | None:
        """Whose the job with this id is; None when there is no such job."""
        rows = await self.database.query("SELECT owner FROM jobs WHERE id = ? AND deleted = 0", job_id)
        return rows[0][0] if rows else None

    async def find(self, owner: str, key: str) -> Job | None:
        """The owner's job with this key, if there is one."""
        jobs = await self._jobs("WHERE owner = ? AND client_key = ? AND client_key != '' AND deleted = 0", owner, key)
        return jobs[0] if jobs else None

    async def unfinished(self) -> list[Job]:
        """The jobs not in a final state, by id."""
        return await self._jobs(f"WHERE {later.UNFINISHED} ORDER BY id")

    async def deleted(self) -> list[int]:
        """Ids of the jobs of which something is left to be removed."""
        return [job_id for (job_id,) in await self.database.query("SELECT id FROM jobs WHERE deleted = 1")]

    async def ended(self, count: int, after: tuple[int, int]) -> list[tuple[int, int, int]]:
        """(ended_at, id, disk_bytes) of the `count` longest ended jobs that come after this (ended_at, id).

        Without those whose workflow has not ended.
        """
        where = f"{_DELETABLE} AND (ended_at, id) > (?, ?) ORDER BY ended_at, id LIMIT ?"
        return await self.database.query(f"SELECT ended_at, id, disk_bytes FROM jobs WHERE {where}", *after, count)

    async def count_ended(self) -> int:
        """How many jobs have ended and are not deleted."""
        ((count,),) = await self.database.query(f"SELECT count(*) FROM jobs WHERE {_ENDED}")
        return int(count)

    async def count_kept(self, owner: str | None = None) -> int:
        """How many jobs, or jobs of an owner, have ended and cannot be deleted yet, for their workflows have not."""
        which, values = of_owner(owner)
        unfinished = "workflow_id IN (SELECT id FROM workflows WHERE ended_at IS NULL)"
        sql = f"SELECT count(*) FROM jobs WHERE {unfinished} AND {_ENDED}{which}"
        ((count,),) = await self.database.query(sql, *values)
        return int(count)

    async def count_unfinished(self, owner: str | None = None) -> int:
        """How many jobs, or jobs of an owner, are not in a final state."""
        which, values = of_owner(owner)
        ((count,),) = await self.database.query(f"SELECT count(*) FROM jobs WHERE {later.UNFINISHED}{which}", *values)
        return int(count)

    async def sum_disk_bytes(self) -> int:
        """What the ended jobs' directories take of the disk, as far as it has been recorded."""
        ((size,),) = await self.database.query(f"SELECT coalesce(sum(disk_bytes), 0) FROM jobs WHERE {_ENDED}")
        return int(size)

    async def unmeasured(self) -> list[int]:
        """Ids of the ended jobs whose disk_bytes have not been recorded."""
        rows = await self.database.query(f"SELECT id FROM jobs WHERE {_ENDED} AND disk_bytes = 0")
        return [job_id for (job_id,) in rows]

    async def unknown(self, job_ids: Iterable[int]) -> list[int]:
        """Those of the ids that no job has, not even a deleted one; in order."""
        return await self.database.unknown("jobs", job_ids)

    async def _find_part(self, part: Part) -> Job | None:
        where = "WHERE workflow_id = ? AND position = ? AND attempt = ? AND deleted = 0"
        jobs = await self._jobs(where, part.workflow_id, part.position, part.attempt)
        return jobs[0] if jobs else None

    async def _shown(self, clause: str, *values: Any) -> list[Job]:
        return self._decode(await self.database.query(f"SELECT {COLUMNS} FROM jobs {clause}", *values), shown_job)

    async def _jobs(self, clause: str, *values: Any) -> list[Job]:
        rows = await self.database.query(f"SELECT {ALL_COLUMNS} FROM jobs {clause}", *values)
        return self._decode(rows, self._job_of)

    def _decode(self, rows: list[tuple[Any, ...]], decode: Callable[[tuple[Any, ...]], Job]) -> list[Job]:
        try:
            return [decode(row) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise self.database.unreadable("the row of a job", error) from error


def _move(
    job_id: int,
    target: State,
    receipt: Receipt | None,
    outputs: Mapping[str, str] | None,
    columns: dict[str, int | str | None],
) -> tuple[str, tuple[Any, ...]]:
    """The statement that moves a job to a state if the state machine allows it, and what it takes."""
    allowed = sources(target)
    if receipt is not None:
        columns["receipt"] = json.dumps(dataclasses.asdict(receipt))
    if outputs:
        columns["outputs"] = object_text(outputs)
    assignments = "".join(f", {name} = ?" for name in columns)
    marks = ", ".join("?" * len(allowed))
    sql = f"UPDATE jobs SET state = ?{assignments} WHERE id = ? AND state IN ({marks}) RETURNING {ALL_COLUMNS}"
    return sql, (target, *columns.values(), job_id, *allowed)
