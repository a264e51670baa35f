"""For whom there is what: every rpc, as the owner, another one, a client for whom there is all, and nobody."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from harness import Server

from joblet import pki
from joblet.server.auth import OPERATIONS
from joblet.server.scope import NAMES

NOBODY = "999999"
"""the id of no job and no workflow"""
CLIENTS = {"alice": "developer", "bob": "developer", "carol": "operator", "dan": "nothing", "eve": "intern"}
ROLES = {
    "developer": {"like": "admin", "scope": "own"},
    "operator": {"like": "admin"},
    "nothing": {"operations": []},
    "intern": {"like": "admin", "scope": "own", "quota": {"jobs": 3, "memory": 1024}},
}
CEILINGS = {"ceilings": {"roles": {"intern": {"maxMemory": 600}}}}
WAITS = {"command": "bash", "args": ["-c", "echo begun; cat"], "stdin": True, "waitForStart": True}

Target = dict[str, str]
"""id of a job and of a workflow, by the names that requests have for them here"""

REQUESTS: dict[str, list[Callable[[Target], dict[str, Any]]]] = {
    "JobletService/GetJobStatus": [lambda at: {"id": at["job"]}],
    "JobletService/StopJob": [lambda at: {"id": at["job"]}],
    "JobletService/SetJobTimeout": [lambda at: {"id": at["job"], "timeoutMs": 60_000}],
    "JobletService/PauseJob": [lambda at: {"id": at["job"]}],
    "JobletService/ResumeJob": [lambda at: {"id": at["job"]}],
    "JobletService/GetJobLogs": [
        lambda at: {"id": at["job"], "noFollow": True},
        lambda at: {"id": at["job"], "stream": "STDERR"},
    ],
    "JobService/GetWorkflowStatus": [lambda at: {"workflowId": at["workflow"]}],
    "JobService/GetWorkflowJobs": [lambda at: {"workflowId": at["workflow"]}],
    "JobService/StopWorkflow": [lambda at: {"workflowId": at["workflow"]}],
    "JobService/RetryWorkflow": [lambda at: {"workflowId": at["workflow"]}],
    "JobService/DeleteWorkflow": [lambda at: {"workflowId": at["workflow"]}],
    "JobService/DeleteJob": [lambda at: {"id": at["job"]}],
    "JobService/WatchEvents": [
        lambda at: {"jobId": at["job"], "noFollow": True},
        lambda at: {"workflowId": at["workflow"], "noFollow": True},
    ],
    "SessionService/SendJobInput": [lambda at: {"id": at["job"], "content": b"x"}],
    "SessionService/ExecInJob": [lambda at: {"id": at["job"], "command": "true"}],
    "FileService/ReadFiles": [lambda at: {"id": at["job"]}, lambda at: {"workflowId": at["workflow"]}],
    "MonitoringService/StreamJobUsage": [
        lambda at: {"ids": [at["job"]]},
        lambda at: {"ids": [at["own"], at["job"]], "intervalMs": 1},
    ],
}
"""the rpcs that name jobs or workflows, with requests that do"""
OTHERS: dict[str, dict[str, Any]] = {
    "JobletService/RunJob": {"command": "true"},
    "JobletService/ListJobs": {},
    "JobService/RunWorkflow": {"yamlContent": "jobs: {a: {command: 'true'}}"},
    "JobService/ListWorkflows": {"includeCompleted": True},
    "JobService/WatchEvents": {"noFollow": True},
    "JobService/DeleteAllJobs": {},
    "FileService/UploadFiles": {"key": "an upload of somebody", "path": "a", "size": 1, "content": b"a", "last": True},
    "FileService/GetUpload": {"key": "an upload of somebody"},
    "MonitoringService/StreamJobUsage": {},
    "MonitoringService/GetSystemStatus": {},
    "MonitoringService/StreamSystemMetrics": {},
}
"""requests that name none"""


@dataclass
class Client:
    """All rpcs that the descriptors have, with one client's certificate."""

    channel: grpc.Channel
    messages: ModuleType

    def method(self, rpc: str) -> Any:
        service, _, name = rpc.partition("/")
        return self.messages.DESCRIPTOR.services_by_name[service].methods_by_name[name]

    def ask(self, rpc: str, most: int = 1_000_000, **fields: Any) -> list[Any]:
        """What it answers, of a stream the first `most` messages."""
        method = self.method(rpc)
        kind = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
        call = getattr(self.channel, kind)(
            f"/joblet.{rpc}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        request = GetMessageClass(method.input_type)(**fields)
        answer = call(iter([request]) if method.client_streaming else request)
        if not method.server_streaming:
            return [answer]
        found = []
        for message in answer:
            found.append(message)
            if len(found) == most:
                answer.cancel()
                break
        return found

    def outcome(self, rpc: str, fields: dict[str, Any]) -> tuple[grpc.StatusCode, str]:
        """How a call ends."""
        try:
            self.ask(rpc, most=1, **fields)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""

    def target(self) -> Target:
        """A running job and a workflow of its own that has ended."""
        job = self.ask("JobletService/RunJob", **WAITS)[0].id
        workflow = self.ask("JobService/RunWorkflow", yamlContent="jobs: {a: {command: 'false'}}")[0].workflowId
        self.ask("JobService/WatchEvents", workflowId=workflow)
        return {"job": job, "workflow": workflow}

    def jobs(self) -> set[str]:
        return {job.id for job in self.ask("JobletService/ListJobs")[0].jobs}

    def workflows(self) -> set[str]:
        return {each.id for each in self.ask("JobService/ListWorkflows", includeCompleted=True)[0].workflows}


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory, certificates: Path, stock) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("scope")
    ca = pki.load(certificates, "ca")
    for name, role in CLIENTS.items():
        pki.save(pki.issue_client(ca, name, role), folder, name)
    server = Server(folder, certificates, joblet={"cleanupTimeout": "1s"}, access={"roles": ROLES}, **CEILINGS)
    server.start()
    yield server
    with server.channel("carol", folder) as channel:  # paused ones too
        carol = Client(channel, stock[0])
        for job in carol.ask("JobletService/ListJobs")[0].jobs:
            if job.status == "RUNNING":
                carol.ask("JobletService/StopJob", id=job.id, graceMs=0)
    server.close()


