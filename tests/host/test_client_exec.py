"""Other commands in running jobs, by our own clients and `rnx exec`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from harness import Server

from joblet.client import (
    Client,
    ClientConfig,
    FailedPrecondition,
    InvalidArgument,
    Job,
    NotFound,
    OutputTooLong,
    PermissionDenied,
    Terminal,
    sync,
)


def config_of(server: Server, name: str = "admin") -> ClientConfig:
    files = (str(server.certificates / f"{file}.pem") for file in (f"{name}-cert", f"{name}-key", "ca-cert"))
    return ClientConfig(f"localhost:{server.port}", *files)


@pytest_asyncio.fixture
async def job(server: Server) -> AsyncIterator[Job]:
    """A job that does nothing until it is stopped."""
    async with Client(config_of(server)) as client:
        made = await client.run("sleep", "1000", wait_for_start=True, environment={"OWN": "job's", "BOTH": "job's"})
        yield made
        if not (await made.status()).ended:
            await made.stop()


async def test_output_and_exit_code(job: Job) -> None:
    async with job.exec("sh", "-c", "echo out; echo err >&2; exit 3") as session:
        pieces = [piece async for piece in session]
        assert await session.exit_code() == 3
    assert sorted(pieces) == [("stderr", b"err\n"), ("stdout", b"out\n")]
    assert session.reason == "exit code 3"


async def test_it_has_the_jobs_environment_and_its_own_over_that(job: Job) -> None:
    code, out, _ = await job.exec_output(
        "sh", "-c", "echo $OWN $BOTH $JOBLET_JOB_ID $PWD; pwd", environment={"BOTH": "exec's"}, workdir="/tmp"
    )
    assert (code, out.decode()) == (0, f"job's exec's {job.id} /tmp\n/tmp\n")


async def test_input_of_any_length_is_taken_as_fast_as_it_is_read(job: Job) -> None:
    data = hashlib.sha256(b"x").digest() * (8 << 20 >> 5)
    assert await job.exec_output("cat", input=data) == (0, data, b"")


async def test_input_that_nobody_reads_is_in_nobodys_way(job: Job) -> None:
    for _ in range(5):
        code, out, _ = await job.exec_output("sh", "-c", "head -c 3; exit 4", input=b"abc" * (1 << 20))
        assert (code, out) == (4, b"abc")


async def test_more_output_than_wanted_ends_the_command(job: Job) -> None:
    with pytest.raises(OutputTooLong, match=rf"yes in job {job.id} has written more than 100000 bytes"):
        await job.exec_output("yes", most=100_000)


async def test_a_terminal_has_a_size_and_takes_keys(job: Job) -> None:
    async with job.exec("bash", "--norc", "-i", stdin=True, terminal=Terminal(24, 80)) as session:
        await session.resize(33, 111)
        await session.write(b"echo $TERM; stty size; tty; exit 6\n")
        written = b"".join([payload async for _, payload in session])
        assert await session.exit_code() == 6
    assert b"xterm\r\n33 111\r\n/dev/pts/0\r\n" in written


async def test_errors_are_those_of_the_server(job: Job, server: Server) -> None:
    client = job.client
    with pytest.raises(NotFound, match="job not found: 999999"):
        await client.exec_output("999999", "true")
    with pytest.raises(InvalidArgument, match="dangerous characters"):
        await job.exec_output("true;false")
    async with Client(config_of(server, "viewer")) as viewer:
        with pytest.raises(PermissionDenied, match="role viewer is not allowed to perform operation exec_in_job"):
            await viewer.exec_output(job.id, "true")
    await job.stop()
    with pytest.raises(FailedPrecondition, match=rf"job is not running: {job.id} \(current status: STOPPED\)"):
        await job.exec_output("true")
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_who_waits_for_the_end_of_a_command_sees_that_of_the_job(job: Job) -> None:
    async with job.exec("sleep", "1000") as session:
        ended = asyncio.create_task(session.exit_code())
        await job.exec_output("true")  # which comes after it
        await job.stop()
        assert (await ended, session.reason) == (137, "the job has ended")


def test_the_same_without_await(server: Server) -> None:
    with sync.Client(config_of(server)) as client:
        job = client.run("sleep", "1000", wait_for_start=True)
        with job.exec("sh", "-c", "read line; echo got $line; exit 3", stdin=True) as session:
            session.write(b"a line\n")
            session.end()
            assert list(session) == [("stdout", b"got a line\n")]
            assert (session.exit_code(), session.reason) == (3, "exit code 3")
        with job.exec("stty", "size", terminal=Terminal(5, 6)) as session:
            session.resize(7, 8)
            assert b"".join(payload for _, payload in session) in (b"5 6\r\n", b"7 8\r\n")
        with job.exec("sleep", "1000"):
            pass  # left, it is ended
        assert job.exec_output("cat", input=b"in") == (0, b"in", b"")
        job.stop()
        with pytest.raises(FailedPrecondition), job.exec("true") as session:
            session.exit_code()
