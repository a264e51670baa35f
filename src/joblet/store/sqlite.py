"""The one door to the database: SQLite in WAL mode, one writer thread with group commit, one reader thread.

What a coroutine awaits here is on disk when the await returns. Changes that arrive while a commit is under way share
the next one, so that many jobs cost one fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from joblet.errors import StoreDamaged, StoreFailed, TransitionRefused
from joblet.job import Job, Order, Receipt, State, sources
from joblet.store.rows import COLUMNS, columns_of, job_of
from joblet.store.schema import check, is_damage, migrate

_BATCH = 256
"""changes in one commit at most; bounds the time the first of them waits"""
_ENDED = "ended_at IS NOT NULL AND deleted = 0"
"""as the index jobs_ended has it"""


class Store:
    """Jobs on disk. Every method raises StoreFailed when the database cannot do its part."""

    def __init__(self, path: Path) -> None:
        """Open or create the database at `path` and migrate it."""
        self._loop = asyncio.get_running_loop()
        self._changes: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._closed = False
        try:
            self._write = _connect(path)
            check(self._write)
            migrate(self._write)
            self._read = _connect(path)
        except sqlite3.DatabaseError as error:
            raise StoreDamaged(path, str(error)) if is_damage(error) else StoreFailed(f"{path}: {error}") from error
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._writer = threading.Thread(target=self._commit_batches, name="store-writer")
        self._writer.start()

    async def close(self) -> None:
        """Commit what is under way and close the database."""
        self._closed = True
        self._changes.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._reader.shutdown)
        self._read.close()
        self._write.close()

    async def create(self, order: Order, owner: str, state: State, now: int, epoch: str = "") -> tuple[Job, bool]:
        """Record a new job in `state` (PENDING or INITIALIZING): the job with its id, and whether it is new.

        It is not when the owner has a job with the order's key already; that is the one, and nothing has changed.
        """
        columns = columns_of(order, owner, state, now, epoch)
        marks = ", ".join("?" * len(columns))
        sql = (
            f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({marks}) "
            "ON CONFLICT (owner, client_key) WHERE client_key != '' AND deleted = 0 DO NOTHING "
            f"RETURNING {COLUMNS}"
        )
        row = await self._change(sql, tuple(columns.values()))
        if row is not None:
            return job_of(row), True
        present = await self.find(owner, order.key)
        if present is None:
            raise StoreFailed(f"the job with key {order.key!r} has just been deleted")
        return present, False

    async def transition(
        self, job_id: int, target: State, *, receipt: Receipt | None = None, **columns: int | str | None
    ) -> Job:
        """Move a job to `target`, setting `columns` with it, and return it as it is now.

        Raises TransitionRefused when the state machine does not allow the move: a final state stays.
        """
        allowed = sources(target)
        if receipt is not None:
            columns["receipt"] = json.dumps(dataclasses.asdict(receipt))
        assignments = "".join(f", {name} = ?" for name in columns)
        marks = ", ".join("?" * len(allowed))
        sql = f"UPDATE jobs SET state = ?{assignments} WHERE id = ? AND state IN ({marks}) RETURNING {COLUMNS}"
        row = await self._change(sql, (target, *columns.values(), job_id, *allowed))
        if row is None:
            raise TransitionRefused(job_id, target)
        return job_of(row)

    async def request_stop(self, job_id: int, stop_reason: str) -> None:
        """Record why a job is about to be stopped; the first reason stays."""
        sql = "UPDATE jobs SET stop_reason = ? WHERE id = ? AND stop_reason = ''"
        await self._change(sql, (stop_reason, job_id))

    async def set_timeout(self, job_id: int, timeout_ms: int) -> Job | None:
        """Change how long a job may run; None when it has ended."""
        sql = f"UPDATE jobs SET timeout_ms = ? WHERE id = ? AND ended_at IS NULL RETURNING {COLUMNS}"
        row = await self._change(sql, (timeout_ms, job_id))
        return None if row is None else job_of(row)

    async def set_disk_bytes(self, job_id: int, size: int) -> None:
        """Record what an ended job's directory takes of the disk."""
        await self._change("UPDATE jobs SET disk_bytes = ? WHERE id = ?", (size, job_id))

    async def delete(self, job_id: int) -> bool:
        """Take an ended job out of every answer; False when there is none with this id that has ended.

        Its row stays until `forget`, so that whoever starts next knows what of it is to be removed.
        """
        sql = "UPDATE jobs SET deleted = 1 WHERE id = ? AND ended_at IS NOT NULL AND deleted = 0 RETURNING id"
        return await self._change(sql, (job_id,)) is not None

    async def delete_all(self) -> list[int]:
        """Take every ended job out of every answer; their ids."""
        before = set(await self.deleted())
        await self._change("UPDATE jobs SET deleted = 1 WHERE ended_at IS NOT NULL AND deleted = 0")
        return [job_id for job_id in await self.deleted() if job_id not in before]

    async def forget(self, job_id: int) -> None:
        """Remove the row of a deleted job, of which nothing is left."""
        await self._change("DELETE FROM jobs WHERE id = ? AND deleted = 1", (job_id,))

    async def skip_ids(self, highest: int) -> None:
        """Never give out an id up to `highest` again: what has its number is there, if this database is older."""
        sql = (
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'jobs', ? WHERE NOT EXISTS "
            "(SELECT 1 FROM sqlite_sequence WHERE name = 'jobs')"
        )
        await self._change(sql, (highest,))
        await self._change("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'jobs'", (highest,))

    async def get(self, job_id: int) -> Job | None:
        """The job with this id, if there is one."""
        jobs = await self._jobs("WHERE id = ? AND deleted = 0", job_id)
        return jobs[0] if jobs else None

    async def find(self, owner: str, key: str) -> Job | None:
        """The owner's job with this key, if there is one."""
        jobs = await self._jobs("WHERE owner = ? AND client_key = ? AND client_key != '' AND deleted = 0", owner, key)
        return jobs[0] if jobs else None

    async def newest(self, count: int, before: int) -> list[Job]:
        """At most `count` jobs with ids below `before`, newest first."""
        return await self._jobs("WHERE id < ? AND deleted = 0 ORDER BY id DESC LIMIT ?", before, count)

    async def unfinished(self) -> list[Job]:
        """The jobs not in a final state, by id."""
        return await self._jobs("WHERE state IN ('PENDING', 'INITIALIZING', 'RUNNING') ORDER BY id")

    async def deleted(self) -> list[int]:
        """Ids of the jobs of which something is left to be removed."""
        return [job_id for (job_id,) in await self._query("SELECT id FROM jobs WHERE deleted = 1")]

    async def ended(self, count: int, after: tuple[int, int]) -> list[tuple[int, int, int]]:
        """(ended_at, id, disk_bytes) of the `count` longest ended jobs that come after this (ended_at, id)."""
        where = f"{_ENDED} AND (ended_at, id) > (?, ?) ORDER BY ended_at, id LIMIT ?"
        return await self._query(f"SELECT ended_at, id, disk_bytes FROM jobs WHERE {where}", *after, count)

    async def count_ended(self) -> int:
        """How many jobs have ended and are not deleted."""
        ((count,),) = await self._query(f"SELECT count(*) FROM jobs WHERE {_ENDED}")
        return int(count)

    async def sum_disk_bytes(self) -> int:
        """What the ended jobs' directories take of the disk, as far as it has been recorded."""
        ((size,),) = await self._query(f"SELECT coalesce(sum(disk_bytes), 0) FROM jobs WHERE {_ENDED}")
        return int(size)

    async def unmeasured(self) -> list[int]:
        """Ids of the ended jobs whose disk_bytes have not been recorded."""
        return [job_id for (job_id,) in await self._query(f"SELECT id FROM jobs WHERE {_ENDED} AND disk_bytes = 0")]

    async def unknown(self, job_ids: Iterable[int]) -> list[int]:
        """Those of the ids that no job has, not even a deleted one; in order."""
        sql = "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT id FROM jobs) ORDER BY value"
        return [job_id for (job_id,) in await self._query(sql, json.dumps(list(job_ids)))]

    async def _jobs(self, clause: str, *values: Any) -> list[Job]:
        return [job_of(row) for row in await self._query(f"SELECT {COLUMNS} FROM jobs {clause}", *values)]

    async def _query(self, sql: str, *values: Any) -> list[Any]:
        self._check_open()
        try:
            return await self._loop.run_in_executor(self._reader, lambda: self._read.execute(sql, values).fetchall())
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from error

    async def _change(self, sql: str, values: tuple[Any, ...] = ()) -> Any:
        """Run one statement in the writer's next commit; the row it returns, if any."""
        self._check_open()
        done: asyncio.Future[Any] = self._loop.create_future()
        self._changes.put(_Change(sql, values, done))
        # A client that goes away must not undo what others were told: the commit happens either way.
        return await asyncio.shield(done)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreFailed("it is closed")

    def _commit_batches(self) -> None:
        while (first := self._changes.get()) is not None:
            batch = [first]
            while len(batch) < _BATCH:
                try:
                    change = self._changes.get_nowait()
                except queue.Empty:
                    break
                if change is None:
                    self._changes.put(None)
                    break
                batch.append(change)
            self._loop.call_soon_threadsafe(self._commit(batch))

    def _commit(self, batch: list[_Change]) -> Callable[[], None]:
        """Run a batch in one transaction; what to do on the event loop to say how it went."""
        try:
            self._write.execute("BEGIN IMMEDIATE")
            rows = [self._write.execute(change.sql, change.values).fetchone() for change in batch]
            self._write.execute("COMMIT")
        except (sqlite3.Error, OverflowError, ValueError) as error:  # the last for a text that is not Unicode
            if self._write.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # a full disk can end it by itself
                    self._write.execute("ROLLBACK")
            if len(batch) > 1 and not isinstance(error, sqlite3.OperationalError):
                # one bad change must not fail its neighbours; a full disk or a locked file fails them all
                return partial(_call_all, [self._commit([change]) for change in batch])
            return partial(_call_all, [partial(_fail, change.done, StoreFailed(str(error))) for change in batch])
        return partial(_settle, batch, rows)


class _Change:
    __slots__ = ("done", "sql", "values")

    def __init__(self, sql: str, values: tuple[Any, ...], done: asyncio.Future[Any]) -> None:
        self.sql = sql
        self.values = values
        self.done = done


def _settle(batch: list[_Change], rows: list[Any]) -> None:
    for change, row in zip(batch, rows, strict=True):
        if not change.done.done():
            change.done.set_result(row)


def _call_all(tellings: list[Callable[[], None]]) -> None:
    for tell in tellings:
        tell()


def _fail(done: asyncio.Future[Any], error: StoreFailed) -> None:
    if not done.done():
        done.set_exception(error)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection
