"""Workflows by a stock client, for tests of what a server says of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import Server, poll_until

UNTIL_GO = "until [ -e /workflow/go ]; do sleep 0.02; done"
"""a script that goes on when a test says so, by a file in the workflow's shared directory"""


class Flows:
    """Calls of JobService, by a client that takes no more than stock gRPC does."""

    def __init__(self, server: Server, channel: grpc.Channel, messages: ModuleType, stubs: ModuleType) -> None:
        self.server = server
        self.pb = messages
        self.stub = stubs.JobServiceStub(channel)

    def order(self, text: str, *, files: Mapping[str, bytes] | None = None, **more: Any) -> Any:
        uploads = [self.pb.FileUpload(path=path, content=content) for path, content in (files or {}).items()]
        return self.pb.RunWorkflowRequest(**{"workflow": "w.yaml", **more}, yamlContent=text, workflowFiles=uploads)

    def run(self, text: str, **more: Any) -> str:
        """Its id."""
        return self.stub.RunWorkflow(self.order(text, **more)).workflowId

    def status(self, workflow_id: str) -> Any:
        return self.stub.GetWorkflowStatus(self.pb.GetWorkflowStatusRequest(workflowId=workflow_id))

    def jobs(self, workflow_id: str) -> dict[str, Any]:
        return {job.jobName: job for job in self.status(workflow_id).jobs}

    def list(self, **asked: Any) -> Any:
        return self.stub.ListWorkflows(self.pb.ListWorkflowsRequest(**asked))

    def stop(self, workflow_id: str) -> Any:
        return self.stub.StopWorkflow(self.pb.StopWorkflowRequest(workflowId=workflow_id))

    def retry(self, workflow_id: str) -> Any:
        return self.stub.RetryWorkflow(self.pb.RetryWorkflowRequest(workflowId=workflow_id))

    def delete(self, workflow_id: str) -> Any:
        return self.stub.DeleteWorkflow(self.pb.DeleteWorkflowRequest(workflowId=workflow_id))

    def events(self, **asked: Any) -> Iterator[Any]:
        return self.stub.WatchEvents(self.pb.WatchEventsRequest(**asked))

    def until(self, workflow_id: str, name: str, status: str, *, attempt: int = 0) -> Any:
        """Wait until a job of a workflow, or the workflow itself (""), comes to a status: the event."""
        events = self.events(workflowId=workflow_id)
        for event in events:
            if (event.jobName, event.status) == (name, status) and event.attempt >= attempt:
                events.cancel()
                return event
        raise AssertionError(f"{name!r} never became {status}: {self.status(workflow_id)}")

    def wait(self, workflow_id: str) -> Any:
        """The status of a workflow at its end."""
        for _ in self.events(workflowId=workflow_id):
            pass
        return self.status(workflow_id)

    def finish(self, text: str, **more: Any) -> Any:
        return self.wait(self.run(text, **more))

    def go(self, workflow_id: str) -> None:
        """Let jobs go on that run UNTIL_GO, as soon as there is one."""
        shared = self.server.state / f"workflows/{workflow_id}/shared"
        poll_until(shared.is_dir)
        (shared / "go").touch()


def bash(name: str, script: str, **more: object) -> str:
    """A job of a workflow's file."""
    return f"  {name}: {json.dumps({'command': 'bash', 'args': ['-c', script], **more})}\n"


def told(jobs: Iterable[Any]) -> dict[str, tuple[str, int]]:
    """Status and exit code of each job."""
    return {job.jobName: (job.status, job.exitCode) for job in jobs}


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()
