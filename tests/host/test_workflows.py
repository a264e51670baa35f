"""Workflows over the wire, by stock clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from harness import Server, Stock
from workflow_client import UNTIL_GO, Flows, bash, refusal, told

EXAMPLE = """\
# workflow.yaml
jobs:
  setup-data:          # Job name: "setup-data"
    command: "python3"
    args: ["setup.py"]

  process-data:        # Job name: "process-data"
    command: "python3"
    args: ["process.py"]
    requires:
      - setup-data: "COMPLETED"
"""
"""API.md's, verbatim"""

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
def flows(server: Server, stock) -> Iterator[Flows]:
    with server.channel() as channel:
        yield Flows(server, channel, *stock)


@pytest.fixture
def fresh(make_server: Callable[..., Server], stock) -> Iterator[Flows]:
    """With a server of its own."""
    server = make_server(joblet={"cleanupTimeout": "2s"}).start()
    with server.channel() as channel:
        yield Flows(server, channel, *stock)


def seconds(timestamp: Any) -> float:
    return timestamp.seconds + timestamp.nanos / 1e9


def test_the_example_as_it_stands_lacks_its_scripts(flows: Flows) -> None:
    ended = flows.finish(EXAMPLE)
    assert (ended.workflow.status, ended.workflow.yamlContent) == ("FAILED", EXAMPLE)
    setup, process = ended.jobs
    assert (setup.status, setup.exitCode) == ("FAILED", 2)
    assert int(setup.jobId) > 0
    assert (process.jobId, process.jobName, process.status, process.exitCode) == ("0", "process-data", "CANCELED", 0)
    assert process.reason == "requires setup-data=COMPLETED, but setup-data is FAILED"
    assert list(process.dependencies) == ["setup-data"]
    assert not process.HasField("startTime")
    assert (ended.workflow.totalJobs, ended.workflow.completedJobs) == (2, 0)
    assert (ended.workflow.failedJobs, ended.workflow.canceledJobs) == (1, 1)


def test_the_example_with_its_scripts_from_start_to_end(flows: Flows, client: Stock) -> None:
    scripts = {
        "setup.py": b"import os, time\nwhile not os.path.exists('/workflow/go'): time.sleep(0.02)\n",
        "process.py": b"print('processed')\n",
    }
    text = EXAMPLE.replace('["setup.py"]', '["setup.py"]\n    uploads: {files: [setup.py]}')
    text = text.replace('["process.py"]', '["process.py"]\n    uploads: {files: [process.py]}')
    before = time.time()
    hints = {"totalJobs": 99, "jobOrder": ["process-data", "no-such-job"]}
    answer = flows.stub.RunWorkflow(flows.order(text, files=scripts, workflow="workflow.yaml", **hints))
    assert (answer.status, answer.totalJobs) == ("PENDING", 2)
    workflow_id = answer.workflowId

    flows.until(workflow_id, "setup-data", "RUNNING")
    flows.until(workflow_id, "", "RUNNING")  # which is stored a moment after its first job is
    now = flows.status(workflow_id)
    workflow, (setup, process) = now.workflow, now.jobs
    assert (workflow.id, workflow.workflow, workflow.status) == (workflow_id, "workflow.yaml", "RUNNING")
    assert (workflow.totalJobs, workflow.completedJobs, workflow.failedJobs, workflow.canceledJobs) == (2, 0, 0, 0)
    assert before - 1 <= seconds(workflow.createdAt) <= seconds(workflow.startedAt) <= time.time() + 1
    assert not workflow.HasField("completedAt")
    assert (setup.jobName, setup.status, list(setup.dependencies)) == ("setup-data", "RUNNING", [])
    assert seconds(workflow.startedAt) <= seconds(setup.startTime) <= time.time() + 1
    assert not setup.HasField("endTime")
    assert (process.jobId, process.status, list(process.dependencies)) == ("0", "PENDING", ["setup-data"])
    assert not process.HasField("startTime")
    assert (setup.attempt, process.attempt, process.condition) == (1, 0, "setup-data=COMPLETED")

    flows.go(workflow_id)
    ended = flows.wait(workflow_id)
    workflow, (setup, process) = ended.workflow, ended.jobs
    assert (workflow.status, workflow.completedJobs) == ("COMPLETED", 2)
    assert told(ended.jobs) == {"setup-data": ("COMPLETED", 0), "process-data": ("COMPLETED", 0)}
    assert seconds(setup.startTime) <= seconds(setup.endTime) <= seconds(process.startTime)
    assert seconds(process.endTime) <= seconds(workflow.completedAt)
    jobs = flows.stub.GetWorkflowJobs(flows.pb.GetWorkflowJobsRequest(workflowId=workflow_id)).jobs
    assert list(jobs) == list(ended.jobs)
    assert client.output(process.jobId) == b"processed\n"
    job = client.status(process.jobId)
    assert (job.name, job.workflowId) == ("process-data", workflow_id)
    listed = next(job for job in client.list() if job.id == setup.jobId)
    assert (listed.name, listed.workflowId) == ("setup-data", workflow_id)


