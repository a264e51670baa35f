"""The server ends, by request or by SIGKILL; jobs do not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from harness import Server, Stock, processes_of, wait_for_end

from joblet.executor.local.spec import PROTOCOL

COUNTER = "import time\nfor n in range(200): print(n, flush=True); time.sleep(0.01)"
COUNTED = "".join(f"{n}\n" for n in range(200)).encode()


@pytest.fixture(params=["stop", "kill"])
def end(request: pytest.FixtureRequest) -> Callable[[Server], object]:
    return {"stop": Server.stop, "kill": Server.kill}[request.param]


def read_until_cut(call) -> bytes:
    """What a stream still gives before the connection is lost."""
    received = bytearray()

    def drain() -> None:
        for chunk in call:
            received.extend(chunk.payload)

    with pytest.raises(grpc.RpcError) as caught:
        drain()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return bytes(received)


def test_a_running_job_goes_on_and_its_follower_resumes(make_server, stock, end) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.started("python3", "-c", COUNTER)
        call = client.stub.GetJobLogs(client.pb.GetJobLogsReq(id=job.id))
        received = next(call).payload
        end(server)
        received += read_until_cut(call)
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        received += b"".join(client.logs(job.id, offset=len(received)))
        status = client.status(job.id)
    assert received == COUNTED
    assert (status.status, status.exitCode, status.startTime) == ("COMPLETED", 0, job.startTime)


def test_a_job_that_ended_meanwhile_has_its_true_end(make_server, stock, end) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("bash", "-c", "read < /dev/zero -t 0.5; exit 9")
    monitors = server.monitors()
    end(server)
    for monitor in monitors:
        wait_for_end(monitor)
    server.start()
    with server.channel() as channel:
        status = Stock(channel, *stock).status(job.id)
    assert (status.status, status.exitCode, status.reason) == ("FAILED", 9, "exit code 9")


def test_a_job_found_again_can_be_stopped(make_server, stock, end) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("sleep", "1000")
    end(server)
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert client.status(job.id).status == "RUNNING"
        assert client.stop(job.id).status == "STOPPED"
    assert server.monitors() == []


def test_waiting_jobs_wait_on_in_their_order(make_server, stock, end) -> None:
    server = make_server(joblet={"maxConcurrentJobs": 1}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        first = client.started("sleep", "1000")
        waiting = [client.run("bash", "-c", "date +%s%N") for _ in range(3)]
    end(server)
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        assert [client.status(job.id).status for job in waiting] == ["PENDING"] * 3
        client.stop(first.id)
        moments = [int(client.output(job.id)) for job in waiting]
    assert moments == sorted(moments)


def test_a_lost_monitor_is_told_and_nothing_of_its_job_survives(make_server, stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.started("sleep", "1000")
        owner = (server.state / "jobs" / job.id / "work").stat().st_uid
        assert len(processes_of(owner)) == 2
        (monitor,) = server.monitors()
        os.kill(monitor, signal.SIGKILL)
        client.output(job.id)
        status = client.status(job.id)
    assert (status.status, status.exitCode, status.reason) == ("FAILED", -1, "lost: its monitor was killed")
    assert processes_of(owner) == []


def test_every_acknowledged_job_is_found_after_sigkill(make_server, stock) -> None:
    server = make_server(joblet={"maxConcurrentJobs": 4}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        calls = [client.stub.RunJob.future(client.pb.RunJobReq(command="echo", args=[str(n)])) for n in range(40)]
        calls[10].result()
        server.kill()
        acknowledged = {}
        for number, call in enumerate(calls):
            if call.exception() is None:
                acknowledged[call.result().id] = number
    assert len(acknowledged) >= 1
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for job_id, number in acknowledged.items():
            output, status = client.output(job_id), client.status(job_id)
            if status.status == "COMPLETED":
                assert output == f"{number}\n".encode()
            else:  # killed in the instant between its lock and its monitor: never ran, and says so
                assert (status.reason, output) == ("lost: the server ended while it was launched", b"")


def test_a_job_of_an_older_version_is_taken_up_and_one_of_a_newer_is_left_alone(make_server, stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("sleep", "1h")
    server.stop()
    said = server.state / f"jobs/{job.id}/monitor"
    lines = [line for line in said.read_text().splitlines() if not line.startswith("version=")]
    said.write_text("\n".join([f"version={PROTOCOL + 1}", *lines, ""]))
    with pytest.raises(AssertionError, match=rf"job {job.id} runs under a monitor of protocol {PROTOCOL + 1}"):
        server.start()
    said.write_text("\n".join([*lines, ""]))
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        found = client.status(job.id)
        assert (found.status, found.startTime) == ("RUNNING", job.startTime)
        client.stop(job.id)


def test_a_second_server_on_the_same_state_refuses_to_start(make_server, certificates: Path) -> None:
    first = make_server().start()
    second = Server(first.directory, certificates)
    with pytest.raises(AssertionError, match="is in use by another joblet server"):
        second.start()
    with first.channel() as channel:
        grpc.channel_ready_future(channel).result(10)
    first.close()


def test_a_job_over_its_time_is_stopped(make_server, stock) -> None:
    server = make_server(joblet={"jobTimeout": "1s"}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        status, _ = client.finish("sleep", "1000")
    assert (status.status, status.exitCode, status.reason) == ("STOPPED", -1, "timeout after 1s")


def test_the_time_is_measured_across_a_restart(make_server, stock) -> None:
    server = make_server(joblet={"jobTimeout": "2s"}).start()
    with server.channel() as channel:
        job = Stock(channel, *stock).started("sleep", "1000")
    server.kill()
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        client.output(job.id)
        status = client.status(job.id)
    assert (status.status, status.reason) == ("STOPPED", "timeout after 2s")


def test_what_the_server_inherited_does_not_reach_its_jobs_monitors(make_server, stock) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    server = make_server().start(pass_fds=(write_end,))
    os.close(write_end)
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.started("sleep", "1000")
        server.kill()
        # the end of the pipe comes with the server's, although the monitor and its job live on
        assert os.read(read_end, 1) == b""
        assert len(server.monitors()) == 1
    os.close(read_end)
    server.start()
    with server.channel() as channel:
        Stock(channel, *stock).stop(job.id)


def test_a_damaged_exit_record_is_told_and_harms_no_other_job(make_server, stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        jobs = [client.started("sleep", "1000"), client.started("sleep", "1000")]
        server.kill()
    (server.state / "jobs" / jobs[0].id / "exit").write_bytes(b"version=1\noutcome=\xff\nend=1\n")
    monitor = monitor_of(server, jobs[0].id)
    os.kill(monitor, signal.SIGKILL)
    wait_for_end(monitor)
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        client.output(jobs[0].id)
        status = client.status(jobs[0].id)
        assert (status.status, status.exitCode) == ("FAILED", -1)
        assert status.reason.startswith("lost: exit record with outcome")
        assert client.status(jobs[1].id).status == "RUNNING"
        client.stop(jobs[1].id)


def monitor_of(server: Server, job_id: str) -> int:
    """Pid of a job's monitor."""
    lines = (server.state / "jobs" / job_id / "monitor").read_text().splitlines()
    return int(dict(line.split("=", 1) for line in lines)["pid"])
