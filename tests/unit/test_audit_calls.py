"""What the server tells its audit log while that takes nothing."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from joblet.audit import Trail
from joblet.audit.chain import members
from joblet.audit.verify import verify_server
from joblet.config import Config
from joblet.errors import AuditUnwritable, StoreFailed
from joblet.proto import joblet as pb
from joblet.server import audit as module
from joblet.server.audit import Audit, asked
from joblet.server.state import StartError, recorded


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """No file of this process can grow beyond what this one has (RLIMIT_FSIZE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_what_cannot_be_written_is_told_later_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LATE", 3)
    path = tmp_path / "audit.log"
    audit = Audit(Trail(path, tmp_path, 1 << 30, 0), reads=True)
    audit.tell("first")
    with full(path):
        audit.tell("second")
        audit.after("get_job", members({"event": "read"}), begun=False)
        with pytest.raises(AuditUnwritable, match=r"^audit log cannot be written \(.+\), so nothing was changed"):
            audit.before("run_job", members({"event": "order"}))
        with pytest.raises(AuditUnwritable):
            audit.before("delete_job", members({"event": "deletion"}))
        assert audit.before("get_job_logs", members({"event": "stream"})) == 0
        assert audit.before("stop_job", members({"event": "stop"})) == 0
        audit.after("stop_job", members({"event": "stopped"}), begun=False)
        audit.tell("too much")
    audit.tell("last")
    await audit.close()
    lines = [json.loads(raw) for raw in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["opened", "first", "second", "stop", "stopped", "dropped", "last"]
    assert [line["n"] for line in lines if "at" in line] == [3, 4, 5]
    assert lines[5]["lines"] == 1
    assert verify_server(path, tmp_path).last == 7


def test_of_a_request_only_names_are_told_and_bounded() -> None:
    order = pb.RunJobReq(
        command="c" * 1000, args=["hidden"], name='"\n', environment={"A": "hidden"}, secret_environment={"B": "hidden"}
    )
    assert json.loads("{" + asked(order)[1:] + "}") == {"command": "c" * 256 + "...", "name": '"\n'}
    usage = pb.StreamJobUsageReq(ids=[str(number) for number in range(1000)])
    assert len(json.loads("{" + asked(usage)[1:] + "}")["jobs"]) == 259
    assert asked(pb.EmptyRequest()) == ""
    assert asked(pb.FileUpload(content=b"hidden")) == ""


async def test_what_a_local_command_changes_is_told_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    def told() -> list[dict[str, object]]:
        wanted = ("event", "client", "uid", "operation", "code", "reason", "path")
        values = (json.loads(line) for line in path.read_text().splitlines())
        return [{key: line[key] for key in wanted if key in line} for line in values if line["event"] != "opened"]

    def change() -> str:
        assert [line["event"] for line in told()] == ["call"]
        return "done"

    def fail() -> None:
        raise StoreFailed("none")

    assert await recorded(Config(), tmp_path, "restore", change, path="copy.db") == "done"
    with pytest.raises(StoreFailed):
        await recorded(Config(), tmp_path, "restore", fail, path="no.db")
    who = {"client": "root", "uid": 0, "operation": "restore"}
    assert told() == [
        {"event": "call", **who, "path": "copy.db"},
        {"event": "result", **who, "code": "OK", "path": "copy.db"},
        {"event": "call", **who, "path": "no.db"},
        {"event": "result", **who, "code": "INTERNAL", "reason": "job store failed: none", "path": "no.db"},
    ]
    assert verify_server(path, tmp_path).last == 5


async def test_a_local_command_changes_nothing_that_cannot_be_told(tmp_path: Path) -> None:
    def change() -> None:
        raise AssertionError

    path = tmp_path / "audit.log"
    await recorded(Config(), tmp_path, "restore", list)
    with full(path), pytest.raises(StartError, match=r"^audit log cannot be written: .+, so nothing was changed$"):
        await recorded(Config(), tmp_path, "restore", change, path="x" * 200)
    assert verify_server(path, tmp_path).last == 3
