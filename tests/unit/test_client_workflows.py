"""The client's calls about workflows, and rnx's view of one, against a server that says what each test wants."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import typer
from grpclib import GRPCError
from grpclib.const import Status
from grpclib.server import Server

from joblet import pki
from joblet.client import (
    Client,
    ClientConfig,
    ConnectionFailed,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    InvalidWorkflow,
    OutOfRange,
    Unavailable,
)
from joblet.proto import joblet as pb
from rnx.follow import follow

AWAY = GRPCError(Status.UNAVAILABLE, "server is shutting down")
GONE = GRPCError(Status.OUT_OF_RANGE, "events after 1 are not kept any more (the oldest is 9)")
TEXT = "jobs:\n  a: {command: a, uploads: {files: [a.txt]}}\n  b: {command: b, requires: [a]}\n"


def change(sequence: int, name: str, status: str, job_id: str = "", reason: str = "") -> pb.Event:
    time = pb.Timestamp(seconds=1705314600 + sequence)
    return pb.Event(sequence, time, "7", name, job_id, status, reason=reason)


class Service(pb.JobServiceBase):
    """Remembers what it was asked, and answers from scripts."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.failures: list[GRPCError] = []
        """raised by the next calls of RunWorkflow"""
        self.streams: list[list[pb.Event | GRPCError | asyncio.Event]] = []
        """what the next calls of WatchEvents give; an asyncio.Event is waited for"""
        self.statuses: list[tuple[str, int] | GRPCError] = []
        """of the workflow and the latest event, for the next calls of GetWorkflowStatus; the last one stays"""
        self.watching = asyncio.Event()
        """somebody asks for events"""
        self.jobs = [pb.WorkflowJob(job_id="0", job_name="a", status="PENDING")]
        self.logs = Logs()

    async def run_workflow(self, message: pb.RunWorkflowRequest) -> pb.RunWorkflowResponse:
        self.asked.append(message)
        if self.failures:
            raise self.failures.pop(0)
        return pb.RunWorkflowResponse(workflow_id="7", status="PENDING", total_jobs=2)

    async def get_workflow_status(self, message: pb.GetWorkflowStatusRequest) -> pb.GetWorkflowStatusResponse:
        self.asked.append(message)
        answer = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(answer, GRPCError):
            raise answer
        status, sequence = answer
        info = pb.WorkflowInfo(id="7", workflow="w.yaml", status=status, total_jobs=len(self.jobs))
        return pb.GetWorkflowStatusResponse(workflow=info, jobs=self.jobs, sequence=sequence)

    async def list_workflows(self, message: pb.ListWorkflowsRequest) -> pb.ListWorkflowsResponse:
        self.asked.append(message)
        newest = int(message.before or 10) - 1
        ids = range(max(1, newest - (message.page_size or 4) + 1), newest + 1)
        workflows = [pb.WorkflowInfo(id=str(number)) for number in ids]
        return pb.ListWorkflowsResponse(workflows=workflows, more=ids.start > 1)

    async def stop_workflow(self, message: pb.StopWorkflowRequest) -> pb.WorkflowInfo:
        raise GRPCError(Status.FAILED_PRECONDITION, "workflow has ended: 7")

    async def retry_workflow(self, message: pb.RetryWorkflowRequest) -> pb.WorkflowInfo:
        self.asked.append(message)
        return pb.WorkflowInfo(id=message.workflow_id, status="RUNNING")

    async def delete_workflow(self, message: pb.DeleteWorkflowRequest) -> pb.DeleteWorkflowResponse:
        self.asked.append(message)
        return pb.DeleteWorkflowResponse(workflow_id=message.workflow_id, success=True)

    async def watch_events(self, message: pb.WatchEventsRequest) -> AsyncIterator[pb.Event]:
        self.asked.append(message)
        self.watching.set()
        for step in self.streams.pop(0):
            if isinstance(step, GRPCError):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                yield step

    def watched(self) -> list[pb.WatchEventsRequest]:
        return [message for message in self.asked if isinstance(message, pb.WatchEventsRequest)]


