"""The database is damaged: a server does not start on it, says how to go on, and goes on from a backup."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from harness import PATIENCE, Server, Stock, poll_until, processes_of, wait_for_end

PAGE = 4096


def joblet(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `joblet` with the server's configuration."""
    command = [sys.executable, "-m", "joblet", *arguments, "--config", str(server.directory / "joblet-config.yml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def damage(path: Path) -> None:
    """Overwrite all pages of a database but the first, which says that it is one."""
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(os.urandom(max(path.stat().st_size - PAGE, PAGE)))


def failure_to_start(server: Server) -> str:
    """The one line that says why the server does not start."""
    seen = len(server.lines)
    with pytest.raises(AssertionError, match="server cannot start"):
        server.start()
    lines = [line for line in server.lines[seen:] if line != "(end)"]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize("how", ["pages", "header", "cut"])
def test_a_server_does_not_start_on_a_damaged_database_and_says_what_to_do(make_server, stock, how: str) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for _ in range(20):
            client.finish("true")
    server.stop()
    database = server.state / "joblet.db"
    match how:
        case "pages":
            damage(database)
        case "header":
            database.write_bytes(b"not a database" * 1000)
        case "cut":
            os.truncate(database, database.stat().st_size // 2)
    before = database.read_bytes()
    line = failure_to_start(server)
    assert re.search(
        rf'\[ERROR\] server cannot start \| error="{re.escape(str(database))} is damaged \(.+\); ',
        line.replace("job store failed: ", ""),
    )
    assert "put a backup in its place with `joblet restore FILE`" in line
    assert database.read_bytes() == before


def test_from_a_backup_all_goes_on_and_nothing_newer_is_touched(make_server, stock) -> None:
    server = make_server(joblet={"cleanupTimeout": "2s"}).start()
    backup = server.directory / "backup.db"
    with server.channel() as channel:
        client = Stock(channel, *stock)
        ended, _ = client.finish("echo", "ended before")
        running = client.started("sleep", "1000")
        done = joblet(server, "backup", str(backup))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{backup}\n", "")
        newer, _ = client.finish("echo", "ended after")
        newer_running = client.started("sleep", "1000")
        owner = (server.state / "jobs" / newer_running.id / "work").stat().st_uid
        assert joblet(server, "restore", str(backup)).stderr == (
            f"Error: state directory {server.state} is in use by another joblet server\n"
        )
    server.stop()
    damage(server.state / "joblet.db")
    failure_to_start(server)
    done = joblet(server, "restore", str(backup))
    assert done.returncode == 0, done.stderr
    kept = re.fullmatch(rf"{re.escape(str(backup))} restored; the former one is (\S+)\n", done.stdout)
    assert kept
    assert Path(kept.group(1)).exists()
    said = joblet(server, "audit", "show", "--client", "root").stdout.splitlines()
    assert [line.split("  ", 1)[1] for line in said] == [
        f"restore  root (local)  {came}  path={backup}" for came in ("allowed", "OK")
    ]
    server.start()
    for job_id, what in ((newer.id, "left"), (newer_running.id, "ended")):
        server.wait_for_line(re.compile(rf"job directory without a record \| jobId={job_id} action={what}"))
    poll_until(lambda: processes_of(owner) == [])
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert [job.id for job in client.list()] == [ended.id, running.id]
        assert client.output(ended.id) == b"ended before\n"
        assert client.status(running.id).status == "RUNNING"
        assert client.stop(running.id).status == "STOPPED"
        with pytest.raises(grpc.RpcError) as caught:
            client.status(newer.id)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        again, _ = client.finish("echo", "new")
        assert int(again.id) > int(newer_running.id)
    assert (server.state / "jobs" / newer.id / "log").read_bytes() == b"ended after\n"


def test_what_is_no_backup_is_not_restored(make_server, stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job, _ = Stock(channel, *stock).finish("true")
    server.stop()
    before = (server.state / "joblet.db").read_bytes()
    for content in (b"", b"something else" * 1000):
        source = server.directory / "source"
        source.write_bytes(content)
        done = joblet(server, "restore", str(source))
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: job store failed: {source} ")
        assert len(done.stderr.splitlines()) == 1
    assert joblet(server, "restore", str(server.directory / "none")).stderr == (
        f"Error: job store failed: {server.directory / 'none'} does not exist\n"
    )
    assert (server.state / "joblet.db").read_bytes() == before
    server.start()
    with server.channel() as channel:
        assert Stock(channel, *stock).status(job.id).status == "COMPLETED"


def test_damage_while_it_runs_fails_calls_and_not_the_server(make_server, stock) -> None:
    server = make_server(joblet={"cleanupTimeout": "2s"}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        jobs = [client.finish("true", *["x" * 100_000] * 4)[0] for _ in range(20)]  # more than is cached of them
        running = client.started("sleep", "1000")
        assert joblet(server, "backup", str(server.directory / "backup.db")).returncode == 0
        for name in ("joblet.db-wal", "joblet.db"):
            with (server.state / name).open("r+b") as file:
                file.seek(PAGE if name == "joblet.db" else 0)
                file.write(os.urandom((server.state / name).stat().st_size))
        for call in (client.list, lambda: client.status(jobs[0].id), lambda: client.run("true")):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert caught.value.details().startswith("job store failed: ")
            assert str(server.state) not in caught.value.details()
        (monitor,) = server.monitors()
        with pytest.raises(grpc.RpcError) as caught:
            client.stop(running.id)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        wait_for_end(monitor)
    server.wait_for_line(re.compile(r"\[ERROR\] .*is damaged \(.*joblet restore FILE"))
    assert len([line for line in server.lines if "is damaged" in line]) == 1
    assert "Traceback" not in "\n".join(server.lines)
    assert server.stop() == 0
    assert "is damaged" in failure_to_start(server)
    assert joblet(server, "restore", str(server.directory / "backup.db")).returncode == 0
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert client.output(running.id) == b""
        assert client.status(running.id).reason == "stopped"
        assert client.status(jobs[0].id).status == "COMPLETED"
