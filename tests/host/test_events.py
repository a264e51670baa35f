"""The stream of events, by a stock client: what it tells, from where, and when it ends."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import PATIENCE, Server, Stock, poll_until
from workflow_client import UNTIL_GO, Flows, bash, refusal

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def fresh(make_server: Callable[..., Server], stock) -> Iterator[Flows]:
    """With a server of its own."""
    server = make_server(joblet={"cleanupTimeout": "2s"}).start()
    with server.channel() as channel:
        yield Flows(server, channel, *stock)


@pytest.fixture
def flows(server: Server, stock) -> Iterator[Flows]:
    with server.channel() as channel:
        yield Flows(server, channel, *stock)


def joblet(server: Server, command: str, file: Path) -> None:
    arguments = [command, str(file), "--config", str(server.directory / "joblet-config.yml")]
    subprocess.run([sys.executable, "-m", "joblet", *arguments], check=True, timeout=PATIENCE, capture_output=True)


def iter_until_cancelled(stream: Any) -> Iterator[Any]:
    with contextlib.suppress(grpc.RpcError):
        yield from stream


def count_descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def short(event: Any) -> tuple[str, str]:
    return event.jobName, event.status


def test_a_workflow_s_own_events_end_with_it(flows: Flows) -> None:
    before = time.time()
    text = "jobs:\n" + bash("a", "true") + bash("b", "exit 3", requires=["a"]) + bash("c", "true", requires=["b"])
    workflow_id = flows.run(text)
    events = list(flows.events(workflowId=workflow_id))
    assert {event.workflowId for event in events} == {workflow_id}
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    own = [event for event in events if not event.jobName]
    assert [event.status for event in own] == ["PENDING", "RUNNING", "FAILED"]
    assert [event.jobId for event in own] == ["", "", ""]
    by_job = {name: [event for event in events if event.jobName == name] for name in "abc"}
    assert [event.status for event in by_job["a"]] == ["INITIALIZING", "RUNNING", "COMPLETED"]
    assert [event.status for event in by_job["b"]] == ["INITIALIZING", "RUNNING", "FAILED"]
    last = by_job["b"][-1]
    assert (last.exitCode, last.reason, last.attempt) == (3, "exit code 3", 1)
    assert last.jobId == flows.jobs(workflow_id)["b"].jobId
    (canceled,) = by_job["c"]
    assert (canceled.status, canceled.jobId) == ("CANCELED", "")
    times = [event.time.seconds + event.time.nanos / 1e9 for event in events]
    assert before - 1 <= min(times) <= max(times) <= time.time() + 1
    status = flows.status(workflow_id)
    assert status.sequence >= sequences[-1]
    again = list(flows.events(workflowId=workflow_id))  # of what has ended: history, then the end
    assert [event.sequence for event in again] == sequences


def test_of_all_of_one_job_and_after_some(fresh: Flows, stock) -> None:
    with fresh.server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.run("true")
        assert [short(event) for event in fresh.events(jobId=job.id)] == [
            *(("", "INITIALIZING"), ("", "RUNNING"), ("", "COMPLETED")),
        ]
    fresh.finish("jobs:\n" + bash("a", "true"))
    everything = list(fresh.events(noFollow=True))
    assert [event.sequence for event in everything] == sorted({event.sequence for event in everything})
    assert {event.workflowId for event in everything} == {"", "1"}
    of_workflow = [event for event in everything if event.workflowId]
    assert [event for event in everything if event.jobId == job.id and not event.workflowId] == everything[:3]
    for position, event in enumerate(everything):
        assert list(fresh.events(after=event.sequence, noFollow=True)) == everything[position + 1 :]
        expected = [later for later in of_workflow if later.sequence > event.sequence]
        assert list(fresh.events(after=event.sequence, workflowId="1")) == expected


def test_only_what_is_new(fresh: Flows) -> None:
    """Nothing of before; from the stream's beginning on, all of it."""
    workflow = "jobs:\n" + bash("a", "true")
    fresh.finish(workflow)
    assert list(fresh.events(onlyNew=True, noFollow=True)) == []
    newest = [event.sequence for event in fresh.events(noFollow=True)][-1]
    stream, seen = fresh.events(onlyNew=True), []
    reader = threading.Thread(target=lambda: seen.extend(iter_until_cancelled(stream)))
    reader.start()
    while not seen:  # nothing but an event tells that the stream has begun
        last = fresh.finish(workflow).workflow.id
    poll_until(lambda: (seen[-1].workflowId, *short(seen[-1])) == (last, "", "COMPLETED"))
    stream.cancel()
    reader.join()
    assert seen[0].sequence > newest
    assert seen == list(fresh.events(after=seen[0].sequence - 1, noFollow=True))


def test_a_client_that_waits_is_told_at_once(fresh: Flows, stock) -> None:
    """No polling: a stream that has nothing to tell costs nothing and tells what comes."""
    events = fresh.events()
    with fresh.server.channel() as channel:
        job = Stock(channel, *stock).run("true")
        assert [next(events).status for _ in range(3)] == ["INITIALIZING", "RUNNING", "COMPLETED"]
        job = Stock(channel, *stock).run("true")
        assert next(events).jobId == job.id
    events.cancel()