class Logs(pb.JobletServiceBase):
    """Jobs whose output is their id."""

    def __init__(self) -> None:
        self.statuses: list[str | GRPCError] = [""]
        """for the next calls of GetJobStatus; the last one stays"""

    async def get_job_status(self, message: pb.GetJobStatusReq) -> pb.GetJobStatusRes:
        answer = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(answer, GRPCError):
            raise answer
        return pb.GetJobStatusRes(id=message.id, status=answer)

    async def get_job_logs(self, message: pb.GetJobLogsReq) -> AsyncIterator[pb.DataChunk]:
        if message.id == "404":
            raise GRPCError(Status.NOT_FOUND, "job not found: 404")
        yield pb.DataChunk(payload=f"output of {message.id}\nno end".encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates, and a workflow's file with what it uploads."""
    folder = tmp_path_factory.mktemp("client")
    ca = pki.create_ca()
    pki.save(ca, folder, "ca")
    pki.save(pki.issue_server(ca), folder, "server")
    pki.save(pki.issue_client(ca, "client", pki.Role.ADMIN), folder, "client")
    (folder / "w.yaml").write_text(TEXT)
    (folder / "a.txt").write_text("content")
    return folder


def config(folder: Path, port: int) -> ClientConfig:
    names = ("client-cert", "client-key", "ca-cert")
    return ClientConfig(f"127.0.0.1:{port}", *(str(folder / f"{name}.pem") for name in names), patience=5)


@pytest.fixture
async def service(folder: Path) -> AsyncIterator[Service]:
    service = Service()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server-cert.pem", folder / "server-key.pem")
    context.set_alpn_protocols(["h2"])
    server = Server([service, service.logs])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.start(sock=listener, ssl=context)
        service.port = listener.getsockname()[1]  # type: ignore[attr-defined]
        yield service
        server.close()
        await server.wait_closed()


@pytest.fixture
async def client(folder: Path, service: Service) -> AsyncIterator[Client]:
    async with Client(config(folder, service.port)) as client:  # type: ignore[attr-defined]
        yield client


async def test_what_runs_is_sent(folder: Path, service: Service, client: Client) -> None:
    workflow = await client.run_workflow(folder / "w.yaml", key="k")
    assert (workflow.id, workflow.info.workflow, workflow.info.status) == ("7", "w.yaml", "PENDING")
    assert workflow.info.total_jobs == 2
    upload = pb.FileUpload("a.txt", b"content", (folder / "a.txt").stat().st_mode & 0o777)
    expected = pb.RunWorkflowRequest("w.yaml", 2, ["a", "b"], TEXT, [upload], key="k")
    assert service.asked == [expected]


async def test_text_stands_for_a_file(service: Service, client: Client) -> None:
    text = "parameters: {n: 1}\njobs:\n  a: {command: a, uploads: {files: [x]}}\n  b: {command: b}\n"
    await client.run_workflow("made-up.yaml", text=text, files={"x": b"y"}, parameters={"n": "2"}, job="a")
    [request] = service.asked
    assert request == pb.RunWorkflowRequest(
        "made-up.yaml", 1, ["a"], text, [pb.FileUpload("x", b"y")], parameters={"n": "2"}, job="a"
    )


async def test_nothing_is_sent_of_a_file_with_faults(folder: Path, service: Service, client: Client) -> None:
    with pytest.raises(InvalidWorkflow, match="jobs"):
        await client.run_workflow("w.yaml", text="jobs: {}\n")
    with pytest.raises(InvalidArgument, match=r"cannot upload .*none"):
        await client.run_workflow(folder / "w.yaml", text="jobs: {a: {command: a, uploads: {files: [none]}}}\n")
    with pytest.raises(InvalidArgument, match="not UTF-8 text"):
        await client.run_workflow(folder / "w.yaml", key="\udcff")
    assert service.asked == []


async def test_what_is_no_text_is_not_sent_and_no_secret_is_told(client: Client) -> None:
    for field in ("name", "workdir"):
        with pytest.raises(InvalidArgument, match=f"invalid {field}: '.*' is not UTF-8 text"):
            await client.run("c", **{field: "\udcff"})
    with pytest.raises(InvalidArgument, match=r"invalid environment: 'A.*' is not UTF-8 text"):
        await client.run("c", environment={"N": "A\udcff"})
    with pytest.raises(InvalidArgument, match=r"invalid secret_environment: \*\*\* is not UTF-8 text"):
        await client.run("c", secret_environment={"N": "A\udcff"})


async def test_an_order_with_a_key_is_repeated(folder: Path, service: Service, client: Client) -> None:
    service.failures = [AWAY, AWAY]
    await client.run_workflow(folder / "w.yaml", retry=True)
    keys = {request.key for request in service.asked}  # type: ignore[attr-defined]
    assert len(service.asked) == 3
    assert len(keys) == 1
    assert all(keys)


async def test_an_order_without_a_key_is_not(folder: Path, service: Service, client: Client) -> None:
    service.failures = [GRPCError(Status.UNAVAILABLE, "away")]
    with pytest.raises(Unavailable, match="away"):
        await client.run_workflow(folder / "w.yaml")
    assert len(service.asked) == 1


async def test_lists_come_in_pages(service: Service, client: Client) -> None:
    page = await client.list_workflows(limit=3, before="6", ended=False)
    assert ([info.id for info in page], page.more) == (["3", "4", "5"], True)
    assert service.asked == [pb.ListWorkflowsRequest(page_size=3, before="6")]
    assert [info.id async for info in client.list_all_workflows()] == [str(number) for number in range(9, 0, -1)]


async def test_the_other_calls(service: Service, client: Client) -> None:
    assert (await client.retry_workflow("7")).status == "RUNNING"
    await client.delete_workflow("7")
    assert service.asked == [pb.RetryWorkflowRequest("7"), pb.DeleteWorkflowRequest("7")]
    with pytest.raises(FailedPrecondition, match="workflow has ended: 7"):
        await client.stop_workflow("7")


async def test_events_go_on_where_they_were_when_the_server_is_restarted(service: Service, client: Client) -> None:
    first, second, third = (change(number, "a", "RUNNING") for number in (4, 8, 9))
    service.streams = [[first, AWAY], [AWAY], [second, third]]
    told = [event.sequence async for event in client.events(3, workflow="7", reconnect=True)]
    assert told == [4, 8, 9]
    assert [request.after for request in service.watched()] == [3, 4, 4]
    assert {request.workflow_id for request in service.watched()} == {"7"}


async def test_only_what_is_new_turns_into_a_sequence_once_there_is_one(service: Service, client: Client) -> None:
    service.streams = [[AWAY], [change(5, "a", "RUNNING"), AWAY], [change(6, "a", "FAILED")]]
    told = [event.sequence async for event in client.events(only_new=True, reconnect=True)]
    assert told == [5, 6]
    assert [(request.only_new, request.after) for request in service.watched()] == [(True, 0), (True, 0), (False, 5)]


async def test_without_reconnecting_the_loss_is_told(service: Service, client: Client) -> None:
    service.streams = [[change(5, "a", "RUNNING"), AWAY], [GONE]]
    events = client.events(follow=False)
    assert (await anext(events)).sequence == 5
    with pytest.raises(Unavailable, match="server is shutting down"):
        await anext(events)
    assert service.watched()[0].no_follow
    with pytest.raises(OutOfRange, match="not kept any more"):
        await anext(client.events(1, reconnect=True))


async def test_a_stream_of_events_can_be_left(service: Service, client: Client) -> None:
    service.streams = [[change(5, "a", "RUNNING"), asyncio.Event()]]
    async with aclosing(client.events()) as events:
        async for event in events:
            assert event.sequence == 5
            break
    assert (await client.list_workflows(limit=1))[0].id == "9"


async def test_a_workflow_is_waited_for(folder: Path, service: Service, client: Client) -> None:
    workflow = await client.run_workflow(folder / "w.yaml")
    service.statuses = [AWAY, ("RUNNING", 1), AWAY, ("RUNNING", 20), AWAY, ("COMPLETED", 30)]
    service.streams = [[GONE], [change(30, "", "COMPLETED")]]
    assert (await workflow.wait()).workflow.status == "COMPLETED"
    assert [request.after for request in service.watched()] == [1, 20]


async def test_a_job_is_waited_for_over_restarts_and_over_events_that_are_gone(
    service: Service, client: Client
) -> None:
    service.logs.statuses = ["RUNNING", AWAY, "RUNNING", AWAY, "RUNNING", "COMPLETED"]
    service.streams = [[change(4, "", "RUNNING", "5"), GONE], [AWAY], [change(9, "", "COMPLETED", "5")]]
    assert [job.status for job in await client.wait("5")] == ["COMPLETED"]
    assert [(request.job_id, request.after) for request in service.watched()] == [("5", 0)] * 3


async def test_the_first_of_many_jobs_is_told_by_one_stream(service: Service, client: Client) -> None:
    service.logs.statuses = [*["RUNNING"] * 4, "FAILED"]
    # the latest event of the newest of them, then all that are later; other jobs are none of ours
    other, ours = change(8, "", "FAILED", "6"), change(9, "", "FAILED", "10")
    service.streams = [[change(4, "", "RUNNING", "10")], [other, ours], [ours]]
    assert [job.id for job in await client.wait(["10", "9"], any=True)] == ["10", "9"]
    assert [(request.job_id, request.after) for request in service.watched()] == [("10", 0), ("", 4), ("10", 0)]


Watch = Callable[..., "asyncio.Future[tuple[int, str]]"]


@pytest.fixture
def watch(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Follows workflow 7 with standard output in a file: the exit status and the output."""

    async def watching(**options: bool) -> tuple[int, str]:
        with (tmp_path / "output").open("w+") as output:
            monkeypatch.setattr("sys.stdout", output)
            with pytest.raises(typer.Exit) as end:
                await follow(client, "7", **options)
            return end.value.exit_code, os.pread(output.fileno(), 10_000, 0).decode()

    return watching  # type: ignore[return-value]


@pytest.mark.parametrize(("status", "code"), [("COMPLETED", 0), ("FAILED", 1), ("STOPPED", 3), ("CANCELED", 3)])
async def test_the_exit_status_says_how_it_ended(service: Service, watch: Watch, status: str, code: int) -> None:
    service.statuses = [("RUNNING", 1), (status, 9)]
    service.streams = [[change(9, "", status)]]
    assert await watch() == (
        code,
        f"2024-01-15T10:30:09Z workflow 7 {status}\nWorkflow 7 {status} (1 waiting)\n",
    )


async def test_a_view_goes_on_over_a_restart_and_over_events_that_are_gone(service: Service, watch: Watch) -> None:
    service.statuses = [("RUNNING", 1), ("RUNNING", 9), AWAY, ("FAILED", 10)]
    service.streams = [
        [change(2, "a", "RUNNING", "5"), AWAY],
        [GONE],
        [change(10, "a", "FAILED", "5", "exit code 1")],
    ]
    code, output = await watch()
    assert code == 1
    assert output.splitlines() == [
        "2024-01-15T10:30:02Z a RUNNING (job 5)",
        "2024-01-15T10:30:10Z a FAILED (job 5): exit code 1",
        "Workflow 7 FAILED (1 waiting)",
    ]
    assert [request.after for request in service.watched()] == [1, 2, 9]


async def test_a_workflow_that_was_just_run_is_seen_from_its_first_event_on(service: Service, watch: Watch) -> None:
    service.statuses = [("RUNNING", 5), ("COMPLETED", 6)]
    service.streams = [[change(5, "a", "RUNNING", "5"), change(6, "a", "COMPLETED", "5")]]
    _, output = await watch(whole=True)
    assert output.count("\n") == 3
    assert [request.after for request in service.watched()] == [0]


async def test_logs_are_prefixed_and_complete(service: Service, watch: Watch) -> None:
    service.jobs = [
        pb.WorkflowJob(job_id="5", job_name="a", status="COMPLETED"),
        pb.WorkflowJob(job_id="0", job_name="b", status="PENDING"),
        pb.WorkflowJob(job_id="0", job_name="c", status="PENDING"),
    ]
    service.statuses = [("RUNNING", 5), ("COMPLETED", 9)]
    queued, running = change(6, "b", "PENDING", "8"), change(7, "b", "RUNNING", "8")
    service.streams = [[queued, running, change(8, "b", "COMPLETED", "8"), change(9, "c", "FAILED", "404")]]
    code, output = await watch(logs=True)
    assert code == 0
    lines = output.splitlines()
    assert [line for line in lines if line.startswith("a | ")] == ["a | output of 5", "a | no end"]
    assert [line for line in lines if line.startswith("b | ")] == ["b | output of 8", "b | no end"]
    assert [line for line in lines if line.startswith("c | ")] == ["c | [job not found: 404]"]
    assert lines[-1].startswith("Workflow 7 COMPLETED")


@pytest.mark.parametrize("logs", [False, True])
async def test_what_ends_the_view_is_told(service: Service, client: Client, watch: Watch, logs: bool) -> None:
    service.jobs = [pb.WorkflowJob(job_id="5", job_name="a", status="RUNNING")]
    service.statuses = [("RUNNING", 1)]
    service.streams = [[GRPCError(Status.INTERNAL, "broken")]]
    with pytest.raises(Internal, match="broken"):
        await follow(client, "7", logs=logs)


async def test_of_an_ended_workflow_nothing_more_is_waited_for(service: Service, watch: Watch) -> None:
    service.statuses = [("FAILED", 9)]
    service.streams = [[]]
    assert await watch() == (1, "Workflow 7 FAILED (1 waiting)\n")
    assert service.watched()[0].no_follow


async def test_ctrl_c_ends_the_view_and_says_how_to_come_back(
    service: Service,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.statuses = [("RUNNING", 1)]
    service.streams = [[change(2, "a", "RUNNING", "5"), asyncio.Event()]]
    with (tmp_path / "output").open("w") as output:
        monkeypatch.setattr("sys.stdout", output)
        view = asyncio.create_task(follow(client, "7"))
        await service.watching.wait()
        view.cancel()
        with pytest.raises(asyncio.CancelledError):
            await view
    assert capsys.readouterr().err == "The workflow goes on; to see it again: rnx workflow follow 7\n"


async def test_a_server_that_is_not_there_is_told_at_once(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    async with Client(config(folder, port)) as client:
        with pytest.raises(ConnectionFailed, match="connection refused"):
            await follow(client, "7")
