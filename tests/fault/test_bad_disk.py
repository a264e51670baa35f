"""The state directory's disk is full, or can no longer be written."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from harness import Server, Stock, wait_for_end
from small_disk import SmallDisk, small_disk

NOTICE = re.compile(rb"\njoblet: (\d+) bytes of output lost here: no space left on device\n")
CONTROLLED = """
mkfifo -m 622 go; exec 3<>go; echo ready
while read -r count <&3 && [ "$count" != end ]; do head -c "$count" /dev/zero; done
exit 9
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "state", tmp_path / "disk.img") as made:
        yield made


@pytest.fixture
def server(disk: SmallDisk, tmp_path: Path, certificates: Path) -> Iterator[Server]:
    """Its state is on the small disk."""
    made = Server(tmp_path, certificates, joblet={"cleanupTimeout": "2s", "maxConcurrentJobs": 4})
    yield made
    made.close()


@pytest.fixture
def unaudited(disk: SmallDisk, tmp_path: Path, certificates: Path) -> Iterator[Server]:
    """The same, without an audit log, which would be full before the database is."""
    made = Server(tmp_path, certificates, audit={"file": ""})
    yield made
    made.close()


def refusal(client: Stock, command: str = "true") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        client.run(command)
    return caught.value.code(), caught.value.details()


def controlled(server: Server, client: Stock) -> tuple[str, Path]:
    """A job that goes on when the test says so, over a named pipe in its work directory."""
    job = client.started("bash", "-c", CONTROLLED)
    assert next(client.logs(job.id)) == b"ready\n"
    return job.id, server.state / "jobs" / job.id / "work" / "go"


def test_on_a_full_disk_what_runs_goes_on_and_what_is_new_is_refused(disk: SmallDisk, server: Server, stock) -> None:
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        before, _ = client.finish("echo", "before")
        writer, go = controlled(server, client)
        ending, go_and_end = controlled(server, client)
        endless = client.started("sleep", "1000")
        disk.fill()
        code, text = refusal(client)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text == f"job creation failed: no space left on the disk of {server.state}/jobs"
        # what is there is told
        assert client.status(before.id).status == "COMPLETED"
        assert client.output(before.id) == b"before\n"
        assert [job.status for job in client.list()] == ["COMPLETED", "RUNNING", "RUNNING", "RUNNING"]
        # what runs goes on, and ends as it does; a stop works
        go.write_text("1000000\n")
        go_and_end.write_text("end\n")
        client.output(ending)
        status = client.status(ending)
        assert (status.status, status.exitCode, status.reason) == ("FAILED", 9, "exit code 9")
        assert client.stop(endless.id).status == "STOPPED"
        # room can be made with what the server offers
        jobs = stock[1].JobServiceStub(channel)
        assert jobs.DeleteJob(client.pb.DeleteJobReq(id=before.id)).success
        disk.make_room()
        assert client.finish("echo", "after")[1] == b"after\n"
        go.write_text("6\n")
        go.write_text("end\n")
        output = client.output(writer)
        status = client.status(writer)
    assert (status.status, status.exitCode) == ("FAILED", 9)
    assert_lost_is_counted(output, written=1_000_000 + 6)
    assert len([line for line in server.lines if "no space" in line or "disk is full" in line]) <= 1


def assert_lost_is_counted(log: bytes, written: int) -> None:
    """A short line finds room sooner than output does, and room may come before its end: there may be several."""
    lost = sum(map(int, NOTICE.findall(log)))
    assert lost > 0
    assert len(NOTICE.sub(b"", log)) - len(b"ready\n") + lost == written
    assert log.rstrip(b"\0").endswith(b"here: no space left on device\n")
    assert log.endswith(bytes(6))


def test_a_follower_gets_what_is_there_and_the_notice(disk: SmallDisk, server: Server, stock) -> None:
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job_id, go = controlled(server, client)
        follower = client.logs(job_id)
        disk.fill()
        go.write_text("3000000\n")
        go.write_text("end\n")
        output = b"".join(follower)
        status = client.status(job_id)
        log = (server.state / "jobs" / job_id / "log").read_bytes()
        record = (server.state / "jobs" / job_id / "exit").read_text()
        assert (status.status, status.exitCode, status.reason) == ("FAILED", 9, "exit code 9")
        assert output == log
        assert f"log_bytes={len(log)}\n" in record
        lost = 3_000_000 + len("ready\n") - len(NOTICE.sub(b"", log))
        assert f"log_lost={lost}\n" in record
        server.wait_for_line(re.compile(rf"job output lost \| jobId={job_id} bytes={lost}"))