def test_events_that_are_gone(fresh: Flows) -> None:
    fresh.finish("jobs:\n" + bash("a", "true"))
    everything = list(fresh.events(noFollow=True))
    fresh.server.stop()
    oldest = everything[2].sequence
    with contextlib.closing(sqlite3.connect(fresh.server.state / "joblet.db")) as database, database:
        database.execute("DELETE FROM events WHERE sequence < ?", (oldest,))  # as is done to a long history
    fresh.server.start()
    gone = f"events after {everything[0].sequence} are not kept any more (the oldest is {oldest})"
    for options in ({}, {"noFollow": True}, {"workflowId": "1"}):
        call = lambda options=options: list(fresh.events(after=everything[0].sequence, **options))  # noqa: E731
        assert refusal(call) == (grpc.StatusCode.OUT_OF_RANGE, gone)
    assert list(fresh.events(after=everything[1].sequence, noFollow=True)) == everything[2:]
    assert list(fresh.events(noFollow=True)) == everything[2:]  # from the oldest that is kept


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_stream_goes_on_after_a_restart_where_it_was(fresh: Flows, end: str) -> None:
    text = "jobs:\n" + bash("a", UNTIL_GO) + bash("b", "true", requires=["a"])
    workflow_id = fresh.run(text)
    seen, stream = [], fresh.events(workflowId=workflow_id)
    while not seen or short(seen[-1]) != ("a", "RUNNING"):
        seen.append(next(stream))
    getattr(fresh.server, end)()
    with pytest.raises(grpc.RpcError) as caught:  # not as if the workflow had ended
        seen += list(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    fresh.server.start()
    fresh.go(workflow_id)
    with fresh.server.channel() as channel:
        stub = type(fresh.stub)(channel)
        asked = fresh.pb.WatchEventsRequest(workflowId=workflow_id, after=seen[-1].sequence)
        seen += list(stub.WatchEvents(asked, wait_for_ready=True))
        assert seen == list(stub.WatchEvents(fresh.pb.WatchEventsRequest(workflowId=workflow_id)))
    assert [event.status for event in seen if event.jobName == "a"] == ["INITIALIZING", "RUNNING", "COMPLETED"]
    assert [event.status for event in seen if not event.jobName] == ["PENDING", "RUNNING", "COMPLETED"]


def test_clients_that_leave_are_forgotten(fresh: Flows) -> None:
    """By a call that is cancelled, and by a process that is killed with its streams open."""
    fresh.finish("jobs:\n" + bash("a", "true"))
    for _ in range(50):
        events = fresh.events()
        next(events)
        events.cancel()
    open_before = count_descriptors(fresh.server)
    program = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from pathlib import Path\n"
        "import grpc, joblet_pb2 as pb, joblet_pb2_grpc as stubs\n"
        "folder = Path(sys.argv[2])\n"
        "names = ('ca-cert.pem', 'viewer-key.pem', 'viewer-cert.pem')\n"
        "credentials = grpc.ssl_channel_credentials(*((folder / name).read_bytes() for name in names))\n"
        "stub = stubs.JobServiceStub(grpc.secure_channel('localhost:' + sys.argv[1], credentials))\n"
        "streams = [stub.WatchEvents(pb.WatchEventsRequest()) for _ in range(20)]\n"
        "for stream in streams: next(stream)\n"
        "print('ready', flush=True)\n"
        "for event in streams[0]: pass\n"
    )
    place = str(Path(fresh.pb.__file__).parent)
    command = [sys.executable, "-c", program, str(fresh.server.port), str(fresh.server.certificates), place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        assert count_descriptors(fresh.server) > open_before
        reader.kill()
    poll_until(lambda: count_descriptors(fresh.server) <= open_before)
    assert fresh.finish("jobs:\n" + bash("b", "true")).workflow.status == "COMPLETED"
    assert not [line for line in fresh.server.lines if "ERROR" in line or "Traceback" in line]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"after": -1}, (INVALID, "invalid after: -1 (allowed 0 and above)")),
        ({"workflowId": "1", "jobId": "1"}, (INVALID, "invalid jobId: give either workflowId or jobId")),
        ({"workflowId": "٣"}, (grpc.StatusCode.NOT_FOUND, "workflow not found: ٣")),
        ({"workflowId": "999999"}, (grpc.StatusCode.NOT_FOUND, "workflow not found: 999999")),
        ({"jobId": "-1"}, (grpc.StatusCode.NOT_FOUND, "job not found: -1")),
        ({"jobId": "999999", "noFollow": True}, (grpc.StatusCode.NOT_FOUND, "job not found: 999999")),
    ],
)
def test_what_cannot_be_watched(flows: Flows, asked: dict[str, Any], answer: tuple[grpc.StatusCode, str]) -> None:
    assert refusal(lambda: list(flows.events(**asked))) == answer


def test_events_that_have_not_been(fresh: Flows) -> None:
    """A client's place may be of a database that an older one has replaced since: it must not wait for ever."""
    copy = fresh.server.directory / "copy"
    fresh.finish("jobs:\n" + bash("a", "true"))
    joblet(fresh.server, "backup", copy)
    workflow_id = fresh.run("jobs:\n" + bash("a", "true") + bash("b", UNTIL_GO, requires=["a"]))
    place = fresh.until(workflow_id, "b", "RUNNING").sequence
    fresh.go(workflow_id)
    fresh.wait(workflow_id)
    newest = list(fresh.events(noFollow=True))[-1].sequence
    assert list(fresh.events(after=newest, noFollow=True)) == []
    fresh.server.stop()
    joblet(fresh.server, "restore", copy)
    fresh.server.start()
    newest = list(fresh.events(noFollow=True))[-1].sequence
    for after in (place, 2**63 - 1):
        code, text = refusal(lambda after=after: list(fresh.events(after=after)))
        assert (code, text) == (
            grpc.StatusCode.OUT_OF_RANGE,
            f"there has been no event {after} (the newest is {newest})",
        )