def test_list_with_and_without_what_has_ended(fresh: Flows) -> None:
    ended = [fresh.run("jobs:\n" + bash("a", "true")) for _ in range(3)]
    for workflow_id in ended:
        fresh.wait(workflow_id)
    running = fresh.run("name: nightly\njobs:\n" + bash("a", UNTIL_GO))
    assert [workflow.id for workflow in fresh.list().workflows] == [running]
    everything = fresh.list(includeCompleted=True)
    assert [workflow.id for workflow in everything.workflows] == [*ended, running]
    assert [workflow.status for workflow in everything.workflows][:3] == ["COMPLETED"] * 3
    assert {workflow.yamlContent for workflow in everything.workflows} == {""}
    assert everything.workflows[3].name == "nightly"
    assert not everything.more
    page = fresh.list(includeCompleted=True, pageSize=2)
    assert ([workflow.id for workflow in page.workflows], page.more) == ([ended[2], running], True)
    page = fresh.list(includeCompleted=True, pageSize=2, before=page.workflows[0].id)
    assert ([workflow.id for workflow in page.workflows], page.more) == (ended[:2], False)
    assert len(fresh.list(before=running).workflows) == 0
    fresh.go(running)
    fresh.wait(running)
    assert len(fresh.list().workflows) == 0


def test_stop_ends_what_runs_and_starts_nothing_more(flows: Flows, client: Stock) -> None:
    workflow_id = flows.run("jobs:\n" + bash("a", "true") + bash("b", UNTIL_GO, requires=["a"])
                            + bash("c", "true", requires=[{"b": "FINISHED"}]))  # fmt: skip
    flows.until(workflow_id, "b", "RUNNING")
    stopped = flows.stop(workflow_id)
    assert (stopped.status, stopped.reason) == ("STOPPED", "stopped by admin")
    assert (stopped.completedJobs, stopped.stoppedJobs, stopped.canceledJobs) == (1, 1, 1)
    jobs = flows.jobs(workflow_id)
    assert told(jobs.values()) == {"a": ("COMPLETED", 0), "b": ("STOPPED", -1), "c": ("CANCELED", 0)}
    assert jobs["c"].jobId == "0"
    assert client.status(jobs["b"].jobId).reason == f"workflow {workflow_id}: stopped by admin"
    text = f"workflow is not running: {workflow_id} (current status: STOPPED)"
    assert refusal(lambda: flows.stop(workflow_id)) == (PRECONDITION, text)


def test_a_retry_runs_what_failed_and_all_below_it(flows: Flows) -> None:
    once = "if [ -e /workflow/been ]; then exit 0; fi; touch /workflow/been; exit 7"
    text = "jobs:\n" + bash("a", "true") + bash("b", once, requires=["a"]) + bash("c", "true", requires=["b"])
    first = flows.finish(text)
    workflow_id = first.workflow.id
    assert told(first.jobs) == {"a": ("COMPLETED", 0), "b": ("FAILED", 7), "c": ("CANCELED", 0)}
    again = flows.retry(workflow_id)
    assert again.status in ("PENDING", "RUNNING")
    assert (again.completedJobs, again.failedJobs, again.canceledJobs) == (1, 0, 0)
    assert not again.HasField("completedAt")
    second = flows.wait(workflow_id)
    assert second.workflow.status == "COMPLETED"
    assert [job.attempt for job in second.jobs] == [1, 2, 1]
    assert second.jobs[0].jobId == first.jobs[0].jobId
    assert int(second.jobs[1].jobId) > int(first.jobs[1].jobId)
    text = f"workflow {workflow_id} has nothing to run again: all its jobs have completed"
    assert refusal(lambda: flows.retry(workflow_id)) == (PRECONDITION, text)


def test_what_has_not_ended_is_neither_tried_again_nor_deleted(flows: Flows, client: Stock) -> None:
    workflow_id = flows.run("jobs:\n" + bash("a", "true") + bash("b", UNTIL_GO, requires=["a"]))
    flows.until(workflow_id, "b", "RUNNING")
    flows.until(workflow_id, "", "RUNNING")
    text = f"workflow has not ended: {workflow_id} (current status: RUNNING)"
    assert refusal(lambda: flows.retry(workflow_id)) == (PRECONDITION, text)
    assert refusal(lambda: flows.delete(workflow_id)) == (PRECONDITION, text)
    job_id = flows.jobs(workflow_id)["a"].jobId
    text = f"job {job_id} belongs to workflow {workflow_id}, which has not ended"
    call = lambda: flows.stub.DeleteJob(flows.pb.DeleteJobReq(id=job_id))  # noqa: E731
    assert refusal(call) == (PRECONDITION, text)
    flows.go(workflow_id)
    assert flows.wait(workflow_id).workflow.status == "COMPLETED"


