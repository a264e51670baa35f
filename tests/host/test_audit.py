"""What the audit log of a real server tells of calls, and of what needs none."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from harness import Server, Stock, make_certificates, poll_until

from joblet import pki
from joblet.cli import app
from joblet.command_line import Failure

Line = dict[str, Any]
WORKFLOW = "jobs:\n  first:\n    command: 'true'\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("audited"), certificates)
    made.start()
    yield made
    made.close()


def lines(server: Server, **wanted: object) -> list[Line]:
    """Those with these values, oldest first."""
    raw = (server.state / "audit.log").read_text().splitlines()
    return [line for line in map(json.loads, raw) if all(line.get(key) == value for key, value in wanted.items())]


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`joblet audit`: what it prints. Raises Failure with what it says otherwise."""

    def run(server: Server, *arguments: str) -> str:
        config = f"--config={server.directory / 'joblet-config.yml'}"
        command_line = ["audit", *arguments, config]
        typer.main.get_command(app).main(command_line, prog_name="joblet", standalone_mode=False)
        return capsys.readouterr().out

    return run


def serial(server: Server, name: str) -> str:
    return f"{pki.read_certificate(server.certificates / f'{name}-cert.pem').serial_number:X}"


def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_an_order_is_told_before_it_is_done_and_with_its_job(server: Server, client: Stock) -> None:
    secret, argument = "s3cr3t-value", "argument-of-it"
    job, _ = client.finish(
        "sh", "-c", f"exit 3 # {argument}", name='a "name"', environment={"A": secret}, secret_environment={"B": secret}
    )
    result = lines(server, event="result", job=job.id)[0]
    call = lines(server, n=result["call"])[0]
    for line in (call, result):
        assert (line["client"], line["role"], line["serial"].lstrip("0")) == ("admin", "admin", serial(server, "admin"))
        assert line["peer"].startswith("127.0.0.1:")
        assert (line["operation"], line["method"]) == ("run_job", "/joblet.JobletService/RunJob")
        assert (line["allowed"], line["command"], line["name"]) == (True, "sh", 'a "name"')
    assert (call["event"], result["code"]) == ("call", "OK")
    (made,) = lines(server, event="made", job=job.id)
    assert (made["by"], made["client"], made["command"]) == ("order", "admin", "sh")
    assert call["n"] < made["n"] < result["n"]
    (ended,) = lines(server, event="ended", job=job.id)
    assert (ended["client"], ended["status"], ended["exitCode"]) == ("admin", "FAILED", 3)
    assert ended["reason"] == "exit code 3"
    log = (server.state / "audit.log").read_text()
    assert secret not in log
    assert argument not in log


def test_a_read_has_one_line_and_a_stream_two(server: Server, client: Stock) -> None:
    job, _ = client.finish("true")
    assert [line["code"] for line in lines(server, operation="get_job", job=job.id)] == ["OK"]
    call, result = lines(server, operation="get_job_logs", job=job.id)
    assert (call["event"], result["event"], result["call"], result["code"]) == ("call", "result", call["n"], "OK")
    assert refused(lambda: client.status("999999")) is grpc.StatusCode.NOT_FOUND
    (missed,) = lines(server, operation="get_job", job="999999")
    assert (missed["allowed"], missed["code"], missed["reason"]) == (True, "NOT_FOUND", "job not found: 999999")


def test_what_is_denied_is_told_with_what_it_wanted(server: Server, stock) -> None:
    with server.channel("viewer") as channel:
        viewer = Stock(channel, *stock)
        assert refused(lambda: viewer.stop("1" * 1000)) is grpc.StatusCode.PERMISSION_DENIED
        assert refused(lambda: viewer.run("rm", "-r")) is grpc.StatusCode.PERMISSION_DENIED
    stop, run = lines(server, client="viewer", allowed=False)
    assert (stop["operation"], stop["code"], stop["job"]) == ("stop_job", "PERMISSION_DENIED", "1" * 256 + "...")
    assert stop["reason"] == "role viewer is not allowed to perform operation stop_job"
    assert (run["operation"], run["command"]) == ("run_job", "rm")


