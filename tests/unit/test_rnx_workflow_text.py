"""API.md's examples of workflows, character for character, and what rnx prints beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.client import Event, WorkflowInfo, WorkflowJob, WorkflowList, WorkflowStatus
from joblet.client.workflows import event_of, status_of, workflow_of
from joblet.proto import joblet as pb
from joblet.workflow.build import parse
from rnx import render, workflow_text
from rnx.waves import dry_run

BEGAN = datetime(2024, 1, 15, 10, 30, 0, 250000, tzinfo=UTC)
ENDED = datetime(2024, 1, 15, 10, 30, 5, tzinfo=UTC)
INFO = WorkflowInfo("1", "pipeline.yaml", "RUNNING", 4, 2, 0, 0, 0, BEGAN, BEGAN, None)


def job(job_id: str, name: str, status: str, *dependencies: str, exit_code: int = 0, **more: object) -> WorkflowJob:
    return replace(WorkflowJob(job_id, name, status, dependencies, None, None, exit_code), **more)


SPECIFICATION = """\
JOB ID JOB NAME STATUS EXIT CODE DEPENDENCIES
-----------------------------------------------------------------------------------------
42 setup-data COMPLETED 0 -
43 process-data RUNNING - setup-data
"""


def test_the_table_of_the_specification() -> None:
    jobs = (job("42", "setup-data", "COMPLETED"), job("43", "process-data", "RUNNING", "setup-data"))
    assert workflow_text.status(WorkflowStatus(INFO, jobs, 9)) == (
        "Workflow ID: 1\n"
        "Workflow: pipeline.yaml\n"
        "Status: RUNNING\n"
        "Progress: 2/4 jobs completed\n"
        "\n"
        "Jobs in Workflow:\n" + SPECIFICATION
    )


@pytest.mark.parametrize(
    ("shown", "row"),
    [
        (job("0", "a", "PENDING", "b", "c"), "0 a PENDING - b, c"),
        (job("0", "a", "CANCELED", "b"), "0 a CANCELED - b"),
        (job("5", "a", "FAILED", exit_code=137), "5 a FAILED 137 -"),
        (job("5", "a", "STOPPED", exit_code=-1), "5 a STOPPED -1 -"),
        (job("5", "train[lr=0.1,depth=2]", "INITIALIZING"), "5 train[lr=0.1,depth=2] INITIALIZING - -"),
    ],
)
def test_rows(shown: WorkflowJob, row: str) -> None:
    assert workflow_text.status(WorkflowStatus(INFO, (shown,), 9)).endswith(f"-\n{row}\n")


def test_verbose_adds_a_part() -> None:
    info = replace(INFO, name="nightly", completed_at=ENDED, reason="b is FAILED", parameters={"token": "***"})
    jobs = (
        job("2", "a", "COMPLETED", attempt=2, max_attempts=3, start_time=BEGAN, end_time=ENDED, outputs={"acc": "0.9"}),
        job("0", "b", "CANCELED", "a", condition="a=FAILED", reason="requires a=FAILED, but a is COMPLETED"),
        job("0", "c", "PENDING", continue_on_failure=True),
    )
    status = WorkflowStatus(info, jobs, 9)
    assert workflow_text.status(status, verbose=True) == workflow_text.status(status) + (
        "\n"
        "Details:\n"
        "Name: nightly\n"
        "Created At: 2024-01-15T10:30:00Z\n"
        "Started At: 2024-01-15T10:30:00Z\n"
        "Ended At: 2024-01-15T10:30:05Z\n"
        "Reason: b is FAILED\n"
        "Parameter token: ***\n"
        "\n"
        "a:\n"
        "Attempt: 2/3\n"
        "Started At: 2024-01-15T10:30:00Z\n"
        "Ended At: 2024-01-15T10:30:05Z\n"
        "Output acc: 0.9\n"
        "\n"
        "b:\n"
        "Requires: a=FAILED\n"
        "Reason: requires a=FAILED, but a is COMPLETED\n"
        "\n"
        "c:\n"
        "Continue On Failure: yes\n"
    )


def test_the_other_commands() -> None:
    pending = replace(INFO, status="PENDING", completed_jobs=0)
    assert workflow_text.started(SimpleNamespace(info=pending)) == (  # type: ignore[arg-type]
        "Workflow started:\nID: 1\nWorkflow: pipeline.yaml\nStatus: PENDING\nJobs: 4\n"
    )
    assert workflow_text.state("stopped", replace(INFO, status="STOPPED")) == (
        "Workflow stopped:\nID: 1\nWorkflow: pipeline.yaml\nStatus: STOPPED\nProgress: 2/4 jobs\n"
    )
    assert workflow_text.deleted("1") == "Workflow deleted successfully:\nID: 1\n"


def test_the_list() -> None:
    workflows = [replace(INFO, completed_jobs=3, total_jobs=5), replace(INFO, id="2", status="FAILED")]
    listed = workflow_text.listed(workflows)
    rows = "1 pipeline.yaml RUNNING 3/5\n2 pipeline.yaml FAILED 2/4\n"
    assert listed == "ID NAME STATUS PROGRESS\n" + "-" * 89 + "\n" + rows
    table = workflow_text.Table()
    assert table.piece(workflows[:1]) + table.piece(workflows[1:]) + table.end() == listed
    assert workflow_text.more(WorkflowList(workflows, more=True)) == (
        "2 newest workflows listed; for older ones: rnx list --workflow --before=1;"
        " for all: rnx list --workflow --all\n"
    )


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event(1, BEGAN, "7", "", "", "RUNNING", 0, "", 0), "workflow 7 RUNNING"),
        (Event(1, BEGAN, "7", "", "", "FAILED", 0, "a is FAILED", 0), "workflow 7 FAILED: a is FAILED"),
        (Event(1, BEGAN, "7", "train", "3", "RUNNING", 0, "", 1), "train RUNNING (job 3)"),
        (
            Event(1, BEGAN, "7", "train", "3", "FAILED", 1, "exit code 1", 2),
            "train FAILED (job 3, attempt 2): exit code 1",
        ),
        (Event(1, BEGAN, "7", "train", "", "CANCELED", 0, "why", 0), "train CANCELED: why"),
        (Event(1, BEGAN, "", "", "3", "COMPLETED", 0, "exit code 0", 0), "job 3 COMPLETED: exit code 0"),
    ],
)
def test_events(event: Event, line: str) -> None:
    assert workflow_text.event_line(event) == f"2024-01-15T10:30:00Z {line}\n"
    assert json.loads(workflow_text.event_json(event))["time"] == "2024-01-15T10:30:00.250000Z"


def test_what_the_server_says_is_translated_whole() -> None:
    time = pb.Timestamp(seconds=1705314600, nanos=250_000_999)
    workflow = pb.WorkflowInfo(
        id="1", workflow="pipeline.yaml", status="RUNNING", total_jobs=4, completed_jobs=2, created_at=time
    )
    part = pb.WorkflowJob(job_id="3", job_name="a", status="FAILED", dependencies=["b"], start_time=time, attempt=2)
    part.outputs = {"k": "v"}
    status = status_of(pb.GetWorkflowStatusResponse(workflow=workflow, jobs=[part], sequence=5))
    assert status.workflow == replace(INFO, started_at=None)
    assert status.jobs == (job("3", "a", "FAILED", "b", start_time=BEGAN, attempt=2, outputs={"k": "v"}),)
    assert status.sequence == 5
    shown = json.loads(workflow_text.status_json(status))
    assert shown["workflow"]["createdAt"] == "2024-01-15T10:30:00.250000Z"
    assert shown["workflow"]["completedAt"] is None
    assert shown["jobs"][0]["dependencies"] == ["b"]
    event = event_of(pb.Event(sequence=4, workflow_id="1", status="RUNNING", time=time))
    assert event == Event(4, BEGAN, "1", "", "", "RUNNING", 0, "", 0)
    assert event.of_workflow
    assert not workflow_of(None).ended


@pytest.mark.parametrize(
    ("message", "fields", "others"),
    [
        (pb.WorkflowInfo, workflow_text.WORKFLOW_FIELDS, {"yaml_content"}),
        (pb.WorkflowJob, workflow_text.JOB_FIELDS, set()),
        (pb.Event, workflow_text.EVENT_FIELDS, set()),
        (pb.Job, render.JOB_FIELDS, set()),
        (pb.GetJobStatusRes, render.STATUS_FIELDS, {"receipt"}),
    ],
)
def test_no_field_of_the_protocol_is_left_out(message: type, fields: dict[str, str], others: set[str]) -> None:
    names = {name.lower().replace("_", "") for name in message.__dataclass_fields__}
    assert {name.lower().replace("_", "") for name in fields} == names - {name.replace("_", "") for name in others}


texts = st.text(st.characters(codec="utf-8"))


@given(texts, texts, texts, st.lists(texts))
def test_one_line_each_whatever_things_are_called(name: str, status: str, reason: str, before: list[str]) -> None:
    jobs = (job("1", name, status, *before, reason=reason, outputs={name: reason}), job("2", "b", "RUNNING"))
    text = workflow_text.status(WorkflowStatus(replace(INFO, workflow=name), jobs, 1))
    assert len(text.split("\n")) == 11
    assert all(line.isprintable() for line in text.split("\n"))
    event = Event(1, BEGAN, "1", name, "2", status, 0, reason, 1)
    assert workflow_text.event_line(event).count("\n") == 1
    assert workflow_text.event_json(event).count("\n") == 1


DRY = """\
max_parallel: 2
jobs:
  fetch: {command: fetch}
  train: {command: train, matrix: {lr: [0.1, 0.01, 0.001]}, requires: [fetch]}
  alarm: {command: alarm, requires: [{train: FAILED}]}
  sweep: {command: sweep, requires: [alarm]}
  report: {command: report, requires: [{train: FINISHED}, {fetch: COMPLETED}]}
"""


def test_the_order_in_which_jobs_would_start() -> None:
    assert dry_run("w.yaml", parse(DRY, file="w.yaml").plan) == (
        "w.yaml: 7 jobs in 4 waves, if all complete\n"
        "\n"
        "Wave 1:\n"
        "  fetch\n"
        "\n"
        "Wave 2:\n"
        "  train[lr=0.1]    after fetch\n"
        "  train[lr=0.01]   after fetch\n"
        "\n"
        "Wave 3:\n"
        "  train[lr=0.001]  after fetch\n"
        "\n"
        "Wave 4:\n"
        "  report           if train[lr=0.1]=FINISHED && train[lr=0.01]=FINISHED && train[lr=0.001]=FINISHED"
        " && fetch=COMPLETED\n"
        "\n"
        "Not started:\n"
        "  alarm            if train[lr=0.1]=FAILED || train[lr=0.01]=FAILED || train[lr=0.001]=FAILED\n"
        "  sweep            after alarm\n"
    )
