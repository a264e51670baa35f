"""A hundred thousand jobs behind, a thousand under way: the server starts, lists and pages as with none."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from harness import PATIENCE, Server, Stock, cpu_seconds
from history import write_ended_jobs

pytestmark = pytest.mark.timeout(10 * PATIENCE)

PAST = 100_000
RUNNING = 1_000
STOCK_MESSAGE = 4 << 20
STARTS = 3
SECONDS = 10.0
"""until a server with jobs under way must serve again; it takes less than one where nothing else runs"""
MEMORY = "/dev/shm" if os.path.ismount("/dev/shm") else None
"""where a hundred thousand directories are made and removed in seconds"""


def make_past(state: Path) -> None:
    """The state directory of a server that has run PAST jobs."""
    (state / "jobs").mkdir(parents=True)
    write_ended_jobs(state / "joblet.db", PAST)
    for number in range(1, PAST + 1):
        os.mkdir(f"{state}/jobs/{number}")


@pytest.fixture(scope="module")
def old(certificates: Path) -> Iterator[Server]:
    """A server with a long past; not running."""
    with tempfile.TemporaryDirectory(prefix="joblet-past-", dir=MEMORY) as folder:
        server = Server(Path(folder), certificates)
        make_past(server.state)
        yield server
        server.close()


@pytest.fixture
def watched(old: Server, stock) -> Iterator[Stock]:
    """A client of the old server as a user of stock gRPC makes it: no option of its own."""
    old.start()
    with grpc.secure_channel(f"localhost:{old.port}", old.credentials()) as channel:
        yield Stock(channel, *stock)
    old.stop()


def cost_of_start(server: Server) -> float:
    """Seconds of CPU time from exec until the server serves and has looked at its past."""
    server.start()
    cost = cpu_seconds(server.pid)
    server.kill()
    return cost


def test_a_long_past_does_not_delay_the_start(old: Server, make_server: Callable[..., Server]) -> None:
    young = make_server()
    costs = {server: [cost_of_start(server) for _ in range(STARTS)] for server in (young, old)}
    assert min(costs[old]) - min(costs[young]) < 1, list(costs.values())


def test_a_stock_list_holds_the_newest_and_says_that_there_are_more(watched: Stock) -> None:
    page = watched.stub.ListJobs(watched.pb.EmptyRequest())
    assert page.more
    assert page.ByteSize() <= STOCK_MESSAGE
    assert page.ByteSize() > STOCK_MESSAGE * 0.99
    assert [int(job.id) for job in page.jobs] == list(range(PAST - len(page.jobs) + 1, PAST + 1))


def test_a_list_does_not_keep_other_calls_waiting(watched: Stock) -> None:
    watched.status("1")
    listing = watched.stub.ListJobs.future(watched.pb.EmptyRequest())
    answered = 0
    while not listing.done():
        watched.status("1")
        answered += 1
    assert len(listing.result().jobs) > 10_000
    # its share of the turns: one after each batch of 200
    assert answered > 20


def test_pages_give_every_job_once_while_jobs_come_and_go(watched: Stock, old: Server, stock) -> None:
    came: list[int] = []
    gone: set[int] = set()
    seen: list[int] = []
    before, more = "", True
    with old.channel() as channel:
        jobs = stock[1].JobServiceStub(channel)
        while more:
            page = watched.stub.ListJobs(watched.pb.EmptyRequest(before=before, pageSize=7_000))
            listed = [int(job.id) for job in page.jobs]
            assert listed == sorted(listed)
            seen += reversed(listed)
            before, more = page.jobs[0].id, page.more
            came.append(int(watched.finish("true")[0].id))
            for number in (listed[0], listed[-1], listed[0] - 1, listed[0] - 3_500):
                if 0 < number <= PAST and number not in gone:
                    jobs.DeleteJob(watched.pb.DeleteJobReq(id=str(number)))
                    if number < listed[0]:
                        gone.add(number)
    assert seen == [number for number in range(PAST, 0, -1) if number not in gone]
    assert len(gone) > 20
    assert min(came) > PAST
    newest = watched.stub.ListJobs(watched.pb.EmptyRequest(pageSize=len(came)))
    assert [int(job.id) for job in newest.jobs] == came


def test_rnx_lists_all_of_them_and_deletes_all_of_them(watched: Stock, old: Server) -> None:
    listed = old.rnx("list", "--all").stdout.splitlines()
    assert len(listed) > PAST * 0.99
    numbers = [int(line.split()[0]) for line in listed]
    assert numbers == sorted(set(numbers), reverse=True)
    short = old.rnx("list")
    shown = len(short.stdout.splitlines())
    assert short.stderr.startswith(f"{shown} newest jobs listed; for older ones: rnx list --before=")
    assert short.stdout.splitlines() == listed[:shown][::-1]
    deleted = old.rnx("delete", "--all", "--yes")
    assert deleted.stdout == f"Jobs deleted successfully:\nDeleted: {len(listed)}\nNotEnded: 0\n"
    assert old.rnx("list", "--all").stdout == ""


def test_a_thousand_running_jobs_are_found_again(make_server: Callable[..., Server], stock) -> None:
    server = make_server(joblet={"maxConcurrentJobs": RUNNING}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        request = client.pb.RunJobReq(command="sleep", args=["100000"], waitForStart=True)
        calls = [client.stub.RunJob.future(request) for _ in range(RUNNING)]
        assert {call.result().status for call in calls} == {"RUNNING"}
        known = {job.id: (job.status, job.startTime) for job in client.list()}
    assert len(known) == RUNNING
    monitors = sorted(server.monitors())
    for end in (server.stop, server.kill):
        end()
        begun = time.monotonic()
        server.start()
        assert time.monotonic() - begun < SECONDS
        with server.channel() as channel:
            listed = Stock(channel, *stock).list()
            assert {job.id: (job.status, job.startTime) for job in listed} == known
        assert len(os.listdir(f"/proc/{server.pid}/fd")) < RUNNING + 100
    assert sorted(server.monitors()) == monitors
    with server.channel() as channel:
        client = Stock(channel, *stock)
        calls = [client.stub.StopJob.future(client.pb.StopJobReq(id=job_id)) for job_id in known]
        assert {call.result().status for call in calls} == {"STOPPED"}
    assert server.monitors() == []