def test_who_has_no_certificate_of_ours_is_told_sparingly(server: Server, stock, tmp_path: Path) -> None:
    with server.channel(None) as channel:
        for _ in range(5):
            assert refused(lambda: Stock(channel, *stock).list()) is grpc.StatusCode.UNAUTHENTICATED
    (line,) = lines(server, event="unidentified")
    assert (line["allowed"], line["reason"]) == (False, "failed to extract client role: no TLS information found")
    with server.channel("admin", make_certificates(tmp_path)) as channel:
        assert refused(lambda: Stock(channel, *stock).list()) is grpc.StatusCode.UNAVAILABLE
    poll_until(lambda: bool(lines(server, event="connection")))  # the client learns of it first
    (line,) = lines(server, event="connection")
    assert line["allowed"] is False
    assert line["peer"].startswith("127.0.0.1:")
    assert "certificate" in line["reason"]


def test_jobs_that_nobody_has_called_for_are_told_with_what_made_them(server: Server, client: Stock, stock) -> None:
    first = client.run("false", retries=1, retryDelayMs=1).id
    poll_until(lambda: bool(lines(server, event="made", by="retry", retryOf=first)))
    (retry,) = lines(server, event="made", by="retry", retryOf=first)
    assert (retry["client"], retry["command"]) == ("admin", "false")
    poll_until(lambda: bool(lines(server, event="ended", job=retry["job"])))
    with server.channel() as channel:
        jobs = stock[1].JobServiceStub(channel)
        request = client.pb.RunWorkflowRequest(workflow="w.yaml", yamlContent=WORKFLOW)
        workflow = jobs.RunWorkflow(request).workflowId
    (result,) = lines(server, event="result", operation="run_workflow", workflow=workflow)
    assert result["file"] == "w.yaml"
    poll_until(lambda: bool(lines(server, event="ended", workflow=workflow)))
    (made,) = lines(server, event="made", by="workflow", workflow=workflow)
    assert (made["client"], made["command"]) == ("admin", "true")


def test_the_commands_check_it_and_find_in_it(server: Server, client: Stock, audit) -> None:
    job, _ = client.finish("false")
    checked = audit(server, "verify")
    assert checked.startswith("intact: lines 1 to ")
    shown = audit(server, "show", "--job", job.id, "--since", "1h").splitlines()
    assert any(line.endswith(f"OK  job={job.id}  false") for line in shown)
    assert any(f"ended  admin  job={job.id}  FAILED  exitCode=1  exit code 1" in line for line in shown)
    raw = audit(server, "show", "--job", job.id, "--json").splitlines()
    assert [json.loads(line)["job"] for line in raw] == [job.id] * len(shown)
    assert all("denied" in line for line in audit(server, "show", "--denied").splitlines())
    known = checked.split()
    copy = server.directory / "copy"
    copy.write_bytes((server.state / "audit.log").read_bytes())
    assert audit(server, "verify", str(copy), f"--expect={known[4]}:{known[-1]}")
    text = copy.read_text().replace('"exitCode":1', '"exitCode":0')
    copy.write_text(text)
    with pytest.raises(Failure, match=f"{copy} line [0-9]+: edited: line [0-9]+ "):
        audit(server, "verify", str(copy))


def test_starts_ends_and_what_retention_removes_are_told_and_reads_if_wanted(make_server, stock, audit) -> None:
    server = make_server(retention={"maxJobs": 1}, audit={"reads": False})
    server.start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for _ in range(2):
            client.finish("true")
        client.list()
    with server.channel("viewer") as channel, contextlib.suppress(grpc.RpcError):
        Stock(channel, *stock).run("true")
    server.stop()
    server.start()
    poll_until(lambda: bool(lines(server, event="deleted")))
    assert [(line["job"], line["by"]) for line in lines(server, event="deleted")] == [("1", "retention")]
    start, again = lines(server, event="start")
    config = (server.directory / "joblet-config.yml").read_bytes()
    assert again["sha256"] == hashlib.sha256(config).hexdigest()
    assert start["version"] == again["version"]
    assert len(lines(server, event="stop")) == 1
    assert {line["operation"] for line in lines(server) if "operation" in line} == {"run_job"}
    assert len(lines(server, client="viewer", allowed=False)) == 1
    server.stop()
    (server.state / "audit.log").write_text("")
    server.start()
    assert any("audit log was changed while no server ran" in line for line in server.lines)
    with pytest.raises(
        Failure, match=r"the server found the log changed when it started: lines 1 to [0-9]+ are missing"
    ):
        audit(server, "verify")


def test_none_is_written_if_none_is_wanted(make_server, stock, audit) -> None:
    server = make_server(audit={"file": ""})
    server.start()
    with server.channel() as channel:
        assert Stock(channel, *stock).finish("echo", "fine")[1] == b"fine\n"
    assert not list(server.state.glob("audit*"))
    with pytest.raises(Failure, match=r"audit\.file is empty"):
        audit(server, "verify")
