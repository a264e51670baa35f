"""Following logs: complete, in order, for many at once, whatever a client does."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import Server, Stock, memory_kb, poll_until

from joblet.client import Client, ClientConfig, InvalidArgument, LogChunk

WRITER = (
    "import random, sys, time\n"
    "source = random.Random(7)\n"
    "for _ in range({count}):\n"
    "    sys.stdout.buffer.write(source.randbytes(1 << 20)); sys.stdout.buffer.flush(); time.sleep(0.02)"
)


def written(count: int) -> bytes:
    source = random.Random(7)
    return b"".join(source.randbytes(1 << 20) for _ in range(count))


@pytest.mark.timeout(420)
def test_fifty_clients_follow_one_hundred_megabytes(make_server: Callable[..., Server], stock, tmp_path: Path) -> None:
    """One of them reads 4 MB/s. The server's memory stays within 64 MB of its start."""
    server = make_server().start()
    expected = tmp_path / "expected"
    expected.write_bytes(written(100))
    with server.channel() as channel:
        client = Stock(channel, *stock)
        client.finish("true")
        at_start = memory_kb(server.pid)
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak counts from here (proc_pid_clear_refs(5))
        job = client.started("python3", "-c", WRITER.format(count=100), maxCPU=100)
        script = str(Path(__file__).parent / "follow_clients.py")
        command = [sys.executable, script, str(server.port), str(server.certificates), job.id, str(expected)]
        fast = ["0"] * 24
        followers = [
            subprocess.Popen([*command, *pauses], stdout=subprocess.PIPE, text=True)
            for pauses in (fast, [*fast, "0", "0.25"])
        ]
        results = [follower.communicate()[0] for follower in followers]
        assert results == ["24 complete\n", "26 complete\n"]
        assert client.status(job.id).status == "COMPLETED"
        peak = memory_kb(server.pid, "VmHWM")
    assert peak - at_start < 64 << 10, f"{at_start} KiB at start, {peak} KiB at most"


def test_a_follower_that_leaves_does_not_disturb_the_others(client: Stock) -> None:
    job = client.started("python3", "-c", WRITER.format(count=20))
    calls = [client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id)) for _ in range(4)]
    for call in calls[:2]:
        next(call)
        call.cancel()
    rest = [b"".join(chunk.payload for chunk in call) for call in calls[2:]]
    assert rest == [written(20)] * 2


def test_a_follower_that_leaves_holds_nothing(client: Stock, server: Server) -> None:
    """One that does not read, so that the server waits for its window, and one that waits for output."""
    job = client.started("bash", "-c", "head -c 30000000 /dev/zero; sleep 100")
    log = server.state / "jobs" / job.id / "log"
    idle = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id))
    waiting = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id, offset=30_000_000))
    next(idle)
    poll_until(lambda: len(server.descriptors_of(log)) >= 2)
    idle.cancel()
    waiting.cancel()
    poll_until(lambda: server.descriptors_of(log) == [])
    client.stop(job.id)


def test_a_follower_resumes_by_offset(client: Stock) -> None:
    job = client.started("python3", "-c", WRITER.format(count=5))
    received = b""
    while len(received) < 5 << 20:
        call = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id, offset=len(received)))
        for _ in range(10):
            try:
                received += next(call).payload
            except StopIteration:
                break
        call.cancel()
    assert received == written(5)


def test_followers_of_a_waiting_job_get_its_output_when_it_runs(make_server: Callable[..., Server], stock) -> None:
    server = make_server(joblet={"maxConcurrentJobs": 1}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        first = client.started("sleep", "100")
        second = client.run("echo", "late")
        assert (second.status, second.startTime) == ("PENDING", "")
        assert client.status(second.id).reason == "waiting for a slot, place 1 in the queue"
        call = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=second.id))
        client.stop(first.id)
        assert b"".join(chunk.payload for chunk in call) == b"late\n"


