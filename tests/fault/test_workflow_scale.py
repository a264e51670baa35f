"""A workflow of a thousand jobs, many who watch it, ten thousand workflows behind: bounded memory, prompt answers."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import PATIENCE, Server, Stock, memory_kb
from history import write_ended_workflows

pytestmark = pytest.mark.timeout(10 * PATIENCE)

JOBS = 1_000
MIDDLE = JOBS - 2
MEMORY_MB = 150
"""that the server may have had at its most"""
WATCHERS = 50
PAST = 10_000

DIAMOND = "\n".join(
    [
        "jobs:",
        "  first: {command: 'true'}",
        *(f"  m{number}: {{command: 'true', requires: [first]}}" for number in range(MIDDLE)),
        f"  last: {{command: 'true', requires: [{', '.join(f'm{number}' for number in range(MIDDLE))}]}}",
    ]
)


def layers() -> str:
    """Ten layers of a hundred jobs; each job requires all of the layer before."""
    lines, needs = ["jobs:"], ""
    for layer in "abcdefghij":
        names = [f"{layer}{number}" for number in range(JOBS // 10)]
        lines += [f"  {name}: {{command: 'true'{needs}}}" for name in names]
        needs = f", requires: [{','.join(names)}]"
    return "\n".join(lines)


class Calls:
    """A stock client of workflows."""

    def __init__(self, channel: grpc.Channel, stock: tuple[ModuleType, ModuleType]) -> None:
        self.pb, stubs = stock
        self.stub = stubs.JobServiceStub(channel)
        self.jobs = Stock(channel, *stock)

    def start(self, text: str) -> str:
        return self.stub.RunWorkflow(self.pb.RunWorkflowRequest(workflow="w.yaml", yamlContent=text)).workflowId

    def events(self, workflow_id: str = "", **options: Any) -> Any:
        return self.stub.WatchEvents(self.pb.WatchEventsRequest(workflowId=workflow_id, **options))

    def status(self, workflow_id: str) -> Any:
        return self.stub.GetWorkflowStatus(self.pb.GetWorkflowStatusRequest(workflowId=workflow_id))


@pytest.fixture
def wide(make_server: Callable[..., Server]) -> Server:
    """A server with a hundred slots."""
    return make_server(joblet={"maxConcurrentJobs": 100}).start()


@contextlib.contextmanager
def small_calls(client: Calls) -> Iterator[list[float]]:
    """Seconds that small calls take, made one after another meanwhile."""
    took: list[float] = []
    over = threading.Event()
    job_id = client.jobs.finish("true")[0].id

    def call() -> None:
        while not over.is_set():
            begun = time.perf_counter()
            client.jobs.status(job_id)
            took.append(time.perf_counter() - begun)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()
    took.sort()
    print(f"{len(took)} small calls: median {took[len(took) // 2] * 1000:.1f} ms, longest {took[-1] * 1000:.0f} ms")


def test_a_thousand_jobs_complete_in_bounded_memory(wide: Server, stock) -> None:
    with wide.channel() as channel, wide.channel() as another:
        client = Calls(channel, stock)
        with small_calls(Calls(another, stock)):
            begun = time.perf_counter()
            workflow_id = client.start(layers())
            for event in client.events(workflow_id):
                if event.status == "RUNNING" and event.jobId and int(event.jobId) % 250 == 0:
                    assert len(client.status(workflow_id).jobs) == JOBS
            print(f"{JOBS} jobs in {time.perf_counter() - begun:.1f} s")
        status = client.status(workflow_id)
    assert (status.workflow.status, status.workflow.completedJobs) == ("COMPLETED", JOBS), status.workflow.reason
    assert {job.status for job in status.jobs} == {"COMPLETED"}
    assert len({job.jobId for job in status.jobs}) == JOBS
    peak = memory_kb(wide.pid, "VmHWM") >> 10
    print(f"peak of the server's memory: {peak} MB; status of {status.ByteSize()} bytes")
    assert peak < MEMORY_MB


def test_every_watcher_gets_every_event_whatever_others_do(wide: Server, stock) -> None:
    seen: list[list[int]] = [[] for _ in range(WATCHERS)]
    with contextlib.ExitStack() as stack:
        clients = [Calls(stack.enter_context(wide.channel()), stock) for _ in range(WATCHERS + 2)]
        *watching, stalled, client = clients
        unread = stalled.events()  # read by nobody: grpc itself takes in what fits into a window

        def watch(watcher: Calls, numbers: list[int]) -> None:
            numbers += (event.sequence for event in watcher.events(workflow_id))

        workflow_id = client.start(DIAMOND)
        threads = [threading.Thread(target=watch, args=pair) for pair in zip(watching, seen, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        unread.cancel()
        told = [event.sequence for event in client.events(workflow_id, noFollow=True)]
        status = client.status(workflow_id)
    assert (status.workflow.status, status.workflow.completedJobs) == ("COMPLETED", JOBS), status.workflow.reason
    # each job is INITIALIZING, RUNNING and COMPLETED, the workflow PENDING, RUNNING and COMPLETED; some jobs waited
    assert len(told) >= 3 * JOBS + 3
    assert told == sorted(set(told))
    assert all(numbers == told for numbers in seen)
    peak = memory_kb(wide.pid, "VmHWM") >> 10
    print(f"peak of the server's memory: {peak} MB")
    assert peak < MEMORY_MB


def test_ten_thousand_workflows_are_listed_page_by_page(make_server: Callable[..., Server], stock) -> None:
    server = make_server()
    server.state.mkdir(parents=True)
    write_ended_workflows(server.state / "joblet.db", PAST)
    server.start()
    with server.channel() as channel, server.channel() as another:
        client = Calls(channel, stock)
        with small_calls(Calls(another, stock)) as took:
            whole = client.stub.ListWorkflows(client.pb.ListWorkflowsRequest(includeCompleted=True))
        listed: list[int] = []
        before, more = "", True
        while more:
            request = client.pb.ListWorkflowsRequest(includeCompleted=True, pageSize=700, before=before)
            page = client.stub.ListWorkflows(request)
            listed = [int(workflow.id) for workflow in page.workflows] + listed
            before, more = page.workflows[0].id, page.more
    assert listed == list(range(1, PAST + 1))
    assert [int(workflow.id) for workflow in whole.workflows] == listed[-len(whole.workflows) :]
    assert len(took) > 20, "small calls waited for the list"
    assert memory_kb(server.pid, "VmHWM") >> 10 < MEMORY_MB
