"""The one door to the database: SQLite in WAL mode, one writer thread with group commit, one reader thread.

What a coroutine awaits here is on disk when the await returns, but for changes that are said to be `lasting` without
it: those survive the end of this process, and are on the disk too with the next commit, or 20 ms later.
Changes that arrive while a commit is under way share the next one, so that many jobs cost one fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from joblet import durable
from joblet.errors import JobletError, StoreDamaged, StoreFailed, StoreFull
from joblet.measures import StoreMeasures
from joblet.store.schema import check, is_damage, is_full, migrate

log = logging.getLogger(__name__)

T = TypeVar("T")

NEWEST_EVENT = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)"
"""the sequence number of the newest event there has been, kept or not; 0 for none"""

_BATCH = 256
"""changes in one commit at most; bounds the time the first of them waits"""
_SOON = 0.02
"""seconds after which what need not be on the disk at once is"""
_ROOM = 4 << 20
"""bytes of the write-ahead log, as many as SQLite lets it have before it begins it anew"""
_ITS_OWN = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
    OverflowError,
    ValueError,  # for a text that is not Unicode
    JobletError,  # that a change raises to be undone
)
"""what is wrong with one change, and leaves the transaction as it was before it"""


class Database:
    """One SQLite file. A method that cannot do its part raises StoreFailed, or StoreFull for want of room."""

    def __init__(self, path: Path) -> None:
        """Open or create the database at `path` and migrate it."""
        self._loop = asyncio.get_running_loop()
        self._changes: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._closed = False
        self._synced = True
        """whether a commit waits for the disk"""
        self._unsynced = False
        """whether one has not, and none after it has"""
        self._path = path
        self.damaged = False
        """it takes no more that is new: that would be lost with it"""
        self.measures = StoreMeasures()
        self.on_commit: Callable[[int], None] = lambda newest: None
        """called on the event loop after each commit, with the sequence number of the newest event"""
        try:
            self._write = _connect(path)
            check(self._write)
            migrate(self._write)
            self._read = _connect(path)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise StoreDamaged(path, str(error)) from error
            raise (StoreFull if is_full(error) else StoreFailed)(f"{path}: {error}") from error
        _make_room(path)
        self._log = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._writer = threading.Thread(target=self._commit_batches, name="store-writer")
        self._writer.start()

    @property
    def waiting(self) -> int:
        """Changes that wait for the next commit."""
        return self._changes.qsize()

    def sizes(self) -> dict[str, int]:
        """Bytes of the `database`, and of its `wal`, the write-ahead log."""
        return {name: _size(f"{self._path}{suffix}") for name, suffix in (("database", ""), ("wal", "-wal"))}

    async def close(self) -> None:
        """Commit what is under way and close the database."""
        if self._closed:
            return
        self._closed = True
        self._changes.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._reader.shutdown)
        self._read.close()
        self._write.close()
        os.close(self._log)

    async def execute(self, sql: str, values: tuple[Any, ...] = (), *, lasting: bool = False) -> Any:
        """Run one statement in the writer's next commit; the first row it returns, if any.

        With `lasting` other files tell the same, should the machine lose its power: it need not be on the disk yet.
        """
        return await self._submit(_Statement(sql, values, self._loop.create_future(), lasting))

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the writer's thread and next commit, as a whole or not at all; what it returns.

        What it raises is raised here, and then nothing has changed. It begins and ends no transaction, and has no other
        effect: for a neighbour's sake it may be undone and run again.
        """
        result: T = await self._submit(_Work(work, self._loop.create_future()))
        return result

    async def query(self, sql: str, *values: Any) -> list[Any]:
        """The rows of one SELECT."""
        return await self._read_by(lambda connection: connection.execute(sql, values).fetchall())

    async def snapshot(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the reader's thread: all that it reads is of one moment."""

        def read(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")

        return await self._read_by(read)

    async def skip_ids(self, table: str, highest: int) -> None:
        """Never give out an id of `table` up to `highest` again: what has its number is there, if this is older."""

        def skip(connection: sqlite3.Connection) -> None:
            (present,) = connection.execute("SELECT count(*) FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
            if not present:
                connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, 0)", (table,))
            connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (highest, table))

        await self.change(skip)

    async def unknown(self, table: str, ids: Iterable[int]) -> list[int]:
        """Those of the ids that no row of `table` has; in order."""
        wanted = set(ids)

        def look(connection: sqlite3.Connection) -> list[int]:
            known = connection.execute(f"SELECT id FROM {table}")
            return sorted(wanted.difference(number for (number,) in known))

        return await self._read_by(look) if wanted else []

    def unreadable(self, what: str, error: Exception) -> StoreFailed:
        """What to raise for a row that does not hold what this program writes."""
        return self._failure(sqlite3.DatabaseError(f"{what} cannot be read: {error!r}"))

    async def _read_by(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._check_open()
        try:
            return await self._loop.run_in_executor(self._reader, work, self._read)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> StoreFailed:
        """What a client is told. Damage is told to the operator too, once: there are as many such calls as come."""
        if isinstance(error, sqlite3.DatabaseError) and is_damage(error) and not self.damaged:
            self.damaged = True
            log.error(str(StoreDamaged(self._path, str(error))))
        return (StoreFull if isinstance(error, sqlite3.Error) and is_full(error) else StoreFailed)(str(error))

    async def _submit(self, change: _Change) -> Any:
        self._check_open()
        self._changes.put(change)
        # A client that goes away must not undo what others were told: the commit happens either way.
        return await asyncio.shield(change.done)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreFailed("it is closed")

    def _next(self) -> _Change | None:
        """The next change; while there is none, what is not on the disk yet comes there."""
        if self._unsynced:
            with contextlib.suppress(queue.Empty):
                return self._changes.get(timeout=_SOON)
            with contextlib.suppress(OSError):  # of a disk that fails the next commit tells
                os.fdatasync(self._log)
            self._unsynced = False
        return self._changes.get()

    def _commit_batches(self) -> None:
        while (first := self._next()) is not None:
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
        began = time.perf_counter()
        try:
            at_once = not all(change.lasting for change in batch)
            self._sync(at_once)
            self._write.execute("BEGIN IMMEDIATE")
            tellings = [self._attempt(change) for change in batch]
            (newest,) = self._write.execute(NEWEST_EVENT).fetchone()
            self._write.execute("COMMIT")
            self._unsynced = not at_once
        except Exception as error:
            self.measures.failures += 1
            if self._write.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # a full disk can end it by itself
                    self._write.execute("ROLLBACK")
            if len(batch) > 1 and not isinstance(error, sqlite3.OperationalError):
                # one bad change must not fail its neighbours; a full disk or a locked file fails them all
                return partial(_call_all, [self._commit([change]) for change in batch])
            told = self._failure(error) if isinstance(error, sqlite3.Error) else error
            return partial(_call_all, [partial(_fail, change.done, told) for change in batch])
        self.measures.seconds.observe(time.perf_counter() - began)
        self.measures.changes.observe(len(batch))
        return partial(self._tell, tellings, newest)

    def _sync(self, wanted: bool) -> None:
        """Have the next commit wait for the disk, and all before it with it, or not (sqlite.org, synchronous)."""
        if wanted != self._synced:
            self._write.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._synced = wanted

    def _attempt(self, change: _Change) -> Callable[[], None]:
        """Run one change; what to say of it once it is committed, or at once when it was undone by itself."""
        try:
            result = change.run(self._write)
        except _ITS_OWN as error:
            if not self._write.in_transaction:
                raise
            told = error if isinstance(error, JobletError) else self._failure(error)
            return partial(_fail, change.done, told)
        return partial(_settle, change.done, result)

    def _tell(self, tellings: list[Callable[[], None]], newest: int) -> None:
        _call_all(tellings)
        self.on_commit(newest)


def of_owner(owner: str | None) -> tuple[str, tuple[str, ...]]:
    """What to add to the condition of a statement, with its value: rows of one owner, or of all."""
    return ("", ()) if owner is None else (" AND owner = ?", (owner,))


class _Statement:
    """A change by one statement, which SQLite undoes by itself when it fails."""

    __slots__ = ("_sql", "_values", "done", "lasting")

    def __init__(self, sql: str, values: tuple[Any, ...], done: asyncio.Future[Any], lasting: bool) -> None:
        self.lasting = lasting
        self._sql = sql
        self._values = values
        self.done = done

    def run(self, connection: sqlite3.Connection) -> Any:
        return connection.execute(self._sql, self._values).fetchone()


class _Work:
    """A change by several statements, undone together when one fails."""

    __slots__ = ("_work", "done")
    lasting = False

    def __init__(self, work: Callable[[sqlite3.Connection], Any], done: asyncio.Future[Any]) -> None:
        self._work = work
        self.done = done

    def run(self, connection: sqlite3.Connection) -> Any:
        connection.execute("SAVEPOINT change")
        try:
            result = self._work(connection)
        except Exception:
            if connection.in_transaction:
                connection.execute("ROLLBACK TO change")
                connection.execute("RELEASE change")
            raise
        connection.execute("RELEASE change")
        return result


_Change = _Statement | _Work


def _settle(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def _call_all(tellings: list[Callable[[], None]]) -> None:
    for tell in tellings:
        tell()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _make_room(path: Path) -> None:
    """Give the write-ahead log the room that it will need: on a full disk the ends of jobs and deletions can be stored.

    SQLite begins it anew when it can, and does not cut it.
    """
    with contextlib.suppress(OSError):  # on a disk that is full by now there is no more to be had
        fd = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        try:
            durable.keep_room(fd, 0, _ROOM)
        finally:
            os.close(fd)