def test_a_job_stopped_while_it_waits_has_no_output(make_server: Callable[..., Server], stock) -> None:
    server = make_server(joblet={"maxConcurrentJobs": 1, "maxQueuedJobs": 1}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        first = client.started("sleep", "100")
        second = client.run("echo", "never")
        with pytest.raises(grpc.RpcError) as caught:
            client.run("echo", "too many")
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "job creation failed: 1 jobs are running and the queue of 1 is full"
        assert client.stop(second.id).status == "STOPPED"
        assert client.output(second.id) == b""
        assert client.stop(first.id).status == "STOPPED"


def test_shutdown_ends_streams_and_says_so(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.started("bash", "-c", "echo on; sleep 100")
        call = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id))
        assert next(call).payload == b"on\n"
        assert server.stop() == 0
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.details() == "server is shutting down"


def test_servers_log_has_the_specifications_form(client: Stock, server: Server) -> None:
    seen = len(server.lines)
    job = client.run("python3", "-c", "print('a b')")
    client.output(job.id)
    line = server.wait_for_line(re.compile("job started successfully"), seen).string
    pattern = (
        r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\] \[INFO\] job started successfully \| "
        rf"jobId={job.id} pid=\d+ command=\"python3 .*\" duration=\d+ms"
    )
    assert re.fullmatch(pattern, line)


SLOW = "for i in 1 2 3; do echo line $i; sleep 0.05; done; printf 'the rest'"


def times_of(client: Stock, job_id: str, **options: Any) -> list[tuple[int, bytes]]:
    """Output in pieces, each with its time; checks that the offsets follow one another."""
    pieces = []
    first, *rest = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job_id, timestamps=True, **options))
    assert first.payload == b""
    offset = first.offset
    for chunk in rest:
        assert chunk.offset == offset
        offset += len(chunk.payload)
        ends = [*chunk.starts[1:], len(chunk.payload)]
        pieces += [
            (at, chunk.payload[start:end]) for at, start, end in zip(chunk.times, chunk.starts, ends, strict=True)
        ]
    return pieces


def test_chunks_tell_when_their_bytes_came(client: Stock) -> None:
    """The same to one who follows and to one who comes later."""
    before = time.time_ns()
    job = client.run("bash", "-c", SLOW)
    followed = times_of(client, job.id)
    assert b"".join(piece for _, piece in followed) == b"line 1\nline 2\nline 3\nthe rest"
    times = [at for at, _ in followed]
    assert before <= times[0]
    assert times == sorted(times)
    assert times[-1] <= time.time_ns()
    assert times[-1] - times[0] > 100_000_000
    later: list[tuple[int, bytes]] = []
    for at, piece in followed:  # who follows may get it in smaller pieces
        if later and later[-1][0] == at:
            piece = later.pop()[1] + piece
        later.append((at, piece))
    assert times_of(client, job.id) == later


def test_a_plain_stream_is_that_of_the_specification(client: Stock) -> None:
    job, _ = client.finish("bash", "-c", SLOW)
    for chunk in client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id)):
        assert [field.number for field, _ in chunk.ListFields()] == [1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tailLines": 0}, b""),
        ({"tailLines": 1}, b"the rest"),
        ({"tailLines": 2}, b"line 3\nthe rest"),
        ({"tailLines": 4}, b"line 1\nline 2\nline 3\nthe rest"),
        ({"tailLines": 2**63 - 1}, b"line 1\nline 2\nline 3\nthe rest"),
        ({"tailBytes": 0}, b""),
        ({"tailBytes": 6}, b"e rest"),
        ({"tailBytes": 2**63 - 1}, b"line 1\nline 2\nline 3\nthe rest"),
        ({"tailLines": 2, "tailBytes": 4}, b"rest"),
        ({"tailLines": 2, "offset": 16}, b"ne 3\nthe rest"),
        ({"tailLines": 2, "offset": 400}, b""),
        ({"since": 0}, b"line 1\nline 2\nline 3\nthe rest"),
        ({"since": -3600 * 10**9}, b"line 1\nline 2\nline 3\nthe rest"),
        ({"since": -(2**63)}, b"line 1\nline 2\nline 3\nthe rest"),
        ({"since": 2**63 - 1}, b""),
        ({"until": 2**63 - 1, "tailLines": 1}, b"the rest"),
        ({"until": 0}, b""),
        ({"grep": "line"}, b"line 1\nline 2\nline 3\n"),
        ({"grep": "[13t]$"}, b"line 1\nline 3\nthe rest"),
        ({"grep": "2|rest", "tailLines": 2}, b"the rest"),
        ({"grep": "nothing like it"}, b""),
        ({"until": -3600 * 10**9}, b""),
    ],
)
def test_part_of_a_log(client: Stock, ended_slowly: str, options: dict[str, int], expected: bytes) -> None:
    assert b"".join(client.logs(ended_slowly, **options)) == expected


