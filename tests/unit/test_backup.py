"""The record of all jobs, copied and put back."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from joblet.errors import StoreDamaged, StoreFailed
from joblet.job import Limits, State
from joblet.order import Order
from joblet.server.state import settle_strange_workflows, settle_uploads
from joblet.store import Events, Store, Workflows
from joblet.store.backup import backup, restore
from joblet.store.schema import newest_schema
from joblet.upload_sessions import UploadSessions
from joblet.uploads import File, Uploads
from joblet.workflow.plan import Plan, Step, WorkflowState
from joblet.workflow.record import Workflow


async def fill(path: Path, count: int) -> None:
    store = Store.open(path)
    for _ in range(count):
        await store.create(Order("x", (), Limits(1, 1, 0)), "alice", State.PENDING, 1)
    await store.close()


async def count(path: Path) -> int:
    store = Store.open(path)
    try:
        return len(await store.newest(1000, 1000))
    finally:
        await store.close()


async def test_a_copy_is_made_while_the_store_is_open_and_holds_what_was_committed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "joblet.db")
    await store.create(Order("x", (), Limits(1, 1, 0)), "alice", State.PENDING, 1)
    backup(tmp_path / "joblet.db", tmp_path / "copy")
    await store.create(Order("x", (), Limits(1, 1, 0)), "alice", State.PENDING, 1)
    await store.close()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert await count(tmp_path / "copy") == 1
    assert await count(tmp_path / "joblet.db") == 2


@pytest.mark.parametrize("at", [0, 4096 * 2])
async def test_a_damaged_database_is_refused_kept_and_replaced(tmp_path: Path, at: int) -> None:
    path = tmp_path / "joblet.db"
    await fill(path, 200)
    backup(path, tmp_path / "copy")
    healthy = path.read_bytes()
    damaged = healthy[:at] + b"\xff" * 4096 + healthy[at + 4096 :]
    path.write_bytes(damaged)
    with pytest.raises(StoreDamaged, match="joblet restore"):
        Store.open(path)
    assert path.read_bytes() == damaged
    kept = restore(tmp_path / "copy", path)
    assert kept is not None
    assert kept.read_bytes() == damaged
    assert await count(path) == 200


async def test_what_is_no_copy_is_not_restored(tmp_path: Path) -> None:
    path = tmp_path / "joblet.db"
    await fill(path, 1)
    (tmp_path / "text").write_text("no database" * 1000)
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE t (x)").connection.close()
    newer = tmp_path / "newer"
    backup(path, newer)
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    for wrong, text in (
        ("absent", "does not exist"),
        ("text", "cannot be restored: file is not a database"),
        ("other", f"has schema 0, this joblet knows 1 to {newest_schema()}"),
        ("newer", f"has schema 99, this joblet knows 1 to {newest_schema()}"),
    ):
        with pytest.raises(StoreFailed, match=text):
            restore(tmp_path / wrong, path)
    assert await count(path) == 1


async def test_a_copy_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "joblet.db"
    await fill(path, 1)
    (tmp_path / "there").write_text("precious")
    with pytest.raises(StoreFailed, match="exists already"):
        backup(path, tmp_path / "there")
    with pytest.raises(StoreFailed, match="does not exist"):
        backup(tmp_path / "absent.db", tmp_path / "copy")
    assert (tmp_path / "there").read_text() == "precious"


async def test_ids_of_what_an_older_database_does_not_know_are_skipped(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "joblet.db")
    await store.skip_ids(41)
    job, _ = await store.create(Order("x", (), Limits(1, 1, 0)), "alice", State.PENDING, 1)
    assert job.id == 42
    await store.skip_ids(7)
    job, _ = await store.create(Order("x", (), Limits(1, 1, 0)), "alice", State.PENDING, 1)
    assert job.id == 43
    await store.close()


NEW = Workflow(0, "w.yaml", "alice", "admin", WorkflowState.PENDING, 1)
PLAN = Plan((Step("only", Order("x", (), Limits(1, 1, 0), secret_environment={"TOKEN": "hunter2"})),))


class Directories:
    """An executor that has left directories of workflows."""

    def __init__(self, *workflow_ids: int) -> None:
        self._ids = list(workflow_ids)

    def workflow_ids(self) -> list[int]:
        return self._ids


async def test_a_copy_holds_workflows_and_events_and_later_ones_do_not_take_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "joblet.db"
    store = Store.open(path)
    workflows = Workflows(store.database, store.sealer)
    folder = await Uploads(tmp_path).save([File("in.csv", b"1,2")])
    await workflows.create(replace(NEW, uploads=folder), PLAN)
    backup(path, tmp_path / "copy")
    lost = await Uploads(tmp_path).save([File("in.csv", b"3,4")])
    await workflows.create(replace(NEW, uploads=lost), PLAN)
    await store.close()
    restore(tmp_path / "copy", path)
    store = Store.open(path)
    workflows = Workflows(store.database, store.sealer)
    assert [workflow.id for workflow in await workflows.unfinished()] == [1]
    assert await workflows.plan(1) == PLAN
    assert await Events(store.database).bounds() == (1, 1)
    await settle_strange_workflows(workflows, Directories(1, 2))  # type: ignore[arg-type]
    uploads = Uploads(tmp_path)
    sessions = UploadSessions(tmp_path, uploads, "boot", most_bytes=1, timeout=60, check_room=lambda: None)
    await settle_uploads(workflows, uploads, sessions)
    await sessions.close()
    assert [entry.name for entry in (tmp_path / "uploads").iterdir()] == [folder]
    again, _ = await workflows.create(NEW, PLAN)
    assert again.id == 3
    await store.close()
