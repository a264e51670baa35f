"""The state directory's disk is full while workflows run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import Server, Stock
from small_disk import SmallDisk, small_disk

UNTIL_GO = "until [ -e $JOBLET_SHARED/go ]; do sleep 0.02; done"
WAITS = re.compile(r"\[WARN\] step cannot be started yet \| workflowId=1 job=second error=.*no space left on the disk")
YAML = json.dumps(
    {
        "jobs": {
            "first": {"command": "bash", "args": ["-c", UNTIL_GO]},
            "second": {"command": "echo", "args": ["second"], "requires": ["first"]},
            "third": {"command": "echo", "args": ["third"], "requires": ["second"]},
        }
    }
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "state", tmp_path / "disk.img") as made:
        yield made


@pytest.fixture
def server(disk: SmallDisk, tmp_path: Path, certificates: Path) -> Iterator[Server]:
    """Its state is on the small disk."""
    made = Server(tmp_path, certificates, joblet={"cleanupTimeout": "2s"}).start()
    yield made
    made.close()


@pytest.fixture
def waiting(disk: SmallDisk, server: Server, stock: tuple[ModuleType, ModuleType]) -> Iterator[tuple[Any, Any]]:
    """Messages and calls, when a workflow's first step has ended on a full disk."""
    pb, stubs = stock
    with server.channel() as channel:
        calls = stubs.JobServiceStub(channel)
        calls.RunWorkflow(pb.RunWorkflowRequest(yamlContent=YAML))
        next(event for event in calls.WatchEvents(pb.WatchEventsRequest()) if event.status == "RUNNING")
        (server.state / "workflows/1/shared/held").touch()
        yield pb, calls


def fill_and_go(disk: SmallDisk, server: Server) -> None:
    disk.fill()
    shared = server.state / "workflows/1/shared"
    (shared / "held").rename(shared / "go")
    server.wait_for_line(WAITS)


def shown(pb: Any, calls: Any) -> tuple[str, list[str]]:
    status = calls.GetWorkflowStatus(pb.GetWorkflowStatusRequest(workflowId="1"))
    return status.workflow.status, [job.status for job in status.jobs]


def test_steps_wait_for_room_and_go_on(disk: SmallDisk, server: Server, waiting: tuple[Any, Any]) -> None:
    fill_and_go(disk, server)
    assert shown(*waiting) == ("RUNNING", ["COMPLETED", "PENDING", "PENDING"])
    pb, calls = waiting
    with pytest.raises(grpc.RpcError) as caught:
        calls.RunWorkflow(pb.RunWorkflowRequest(yamlContent=YAML))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    disk.make_room()
    for _ in calls.WatchEvents(pb.WatchEventsRequest(workflowId="1")):
        pass
    assert shown(*waiting) == ("COMPLETED", ["COMPLETED"] * 3)
    assert len([line for line in server.lines if WAITS.search(line)]) == 1, "told once"


def test_they_wait_on_in_the_next_server(
    disk: SmallDisk, server: Server, stock: tuple[ModuleType, ModuleType], waiting: object
) -> None:
    fill_and_go(disk, server)
    server.kill()
    begun = len(server.lines)
    server.start()
    server.wait_for_line(WAITS, begun)
    disk.make_room()
    pb, stubs = stock
    with server.channel() as channel:
        calls = stubs.JobServiceStub(channel)
        for _ in calls.WatchEvents(pb.WatchEventsRequest(workflowId="1")):
            pass
        assert shown(pb, calls) == ("COMPLETED", ["COMPLETED"] * 3)
        assert [job.name for job in Stock(channel, *stock).list()] == ["first", "second", "third"]


def test_a_workflow_that_waits_for_room_can_be_stopped(
    disk: SmallDisk, server: Server, waiting: tuple[Any, Any]
) -> None:
    fill_and_go(disk, server)
    pb, calls = waiting
    assert calls.StopWorkflow(pb.StopWorkflowRequest(workflowId="1")).status == "STOPPED"
    assert shown(*waiting) == ("STOPPED", ["COMPLETED", "CANCELED", "CANCELED"])
