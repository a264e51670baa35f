"""The one door to the database: SQLite in WAL mode, one writer thread with group commit, one reader thread.

What a coroutine awaits here is on disk when the await returns. Changes that arrive while a commit is under way share
the next one, so that many jobs cost one fsync.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from joblet.errors import StoreFailed
from joblet.job import Job, Limits, Receipt, State, sources
from joblet.store.schema import migrate

T = TypeVar("T")

_COLUMNS = (
    "id, command, args, max_cpu, max_memory, max_iobps, state, owner, "
    "created_at, started_at, exec_at, ended_at, exit_code, reason, stop_reason, "
    "max_processes, max_open_files, max_disk, cpu_cores, receipt"
)
_BATCH = 256
"""changes in one commit at most; bounds the time the first of them waits"""


class Store:
    """Jobs on disk. Every method raises StoreFailed when the database cannot do its part."""

    def __init__(self, path: Path) -> None:
        """Open or create the database at `path` and migrate it."""
        self._loop = asyncio.get_running_loop()
        self._changes: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._closed = False
        try:
            self._write = _connect(path)
            migrate(self._write)
            self._read = _connect(path)
        except sqlite3.Error as error:
            raise StoreFailed(f"{path}: {error}") from error
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

    async def create(
        self, command: str, args: Iterable[str], limits: Limits, owner: str, state: State, now: int
    ) -> Job:
        """Record a new job in `state` (PENDING or INITIALIZING) and return it with its id."""
        started_at = now if state is State.INITIALIZING else None
        values = (
            command, json.dumps(list(args)), limits.max_cpu, limits.max_memory, limits.max_iobps,
            limits.max_processes, limits.max_open_files, limits.max_disk, limits.cpu_cores,
            state, owner, now, started_at,
        )  # fmt: skip
        sql = (
            "INSERT INTO jobs (command, args, max_cpu, max_memory, max_iobps, max_processes, max_open_files, max_disk, "
            f"cpu_cores, state, owner, created_at, started_at) VALUES ({', '.join('?' * len(values))}) "
            f"RETURNING {_COLUMNS}"
        )
        return _job(await self._change(sql, values))

    async def transition(
        self, job_id: int, target: State, *, receipt: Receipt | None = None, **columns: int | str | None
    ) -> Job:
        """Move a job to `target`, setting `columns` with it, and return it as it is now.

        Raises StoreFailed when the state machine does not allow the move: a final state stays.
        """
        allowed = sources(target)
        if receipt is not None:
            columns["receipt"] = json.dumps(dataclasses.asdict(receipt))
        assignments = "".join(f", {name} = ?" for name in columns)
        marks = ", ".join("?" * len(allowed))
        sql = f"UPDATE jobs SET state = ?{assignments} WHERE id = ? AND state IN ({marks}) RETURNING {_COLUMNS}"
        row = await self._change(sql, (target, *columns.values(), job_id, *allowed))
        if row is None:
            raise StoreFailed(f"job {job_id} may not become {target}")
        return _job(row)

    async def request_stop(self, job_id: int, stop_reason: str) -> None:
        """Record why a job is about to be stopped; the first reason stays."""
        sql = "UPDATE jobs SET stop_reason = ? WHERE id = ? AND stop_reason = ''"
        await self._change(sql, (stop_reason, job_id))

    async def get(self, job_id: int) -> Job | None:
        """The job with this id, if there is one."""
        rows = await self._query(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,))
        return rows[0] if rows else None

    async def all(self) -> list[Job]:
        """Every job, by id."""
        return await self._query(f"SELECT {_COLUMNS} FROM jobs ORDER BY id", ())

    async def unfinished(self) -> list[Job]:
        """The jobs not in a final state, by id."""
        where = "state IN ('PENDING', 'INITIALIZING', 'RUNNING')"
        return await self._query(f"SELECT {_COLUMNS} FROM jobs WHERE {where} ORDER BY id", ())

    async def _query(self, sql: str, values: tuple[Any, ...]) -> list[Job]:
        self._check_open()

        def read() -> list[Job]:
            return [_job(row) for row in self._read.execute(sql, values)]

        try:
            return await self._loop.run_in_executor(self._reader, read)
        except sqlite3.Error as error:
            raise StoreFailed(str(error)) from error

    async def _change(self, sql: str, values: tuple[Any, ...]) -> Any:
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
                self._write.execute("ROLLBACK")
            if len(batch) > 1:  # one bad change must not fail its neighbours
                return partial(_call_all, [self._commit([change]) for change in batch])
            return partial(_fail, batch[0].done, StoreFailed(str(error)))
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


def _job(row: tuple[Any, ...]) -> Job:
    (job_id, command, args, max_cpu, max_memory, max_iobps, state, owner,
     created_at, started_at, exec_at, ended_at, exit_code, reason, stop_reason,
     max_processes, max_open_files, max_disk, cpu_cores, receipt) = row  # fmt: skip
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
    )
