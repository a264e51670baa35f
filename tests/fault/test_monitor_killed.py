"""A job's monitor is killed, at whatever instant: its job ends with it, and says so; nothing of it is left."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import monitors
import pytest
from harness import Server, Stock, groups, own_ids, poll_until, processes_of

LOST = ("FAILED", -1, "lost: its monitor was killed")
SEED = 5


@pytest.fixture
def server(make_server) -> Server:
    first, ranges = own_ids()
    isolation = {"idBase": first, "idRanges": ranges}
    return make_server(joblet={"maxConcurrentJobs": 4}, isolation=isolation).start()


def end_of(status: Any) -> tuple[str, int, str]:
    return status.status, status.exitCode, status.reason


def assert_nothing_is_left(server: Server) -> None:
    """Of any job: no process, no control group, no loop device."""
    assert processes_of(*own_ids()) == []
    for base in groups((server.state / "instance").read_text().strip()):
        assert list(base.glob("*/")) == []
    devices = list(Path("/sys/block").glob("loop*/loop/backing_file"))
    poll_until(lambda: not any(str(server.state) in text_of(device) for device in devices))


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def run_and_kill(client: Stock, server: Server, delay: float, **limits: int) -> tuple[str, tuple[str, int, str]]:
    """A job whose monitor is killed so long after it has begun: its id and how it ended."""
    job = client.run("sh", "-c", "echo here; exec sleep 1000", **limits)
    assert monitors.kill(server.state / "jobs" / job.id, delay=delay)
    log = client.output(job.id)
    assert log in (b"", b"here\n")
    return job.id, end_of(client.status(job.id))


def test_at_every_instant_of_a_launch_and_after_it(server: Server, stock) -> None:
    rng = random.Random(SEED)
    in_launch = 0
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for _ in range(60):
            job_id, end = run_and_kill(client, server, rng.choice((0, rng.uniform(0, 0.003), rng.uniform(0, 0.02))))
            assert end == LOST
            in_launch += not (server.state / "jobs" / job_id / "started").exists()
        status, log = client.finish("echo", "served as ever")
    assert end_of(status) == ("COMPLETED", 0, "exit code 0")
    assert log == b"served as ever\n"
    assert 0 < in_launch < 60, "both were hit, launches and running jobs"
    assert_nothing_is_left(server)


def test_with_a_disk_of_its_own(server: Server, stock) -> None:
    rng = random.Random(SEED)
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for _ in range(10):
            assert run_and_kill(client, server, rng.uniform(0, 0.01), maxDisk=4)[1] == LOST
    assert_nothing_is_left(server)


def test_many_at_once_give_their_slots_on(server: Server, stock) -> None:
    rng = random.Random(SEED)
    with server.channel() as channel, ThreadPoolExecutor(8) as threads:
        client = Stock(channel, *stock)
        delays = [rng.uniform(0, 0.01) for _ in range(24)]
        ends = list(threads.map(lambda delay: run_and_kill(client, server, delay), delays))
        assert [end for _, end in ends] == [LOST] * 24
        for _ in range(5):  # more than there are slots
            job = client.started("sleep", "0")
            assert job.status != "PENDING"
            client.output(job.id)
    assert_nothing_is_left(server)


def test_while_no_server_runs(server: Server, stock) -> None:
    with server.channel() as channel:
        client = Stock(channel, *stock)
        jobs = [client.started("sleep", "1000") for _ in range(3)]
        server.kill()
    for job in jobs[:2]:
        assert monitors.kill(server.state / "jobs" / job.id)
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for job in jobs[:2]:
            client.output(job.id)
            assert end_of(client.status(job.id)) == LOST
        assert client.status(jobs[2].id).status == "RUNNING"
        client.stop(jobs[2].id)
    assert_nothing_is_left(server)


def test_with_the_server_in_the_middle_of_launches(server: Server, stock) -> None:
    """Both die; what had begun is told to be lost, what had not is launched, and nothing is both."""
    rng = random.Random(SEED)
    ends = set()
    for _ in range(8):
        with server.channel() as channel:
            client = Stock(channel, *stock)
            job = client.run("sh", "-c", "echo here; sleep 0.05")
            directory = server.state / "jobs" / job.id
            killing = threading.Thread(target=monitors.kill, args=(directory, 0.2, rng.uniform(0, 0.003)))
            killing.start()
            threading.Event().wait(rng.uniform(0, 0.004))
            server.kill()
            killing.join()
        server.start()
        with server.channel() as channel:
            client = Stock(channel, *stock)
            log = client.output(job.id)
            end = end_of(client.status(job.id))
        ends.add(end)
        assert end in (LOST, ("COMPLETED", 0, "exit code 0"))
        assert log == b"here\n" if end != LOST else log in (b"", b"here\n")
    assert_nothing_is_left(server)


def test_while_it_stops_its_job(server: Server, stock) -> None:
    """The job ignores SIGTERM, so that its monitor is waiting to use more."""
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.started("sh", "-c", "trap '' TERM; echo here; while :; do sleep 1; done")
        next(client.logs(job.id))
        stopping = client.stub.StopJob.future(client.pb.StopJobReq(id=job.id))
        assert monitors.kill(server.state / "jobs" / job.id, delay=0.2)
        assert "job is not running" in stopping.exception().details()
        assert end_of(client.status(job.id)) == LOST
    assert_nothing_is_left(server)
