"""Changes share commits; each happens as a whole or not at all, whatever becomes of its neighbours."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joblet.errors import StoreFailed, WorkflowNotFound
from joblet.store import Database

MEMORY = "/dev/shm" if os.path.ismount("/dev/shm") else None
"""where many commits cost no disk"""

BLUNDERS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "constraint": lambda connection: connection.execute("INSERT INTO t VALUES (1, 'twice')"),
    "overflow": lambda connection: connection.execute("INSERT INTO t VALUES (?, '')", (2**64,)),
    "text": lambda connection: connection.execute("INSERT INTO t VALUES (NULL, ?)", ("\ud800",)),
    "refusal": lambda connection: (_ for _ in ()).throw(WorkflowNotFound("7")),
    "bug": lambda connection: {}["absent"],
    "type": lambda connection: connection.execute("INSERT INTO t VALUES (NULL, ?)", (object(),)),
    "misuse": lambda connection: connection.execute("INSERT INTO t VALUES (NULL, ?)", ()),
}
EXPECTED = {"refusal": WorkflowNotFound, "bug": KeyError}
"""what is raised as it is; all else is StoreFailed"""


async def opened(folder: str) -> Database:
    database = Database(Path(folder) / "joblet.db")
    await database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, change TEXT NOT NULL) STRICT")
    await database.execute("INSERT INTO t VALUES (1, 'the first')")
    return database


def several(name: str, count: int, blunder: str | None, at: int) -> Callable[[sqlite3.Connection], str]:
    """A change of `count` statements, that goes wrong before one of them or, if there are not so many, at the end."""

    def work(connection: sqlite3.Connection) -> str:
        for number in range(count):
            if blunder is not None and number == at:
                BLUNDERS[blunder](connection)
            connection.execute("INSERT INTO t VALUES (NULL, ?)", (name,))
        if blunder is not None:
            BLUNDERS[blunder](connection)
        return name

    return work


CHANGES = st.lists(
    st.tuples(
        st.booleans(),  # one plain statement
        st.integers(1, 4),
        st.one_of(st.none(), st.none(), st.sampled_from(sorted(BLUNDERS))),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(CHANGES)
def test_a_change_happens_as_a_whole_or_not_at_all(changes: list[tuple[bool, int, str | None, int]]) -> None:
    async def ask(database: Database) -> tuple[list[object], list[tuple[str, int]]]:
        asked = []
        for index, (plain, count, blunder, at) in enumerate(changes):
            if plain:  # 1 is taken
                row = (1 if blunder else None, str(index))
                asked.append(database.execute("INSERT INTO t VALUES (?, ?) RETURNING change", row))
            else:
                asked.append(database.change(several(str(index), count, blunder, at)))
        results: list[object] = list(await asyncio.gather(*asked, return_exceptions=True))
        return results, await database.query("SELECT change, count(*) FROM t WHERE id > 1 GROUP BY change")

    async def through() -> None:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            database = await opened(folder)
            commits: list[int] = []
            database.on_commit = commits.append
            try:
                results, stored = await ask(database)
            finally:
                await database.close()
            expected = {}
            for index, ((plain, count, blunder, _), result) in enumerate(zip(changes, results, strict=True)):
                if blunder is None:
                    assert result == ((str(index),) if plain else str(index))
                    expected[str(index)] = 1 if plain else count
                else:
                    assert type(result) is (StoreFailed if plain else EXPECTED.get(blunder, StoreFailed))
            assert dict(stored) == expected
            assert len(commits) <= len(changes)

    asyncio.run(through())


async def test_a_snapshot_is_of_one_moment(tmp_path: Path) -> None:
    database = await opened(str(tmp_path))
    loop = asyncio.get_running_loop()

    def read(connection: sqlite3.Connection) -> tuple[int, int]:
        count = "SELECT count(*) FROM t"
        (before,) = connection.execute(count).fetchone()
        change = database.execute("INSERT INTO t VALUES (NULL, 'meanwhile')")
        asyncio.run_coroutine_threadsafe(change, loop).result(10)
        (after,) = connection.execute(count).fetchone()
        return before, after

    assert await database.snapshot(read) == (1, 1)
    assert await database.query("SELECT count(*) FROM t") == [(2,)]
    await database.close()


async def test_a_read_that_fails_leaves_the_reader_usable(tmp_path: Path) -> None:
    database = await opened(str(tmp_path))
    for blunder in (lambda connection: connection.execute("SELECT absent FROM t"), lambda _: {}["absent"]):
        with pytest.raises((StoreFailed, KeyError)):
            await database.snapshot(blunder)
    assert await database.snapshot(lambda connection: connection.execute("SELECT 7").fetchall()) == [(7,)]
    await database.close()
    await database.close()
    with pytest.raises(StoreFailed, match="it is closed"):
        await database.change(lambda connection: None)


async def test_a_commit_is_told_of_after_it_has_happened(tmp_path: Path) -> None:
    database = await opened(str(tmp_path))
    told = asyncio.Event()
    database.on_commit = lambda newest: told.set()
    await database.execute("INSERT INTO t VALUES (NULL, 'news')")
    async with asyncio.timeout(10):
        await told.wait()
    assert await database.query("SELECT count(*) FROM t") == [(2,)]
    await database.close()
