"""What is deleted is gone: from every answer, from the disk, and for good."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Callable, Iterator

import grpc
import pytest
from harness import PATIENCE, Server, Stock, poll_until

from joblet.client import Client, ClientConfig, FailedPrecondition, NotFound


@pytest.fixture
def fresh(make_server: Callable[..., Server]) -> Server:
    """A server whose first job has id 1."""
    return make_server(joblet={"cleanupTimeout": "2s"}).start()


@pytest.fixture
def watched(fresh: Server, stock) -> Iterator[Stock]:
    with fresh.channel() as channel:
        yield Stock(channel, *stock)


def config_of(server: Server, name: str = "admin") -> ClientConfig:
    folder = server.certificates
    return ClientConfig(
        f"localhost:{server.port}",
        str(folder / f"{name}-cert.pem"),
        str(folder / f"{name}-key.pem"),
        str(folder / "ca-cert.pem"),
    )


def ask(server: Server, *arguments: str, answer: str) -> tuple[int, str]:
    """Run `rnx` on a terminal of its own, give it an answer, and return its status and all that it wrote."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(server.rnx_command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with open(ours, "r+b", buffering=0) as terminal:
        while b"[y/N] " not in shown:
            shown += terminal.read(1024)
        terminal.write(answer.encode() + b"\n")
        while True:
            try:
                piece = terminal.read(1024)
            except OSError:  # EIO: the other side has been closed (pty(7))
                break
            shown += piece
    return process.wait(PATIENCE), shown.decode().replace("\r\n", "\n")


def test_an_ended_job_goes_with_its_files(fresh: Server, watched: Stock) -> None:
    watched.finish("bash", "-c", "echo out; mkdir -p a/b; echo x > a/b/c; ln -s /etc/passwd link; chmod 0 a")
    directory = fresh.state / "jobs/1"
    assert (directory / "log").exists()
    result = fresh.rnx("delete", "1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "Job deleted successfully:\nID: 1\n", "")
    assert not directory.exists()
    for command in (["status", "1"], ["log", "1"], ["stop", "1"], ["delete", "1"], ["timeout", "1", "1h"]):
        result = fresh.rnx(*command)
        assert (result.returncode, result.stderr) == (1, "Error: job not found: 1\n")
    assert fresh.rnx("list").stdout == ""


def test_an_id_is_not_given_twice(fresh: Server, watched: Stock, stock) -> None:
    watched.finish("true")
    fresh.rnx("delete", "1")
    fresh.kill()
    fresh.start()
    with fresh.channel() as channel:
        assert Stock(channel, *stock).run("true").id == "2"


def test_a_job_that_has_not_ended_stays(fresh: Server, watched: Stock) -> None:
    job = watched.started("sleep", "1000")
    result = fresh.rnx("delete", job.id)
    assert result.returncode == 1
    assert result.stderr == f"Error: job has not ended: {job.id} (current status: RUNNING)\n"
    assert watched.status(job.id).status == "RUNNING"
    watched.stop(job.id)
    assert fresh.rnx("delete", job.id).returncode == 0


def test_one_that_cannot_be_deleted_keeps_no_other(fresh: Server, watched: Stock) -> None:
    for _ in range(3):
        watched.finish("true")
    result = fresh.rnx("delete", "1", "99", "3")
    assert result.returncode == 1
    assert result.stdout == "Job deleted successfully:\nID: 1\nJob deleted successfully:\nID: 3\n"
    assert result.stderr == "Error: job not found: 99\n"
    assert [job.id for job in watched.list()] == ["2"]


def test_all_that_have_ended(fresh: Server, watched: Stock) -> None:
    for _ in range(3):
        watched.finish("true")
    running = watched.started("sleep", "1000")
    result = fresh.rnx("delete", "--all", stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: there is no terminal to ask on: give --yes\n"
    assert len(watched.list()) == 4
    result = fresh.rnx("delete", "--all", "--yes", stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "Jobs deleted successfully:\nDeleted: 3\nNotEnded: 1\n"
    assert [job.id for job in watched.list()] == [running.id]
    poll_until(lambda: [entry.name for entry in (fresh.state / "jobs").iterdir()] == [running.id])
    watched.stop(running.id)


def test_all_is_asked_about_on_a_terminal(fresh: Server, watched: Stock) -> None:
    watched.finish("true")
    question = "Delete all jobs that have ended, and their logs? [y/N] "
    status, shown = ask(fresh, "delete", "--all", answer="")
    assert (status, shown) == (1, question + "\nError: nothing deleted\n")
    assert len(watched.list()) == 1
    status, shown = ask(fresh, "delete", "--all", answer="y")
    assert (status, shown) == (0, question + "y\nJobs deleted successfully:\nDeleted: 1\nNotEnded: 0\n")
    assert len(watched.list()) == 0


def test_a_viewer_deletes_nothing(fresh: Server, watched: Stock) -> None:
    watched.finish("true")
    for arguments in (["delete", "1"], ["delete", "--all", "--yes"]):
        result = fresh.rnx(*arguments, name="viewer")
        assert result.returncode == 1
        assert "role viewer is not allowed to perform operation delete_" in result.stderr
    assert [job.id for job in watched.list()] == ["1"]


def test_a_reader_keeps_the_log_that_it_reads(fresh: Server, watched: Stock) -> None:
    size = 64 << 20
    watched.finish("head", "-c", str(size), "/dev/zero")
    chunks = watched.logs("1")
    received = len(next(chunks))
    assert fresh.rnx("delete", "1").returncode == 0
    received += sum(map(len, chunks))
    assert received == size
    with pytest.raises(grpc.RpcError) as caught:
        watched.output("1")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_client_library_deletes(fresh: Server) -> None:
    async with Client(config_of(fresh)) as client:
        ended, running = await client.run("true"), await client.run("sleep", "1000", wait_for_start=True)
        async for _ in ended.logs():
            pass
        with pytest.raises(FailedPrecondition, match="has not ended"):
            await client.delete(running.id)
        await client.delete(ended.id)
        with pytest.raises(NotFound, match=f"job not found: {ended.id}"):
            await client.delete(ended.id)
        assert await client.delete_all() == (0, 1)
        await running.stop()
        assert await client.delete_all() == (1, 0)
        assert await client.list() == []
