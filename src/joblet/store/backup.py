"""A copy of the database, and a copy in its place; `sqlite3`'s online backup, so the server may run meanwhile."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from joblet.errors import StoreFailed
from joblet.store.schema import check, newest_schema


def backup(database: Path, target: Path) -> None:
    """Write a consistent copy of the database to a new file. Raises StoreFailed."""
    if not database.exists():
        raise StoreFailed(f"{database} does not exist")
    if target.exists():
        raise StoreFailed(f"{target} exists already")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with (
            contextlib.closing(sqlite3.connect(database)) as source,
            contextlib.closing(sqlite3.connect(partial)) as copy,
        ):
            source.backup(copy)
            check(copy)
        os.chmod(partial, 0o600)
        _sync(partial)
        partial.rename(target)
        _sync(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise StoreFailed(f"{database} cannot be copied to {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def restore(source: Path, database: Path) -> Path | None:
    """Put a copy in the database's place; where the one that was there is now, if there was one.

    The caller holds the state directory. Raises StoreFailed, and then nothing has changed.
    """
    fresh = database.with_name(f".{database.name}.restore")
    try:
        if not source.is_file():
            raise StoreFailed(f"{source} does not exist")
        fresh.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as copy:
            check(copy)
            (schema,) = copy.execute("PRAGMA user_version").fetchone()
            if not 0 < schema <= newest_schema():
                raise StoreFailed(f"{source} has schema {schema}, this joblet knows 1 to {newest_schema()}")
            with contextlib.closing(sqlite3.connect(fresh)) as target:
                copy.backup(target)
        os.chmod(fresh, 0o600)
        _sync(fresh)
    except (sqlite3.Error, OSError) as error:
        raise StoreFailed(f"{source} cannot be restored: {error}") from error
    kept = None
    if database.exists():
        kept = database.with_name(f"{database.name}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                database.with_name(database.name + suffix).rename(kept.with_name(kept.name + suffix))
    fresh.rename(database)
    _sync(database.parent)
    return kept


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
