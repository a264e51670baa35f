"""Bad input about workflows and uploads gets its code and a clear text, and leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import ROOT, Server, Stock
from workflow_client import Flows, bash, refusal

MALFORMED = sorted((ROOT / "tests/data/workflows/malformed").glob("*.yaml"))
REFERENCE = (ROOT / "docs/workflow-file.md").read_text()
INVALID = grpc.StatusCode.INVALID_ARGUMENT
GOOD = "jobs:\n" + bash("a", "true")
IMPOSSIBLE = ["", "0", "-1", "abc", "01", "1 ", "٣", "1e3", "9" * 30, "999999", "../1", "\0", "\n"]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Server]:
    """A server that these tests share, with a ceiling."""
    server = Server(tmp_path_factory.mktemp("limited"), certificates, ceilings={"maxMemory": 1024})
    server.start()
    yield server
    server.close()


@pytest.fixture
def flows(limited: Server, stock) -> Iterator[Flows]:
    """A stock client. After each test nothing has come of what was refused, and the server serves."""
    with limited.channel() as channel:
        flows = Flows(limited, channel, *stock)
        before = [workflow.id for workflow in flows.list(includeCompleted=True).workflows]
        yield flows
        assert [workflow.id for workflow in flows.list(includeCompleted=True).workflows] == before
    for name in ("uploads", "workflows", "jobs"):
        assert list((limited.state / name).glob("*")) == [], name
    assert not [line for line in limited.lines if "Traceback" in line or "[ERROR]" in line]


def invalid(flows: Flows, text: str, **more: Any) -> str:
    """What is said of an order, with which a file came along."""
    code, said = refusal(lambda: flows.run(text, **{"files": {"x": b"content"}, **more}))
    assert code is INVALID
    return said


@pytest.mark.parametrize("path", MALFORMED, ids=lambda path: path.stem)
def test_a_malformed_file(flows: Flows, path: Path) -> None:
    """In the words of the reference, all of its faults (the number of which is bounded)."""
    said = invalid(flows, path.read_text(), workflow=path.name)
    documented = re.findall(rf"`({re.escape(path.name)}:\d+: .*?)`(?:<br>| \|$)", REFERENCE, re.MULTILINE)
    assert documented
    told = [line for line in said.removeprefix("invalid workflow: ").split("\n") if "was not sent along" not in line]
    assert told == [line.replace("\\|", "|") for line in documented]


def test_more_faults_than_are_told(flows: Flows) -> None:
    said = invalid(flows, "jobs:\n" + "".join(f"  a{number}: {{command: []}}\n" for number in range(40)))
    lines = said.splitlines()
    assert len(lines) == 21
    assert lines[19] == 'w.yaml:21: job "a19": command: must be text, not a list'
    assert lines[20] == "and 20 more faults"


def test_faults_that_are_long_where_they_travel(flows: Flows) -> None:
    """A stock client takes 8 KiB of trailers, in which each of these characters is twelve bytes."""
    said = invalid(flows, "jobs:\n" + "".join(f"  {'😀' * 200}{number}: {{command: []}}\n" for number in range(40)))
    assert said.startswith('invalid workflow: w.yaml:2: job "😀😀')
    assert said.endswith("...")
    code, text = refusal(lambda: flows.status("ä" * 100_000))
    assert code is grpc.StatusCode.NOT_FOUND
    assert re.fullmatch(r"workflow not found: ä{1000,}\.\.\.", text)


def test_an_empty_file(flows: Flows) -> None:
    assert invalid(flows, "", workflow="") == "invalid workflow: workflow.yaml:1: the file is empty"


def test_two_megabytes_of_yaml(flows: Flows) -> None:
    code, text = refusal(lambda: flows.run("#" * (2 << 20)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert re.fullmatch(r"request message larger than max \(\d+ vs\. 524288 bytes, grpc\.maxRecvMsgSize\)", text)


@pytest.mark.parametrize("name", ["a\nb.yaml", "a\rb", "\x1b[2J", "\0", "x" * 256, "\u202eyaml"])
def test_a_file_name_that_would_disturb_what_shows_it(flows: Flows, name: str) -> None:
    shown = repr(name[:255])
    said = f"invalid workflow: {shown} (a name of 1 to 255 printable characters)"
    assert invalid(flows, GOOD, workflow=name) == said


@pytest.mark.parametrize("workflow_id", IMPOSSIBLE)
def test_an_unknown_or_impossible_id(flows: Flows, workflow_id: str) -> None:
    expected = (grpc.StatusCode.NOT_FOUND, f"workflow not found: {workflow_id}")
    jobs = lambda: flows.stub.GetWorkflowJobs(flows.pb.GetWorkflowJobsRequest(workflowId=workflow_id))  # noqa: E731
    for call in (flows.status, flows.stop, flows.retry, flows.delete):
        assert refusal(lambda call=call: call(workflow_id)) == expected
    assert refusal(jobs) == expected
    if workflow_id:  # without one, events are those of all
        assert refusal(lambda: list(flows.events(workflowId=workflow_id))) == expected
    job = refusal(lambda: flows.stub.DeleteJob(flows.pb.DeleteJobReq(id=workflow_id)))
    assert job == (grpc.StatusCode.NOT_FOUND, f"job not found: {workflow_id}")


BAD_UPLOADS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "absolute": ([{"path": "/etc/x"}], "'/etc/x' is not a plain relative path"),
    "above": ([{"path": "../x"}], "'../x' is not a plain relative path"),
    "above within": ([{"path": "a/../../x"}], "'a/../../x' is not a plain relative path"),
    "not plain": ([{"path": "./x"}], "'./x' is not a plain relative path"),
    "twice a slash": ([{"path": "a//x"}], "'a//x' is not a plain relative path"),
    "slash at the end": ([{"path": "a/"}], "'a/' is not a plain relative path"),
    "the directory itself": ([{"path": "."}], "'.' is not a plain relative path"),
    "none": ([{"path": ""}], "'' is not a plain relative path"),
    "NUL": ([{"path": "a\0b"}], r"'a\x00b' is not a plain relative path"),
    "twice": ([{"path": "a"}, {"path": "a"}], "'a' comes twice"),
    "file and directory": ([{"path": "a"}, {"path": "a", "isDirectory": True}], "'a' comes twice"),
    "below a file": ([{"path": "a"}, {"path": "a/b"}], "'a/b' is below 'a', which is a file"),
    "directory with content": (
        [{"path": "a", "isDirectory": True, "content": b"x"}],
        "'a' is a directory and has content",
    ),
    "long name": ([{"path": "x" * 256}], f"{'x' * 128!r}: a name of 256 bytes (at most 255)"),
    "deep": ([{"path": "a/" * 32 + "b"}], f"{'a/' * 32 + 'b'!r} is 33 deep (at most 32)"),
    "many": ([{"path": f"{number}"} for number in range(10_001)], "10001 files (at most 10000)"),
}


@pytest.mark.parametrize(("uploads", "fault"), BAD_UPLOADS.values(), ids=BAD_UPLOADS)
def test_files_that_cannot_lie_in_a_work_directory(flows: Flows, stock, uploads: list[Any], fault: str) -> None:
    text = f"invalid uploads: {fault}"
    order = flows.order(GOOD)
    order.workflowFiles.extend(flows.pb.FileUpload(**upload) for upload in uploads)
    assert refusal(lambda: flows.stub.RunWorkflow(order)) == (INVALID, text)
    with flows.server.channel() as channel:
        client = Stock(channel, *stock)
        files = list(order.workflowFiles)
        assert refusal(lambda: client.run("true", uploads=files)) == (INVALID, text)
        assert len(client.list()) == 0


@pytest.mark.parametrize("variable", [{"A B": "x"}, {"": "x"}, {"JOBLET_X": "x"}, {"A": "x\0y"}, {"A": "x" * 131_072}])
@pytest.mark.parametrize("field", ["environment", "secret_environment"])
def test_variables_that_no_job_can_have(flows: Flows, stock, field: str, variable: dict[str, str]) -> None:
    with flows.server.channel() as channel:
        client = Stock(channel, *stock)
        files = [flows.pb.FileUpload(path="x")]
        code, text = refusal(lambda: client.run("true", uploads=files, **{field: variable}))
        assert (code, text.startswith(f"invalid {field}: ")) == (INVALID, True)
        assert not [value for value in variable.values() if value in text and len(value) > 1]
        assert len(client.list()) == 0


@pytest.mark.parametrize("options", [{"name": "a\nb"}, {"name": "x" * 129}, {"workdir": "../x"}, {"workdir": "a\0"}])
def test_names_and_work_directories_that_no_job_can_have(flows: Flows, stock, options: dict[str, str]) -> None:
    with flows.server.channel() as channel:
        code, text = refusal(lambda: Stock(channel, *stock).run("true", **options))
        (field,) = options
        assert (code, text.startswith(f"invalid {field}: ")) == (INVALID, True)


def test_parameters_that_there_are_not(flows: Flows) -> None:
    said = invalid(flows, "parameters: {epochs: 10}\n" + GOOD, parameters={"epoch": "1"})
    assert said == "invalid workflow: w.yaml:1: parameters.epoch: given, but not declared (did you mean epochs?)"
    said = invalid(flows, GOOD, parameters={"x" * 5000: "1"})
    assert re.fullmatch(r'invalid workflow: w\.yaml:1: parameters\."x+\.\.\.": given, but not declared', said)


def test_limits_above_the_ceilings_name_their_jobs(flows: Flows) -> None:
    text = GOOD + bash("b", "true", resources={"max_memory": 2048}) + bash("c", "true", resources={"max_memory": 4096})
    allowed = "maxMemory exceeds system limits ({}, allowed 0 to 1024)"
    assert invalid(flows, text).splitlines() == [
        f'invalid workflow: w.yaml: job "b": job creation failed: {allowed.format(2048)}',
        f'w.yaml: job "c": job creation failed: {allowed.format(4096)}',
    ]


def test_a_job_that_the_file_has_not(flows: Flows) -> None:
    said = invalid(flows, GOOD, job="b")
    assert said == 'invalid workflow: w.yaml:1: jobs: there is no "b"'


def test_a_file_that_did_not_come_along(flows: Flows) -> None:
    said = invalid(flows, "jobs:\n" + bash("a", "true", uploads={"files": ["y"]}))
    assert said == 'invalid workflow: w.yaml:2: job "a": uploads.files[0]: "y" was not sent along'


@pytest.mark.parametrize("key", ["a\nb", "x" * 129])
def test_keys_that_are_none(flows: Flows, key: str) -> None:
    said = invalid(flows, GOOD, key=key)
    assert said == f"invalid key: {key[:128]!r} (at most 128 printable characters)"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"pageSize": -1}, (INVALID, "invalid pageSize: -1 (allowed 0 and above)")),
        ({"pageSize": -(2**31)}, (INVALID, "invalid pageSize: -2147483648 (allowed 0 and above)")),
        ({"before": "abc"}, (grpc.StatusCode.NOT_FOUND, "workflow not found: abc")),
        ({"before": "-1"}, (grpc.StatusCode.NOT_FOUND, "workflow not found: -1")),
        ({"before": "9" * 30}, (grpc.StatusCode.NOT_FOUND, f"workflow not found: {'9' * 30}")),
    ],
)
def test_pages_that_are_none(flows: Flows, asked: dict[str, Any], answer: tuple[grpc.StatusCode, str]) -> None:
    assert refusal(lambda: flows.list(**asked)) == answer


@pytest.mark.parametrize(
    ("rpc", "body"),
    [
        *product(("RunWorkflow", "StopWorkflow", "WatchEvents"), (b"\xff" * 64, b"\x0a\x7fshort", b"\x08")),
        *product(("RunWorkflow", "StopWorkflow"), (b"\x0a\x02\xff\xfe",)),  # elsewhere it is a field that is not known
    ],
)
def test_bytes_that_are_no_message(flows: Flows, rpc: str, body: bytes) -> None:
    with flows.server.channel() as channel:
        call: Callable[[bytes], Any] = channel.unary_unary(
            f"/joblet.JobService/{rpc}", request_serializer=bytes, response_deserializer=bytes
        )
        code, text = refusal(lambda: call(body))
    assert code is INVALID
    assert text.startswith("request is not a valid ")
