"""The server is killed while it accepts a workflow."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import grpc
import pytest
from harness import Server, poll_until

FILES = 1000
"""each flushed to the disk by itself: it takes a while"""
YAML = """
jobs:
  count:
    command: bash
    args: ["-c", "echo files=$(ls data | wc -l) > $JOBLET_OUTPUT"]
    uploads: {files: [data]}
"""


def test_what_was_half_uploaded_is_gone_after_the_next_start(
    make_server: Callable[..., Server], stock: tuple[ModuleType, ModuleType]
) -> None:
    server = make_server().start()
    folder = server.state / "uploads"
    pb, stubs = stock
    files = [pb.FileUpload(path=f"data/{number}", content=b"x") for number in range(FILES)]
    request = pb.RunWorkflowRequest(yamlContent=YAML, workflowFiles=files, key="count")
    with server.channel() as channel:
        call = stubs.JobServiceStub(channel).RunWorkflow.future(request)
        poll_until(lambda: any(folder.glob("*/data/*")))
        server.kill()
        with pytest.raises(grpc.RpcError):
            call.result()
    assert len(list(folder.iterdir())) == 1
    server.start()
    assert list(folder.iterdir()) == []
    with server.channel() as channel:
        calls = stubs.JobServiceStub(channel)
        assert not calls.ListWorkflows(pb.ListWorkflowsRequest(includeCompleted=True)).workflows
        # nobody is in the way of those who ask again
        answer = calls.RunWorkflow(request)
        assert calls.RunWorkflow(request).workflowId == answer.workflowId
        assert len(list(folder.iterdir())) == 1
        for _ in calls.WatchEvents(pb.WatchEventsRequest(workflowId=answer.workflowId)):
            pass
        status = calls.GetWorkflowStatus(pb.GetWorkflowStatusRequest(workflowId=answer.workflowId))
        assert dict(status.jobs[0].outputs) == {"files": str(FILES)}
        calls.DeleteWorkflow(pb.DeleteWorkflowRequest(workflowId=answer.workflowId))
        assert list(folder.iterdir()) == []
