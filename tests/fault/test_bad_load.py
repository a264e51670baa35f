"""More connections than there should be, and fewer descriptors."""

from __future__ import annotations

import contextlib
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import raw_http2 as raw
from harness import ROOT, Server, Stock, cpu_seconds, memory_kb, poll_until

HERE = Path(__file__).parent
CONNECTIONS = 10_000
PROCESSES = 4


def descriptors(server: Server) -> int:
    """How many descriptors the server has open."""
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


@contextlib.contextmanager
def idle_clients(server: Server, count: int) -> Iterator[subprocess.Popen[str]]:
    """A process with so many idle clients, connected."""
    command = [sys.executable, str(HERE / "idle_clients.py"), str(server.port), str(server.certificates), str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env={"PYTHONPATH": str(ROOT / "tests")}, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(900)
def test_ten_thousand_idle_connections_are_carried(make_server, stock) -> None:
    server = make_server(grpc={"maxConnections": CONNECTIONS + 10}).start()
    with server.channel() as channel, contextlib.ExitStack() as stack:
        client = Stock(channel, *stock)
        client.finish("true")
        memory, open_before = memory_kb(server.pid), descriptors(server)
        crowd = [stack.enter_context(idle_clients(server, CONNECTIONS // PROCESSES)) for _ in range(PROCESSES)]
        for process in crowd:
            assert process.stdout.readline() == f"ready {CONNECTIONS // PROCESSES}\n"
        each = (memory_kb(server.pid) - memory) / CONNECTIONS
        print(f"server memory for each of {CONNECTIONS} connections: {each:.1f} KiB")
        assert descriptors(server) >= CONNECTIONS
        assert each < 200
        status, output = client.finish("echo", "still here")
        assert (status.status, output) == ("COMPLETED", b"still here\n")
        for process in crowd:
            assert process.communicate("", timeout=300)[0] == "lost 0\n"
            assert process.returncode == 0
        poll_until(lambda: descriptors(server) <= open_before + 1)
        assert client.finish("true")[0].status == "COMPLETED"


def test_a_connection_beyond_the_bound_is_closed_at_once(make_server, stock) -> None:
    server = make_server(grpc={"maxConnections": 3}).start()
    with server.channel() as channel, raw.connect(server) as one, raw.dial(server):
        client = Stock(channel, *stock)
        assert client.list() is not None
        with raw.dial(server) as beyond:
            assert raw.wait_until_ended(beyond) == b""
        server.wait_for_line(re.compile(r"\[WARN\] too many connections, new ones are closed \| most=3 peer=127"))
        with server.channel() as another, pytest.raises(grpc.RpcError) as caught:
            Stock(another, *stock).list()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert client.list() is not None
        one.close()
        with server.channel() as another:
            poll_until(lambda: answers(Stock(another, *stock)))


def answers(client: Stock) -> bool:
    with contextlib.suppress(grpc.RpcError):
        return client.list() is not None
    return False


def refusal_of(reader: Iterator[object]) -> grpc.RpcError | None:
    """Why a log cannot be read, if it cannot."""
    try:
        next(reader)
    except grpc.RpcError as error:
        return error
    return None


@contextlib.contextmanager
def no_descriptors(server: Server, client: Stock, job_id: str) -> Iterator[None]:
    """Readers of a job's log take the server's last descriptors, until one is told that there is none."""
    readers = []
    refusal = None
    try:
        while refusal is None:
            readers.append(client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job_id)))
            refusal = refusal_of(readers[-1])
        assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.details() == "the server has no descriptor left for this call"
        yield
    finally:
        for reader in readers:
            reader.cancel()


def test_without_descriptors_calls_are_refused_jobs_wait_and_all_comes_right(make_server, stock) -> None:
    server = make_server().start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96)))
    with server.channel() as channel:
        client = Stock(channel, *stock)
        read = client.started("bash", "-c", "echo ready; exec sleep 1000")
        to_stop = client.started("sleep", "1000")
        with no_descriptors(server, client, read.id):
            assert client.status(read.id).status == "RUNNING"
            waiting = client.run("echo", "here I am")
            server.wait_for_line(re.compile(rf"job waits for descriptors to be launched with \| jobId={waiting.id}"))
            assert [job.status for job in client.list()] == ["RUNNING", "RUNNING", "INITIALIZING"]
            for _ in range(10):  # the last descriptor may be free at times
                with raw.dial(server) as another:
                    another.sendall(b"\0")
                    raw.wait_until_ended(another)
            server.wait_for_line(
                re.compile(r"\[WARN\] no descriptor for a connection \| error=\"Too many open files\"")
            )
            used = cpu_seconds(server.pid)
            with contextlib.closing(raw.dial(server)):
                time.sleep(3)  # to see what it does in that time
            assert cpu_seconds(server.pid) - used < 1
            assert client.stop(to_stop.id).status == "STOPPED"
        assert client.output(waiting.id) == b"here I am\n"
        assert client.status(waiting.id).status == "COMPLETED"
        with server.channel() as another:
            assert len(Stock(another, *stock).list()) == 3
        assert client.stop(read.id).status == "STOPPED"
    assert len([line for line in server.lines if "waits for descriptors" in line]) == 1


def test_the_server_takes_all_the_descriptors_that_it_may(make_server) -> None:
    server = make_server().start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096)))
    assert re.search(r"^Max open files +4096 ", Path(f"/proc/{server.pid}/limits").read_text(), re.MULTILINE)
    server.wait_for_line(re.compile("the limit of open files allows fewer connections .*connections=3640"))
