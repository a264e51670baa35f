"""Workflows in a state directory that an earlier release, which knew none, has left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from harness import Server, Stock
from test_upgrade import STATES, unpack

EARLIER = [path for path in STATES if path.name < "state-v5"]
YAML = """
jobs:
  first: {command: bash, args: ["-c", "echo word=hello > $JOBLET_OUTPUT"]}
  second: {command: echo, args: ["${{ jobs.first.outputs.word }}"], requires: [first]}
"""


@pytest.mark.parametrize("archive", EARLIER, ids=lambda path: path.name.partition(".")[0])
def test_run_beside_the_jobs_that_are_there(
    make_server: Callable[..., Server], stock: tuple[ModuleType, ModuleType], archive: Path
) -> None:
    server = make_server()
    said = unpack(archive, server)
    server.start()
    pb, stubs = stock
    with server.channel() as channel:
        calls, jobs = stubs.JobServiceStub(channel), Stock(channel, *stock)
        assert not calls.ListWorkflows(pb.ListWorkflowsRequest(includeCompleted=True)).workflows
        workflow_id = calls.RunWorkflow(pb.RunWorkflowRequest(yamlContent=YAML)).workflowId
        for _ in calls.WatchEvents(pb.WatchEventsRequest(workflowId=workflow_id)):
            pass
        status = calls.GetWorkflowStatus(pb.GetWorkflowStatusRequest(workflowId=workflow_id))
        assert (workflow_id, status.workflow.status) == ("1", "COMPLETED")
        assert [int(job.jobId) for job in status.jobs] == [len(said) + 1, len(said) + 2]
        assert jobs.output(status.jobs[1].jobId) == b"hello\n"
        # to those jobs there are events only of what has happened since
        told = {event.jobId for event in calls.WatchEvents(pb.WatchEventsRequest(noFollow=True))}
        assert told.isdisjoint(said[name]["id"] for name in ("completed", "failed", "killed", "absent", "stopped"))
        assert {said[name]["id"] for name in ("unseen", "running", "waiting")} <= told
