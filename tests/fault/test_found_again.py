"""What a server makes of what an earlier one has left: of each job as much as can be known, and nothing twice."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import Server, Stock, wait_for_end

BOOT = Path("/proc/sys/kernel/random/boot_id")
REBOOTED = ("FAILED", -1, "lost: the host was rebooted")


@pytest.fixture
def left(make_server, stock) -> Callable[..., Server]:
    """A server that has been killed as it was about to launch job 2; the slot of job 1 is free by then."""

    def make(epoch: str, *, state: str = "INITIALIZING") -> Server:
        server = make_server(joblet={"maxConcurrentJobs": 1}).start()
        with server.channel() as channel:
            client = Stock(channel, *stock)
            first = client.started("sleep", "1000")
            client.run("echo", "once")
            server.kill()
        with closing(sqlite3.connect(server.state / "joblet.db")) as database, database:
            database.execute("UPDATE jobs SET state = ?, epoch = ? WHERE id = 2", (state, epoch))
            database.execute("UPDATE jobs SET stop_reason = 'stopped by bob' WHERE id = ?", (int(first.id),))
        return server

    return make


def started(server: Server, stock, job_id: str = "2") -> tuple[tuple[str, int, str], bytes]:
    """How a job has ended, and its log, after another start of the server."""
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        log = client.output(job_id)
        status = client.status(job_id)
    return (status.status, status.exitCode, status.reason), log


@pytest.mark.parametrize("reached", ["nothing", "directory", "lock"])
def test_a_job_whose_shim_has_not_begun_is_launched(left, stock, reached: str) -> None:
    server = left(BOOT.read_text().strip())
    directory = server.state / "jobs/2"
    if reached != "nothing":
        (directory / "work").mkdir(parents=True)
    if reached == "lock":
        (directory / "lock").touch()
    assert started(server, stock) == (("COMPLETED", 0, "exit code 0"), b"once\n")


@pytest.mark.parametrize("reached", ["nothing", "lock", "monitor", "empty monitor"])
@pytest.mark.parametrize("state", ["INITIALIZING", "RUNNING"])
def test_a_job_that_may_have_run_before_a_reboot_is_not_run_again(left, stock, state: str, reached: str) -> None:
    """Of its files any may have been lost with the page cache."""
    server = left("an-earlier-boot", state=state)
    directory = server.state / "jobs/2"
    if reached != "nothing":
        (directory / "work").mkdir(parents=True)
        (directory / "lock").touch()
    if "monitor" in reached:
        text = "pid=1\nstart=1\nboot=an-earlier-boot\n"
        (directory / "monitor").write_text("" if "empty" in reached else text)
    assert started(server, stock) == (REBOOTED, b"")


def test_a_job_that_ended_before_a_reboot_has_its_true_end(left, stock) -> None:
    server = left("an-earlier-boot")
    directory = server.state / "jobs/2"
    (directory / "work").mkdir(parents=True)
    (directory / "log").write_bytes(b"once\n")
    at = time.time_ns()
    record = f"version=1\noutcome=exited\ncode=3\nstarted_at={at}\nended_at={at}\nlog_bytes=5\nend=1\n"
    (directory / "exit").write_text(record)
    assert started(server, stock) == (("FAILED", 3, "exit code 3"), b"once\n")


def test_a_job_that_runs_is_found_after_an_upgrade_that_knew_no_boots(left, stock) -> None:
    server = left("")
    with closing(sqlite3.connect(server.state / "joblet.db")) as database, database:
        database.execute("UPDATE jobs SET epoch = '', stop_reason = '' WHERE id = 1")
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert client.status("1").status == "RUNNING"
        assert client.stop("1").status == "STOPPED"


def test_what_a_killed_server_left_of_its_probe_is_removed(make_server, stock) -> None:
    server = make_server().start()
    server.kill()
    left_behind = server.state / "probe-left"
    (left_behind / "work").mkdir(parents=True)
    (left_behind / "lock").touch()
    server.start()
    assert not list(server.state.glob("probe-*"))


def test_a_monitor_that_ended_with_its_record_written_is_believed(make_server, stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("sh", "-c", "exit 5")
        monitors = server.monitors()
        server.kill()
    for monitor in monitors:
        wait_for_end(monitor)
    assert started(server, stock, job.id)[0] == ("FAILED", 5, "exit code 5")
