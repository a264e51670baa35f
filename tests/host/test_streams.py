"""Logs that tell stdout and stderr apart, through the server, the client and rnx."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from harness import Server, Stock, poll_until

from joblet.client import Client, ClientConfig, FailedPrecondition, InvalidArgument, LogChunk, sync

PAUSE = "; sleep 0.05; "
CODE = PAUSE.join(["echo out 1", "echo err 1 >&2", "echo out 2", "echo err 2 >&2", "printf rest"])


@pytest.fixture(scope="module")
def apart(server: Server, stock: tuple[ModuleType, ModuleType]) -> str:
    """The id of an ended job that wrote to both."""
    with server.channel() as channel:
        return Stock(channel, *stock).finish("sh", "-c", CODE, separateStreams=True)[0].id


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stream": "STDOUT"}, b"out 1\nout 2\nrest"),
        ({"stream": "STDERR"}, b"err 1\nerr 2\n"),
        ({}, b"out 1\nerr 1\nout 2\nerr 2\nrest"),
        ({"stream": "BOTH"}, b"out 1\nerr 1\nout 2\nerr 2\nrest"),
        ({"stream": "STDERR", "tailLines": 1}, b"err 2\n"),
        ({"stream": "STDOUT", "tailLines": 2}, b"out 2\nrest"),
        ({"stream": "STDOUT", "tailBytes": 6}, b"2\nrest"),
        ({"stream": "STDOUT", "offset": 3}, b" 1\nout 2\nrest"),
        ({"stream": "STDERR", "until": 2**63 - 1, "tailLines": 0}, b""),
        ({"stream": "STDERR", "since": 2**63 - 1}, b""),
        ({"stream": "STDERR", "grep": "2"}, b"err 2\n"),
        ({"stream": "STDOUT", "grep": "2|rest"}, b"out 2\nrest"),
        ({"stream": "BOTH", "grep": "1"}, b"out 1\nerr 1\n"),
    ],
)
def test_each_stream_of_a_job(client: Stock, apart: str, options: dict[str, object], expected: bytes) -> None:
    assert b"".join(client.logs(apart, **options)) == expected


def test_chunks_tell_of_which_stream_they_are(client: Stock, apart: str) -> None:
    pb = client.pb
    told: list[tuple[int, bytes]] = []
    for chunk in client.stub.GetJobLogs(pb.GetJobLogsReq(id=apart, stream=pb.BOTH, timestamps=True)):
        assert len(chunk.times) == len(chunk.starts) >= bool(chunk.payload)
        if chunk.payload:
            told.append((chunk.stream, chunk.payload))
    assert told == [
        (pb.STDOUT, b"out 1\n"), (pb.STDERR, b"err 1\n"), (pb.STDOUT, b"out 2\n"),
        (pb.STDERR, b"err 2\n"), (pb.STDOUT, b"rest"),
    ]  # fmt: skip
    assert client.status(apart).separateStreams


def test_a_follower_of_one_stream_gets_it_as_it_comes(client: Stock) -> None:
    job = client.started("sh", "-c", "echo a; echo b >&2; sleep 1000", separateStreams=True)
    call = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id, stream="STDERR"))
    assert (next(call).payload, next(call).payload) == (b"", b"b\n")
    client.stop(job.id)
    assert b"".join(chunk.payload for chunk in call) == b""


def test_a_job_that_was_not_asked_to_keep_them_apart(client: Stock, server: Server) -> None:
    job, _ = client.finish("true")
    text = f"the log of job {job.id} has stdout and stderr merged"
    with pytest.raises(grpc.RpcError, match=text) as caught:
        b"".join(client.logs(job.id, stream="STDOUT"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    result = server.rnx("log", "--stderr", job.id)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"job {job.id} has stdout and stderr merged" in result.stderr


def test_a_stream_that_there_is_not(client: Stock, apart: str) -> None:
    with pytest.raises(grpc.RpcError, match=r"invalid stream: 4 \(allowed 0 to 3\)") as caught:
        b"".join(client.logs(apart, stream=4))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_joblet_says_of_a_job_that_never_ran_is_of_stderr(client: Stock) -> None:
    job, _ = client.finish("nowhere-to-be-found", separateStreams=True)
    assert b"".join(client.logs(job.id, stream="STDOUT")) == b""
    assert b"".join(client.logs(job.id, stream="STDERR")) == b"joblet: command not found: nowhere-to-be-found\n"


def test_rnx_prints_each_to_its_own(server: Server, apart: str) -> None:
    header = f"Logs for job {apart} (Press Ctrl+C to exit if streaming):\n"
    for flags, stdout, stderr in (
        (["--stdout"], header + "out 1\nout 2\nrest", ""),
        (["--stderr", "--raw"], "err 1\nerr 2\n", ""),
        (["--raw"], "out 1\nerr 1\nout 2\nerr 2\nrest", ""),
        (["--separate", "--raw"], "out 1\nout 2\nrest", "err 1\nerr 2\n"),
        (["--separate", "--grep=1"], header + "out 1\n", "err 1\n"),
        (["--stderr", "--tail=1"], header + "err 2\n", ""),
    ):
        result = server.rnx("log", *flags, apart)
        assert (result.returncode, result.stdout, result.stderr) == (0, stdout, stderr)
    stamped = server.rnx("log", "--separate", "--raw", "-t", apart)
    assert [line.split(" ", 1)[1] for line in stamped.stderr.splitlines()] == ["err 1", "err 2"]
    assert server.rnx("log", "--stdout", "--stderr", apart).returncode == 2


def test_rnx_runs_a_job_like_a_command_of_the_shell(server: Server) -> None:
    result = server.rnx("run", "--follow", "--separate", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.returncode, result.stdout) == (3, "out\n")
    first, *rest = result.stderr.splitlines()
    assert first.startswith("Job ")
    assert "err" in rest
    assert rest[-1].endswith("FAILED: exit code 3")


def config_of(server: Server) -> ClientConfig:
    folder = server.certificates
    return ClientConfig(
        server=f"localhost:{server.port}",
        cert=str(folder / "admin-cert.pem"),
        key=str(folder / "admin-key.pem"),
        ca=str(folder / "ca-cert.pem"),
    )


def test_the_client_reads_one_or_both(server: Server, apart: str) -> None:
    with sync.Client(config_of(server)) as client:
        assert b"".join(client.logs(apart, stream="stderr")) == b"err 1\nerr 2\n"
        chunks = list(client.log_chunks(apart, stream="both", tail=2))
        assert [(chunk.stream, chunk.payload) for chunk in chunks] == [("stderr", b"err 2\n"), ("stdout", b"rest")]
        for stream in ("both", "stdin"):
            with pytest.raises(InvalidArgument, match=f'invalid stream: "{stream}"'):
                next(client.logs(apart, stream=stream))
        job = client.run("true")
        with pytest.raises(FailedPrecondition, match="merged"):
            list(job.logs(stream="stdout"))


async def test_each_stream_goes_on_over_a_restart(make_server: Callable[..., Server]) -> None:
    server = await asyncio.to_thread(make_server().start)
    wait = "until [ -e {} ]; do sleep 0.01; done"
    code = f"echo o1; echo e1 >&2; printf o; {wait.format('go')}; echo e2 >&2; echo 2; {wait.format('end')}"
    async with Client(config_of(server)) as client:
        job = await client.run("sh", "-c", code, wait_for_start=True, separate_streams=True)
        folder = server.state / "jobs" / job.id
        await asyncio.to_thread(poll_until, lambda: (folder / "log").stat().st_size == 7)
        views = [{"stream": "stdout"}, {"stream": "stderr", "grep": "e"}, {"stream": "stdout", "grep": "o"}]
        both = [{"stream": "both"}, {"stream": "both", "grep": "[oe2]"}]
        streams = [aiter(client.log_chunks(job.id, reconnect=True, **view)) for view in views + both]
        read = [asyncio.create_task(collect(stream)) for stream in streams]
        await asyncio.to_thread(poll_until, lambda: len(server.descriptors_of(folder / "index")) >= len(streams))
        await asyncio.to_thread(server.stop)
        touch(folder / "work/go")
        await asyncio.to_thread(poll_until, lambda: (folder / "log").stat().st_size == 12)
        await asyncio.to_thread(server.start)
        touch(folder / "work/end")
        told = await asyncio.gather(*read)
    assert [out for out, _ in told] == [b"o1\no2\n", b"", b"o1\no2\n", b"o1\no2\n", b"o1\no2\n"]
    assert [errors for _, errors in told] == [b"", b"e1\ne2\n", b"", b"e1\ne2\n", b"e1\ne2\n"]


def touch(path: Path) -> None:
    path.touch()


async def collect(stream: AsyncIterator[LogChunk]) -> tuple[bytes, bytes]:
    chunks = [chunk async for chunk in stream]
    out, errors = (b"".join(one.payload for one in chunks if one.stream == name) for name in ("stdout", "stderr"))
    return out, errors