@pytest.fixture
def connect(own_server: Server, stock) -> Iterator[Callable[[str], Client]]:
    messages, _ = stock
    channels = []

    def make(name: str) -> Client:
        channels.append(own_server.channel(name, own_server.directory))
        return Client(channels[-1], messages)

    yield make
    for channel in channels:
        channel.close()


def test_every_rpc_is_looked_at(stock) -> None:
    messages, _ = stock
    served = {
        f"{service.name}/{method.name}"
        for service in messages.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert served == REQUESTS.keys() | OTHERS.keys()
    assert NAMES.keys() == OPERATIONS.keys()
    for service in messages.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            ids = {field.name for field in method.input_type.fields if re.search(r"^ids?$|Ids?$", field.name)}
            names = NAMES[f"/joblet.{service.name}/{method.name}"]
            if names is None:
                assert not ids
                continue
            named = {re.sub("_i", "I", name) for name in (names.job, names.workflow) if name}
            assert named == ids, method.full_name


@pytest.mark.parametrize("rpc", REQUESTS)
def test_what_is_another_s_is_not_there(connect: Callable[[str], Client], rpc: str) -> None:
    alice, bob, carol, dan, _ = map(connect, CLIENTS)
    target, none = alice.target(), {"job": NOBODY, "workflow": NOBODY}
    own = bob.target()["job"] if rpc == "MonitoringService/StreamJobUsage" else ""
    before = carol.ask("JobletService/GetJobStatus", id=target["job"])
    for request in REQUESTS[rpc]:
        code, text = bob.outcome(rpc, request({**target, "own": own}))
        assert code is grpc.StatusCode.NOT_FOUND
        known = target["workflow"] if text.startswith("workflow") else target["job"]
        assert (code, text.replace(known, NOBODY)) == bob.outcome(rpc, request({**none, "own": own}))
        operation = OPERATIONS[f"/joblet.{rpc}"]
        denied = f"role nothing is not allowed to perform operation {operation}"
        assert dan.outcome(rpc, request({**target, "own": own})) == (grpc.StatusCode.PERMISSION_DENIED, denied)
    assert carol.ask("JobletService/GetJobStatus", id=target["job"]) == before
    for client, its in ((carol, target), (alice, alice.target())):
        for request in REQUESTS[rpc]:
            assert client.outcome(rpc, request({**its, "own": its["job"]}))[0] in (
                grpc.StatusCode.OK,
                grpc.StatusCode.FAILED_PRECONDITION,
                grpc.StatusCode.INVALID_ARGUMENT,
            )


@pytest.mark.parametrize("rpc", OTHERS)
def test_who_may_do_nothing_is_denied(connect: Callable[[str], Client], rpc: str) -> None:
    text = f"role nothing is not allowed to perform operation {OPERATIONS[f'/joblet.{rpc}']}"
    assert connect("dan").outcome(rpc, OTHERS[rpc]) == (grpc.StatusCode.PERMISSION_DENIED, text)


@pytest.mark.parametrize("rpc", [rpc for rpc in OTHERS if NAMES[f"/joblet.{rpc}"] is None])
def test_what_tells_of_the_whole_is_for_those_for_whom_there_is_everything(
    connect: Callable[[str], Client], rpc: str
) -> None:
    text = f"role {CLIENTS['bob']} is not allowed to perform operation {OPERATIONS[f'/joblet.{rpc}']}"
    _, bob, carol, *_ = map(connect, CLIENTS)
    assert bob.outcome(rpc, {}) == (grpc.StatusCode.PERMISSION_DENIED, text)
    assert carol.outcome(rpc, {})[0] is grpc.StatusCode.OK


def test_lists_samples_and_events_tell_of_ones_own(connect: Callable[[str], Client]) -> None:
    alice, bob, carol, *_ = map(connect, CLIENTS)
    his, hers = bob.target(), alice.target()
    assert his["job"] in bob.jobs() < carol.jobs()
    assert hers["job"] in alice.jobs() < carol.jobs()
    assert not alice.jobs() & bob.jobs()
    assert his["workflow"] in bob.workflows() < carol.workflows()
    assert not alice.workflows() & bob.workflows()
    # pages are as full as they can be, whatever lies between
    page = bob.ask("JobletService/ListJobs", pageSize=1)[0]
    assert ([job.id for job in page.jobs], page.more) == ([max(bob.jobs(), key=int)], True)
    oldest = min(bob.jobs(), key=int)
    last = bob.ask("JobletService/ListJobs", before=oldest)[0]
    assert (list(last.jobs), last.more) == ([], False)

    def running(client: Client) -> set[str]:
        return {job.id for job in client.ask("MonitoringService/StreamJobUsage", most=1)[0].jobs}

    assert his["job"] in running(bob) < running(carol)
    assert not running(bob) & running(alice)

    def told(client: Client) -> set[tuple[str, str]]:
        events = client.ask("JobService/WatchEvents", noFollow=True)
        return {(event.workflowId, event.jobId) for event in events}

    assert ("", his["job"]) in told(bob) < told(carol)
    assert (his["workflow"], "") in told(bob)
    assert not told(bob) & told(alice)
    carol.ask("JobletService/StopJob", id=hers["job"])
    carol.ask("JobService/DeleteJob", id=hers["job"])
    assert ("", hers["job"]) in told(alice)  # and nobody else's, though it is gone
    assert ("", hers["job"]) not in told(bob)


def test_a_list_in_a_stream_goes_on_with_ones_own(connect: Callable[[str], Client]) -> None:
    """Of events as they come others' are left out too."""
    alice, bob, carol, *_ = map(connect, CLIENTS)
    method = bob.method("JobService/WatchEvents")
    watch = bob.channel.unary_stream(
        "/joblet.JobService/WatchEvents",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    stream = watch(GetMessageClass(method.input_type)(after=1))
    next(stream)
    hers = alice.ask("JobletService/RunJob", command="true", waitForStart=True)[0].id
    his = bob.ask("JobletService/RunJob", command="true", waitForStart=True)[0].id
    seen = []
    for event in stream:
        seen.append(event.jobId)
        if event.jobId == his:
            break
    stream.cancel()
    assert hers not in seen
    assert hers in carol.jobs()


def test_all_is_all_of_ones_own(connect: Callable[[str], Client]) -> None:
    alice, bob, *_ = map(connect, CLIENTS)
    kept = alice.jobs()
    bob.target()
    for job in bob.ask("JobletService/ListJobs")[0].jobs:
        if job.status == "RUNNING":
            bob.ask("JobletService/StopJob", id=job.id)
    running = bob.ask("JobletService/RunJob", **WAITS)[0].id
    count = len(bob.jobs())
    (answer,) = bob.ask("JobService/DeleteAllJobs")
    assert (answer.deleted_count, answer.skipped_count) == (count - 1, 1)
    assert bob.jobs() == {running}
    assert alice.jobs() == kept


def test_keys_and_uploads_are_ones_own(connect: Callable[[str], Client]) -> None:
    alice, bob, carol, *_ = map(connect, CLIENTS)
    (hers,) = alice.ask("JobletService/RunJob", command="true", key="nightly")
    (his,) = bob.ask("JobletService/RunJob", command="false", key="nightly")
    assert his.id != hers.id
    assert (hers.owner, his.owner) == ("alice", "bob")
    assert alice.ask("JobletService/RunJob", command="true", key="nightly")[0].id == hers.id
    text = "jobs: {a: {command: 'true'}}"
    flows = [each.ask("JobService/RunWorkflow", yamlContent=text, key="k")[0].workflowId for each in (alice, bob)]
    assert len(set(flows)) == 2
    owners = {each.id: each.owner for each in carol.ask("JobService/ListWorkflows", includeCompleted=True)[0].workflows}
    assert [owners[each] for each in flows] == ["alice", "bob"]
    alice.ask("FileService/UploadFiles", **OTHERS["FileService/UploadFiles"])
    for client, files in ((alice, 1), (bob, 0), (carol, 0)):
        assert client.ask("FileService/GetUpload", key="an upload of somebody")[0].files == files
    order = {"command": "true", "uploadKey": "an upload of somebody"}
    assert bob.outcome("JobletService/RunJob", order)[0] is grpc.StatusCode.FAILED_PRECONDITION


def test_a_quota_holds_for_orders_that_come_at_once_and_over_a_restart(
    own_server: Server, connect: Callable[[str], Client]
) -> None:
    eve = connect("eve")
    with ThreadPoolExecutor(8) as pool:
        orders = [pool.submit(eve.outcome, "JobletService/RunJob", WAITS | {"maxMemory": 100}) for _ in range(16)]
        ends = Counter(order.result() for order in orders)
    text = "quota exceeded: jobs would be 4 with this one (at most 3, access.roles.intern.quota.jobs)"
    assert ends == {(grpc.StatusCode.OK, ""): 3, (grpc.StatusCode.RESOURCE_EXHAUSTED, text): 13}
    target = connect("alice").target()
    own_server.kill()
    own_server.start()
    eve, alice, bob = map(connect, ("eve", "alice", "bob"))
    asked = {
        "JobletService/GetJobStatus": {"id": target["job"]},
        "JobService/GetWorkflowStatus": {"workflowId": target["workflow"]},
    }
    for rpc, fields in asked.items():
        assert alice.outcome(rpc, fields)[0] is grpc.StatusCode.OK
        assert bob.outcome(rpc, fields)[0] is grpc.StatusCode.NOT_FOUND
    assert eve.outcome("JobletService/RunJob", WAITS) == (grpc.StatusCode.RESOURCE_EXHAUSTED, text)
    for job_id in list(eve.jobs())[1:]:
        eve.ask("JobletService/StopJob", id=job_id)
    text = "job creation failed: maxMemory exceeds system limits (700, allowed 0 to 600)"
    assert eve.outcome("JobletService/RunJob", WAITS | {"maxMemory": 700}) == (grpc.StatusCode.INVALID_ARGUMENT, text)
    eve.ask("JobletService/RunJob", **WAITS, maxMemory=600)
    text = "quota exceeded: memory would be 1212 with this one (at most 1024, access.roles.intern.quota.memory)"
    assert eve.outcome("JobletService/RunJob", WAITS) == (grpc.StatusCode.RESOURCE_EXHAUSTED, text)  # 512 by default
    assert bob.outcome("JobletService/RunJob", {"command": "true"})[0] is grpc.StatusCode.OK


def test_the_operator_is_told_what_the_client_is_not(own_server: Server, connect: Callable[[str], Client]) -> None:
    job_id = connect("alice").ask("JobletService/RunJob", command="true")[0].id
    connect("bob").outcome("JobletService/GetJobStatus", {"id": job_id})
    line = rf"\[WARN\] call refused .*GetJobStatus.*client=bob role=developer owner=alice jobId={job_id}$"
    own_server.wait_for_line(re.compile(line))


def test_rnx_tells_whose_a_job_is_where_more_is_asked_for(own_server: Server, connect: Callable[[str], Client]) -> None:
    job_id = connect("alice").ask("JobletService/RunJob", command="true", waitForStart=True)[0].id
    folder = own_server.directory
    assert "Owner: alice\n" in own_server.rnx("status", "-v", job_id, name="alice", certificates=folder).stdout
    refused = own_server.rnx("status", job_id, name="bob", certificates=folder)
    assert (refused.returncode, refused.stderr) == (1, f"Error: job not found: {job_id}\n")
    listed = own_server.rnx("list", "--owner=alice", "--format={id} {owner}", name="carol", certificates=folder)
    assert f"{job_id} alice" in listed.stdout.splitlines()
    assert {line.split()[1] for line in listed.stdout.splitlines()} == {"alice"}
