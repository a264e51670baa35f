"""The calls about jobs, by stock clients."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from harness import Server, Stock, poll_until

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_a_job_from_start_to_end(client: Stock) -> None:
    job = client.run("bash", "-c", "echo out; echo err >&2; exit 7", maxCPU=50, maxMemory=128)
    assert int(job.id) > 0
    assert (job.command, list(job.args)) == ("bash", ["-c", "echo out; echo err >&2; exit 7"])
    assert (job.maxCPU, job.maxMemory, job.maxIOBPS) == (50, 128, 0)
    assert (job.status, job.endTime, job.exitCode) == ("INITIALIZING", "", 0)
    assert TIME.fullmatch(job.startTime)
    assert client.output(job.id) == b"out\nerr\n"
    ended = client.status(job.id)
    assert (ended.status, ended.exitCode, ended.reason) == ("FAILED", 7, "exit code 7")
    assert TIME.fullmatch(ended.endTime)
    assert ended.startTime == job.startTime


def test_defaults_come_from_the_configuration(client: Stock) -> None:
    job = client.run("true")
    assert (job.maxCPU, job.maxMemory, job.maxIOBPS) == (100, 512, 0)


def test_list_shows_every_job_in_order(client: Stock) -> None:
    ids = [client.run("true").id for _ in range(3)]
    for job_id in ids:
        client.output(job_id)
    jobs = client.list()
    assert [job.id for job in jobs][-3:] == ids
    assert [int(job.id) for job in jobs] == sorted(int(job.id) for job in jobs)
    assert {job.status for job in jobs[-3:]} == {"COMPLETED"}


def test_wait_for_start_answers_when_the_command_runs(client: Stock) -> None:
    job = client.started("sleep", "100")
    assert job.status == "RUNNING"
    client.stop(job.id)


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("no-such-command", 127, "command not found: no-such-command"),
        ("/no/such/file", 127, "command not found: /no/such/file"),
        ("/etc/passwd", 126, "cannot execute /etc/passwd: permission denied"),
        ("/usr", 126, "cannot execute /usr: permission denied"),
    ],
)
def test_a_command_that_cannot_be_executed(client: Stock, command: str, code: int, reason: str) -> None:
    job = client.started(command)
    assert (job.status, job.exitCode, job.reason) == ("FAILED", code, reason)
    assert client.output(job.id) == f"joblet: {reason}\n".encode()


def test_a_job_killed_by_a_signal(client: Stock) -> None:
    status, _ = client.finish("bash", "-c", "kill -SEGV $$")
    assert (status.status, status.exitCode) == ("FAILED", 139)
    assert status.reason == "killed by signal 11 (SIGSEGV)"


def test_arguments_reach_the_command_as_they_are(client: Stock) -> None:
    args = ["", " ", "a b", "$HOME", "`id`", ";", "ä€😀", "\n", "--", "-x", '"', "\\", "\x7f\x01"]
    _, output = client.finish("python3", "-c", "import sys; print(sys.argv[1:])", *args)
    assert output.decode() == f"{args!r}\n"


def test_a_large_argument_list_within_the_message_bound(client: Stock) -> None:
    args = ["x" * 100_000] * 4
    _, output = client.finish("python3", "-c", "import sys; print(sum(map(len, sys.argv[1:])))", *args)
    assert output == b"400000\n"


def test_environment_is_small_and_known(client: Stock) -> None:
    job = client.run("env")
    names = {line.split(b"=")[0].decode() for line in client.output(job.id).splitlines()}
    assert names == {"PATH", "HOME", "PWD", "LANG", "HOSTNAME", "JOBLET_JOB_ID", "JOBLET_OUTPUT"}


def test_a_job_gets_its_name_variables_and_files(client: Stock) -> None:
    script = b'#!/bin/sh\ncat ../data/rows.txt; ls -ld ../data ../empty | cut -c1-10; echo "$PLAIN $HUSH $PWD $0"\n'
    FileUpload = client.pb.FileUpload
    job = client.run(
        "./run.sh",
        name="nightly",
        environment={"PLAIN": "seen", "BOTH": "plain"},
        secret_environment={"HUSH": "hidden", "BOTH": "hidden"},
        workdir="bin",
        uploads=[
            FileUpload(path="bin/run.sh", content=script, mode=0o4755),
            FileUpload(path="data/rows.txt", content=b"rows\n"),
            FileUpload(path="empty", isDirectory=True, mode=0o700),
        ],
    )
    output = client.output(job.id)
    assert output == b"rows\ndrwxr-xr-x\ndrwx------\nseen hidden /work/bin ./run.sh\n"
    for shown in (job, client.status(job.id), next(listed for listed in client.list() if listed.id == job.id)):
        assert (shown.name, shown.workdir, shown.workflowId) == ("nightly", "bin", "")
        assert dict(shown.environment) == {"PLAIN": "seen", "BOTH": "plain"}
        assert dict(shown.secret_environment) == {"HUSH": "***", "BOTH": "***"}
    status, output = client.finish("sh", "-c", "echo a=1 >> $JOBLET_OUTPUT; stat -c %a bin/x",
                                   uploads=[FileUpload(path="bin/x", content=b"", mode=0o6711)])  # fmt: skip
    assert (output, dict(status.outputs)) == (b"711\n", {"a": "1"})


def test_uploads_go_with_their_job(server: Server, client: Stock) -> None:
    uploads = server.state / "uploads"
    before = set(uploads.glob("*"))
    job = client.started("sleep", "1000", uploads=[client.pb.FileUpload(path="x", content=b"content")])
    (kept,) = set(uploads.glob("*")) - before
    assert (kept / "x").read_bytes() == b"content"
    client.stop(job.id)
    poll_until(lambda: not kept.exists())


def test_standard_input_is_empty(client: Stock) -> None:
    status, output = client.finish("cat")
    assert (status.status, output) == ("COMPLETED", b"")


def test_log_of_a_running_job_without_following(client: Stock) -> None:
    job = client.started("bash", "-c", "echo one; sleep 100")
    assert next(client.logs(job.id)) == b"one\n"
    assert b"".join(client.logs(job.id, noFollow=True)) == b"one\n"
    client.stop(job.id)


def test_log_from_an_offset(client: Stock) -> None:
    job = client.run("printf", "0123456789")
    client.output(job.id)
    assert b"".join(client.logs(job.id, offset=4)) == b"456789"
    assert b"".join(client.logs(job.id, offset=400)) == b""


def test_stopping_twice_and_stopping_the_unknown(client: Stock) -> None:
    job = client.started("sleep", "100")
    client.stop(job.id)
    with pytest.raises(grpc.RpcError) as caught:
        client.stop(job.id)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == f"job is not running: {job.id} (current status: STOPPED)"
    with pytest.raises(grpc.RpcError) as caught:
        client.stop("999999")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "job not found: 999999"


def test_health_and_reflection(server: Server) -> None:
    with server.channel("viewer") as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="joblet.JobletService"),
        ]
        services, file = list(reflection.ServerReflectionInfo(iter(asked)))
    names = {service.name for service in services.list_services_response.service}
    assert {"joblet.JobletService", "joblet.JobService"} <= names
    assert b"RunJobReq" in file.file_descriptor_response.file_descriptor_proto[0]


def test_a_client_made_from_the_specification_alone(server: Server, tmp_path: Path) -> None:
    """In a process of its own: its messages have the same names as those of protos/."""
    here = Path(__file__).parent
    command = [sys.executable, str(here / "specification_client.py"), str(tmp_path), str(server.port)]
    command += [str(server.certificates), str(server.state)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        *("INITIALIZING", "hello", "COMPLETED", "listed", "RUNNING", "STOPPED -1"),
        *("PENDING", "listed", "0 process-data PENDING setup-data", "FAILED 1 1 2"),
        *("setup-data COMPLETED 0, process-data FAILED 3", "FAILED", "times"),
    ]
