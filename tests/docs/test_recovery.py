"""The drills of the page about disasters, with its own scripts."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import PATIENCE, ROOT, Server, Stock, poll_until, processes_of
from pages import Page, runs_jobs

PAGE = Page("docs/recovery.md")


def script(name: str, server: Server, *arguments: Path | str) -> None:
    """Run a script of the page, with the server's configuration and the joblet of these tests."""
    programs = Path(sys.executable).parent
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "STATE": str(server.state),
        "CONFIG": str(server.directory / "joblet-config.yml"),
    }
    command = ["sh", "-c", PAGE.files()[name], name, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/\S+::\w+)`", PAGE.text))))
def test_a_drill_is_run_by_a_test_that_is_there(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@runs_jobs
def test_another_host_goes_on_from_the_copies(make_server: Callable[..., Server], stock, tmp_path: Path) -> None:
    server = make_server(joblet={"maxConcurrentJobs": 1}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        ended, _ = client.finish("echo", "kept")
        later = client.stub.RunJob(
            client.pb.RunJobReq(
                command="sh",
                args=["-c", "echo secret is $SECRET"],
                secret_environment={"SECRET": "sealed"},
                schedule={"when": "30m"},
            )
        )
        script("backup.sh", server, tmp_path / "copies")
        newer, _ = client.finish("echo", "not in the copies")
        client.stop(later.id)
    server.stop()
    shutil.rmtree(server.state)
    script("restore.sh", server, tmp_path / "copies")
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert client.output(ended.id) == b"kept\n"
        assert client.status(later.id).status == "SCHEDULED"
        assert client.status(later.id).scheduledTime == later.scheduledTime
        again = client.stub.RunJob(client.pb.RunJobReq(command="echo", args=["goes on"]))
        assert client.output(again.id) == b"goes on\n"
        assert again.id == newer.id, "nothing of it is left to know its id by"


@runs_jobs
def test_without_any_copy_the_logs_are_left(make_server: Callable[..., Server], stock) -> None:
    server = make_server(joblet={"cleanupTimeout": "1s"}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        ended, _ = client.finish("echo", "kept")
        running = client.started("sleep", "1000")
        owner = (server.state / "jobs" / running.id / "work").stat().st_uid
    server.stop()
    for path in server.state.glob("joblet.db*"):
        path.unlink()
    server.start()
    poll_until(lambda: processes_of(owner) == [])
    assert (server.state / "jobs" / ended.id / "log").read_bytes() == b"kept\n"
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert list(client.list()) == []
        assert int(client.run("true").id) > int(running.id)


@runs_jobs
def test_a_lost_ca_key_locks_nobody_out(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server(security={"caCert": str(tmp_path / "new/both.pem")})
    folder = shutil.copytree(server.certificates, tmp_path / "old")
    server.certificates = folder
    (folder / "ca-key.pem").unlink()
    script("new-ca.sh", server, folder, tmp_path / "new")
    server.start()
    for certificates, name in ((folder, "admin"), (tmp_path / "new", "alice")):
        listed = server.rnx("list", name=name, certificates=certificates)
        assert listed.returncode == 0, listed.stderr
    stranger = server.rnx("list", name="server", certificates=tmp_path / "new")
    assert stranger.returncode != 0
