"""Following logs: complete, in order, for many at once, whatever a client does."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from harness import Server, Stock, memory_kb, poll_until

WRITER = (
    "import random, sys, time\n"
    "source = random.Random(7)\n"
    "for _ in range({count}):\n"
    "    sys.stdout.buffer.write(source.randbytes(1 << 20)); sys.stdout.buffer.flush(); time.sleep(0.02)"
)


def written(count: int) -> bytes:
    source = random.Random(7)
    return b"".join(source.randbytes(1 << 20) for _ in range(count))


@pytest.mark.load
@pytest.mark.timeout(420)
def test_fifty_clients_follow_one_hundred_megabytes(make_server: Callable[..., Server], stock, tmp_path: Path) -> None:
    """One of them reads 1 MB/s. The server's memory stays within 64 MB of its start."""
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
            for pauses in (fast, [*fast, "0", "1"])
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