def test_delete_removes_all_that_is_a_workflow_s(fresh: Flows, stock) -> None:
    uploads = fresh.server.state / "uploads"
    text = "jobs:\n" + bash("a", "cat x > /workflow/kept", uploads={"files": ["x"]})
    ended = fresh.finish(text, files={"x": b"content"})
    workflow_id, job_id = ended.workflow.id, ended.jobs[0].jobId
    assert (fresh.server.state / f"workflows/{workflow_id}/shared/kept").read_bytes() == b"content"
    assert len(list(uploads.iterdir())) == 1  # for another attempt
    answer = fresh.delete(workflow_id)
    assert (answer.workflowId, answer.success, answer.message) == ("1", True, "workflow deleted: 1")
    not_found = (grpc.StatusCode.NOT_FOUND, f"workflow not found: {workflow_id}")
    for call in (fresh.status, fresh.stop, fresh.retry, fresh.delete, lambda text: list(fresh.events(workflowId=text))):
        assert refusal(lambda call=call: call(workflow_id)) == not_found
    assert len(fresh.list(includeCompleted=True).workflows) == 0
    left = [path for name in ("jobs", "workflows", "uploads") for path in (fresh.server.state / name).iterdir()]
    assert left == []
    with fresh.server.channel() as channel:
        client = Stock(channel, *stock)
        assert refusal(lambda: client.status(job_id)) == (grpc.StatusCode.NOT_FOUND, f"job not found: {job_id}")
    assert fresh.run(text, files={"x": b""}) == "2"


def test_parameters_outputs_matrix_and_files(flows: Flows, client: Stock) -> None:
    text = (
        "parameters: {count: 2, word: {choices: [one, two]}}\n"
        "environment: {LEVEL: info}\n"
        "jobs:\n"
        + bash("a", "cat data/in.txt; echo n=${{ params.count }} >> $JOBLET_OUTPUT", uploads={"files": ["data"]})
        + bash("b", "echo $LEVEL $JOBLET_OUTPUT_A__N $PWD ${{ matrix.x }} ${{ params.word }}", matrix={"x": [1, 2]},
               requires=["a"], workdir="here")
        + bash("c", "echo $0", args=["-c", "echo $0", "${{ jobs.a.outputs.n }}"], requires=["a", "b"])
    )  # fmt: skip
    ended = flows.finish(text, files={"data/in.txt": b"rows\n"}, parameters={"word": "two"})
    outputs = {job.jobName: client.output(job.jobId) for job in ended.jobs}
    assert outputs == {
        "a": b"rows\n",
        "b[x=1]": b"info 2 /work/here 1 two\n",
        "b[x=2]": b"info 2 /work/here 2 two\n",
        "c": b"2\n",
    }
    assert ended.jobs[0].outputs == {"n": "2"}
    assert list(ended.jobs[3].dependencies) == ["a", "b[x=1]", "b[x=2]"]
    assert dict(ended.workflow.parameters) == {"count": "2", "word": "two"}


def test_one_job_of_a_file(flows: Flows) -> None:
    ended = flows.finish("jobs:\n" + bash("a", "exit 1") + bash("b", "true", requires=["a"]), job="b")
    assert told(ended.jobs) == {"b": ("COMPLETED", 0)}


def test_a_key_gives_the_same_workflow(flows: Flows) -> None:
    text = "jobs:\n" + bash("a", "true")
    first = flows.run(text, key="once")
    assert flows.run(text, key="once") == first
    flows.wait(first)
    assert flows.run(text, key="once") == first
    code, message = refusal(lambda: flows.run("jobs:\n" + bash("b", "true"), key="once"))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert message == f"key 'once' belongs to workflow {first}, which was ordered otherwise"


def test_too_many_at_a_time_are_refused(make_server: Callable[..., Server], stock) -> None:
    server = make_server(joblet={"maxWorkflows": 1}).start()
    with server.channel() as channel:
        flows = Flows(server, channel, *stock)
        running = flows.run("jobs:\n" + bash("a", UNTIL_GO))
        code, text = refusal(lambda: flows.run("jobs:\n" + bash("a", "true")))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text == "1 workflows have not ended (at most 1, joblet.maxWorkflows)"
        flows.stop(running)
        assert flows.finish("jobs:\n" + bash("a", "true")).workflow.status == "COMPLETED"
