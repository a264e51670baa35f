"""Secrets reach their jobs and are nowhere else: not in a reply, a log, a command line or a byte on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import PATIENCE, Server, Stock, poll_until
from workflow_client import UNTIL_GO, Flows, bash, refusal

NAMES = ("WORKFLOW", "JOB", "GIVEN", "DEFAULT", "BLOCK", "MIXED", "ALONE")
TELL = "; ".join(f'printf %s "${name}" | sha256sum | cut -d" " -f1' for name in NAMES[:-1])
"""prints what each secret comes to, but not what it is"""


RUNNING = [
    *(
        ["list", "--json"],
        ["status", "1", "--json"],
        ["why", "1", "--json"],
        ["top", "--once", "--json", "--interval=200ms"],
    ),
]
RETOLD = [
    *(["list", "--json"], ["list", "--workflow", "--json"], ["status", "2", "--json"]),
    *(["status", "--workflow=1", "--json"], ["status", "--workflow=1", "--verbose"]),
    *(["workflow", "events", "--json"], ["workflow", "graph", "1", "--format=svg"]),
]
ENDED = [
    *RETOLD,
    *(["list", "--format={secret_environment} {environment}"], ["status", "-v", "1"], ["status", "1", "--json"]),
    *(["why", "1"], ["why", "1", "--json"], ["why", "--workflow=1"], ["why", "--workflow=1", "--json"]),
    *(["log", "--timestamps", "1"], ["complete", "fish", "--", "status", ""]),
]


class Case:
    """A server with one slot, secrets that were made up for it, and all that is seen of it from outside."""

    def __init__(self, server: Server, flows: Flows, client: Stock) -> None:
        self.server = server
        self.flows = flows
        self.client = client
        self.values = {name: f"{name.lower()}{secrets.token_hex(12)}" for name in NAMES}

    def text(self) -> str:
        value = self.values
        return (
            "# nobody reads this but people\n"
            "parameters:\n"
            "  given: {secret: true}\n"
            f"  default: {{secret: true, default: {value['DEFAULT']}}}\n"
            f"secret_environment:\n  WORKFLOW: {value['WORKFLOW']}\n  BLOCK: |-\n    {value['BLOCK']}\n"
            "jobs:\n"
            + bash("a", f"echo n=1 >> $JOBLET_OUTPUT; {UNTIL_GO}; {TELL}; exit 3", secret_environment=self.of_job())
            + bash("b", TELL, requires=[{"a": "FINISHED"}], secret_environment=self.of_job("${{ jobs.a.outputs.n }}"))
        )

    def of_job(self, tail: str = "1") -> dict[str, str]:
        mixed = self.values["MIXED"] + tail
        return {"JOB": self.values["JOB"], "GIVEN": "${{ params.given }}", "DEFAULT": "${{ params.default }}",
                "MIXED": mixed}  # fmt: skip

    def expected(self) -> bytes:
        """What a job of the workflow tells."""
        got = {**self.values, "MIXED": self.values["MIXED"] + "1"}
        return "".join(hashlib.sha256(got[name].encode()).hexdigest() + "\n" for name in NAMES[:-1]).encode()

    def check(self) -> None:
        """No secret is seen anywhere."""
        for where, seen in self.seen():
            for name, value in self.values.items():
                assert value.encode() not in seen, f"{name} in {where}"

    def seen(self) -> Iterator[tuple[str, bytes]]:
        yield "the server's log", "\n".join(self.server.lines).encode()
        for path in self.server.directory.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    yield str(path), path.read_bytes()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                yield f"{folder}/cmdline", (folder / "cmdline").read_bytes()
        for pid in (self.server.pid, *self.server.monitors()):
            yield f"/proc/{pid}/environ", Path(f"/proc/{pid}/environ").read_bytes()
        yield from self.replies()

    def check_rnx(self, commands: Iterable[Sequence[str]]) -> None:
        """No secret is in what these commands print."""
        for command in commands:
            result = self.server.rnx(*command)
            assert result.returncode == 0, result.stderr
            self.check_told(command, result)

    def check_told(self, command: Sequence[str], result: subprocess.CompletedProcess[str]) -> None:
        told = result.stdout + result.stderr
        assert not [name for name, value in self.values.items() if value in told], command

    def replies(self) -> Iterator[tuple[str, bytes]]:
        flows = self.flows
        yield "ListWorkflows", flows.list(includeCompleted=True).SerializeToString()
        for workflow in flows.list(includeCompleted=True).workflows:
            yield "GetWorkflowStatus", flows.status(workflow.id).SerializeToString()
            asked = flows.pb.GetWorkflowJobsRequest(workflowId=workflow.id)
            yield "GetWorkflowJobs", flows.stub.GetWorkflowJobs(asked).SerializeToString()
        for event in flows.events(noFollow=True):
            yield "WatchEvents", event.SerializeToString()
        yield "ListJobs", self.client.stub.ListJobs(self.client.pb.EmptyRequest()).SerializeToString()
        for job in self.client.list():
            yield "GetJobStatus", self.client.status(job.id).SerializeToString()
            yield "GetJobLogs", b"".join(self.client.logs(job.id, noFollow=True))

    def let_go(self, job_id: str) -> None:
        """Let a job go on that waits for a file in its work directory."""
        work = self.server.state / f"jobs/{job_id}/work"
        poll_until(work.is_dir)
        (work / "go").touch()

    def holders(self) -> set[int]:
        """Users of the processes in whose environment there is a secret."""
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (folder / "environ").read_bytes()
                if any(value.encode() in environment for value in self.values.values()):
                    found.add(folder.stat().st_uid)
        return found


@pytest.fixture
def case(make_server: Callable[..., Server], stock) -> Iterator[Case]:
    server = make_server(joblet={"maxConcurrentJobs": 1, "cleanupTimeout": "2s"}, logging={"level": "DEBUG"}).start()
    with server.channel() as channel:
        yield Case(server, Flows(server, channel, *stock), Stock(channel, *stock))


def test_secrets_reach_their_jobs_and_nobody_else(case: Case) -> None:
    flows, client, value = case.flows, case.client, case.values
    blocker = client.started("sleep", "1000")
    alone = client.run("bash", "-c", 'test "$ALONE" = "$0"', "x", secret_environment={"ALONE": value["ALONE"]})
    workflow_id = flows.run(case.text(), parameters={"given": value["GIVEN"]})
    flows.until(workflow_id, "a", "PENDING")
    assert client.status(alone.id).status == "PENDING"
    case.check()
    assert case.holders() == set()

    case.server.kill()
    case.server.start()
    client.stop(blocker.id)
    assert flows.until(workflow_id, "a", "RUNNING")
    case.check()
    assert {user >= 0x10000 for user in case.holders()} == {True}  # so that those who look would see

    flows.go(workflow_id)
    ended = flows.wait(workflow_id)
    assert [job.status for job in ended.jobs] == ["FAILED", "COMPLETED"]
    assert client.output(client.run("true").id) == b""  # all before it have ended
    assert [client.output(job.jobId) for job in ended.jobs] == [case.expected()] * 2
    assert dict(ended.workflow.parameters) == {"given": "***", "default": "***"}
    shown = ended.workflow.yamlContent
    assert shown.startswith("# nobody reads this but people\nparameters:\n  given: {secret: true}\n")
    assert shown.count("***") == 3 + 2 * 4  # each by itself, whatever is around it
    assert dict(client.status(alone.id).secret_environment) == {"ALONE": "***"}
    case.check()
    case.check_rnx(RETOLD)

    target = case.server.directory / "copy"
    command = [sys.executable, "-m", "joblet", "backup", str(target)]
    subprocess.run(
        [*command, "--config", str(case.server.directory / "joblet-config.yml")], check=True, timeout=PATIENCE
    )
    assert target.stat().st_size > 0
    case.check()

    flows.retry(workflow_id)  # with what is on the disk only
    again = flows.wait(workflow_id)
    assert [client.output(job.jobId) for job in again.jobs] == [case.expected()] * 2
    case.check()


def test_secrets_that_rnx_is_given_are_told_by_none_of_its_commands(case: Case, tmp_path: Path) -> None:
    value, server = case.values, case.server
    environment = {**os.environ, "ALONE": value["ALONE"], "given": value["GIVEN"]}
    tell = 'printf %s "$ALONE$JOB" | sha256sum; kill -SEGV $$'
    command = (
        "run",
        "--name=n",
        "-s",
        "ALONE",
        "-s",
        "JOB=-",
        "bash",
        "-c",
        f"{UNTIL_GO.replace('/workflow', '.')}; {tell}",
    )
    run = server.rnx(*command, env=environment, input=value["JOB"] + "\n")
    assert (run.returncode, run.stderr) == (0, "")
    (tmp_path / "w.yaml").write_text(case.text())
    flow = server.rnx("run", f"--workflow={tmp_path / 'w.yaml'}", "--param=given", env=environment)
    assert (flow.returncode, flow.stderr) == (0, "")

    poll_until(lambda: bool(case.holders()))
    case.check()  # while it runs
    assert {user >= 0x10000 for user in case.holders()} == {True}
    case.check_rnx(RUNNING)
    case.let_go("1")
    assert server.rnx("wait", "1").returncode == 128 + 11
    case.flows.until("1", "a", "RUNNING")
    case.flows.go("1")
    case.flows.wait("1")
    both = value["ALONE"] + value["JOB"]
    assert case.client.output("1").decode().split()[0] == hashlib.sha256(both.encode()).hexdigest()
    case.check_rnx([*ENDED, ["workflow", "validate", str(tmp_path / "w.yaml"), "--param=given=x"]])
    for refused in (["rerun", "1"], ["run", "-s", "ALONE", "-s", "A-B=-", "true"], ["run", "-s", "ALONE", "nonsense;"]):
        result = server.rnx(*refused, env=environment, input=value["JOB"])
        assert result.returncode == 1
        case.check_told(refused, result)
    again = ["rerun", "-s", "ALONE", "-s", "JOB=-", "1"]
    result = server.rnx(*again, env=environment, input=value["JOB"])
    assert result.returncode == 0
    case.check_told(again, result)
    job_id = result.stdout.split()[3]
    case.let_go(job_id)
    assert server.rnx("wait", job_id).returncode == 128 + 11
    assert case.client.output(job_id) == case.client.output("1")
    case.check()


def test_a_secret_that_a_job_gets_exactly(case: Case) -> None:
    """Whatever it is made of."""
    value = 'ä😀 "quoted" $HOME `id` \\ \n\t=;--\x7f'
    _, output = case.client.finish(
        "python3", "-c", "import os; print(os.environb[b'S'].hex())", secret_environment={"S": value}
    )
    assert output.decode().strip() == value.encode().hex()


MALFORMED: list[tuple[str, dict[str, str]]] = [
    ("secret_environment: {A: [SECRET]}\n", {}),
    ("secret_environment: {A: *SECRET}\n", {}),
    ("secret_environment: {A: !SECRET x}\n", {}),
    ("secret_environment:\n  A: SECRET: x\n", {}),
    ("secret_environment:\n  A: 'SECRET\n", {}),
    ("secret_environment:\n  A: '${{ SECRET }}'\n", {}),
    ("secret_environment:\n  A: 'SECRET${{ params.none }}'\n", {}),
    ("secret_environment: {A: SECRET, A: SECRET}\n", {}),
    ("secret_environment: {A B: SECRET}\n", {}),
    ("secret_environment: SECRET\n", {}),
    ("secret_environmen: {A: SECRET}\n", {}),
    ("secret_environment: {A: " + "SECRET" * 8000 + "}\n", {}),
    ("secret_environment: {A: SECRET}\nmax_paralel: 1\n", {}),
    ("parameters: {t: {secret: true, type: integer, default: SECRET}}\n", {}),
    ("parameters: {t: {secret: true, choices: [SECRET], default: x}}\n", {}),
    ("parameters: {t: {secret: true, default: SECRET, choise: 1}}\n", {}),
    ("parameters: {t: {secret: true, type: integer}}\n", {"t": "SECRET"}),
    ("parameters: {t: {secret: true, choices: [a]}}\n", {"t": "SECRET"}),
    ("parameters: {t: {secret: true}}\nname: '${{ params.t }}'\n", {"t": "SECRET"}),
    ("parameters: {t: {secret: true}}\n", {"u": "SECRET", "t": "x"}),
]


def test_malformed_files_do_not_tell_their_secrets(case: Case) -> None:
    secret = case.values["WORKFLOW"]
    for text, parameters in MALFORMED:
        given = {name: value.replace("SECRET", secret) for name, value in parameters.items()}
        order = (text + "jobs:\n" + bash("a", "true")).replace("SECRET", secret)
        code, said = refusal(lambda order=order, given=given: case.flows.run(order, parameters=given))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert said.startswith("invalid workflow: w.yaml:")
        assert secret not in said, text
    for field in ({"A": secret + "\0"}, {"A-B": secret}, {"JOBLET_A": secret}, {"A": secret * 6000}):
        code, said = refusal(lambda field=field: case.client.run("true", secret_environment=field))
        assert (code, secret in said) == (grpc.StatusCode.INVALID_ARGUMENT, False)
    assert secret not in "\n".join(case.server.lines)
    database = b"".join(path.read_bytes() for path in case.server.state.glob("joblet.db*"))
    assert secret.encode() not in database


@pytest.mark.parametrize(("text", "parameters"), [MALFORMED[1], MALFORMED[16]], ids=["file", "parameter"])
def test_rnx_does_not_tell_them_either(server: Server, tmp_path: Path, text: str, parameters: dict[str, str]) -> None:
    (tmp_path / "w.yaml").write_text(text + "jobs:\n" + bash("a", "true"))
    flags = [f"--param={name}" for name in parameters]  # the value is not on the command line
    environment = {"PATH": "/usr/bin:/bin", **parameters}
    result = server.rnx("run", "--workflow=w.yaml", *flags, cwd=tmp_path, env=environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: w.yaml:1: ")
    assert "SECRET" not in result.stderr


def test_a_key_does_not_tell_secrets_apart(case: Case) -> None:
    """Nothing that is stored leads back to a secret: the same order but for its secrets is the same order."""
    ids = set()
    for value in ("one", "two"):
        text = "jobs:\n" + bash("a", "true", secret_environment={"A": value})
        ids.add(case.flows.run(text, key="nightly"))
    assert len(ids) == 1


def test_secrets_are_lost_with_their_key(case: Case) -> None:
    """What cannot be opened any more fails, and says why; nothing runs without its secrets."""
    flows = case.flows
    text = "jobs:\n" + bash("a", UNTIL_GO) + bash("b", "echo $A", requires=["a"], secret_environment={"A": "x"})
    workflow_id = flows.run(text)
    flows.until(workflow_id, "a", "RUNNING")
    case.server.stop()
    (case.server.state / "secret.key").unlink()
    case.server.start()
    flows.go(workflow_id)
    ended: Any = flows.wait(workflow_id)
    assert [job.status for job in ended.jobs] == ["COMPLETED", "FAILED"]
    assert "a secret cannot be opened: it was sealed with another secret.key" in ended.jobs[1].reason
