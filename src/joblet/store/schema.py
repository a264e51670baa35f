"""The database's schema: numbered steps in `sql/`, applied in order, forward only."""

from __future__ import annotations

import sqlite3
from importlib import resources

from joblet.errors import StoreFailed


def check(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError when the file's pages do not hang together."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is at fault, not the disk, who holds it, or what was asked."""
    code = getattr(error, "sqlite_errorcode", None)  # None: it is ours, from `check` or from a row that makes no job
    return code is None or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room to write. Without any, not even the file that connections share can be made."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the newest schema. Raises StoreFailed when it is newer than this program knows."""
    steps = _steps()
    (have,) = connection.execute("PRAGMA user_version").fetchone()
    if have > len(steps):
        raise StoreFailed(
            f"the database has schema {have}, this joblet knows up to {len(steps)}: use a newer joblet, "
            "or give up what it has recorded since: joblet restore FILE, with a copy that was made before"
        )
    for number, script in enumerate(steps[have:], start=have + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


def newest_schema() -> int:
    """The schema that this program writes."""
    return len(_steps())


def _steps() -> list[str]:
    folder = resources.files("joblet.store.sql")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]
