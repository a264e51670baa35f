"""Secrets are on disk in sealed form only, and whoever cannot open them is told so."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.errors import StoreFailed
from joblet.job import MASK, Limits, Part, State
from joblet.order import Order
from joblet.store import Store, Workflows
from joblet.store.backup import backup
from joblet.store.secrets import KEY_FILE, Sealer, load_key
from joblet.workflow.plan import Plan, Step, WorkflowState
from joblet.workflow.record import Workflow

KEY = bytes(range(32))
VALUES = {"TOKEN": "correct horse battery", "DATABASE": "postgres://user:s3cr3t@db/ü"}
ORDER = Order("python3", ("train.py",), Limits(1, 1, 0), name="train", secret_environment=VALUES, key="k")
LOST = "^job store failed: a secret cannot be opened: it was sealed with another secret.key$"


@given(st.binary(max_size=200))
def test_what_is_sealed_is_opened_by_its_key_only(plain: bytes) -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal(plain)
    assert sealer.open(sealed) == plain
    assert sealer.seal(plain) != sealed
    with pytest.raises(StoreFailed, match=LOST):
        Sealer(bytes(32)).open(sealed)


@given(st.integers(0, 40), st.integers(1, 255))
def test_what_was_changed_is_not_opened(at: int, by: int) -> None:
    sealed = bytearray(Sealer(KEY).seal(b"a secret"))
    sealed[at % len(sealed)] ^= by
    with pytest.raises(StoreFailed, match="a secret"):
        Sealer(KEY).open(bytes(sealed))


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01" + bytes(11), b"\x01" + bytes(20), b"\x02" + bytes(40)])
def test_what_was_never_sealed_is_not_opened(sealed: bytes) -> None:
    with pytest.raises(StoreFailed, match="a secret"):
        Sealer(KEY).open(sealed)


def test_a_key_is_made_once_and_is_the_owners_only(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    (tmp_path / f".{KEY_FILE}.new").write_bytes(b"of one who did not come to the end")
    key = load_key(path)
    assert len(key) == 32
    assert load_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [KEY_FILE]
    assert load_key(tmp_path / "other") != key


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_none(tmp_path: Path, size: int) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(bytes(size))
    with pytest.raises(StoreFailed, match=rf"secret\.key is {size} bytes long, a key is 32$"):
        load_key(path)
    assert path.read_bytes() == bytes(size)


def test_a_key_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match=r"absent/secret\.key: No such file or directory$"):
        load_key(tmp_path / "absent" / KEY_FILE)


async def test_secrets_reach_who_runs_the_job_and_nobody_who_shows_it(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "joblet.db")
    masked = dict.fromkeys(VALUES, MASK)
    job, _ = await store.create(ORDER, "alice", State.PENDING, 1)
    same, _ = await store.create(ORDER, "alice", State.PENDING, 1)
    launched = await store.transition(job.id, State.INITIALIZING)
    running = [job, same, launched, *await store.unfinished(), await store.find("alice", "k")]
    assert [found.secret_environment if found else None for found in running] == [VALUES] * 5
    assert dict(launched.secret_environment) == VALUES
    for shown in (await store.get(job.id), *await store.newest(10, 10)):
        assert shown is not None
        assert shown.secret_environment == masked
    for found in running:
        assert not any(value in f"{found!r} {found and found.secret_environment!r}" for value in VALUES.values())
    await store.close()


async def test_no_file_holds_a_secret(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "joblet.db")
    workflows = Workflows(store.database, store.sealer)
    plan = Plan((Step("train", replace(ORDER, key="")),))
    new = Workflow(0, "w.yaml", "alice", "admin", WorkflowState.PENDING, 1)
    workflow, _ = await workflows.create(new, plan)
    for part in (None, Part(workflow.id, 0, 1)):
        job, _ = await store.create(replace(ORDER, part=part, key=""), "alice", State.INITIALIZING, 1)
        await store.transition(job.id, State.FAILED, ended_at=2)
    assert await workflows.plan(workflow.id) == plan
    backup(tmp_path / "joblet.db", tmp_path / "copy")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}  # noqa: ASYNC240 - it holds up nobody here
    assert {"joblet.db", "joblet.db-wal", "copy", KEY_FILE} <= set(files)
    await store.close()
    files["after"] = (tmp_path / "joblet.db").read_bytes()
    assert all(b"train.py" in files[name] for name in ("joblet.db-wal", "copy", "after"))
    for name, content in files.items():
        for value in VALUES.values():
            assert value.encode() not in content, name
            assert value.encode("unicode_escape") not in content, name
        assert (files[KEY_FILE] in content) == (name == KEY_FILE)


async def test_without_the_key_jobs_are_shown_and_only_their_values_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "joblet.db"
    store = Store.open(path)
    await store.create(ORDER, "alice", State.PENDING, 1)
    await store.close()
    (tmp_path / KEY_FILE).unlink()
    store = Store.open(path)
    assert [dict(job.secret_environment) for job in await store.newest(10, 10)] == [dict.fromkeys(VALUES, MASK)]
    (job,) = await store.unfinished()
    assert list(job.secret_environment) == list(VALUES)
    for ask in (lambda: job.secret_environment["TOKEN"], lambda: job.secret_environment == VALUES):
        with pytest.raises(StoreFailed, match=LOST):
            ask()
    ended = await store.transition(job.id, State.FAILED, ended_at=2)
    assert ended.state is State.FAILED
    await store.close()