@pytest.fixture(scope="module")
def ended_slowly(server: Server, stock: tuple[ModuleType, ModuleType]) -> str:
    """The id of a job that wrote SLOW's lines."""
    with server.channel() as channel:
        return Stock(channel, *stock).finish("bash", "-c", SLOW)[0].id


def test_part_of_a_log_by_time(client: Stock, ended_slowly: str) -> None:
    pieces = times_of(client, ended_slowly)
    middle = pieces[1][0]
    whole = b"".join(piece for _, piece in pieces)
    head = pieces[0][1]
    assert b"".join(client.logs(ended_slowly, since=middle)) == whole.removeprefix(head)
    assert b"".join(client.logs(ended_slowly, until=middle)) == head
    assert b"".join(client.logs(ended_slowly, since=middle + 1, until=middle)) == b""
    assert b"".join(client.logs(ended_slowly, until=middle, tailLines=1)) == head.splitlines(keepends=True)[-1]
    assert times_of(client, ended_slowly, since=middle) == pieces[1:]


def test_a_tail_of_a_job_that_writes_on_is_as_long_as_was_asked_for(client: Stock) -> None:
    job = client.started("bash", "-c", "while :; do echo line; done")
    try:
        written = b""
        for chunk in client.logs(job.id):
            written += chunk
            if written.count(b"\n") >= 2:
                break
        for _ in range(50):
            read = b"".join(client.logs(job.id, tailLines=2, noFollow=True))
            assert len(read.splitlines()) == 2, read
    finally:  # it would keep a processor busy for as long as its server lives
        client.stop(job.id)


def test_a_follower_may_begin_at_the_end(client: Stock) -> None:
    job = client.started("bash", "-c", "seq 5; sleep 1000")
    read = b""
    for chunk in client.logs(job.id):
        read += chunk
        if read.endswith(b"5\n"):
            break
    call = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id, tailLines=2))
    none = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id, tailLines=0))
    assert (next(call).offset, next(none).offset) == (6, 10)
    assert next(call).payload == b"4\n5\n"
    assert b"".join(client.logs(job.id, until=-1, tailLines=1)) == b"5\n"  # does not follow
    client.stop(job.id)
    assert [b"".join(chunk.payload for chunk in each) for each in (call, none)] == [b"", b""]


def test_matching_lines_tell_when_they_came_and_where_to_go_on(client: Stock, ended_slowly: str) -> None:
    whole = {line: at for at, piece in times_of(client, ended_slowly) for line in piece.splitlines(keepends=True)}
    call = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=ended_slowly, grep="1|3", timestamps=True))
    _, chunk, *rest = call
    assert (chunk.payload, chunk.offset, list(chunk.starts), rest) == (b"line 1\nline 3\n", 0, [0, 7], [])
    assert list(chunk.times) == [whole[b"line 1\n"], whole[b"line 3\n"]]
    assert b"".join(client.logs(ended_slowly, offset=chunk.end)) == b"the rest"


def test_a_follower_gets_matching_lines_when_they_have_ended(client: Stock) -> None:
    job = client.started("bash", "-c", "echo one; echo two; printf on; sleep 1000")
    call = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id, grep="on"))
    assert (next(call).payload, next(call).payload) == (b"", b"one\n")
    client.stop(job.id)
    assert b"".join(chunk.payload for chunk in call) == b"on"


