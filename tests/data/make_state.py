"""Makes frozen state directories, and what the server that made them said of its jobs and workflows.

The server is the one that Python finds, so with another commit checked out and built in OLD:

    PYTHONPATH=OLD/src:tests python tests/data/make_state.py tests/data/state-v1

Each ends as a machine does that loses its power: one job has ended unseen, others run or wait. Workflows, where there
were any yet, are in a state of their own, tests/data/workflows-v5 for state-v5.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from harness import ROOT, Server, Stock, compile_stock_client, make_certificates, wait_for_end

FIELDS = ("id", "command", "maxCPU", "maxMemory", "maxIOBPS", "status", "startTime", "endTime", "exitCode", "reason")


WORKFLOW_FIELDS = (
    "id",
    "workflow",
    "status",
    "totalJobs",
    "completedJobs",
    "failedJobs",
    "canceledJobs",
    "yamlContent",
)
STEP_FIELDS = ("jobId", "jobName", "status", "exitCode", "reason", "attempt", "maxAttempts", "condition")

ENDED = """\
jobs:
  fetch:
    command: bash
    args: [-c, "echo rows=7 >> $JOBLET_OUTPUT; echo fetched"]
  train:
    command: bash
    args: [-c, "cat in.csv; exit 3"]
    uploads: {files: [in.csv]}
    requires: [fetch]
    retries: {limit: 1, backoff: 1ms, exit_codes: [3]}
  report:
    command: echo
    requires: [train]
"""
INTERRUPTED = """\
environment: {PLACE: here}
secret_environment: {TOKEN: hunter2}
jobs:
  first:
    command: bash
    args: [-c, "echo rows=7 >> $JOBLET_OUTPUT; echo shared > /workflow/note"]
  second:
    command: sleep
    args: [1000]
    requires: [first]
  third:
    command: bash
    args: [-c, "cat /workflow/note in.csv; echo $1 $PLACE; [ $TOKEN = hunter2 ]", sh, "${{ jobs.first.outputs.rows }}"]
    uploads: {files: [in.csv]}
    requires: [first: COMPLETED, second: FINISHED]
"""


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        messages = compile_stock_client(Path(folder, "stock"), ROOT / "protos/joblet.proto")
        freeze(target, lambda channel: run_jobs(Stock(channel, *messages)), unseen="unseen")
        if importlib.util.find_spec("joblet.workflow") is not None:
            workflows = target.with_name(target.name.replace("state", "workflows"))
            freeze(workflows, lambda channel: run_workflows(channel, *messages))


def freeze(target: Path, run: Callable[[grpc.Channel], dict[str, dict[str, Any]]], unseen: str = "") -> None:
    """The state after `run`, what that was told, and the end of all but the job `unseen`, which goes on to its own."""
    with tempfile.TemporaryDirectory() as folder:
        certificates = make_certificates(Path(folder, "certs"))
        server = Server(Path(folder), certificates, joblet={"maxConcurrentJobs": 3, "cleanupTimeout": "2s"}).start()
        with server.channel() as channel:
            said = run(channel)
        monitors = server.monitors()
        server.kill()
        record = server.state / "jobs" / said[unseen]["id"] if unseen else None
        for monitor in monitors:
            if record is None or f"pid={monitor}\n" not in (record / "monitor").read_text():
                os.kill(monitor, signal.SIGKILL)
            wait_for_end(monitor)
        assert record is None or (record / "exit").exists()
        target.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")
        with tarfile.open(target.with_suffix(".tar.gz"), "w:gz") as archive:
            archive.add(server.state, "state", filter=keep)
        server.close()


def run_workflows(channel: grpc.Channel, messages: ModuleType, stubs: ModuleType) -> dict[str, dict[str, Any]]:
    """A workflow that has ended and one in the middle by name, and what the server says of them."""
    stub = stubs.JobServiceStub(channel)

    def run(name: str, text: str, until: Callable[[Any], bool]) -> dict[str, Any]:
        files = [messages.FileUpload(path="in.csv", content=b"1,2\n")]
        order = messages.RunWorkflowRequest(workflow=f"{name}.yaml", yamlContent=text, workflowFiles=files)
        number = stub.RunWorkflow(order).workflowId
        for event in stub.WatchEvents(messages.WatchEventsRequest(workflowId=number)):
            if until(event):
                break
        status = stub.GetWorkflowStatus(messages.GetWorkflowStatusRequest(workflowId=number))
        return described_workflow(status)

    return {
        "ended": run("ended", ENDED, lambda event: False),  # the events end with it
        "interrupted": run(
            "interrupted", INTERRUPTED, lambda event: event.jobName == "second" and event.status == "RUNNING"
        ),
    }


def described_workflow(status: Any) -> dict[str, Any]:
    return {field: getattr(status.workflow, field) for field in WORKFLOW_FIELDS} | {
        "jobs": [
            {field: getattr(job, field) for field in STEP_FIELDS}
            | {"dependencies": list(job.dependencies), "outputs": dict(job.outputs)}
            for job in status.jobs
        ]
    }


def run_jobs(client: Stock) -> dict[str, dict[str, Any]]:
    """Jobs of every kind by name, and what the server says of them."""
    finished = {
        "completed": client.finish("echo", "hello", maxMemory=64),
        "failed": client.finish("bash", "-c", "echo oops; exit 3"),
        "killed": client.finish("bash", "-c", "kill -9 $$"),
        "absent": client.finish("no-such-program"),
    }
    job = client.started("bash", "-c", "echo begun; sleep 1000")
    client.stop(job.id)
    finished["stopped"] = client.status(job.id), client.output(job.id)
    said = {name: described(status, output) for name, (status, output) in finished.items()}
    # All slots are taken by these, so that the last one waits.
    said["unseen"] = described(client.started("bash", "-c", "read -t 3 < /dev/zero; echo end; exit 4"), b"end\n")
    said["running"] = described(client.started("bash", "-c", "echo started; sleep 1000"), b"started\n")
    said["running too"] = described(client.started("sleep", "1000"), b"")
    said["waiting"] = described(client.run("echo", "it was my turn"), b"it was my turn\n")
    next(client.logs(said["running"]["id"]))  # its line is in the log
    return said


def described(job: Any, output: bytes) -> dict[str, Any]:
    return {field: getattr(job, field) for field in FIELDS} | {"args": list(job.args), "output": output.decode()}


def keep(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without what a lost machine does not leave: SQLite's shared memory."""
    return None if entry.name.endswith("-shm") else entry


if __name__ == "__main__":
    main(Path(sys.argv[1]))