def test_jobs_that_wait_their_turn_wait_for_the_disk_and_can_be_stopped(disk: SmallDisk, server: Server, stock) -> None:
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        running = [client.started("sleep", "1000") for _ in range(4)]
        second, third = client.run("echo", "second"), client.run("echo", "third")
        disk.fill()
        client.stop(running[0].id)
        server.wait_for_line(re.compile(rf"\[WARN\] job waits for the disk \| jobId={second.id} "))
        assert client.status(second.id).status == "INITIALIZING"
        assert client.stop(second.id).status == "STOPPED"
        server.wait_for_line(re.compile(rf"\[WARN\] job waits for the disk \| jobId={third.id} "))
        disk.make_room()
        assert client.output(third.id) == b"third\n"
        assert client.status(third.id).status == "COMPLETED"
    assert len([line for line in server.lines if "waits for the disk" in line]) == 2


def test_what_ended_while_nothing_could_be_stored_is_stored_when_there_is_room(
    disk: SmallDisk, unaudited: Server, stock
) -> None:
    """The room that the database keeps for itself is used up too, for somebody reads it and does not end."""
    server = unaudited.start()
    with server.channel() as channel, contextlib.closing(sqlite3.connect(server.state / "joblet.db")) as reader:
        client = Stock(channel, *stock)
        jobs = [controlled(server, client) for _ in range(3)]
        disk.fill()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM jobs").fetchall()
        error = use_up(client, jobs[0][0])
        assert (error.code(), error.details()) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED, "job store failed: database or disk is full",
        )  # fmt: skip
        monitors = server.monitors()
        for _, go in jobs:
            go.write_text("end\n")
        for monitor in monitors:
            wait_for_end(monitor)
        # The first of them may find a last page.
        unstored = server.wait_for_line(re.compile(r"job state cannot be stored yet \| jobId=(\d+) .*disk is full"))
        assert client.status(unstored.group(1)).status == "RUNNING"
        with pytest.raises(grpc.RpcError) as caught:
            client.stop(unstored.group(1))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details().endswith("is being stopped, but its state cannot be stored now")
        disk.make_room()
        for job_id, _ in jobs:
            assert client.output(job_id) == b"ready\n"
            assert client.status(job_id).reason == "exit code 9"
        assert client.finish("true")[0].status == "COMPLETED"
    told = [line for line in server.lines if "cannot be stored yet" in line]
    assert len(told) == len(set(told)) <= 3, "once for each job"


def use_up(client: Stock, job_id: str) -> grpc.RpcError:
    """Change a job's timeout until that cannot be stored any more; why not."""
    for seconds in range(1000, 10_000):
        try:
            client.stub.SetJobTimeout(client.pb.SetJobTimeoutReq(id=job_id, timeoutMs=seconds * 1000))
        except grpc.RpcError as error:
            return error
    raise AssertionError("the database never fills")


@pytest.mark.parametrize("end", [Server.stop, Server.kill])
def test_a_server_starts_on_a_full_disk(disk: SmallDisk, server: Server, stock, end) -> None:
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        ended, _ = client.finish("echo", "before")
        running = client.started("sleep", "1000")
    end(server)
    disk.fill()
    server.start()
    server.wait_for_line(re.compile(r"\[WARN\] the disk is full \| path="))
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert client.output(ended.id) == b"before\n"
        assert refusal(client)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.stop(running.id).status == "STOPPED"
        disk.make_room()
        assert client.finish("echo", "after")[1] == b"after\n"


def test_a_disk_that_fails_is_told_and_what_runs_goes_on(disk: SmallDisk, server: Server, stock) -> None:
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        running = client.started("sleep", "1000")
        before, _ = client.finish("echo", "before")  # now it is on the disk, too, that the other runs
        disk.fail()
        code, text = refusal(client)
        assert (code, text) == (
            grpc.StatusCode.UNAVAILABLE,
            "audit log cannot be written (Read-only file system), so nothing was changed; stopping jobs is possible",
        )
        assert client.status(before.id).status == "COMPLETED"
        assert client.output(before.id) == b"before\n"
        assert client.status(running.id).status == "RUNNING"
        (monitor,) = server.monitors()
        with pytest.raises(grpc.RpcError) as caught:
            client.stop(running.id)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details() == (
            f"job store failed: job {running.id} is being stopped, but its state cannot be stored now"
        )
        wait_for_end(monitor)
    server.stop()
    with pytest.raises(AssertionError, match=r"server cannot start.*Read-only file system"):
        server.start()
    disk.repair()
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert client.status(before.id).status == "COMPLETED"
        client.output(running.id)
        status = client.status(running.id)
        assert status.status == "FAILED"
        assert status.reason.startswith("lost: ")
        assert client.finish("echo", "after")[1] == b"after\n"