def test_a_pattern_that_cannot_be_used(client: Stock, server: Server, ended_slowly: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        b"".join(client.logs(ended_slowly, grep="(a"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "invalid grep: missing ) at character 3"
    result = server.rnx("log", "--grep=(a", ended_slowly)
    assert result.returncode != 0
    assert "invalid grep: missing ) at character 3" in result.stderr


@pytest.mark.parametrize("field", ["tailLines", "tailBytes"])
def test_a_tail_below_nothing(client: Stock, field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        b"".join(client.logs("1", **{field: -1}))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"invalid {field}: -1 (allowed 0 and above)"


def test_rnx_shows_part_of_a_log_and_times(server: Server, ended_slowly: str) -> None:
    header = f"Logs for job {ended_slowly} (Press Ctrl+C to exit if streaming):\n"
    for flags, expected in (
        (["--tail=2"], "line 3\nthe rest"),
        (["--tail=0", "--follow=false"], ""),
        (["--since=1h", "--tail=1"], "the rest"),
        (["--since=2100-01-01T00:00:00Z"], ""),
        (["--until=1h"], ""),
        (["--grep=2"], "line 2\n"),
        (["--until=2100-01-01T01:00:00+01:00", "--tail=1", "--since", "1d"], "the rest"),
    ):
        result = server.rnx("log", *flags, ended_slowly)
        assert (result.returncode, result.stdout, result.stderr) == (0, header + expected, "")
    result = server.rnx("log", "-t", "--tail=3", ended_slowly)
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{stamp} line 2\n{stamp} line 3\n{stamp} the rest", result.stdout.removeprefix(header))


def client_of(server: Server) -> Client:
    folder = server.certificates
    return Client(
        ClientConfig(
            server=f"localhost:{server.port}",
            cert=str(folder / "admin-cert.pem"),
            key=str(folder / "admin-key.pem"),
            ca=str(folder / "ca-cert.pem"),
        )
    )


async def test_the_client_reads_part_of_a_log(server: Server, ended_slowly: str) -> None:
    async with client_of(server) as client:
        chunks = [chunk async for chunk in client.log_chunks(ended_slowly, tail=2, reconnect=True)]
        assert b"".join(chunk.payload for chunk in chunks) == b"line 3\nthe rest"
        assert chunks[0].offset == 14
        first = datetime.fromtimestamp(chunks[0].times[0][1] / 1e9, UTC)
        rest = client.logs(ended_slowly, since=first - timedelta(milliseconds=20), until=timedelta(0))
        assert b"".join([chunk async for chunk in rest]) == b"line 3\nthe rest"
        assert b"".join([chunk async for chunk in client.logs(ended_slowly, tail_bytes=4)]) == b"rest"
        for bad in ({"tail": -1}, {"tail_bytes": -1}, {"since": datetime(2024, 1, 1)}, {"until": timedelta(-1)}):
            with pytest.raises(InvalidArgument, match=f"invalid {next(iter(bad))}: "):
                async for _ in client.logs(ended_slowly, **bad):
                    pass


async def test_part_of_a_log_goes_on_over_a_restart(make_server: Callable[..., Server]) -> None:
    """Of who has read some, and of who has not: what came while the server was away is not counted as of before."""
    server = await asyncio.to_thread(make_server().start)
    async with client_of(server) as client:
        code = "seq 5; until [ -e go ]; do sleep 0.01; done; echo on; echo off; until [ -e end ]; do sleep 0.01; done"
        job = await client.run("bash", "-c", code, wait_for_start=True)
        async for chunk in client.logs(job.id):
            if chunk.endswith(b"5\n"):
                break
        folder = server.state / "jobs" / job.id
        views = [{"tail": 1}, {"tail_bytes": 0}, {"since": timedelta(0)}, {"tail": 0, "grep": "on"}]
        streams = [aiter(client.log_chunks(job.id, reconnect=True, **view)) for view in views]
        read = [asyncio.create_task(collect(stream)) for stream in streams]
        await asyncio.to_thread(poll_until, lambda: len(server.descriptors_of(folder / "index")) == len(views))
        await asyncio.to_thread(server.stop)
        (folder / "work/go").touch()
        await asyncio.to_thread(poll_until, lambda: (folder / "log").read_bytes().endswith(b"off\n"))
        await asyncio.to_thread(server.start)
        (folder / "work/end").touch()
        assert await asyncio.gather(*read) == [b"5\non\noff\n", b"on\noff\n", b"on\noff\n", b"on\n"]


async def collect(stream: AsyncIterator[LogChunk]) -> bytes:
    return b"".join([chunk.payload async for chunk in stream])
