"""rnx and workflows, against a real server with real jobs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import PATIENCE, Server

from joblet.client import Client, ClientConfig, InvalidArgument, InvalidWorkflow

SPECIFICATION = """\
# workflow.yaml
jobs:
  setup-data:          # Job name: "setup-data"
    command: "python3"
    args: ["setup.py"]
    uploads: {files: [setup.py]}

  process-data:        # Job name: "process-data"
    command: "python3"
    args: ["process.py"]
    uploads: {files: [process.py]}
    requires:
      - setup-data: "COMPLETED"
"""
"""API.md's workflow, with the uploads that its scripts need"""

UNTIL_GO = "until [ -e /workflow/go ]; do sleep 0.02; done"
"""a command that goes on when a test says so, by a file in the workflow's shared directory"""

RULE = "-" * 89


class Folder:
    """A directory with files, and rnx in it."""

    def __init__(self, path: Path, server: Server) -> None:
        self.path = path
        self.server = server

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, *arguments: str, name: str = "admin", **options: object) -> subprocess.CompletedProcess[str]:
        return self.server.rnx(*arguments, name=name, cwd=self.path, **options)

    def rnx(self, *arguments: str, status: int = 0, **options: object) -> str:
        """Its output; it must end with this status and complain of nothing."""
        result = self.run(*arguments, **options)
        assert (result.returncode, result.stderr) == (status, ""), result.stdout
        return result.stdout

    def start(self, text: str, *arguments: str) -> str:
        """Run a workflow: its id."""
        self.write("w.yaml", text)
        output = self.rnx("run", "--workflow=w.yaml", *arguments)
        found = re.match(r"Workflow started:\nID: (\d+)\n", output)
        assert found, output
        return found[1]

    def go(self, workflow_id: str) -> None:
        """Let jobs go on that run UNTIL_GO."""
        (self.server.state / f"workflows/{workflow_id}/shared/go").touch()

    def wait_for_event(self, workflow_id: str, name: str, status: str) -> None:
        command = self.server.rnx_command("workflow", "events", f"--workflow={workflow_id}", "--follow", "--json")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as events:
            assert events.stdout is not None
            for line in events.stdout:
                event = json.loads(line)
                if (event["jobName"], event["status"]) == (name, status):
                    break
            else:
                raise AssertionError(f"{name} never became {status}")
            events.kill()


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Folder:
    return Folder(tmp_path, server)


@pytest.fixture
def fresh(make_server: Callable[..., Server], tmp_path: Path) -> Folder:
    """With a server whose first workflow and first job have the id 1."""
    path = tmp_path / "project"
    path.mkdir()
    return Folder(path, make_server(joblet={"cleanupTimeout": "2s"}).start())


def bash(name: str, script: str, **more: object) -> str:
    """A job of a workflow's file."""
    job = {"command": "bash", "args": ["-c", script], **more}
    return f"  {name}: {json.dumps(job)}\n"


def test_the_example_of_the_specification(fresh: Folder) -> None:
    fresh.write("workflow.yaml", SPECIFICATION)
    fresh.write("setup.py", "print('ready')")
    fresh.write("process.py", "import time; time.sleep(1000)")
    assert fresh.rnx("run", "--workflow=workflow.yaml") == (
        "Workflow started:\nID: 1\nWorkflow: workflow.yaml\nStatus: PENDING\nJobs: 2\n"
    )
    fresh.wait_for_event("1", "process-data", "RUNNING")
    assert fresh.rnx("status", "--workflow", "1") == (
        "Workflow ID: 1\n"
        "Workflow: workflow.yaml\n"
        "Status: RUNNING\n"
        "Progress: 1/2 jobs completed\n"
        "\n"
        "Jobs in Workflow:\n"
        "JOB ID JOB NAME STATUS EXIT CODE DEPENDENCIES\n"
        f"{RULE}\n"
        "1 setup-data COMPLETED 0 -\n"
        "2 process-data RUNNING - setup-data\n"
    )
    assert fresh.rnx("list", "--workflow") == f"ID NAME STATUS PROGRESS\n{RULE}\n1 workflow.yaml RUNNING 1/2\n"
    assert fresh.rnx("workflow", "stop", "1") == (
        "Workflow stopped:\nID: 1\nWorkflow: workflow.yaml\nStatus: STOPPED\nProgress: 1/2 jobs\n"
    )
    assert fresh.rnx("status", "--workflow=1").endswith("2 process-data STOPPED -1 setup-data\n")
    assert fresh.rnx("workflow", "follow", "1", status=3).startswith("Workflow 1 STOPPED (1 stopped, 1 completed)")
    assert fresh.rnx("workflow", "delete", "1") == "Workflow deleted successfully:\nID: 1\n"
    assert fresh.rnx("list", "--workflow") == f"ID NAME STATUS PROGRESS\n{RULE}\n"
    gone = fresh.run("status", "--workflow=1")
    assert (gone.returncode, gone.stderr) == (1, "Error: workflow not found: 1\n")


PIPELINE = (
    "parameters: {rows: 3, token: {type: string, secret: true}}\n"
    "environment: {LEVEL: info}\n"
    "jobs:\n"
    + bash("fetch", "cat data/rows.txt > /workflow/data; echo rows=${{ params.rows }} >> $JOBLET_OUTPUT; echo $LEVEL",
           uploads={"files": ["data/rows.txt"]})
    + bash("train", "echo rate ${{ matrix.rate }} of $JOBLET_OUTPUT_FETCH__ROWS", matrix={"rate": [0.1, 0.01]},
           requires=["fetch"], secret_environment={"TOKEN": "${{ params.token }}"})
    + bash("report", "wc -l < /workflow/data", requires=["train"])
    + bash("alarm", "echo alarm", requires=[{"train": "FAILED"}])
)  # fmt: skip


def test_a_pipeline_is_followed_to_its_end(folder: Folder) -> None:
    folder.write("p.yaml", PIPELINE)
    folder.write("data/rows.txt", "1\n2\n3\n")
    flags = ("--workflow=p.yaml", "--param=token=hush", "--follow", "--logs")
    output = folder.rnx("run", *flags)
    workflow_id = re.findall(r"^ID: (\d+)$", output, re.MULTILINE)[0]
    lines = [re.sub(r"^\S+Z |\(job \d+\)", "", line).rstrip() for line in output.splitlines()[5:]]
    logs = {line for line in lines if " | " in line}
    assert logs == {
        *("fetch | info", "train[rate=0.1] | rate 0.1 of 3", "train[rate=0.01] | rate 0.01 of 3", "report | 3"),
    }
    told = [line for line in lines if line not in logs]
    assert f"workflow {workflow_id} RUNNING" in told
    for name in ("fetch", "train[rate=0.1]", "train[rate=0.01]", "report"):
        own = [line.removeprefix(f"{name} ").split()[0].rstrip(":") for line in told if line.startswith(f"{name} ")]
        assert own[-2:] == ["RUNNING", "COMPLETED"], own
    assert any(line.startswith("alarm CANCELED: requires ") for line in told)
    assert told[-1].startswith(f"Workflow {workflow_id} COMPLETED (1 canceled, 4 completed)")
    assert "hush" not in output
    for arguments in (["--json"], ["--verbose"]):
        assert "hush" not in folder.rnx("status", f"--workflow={workflow_id}", *arguments)
    verbose = folder.rnx("status", f"--workflow={workflow_id}", "--verbose")
    assert "\nfetch:\nAttempt: 1/1\n" in verbose
    assert "\nOutput rows: 3\n" in verbose
    told_as_json = json.loads(folder.rnx("status", f"--workflow={workflow_id}", "--json"))
    assert [job["status"] for job in told_as_json["jobs"]] == [*["COMPLETED"] * 4, "CANCELED"]
    assert told_as_json["jobs"][0]["outputs"] == {"rows": "3"}


def test_a_graph_as_it_stands(folder: Folder) -> None:
    jobs = bash("a", "true") + bash("b", "false", requires=["a"]) + bash("c", "true", requires=[{"b": "FAILED"}])
    workflow_id = folder.start("jobs:\n" + jobs + bash("d", "true", requires=["b"]))
    folder.run("workflow", "follow", workflow_id)
    drawn = folder.rnx("workflow", "graph", workflow_id)
    assert drawn.startswith("w.yaml (FAILED)\n\n")
    assert "if b=FAILED" in drawn
    mermaid = folder.rnx("workflow", "graph", workflow_id, "--format=mermaid")
    assert '  n1["b<br/>FAILED"]:::FAILED\n' in mermaid
    assert '  n1 -->|"FAILED"| n2\n  n1 --> n3\n' in mermaid
    assert folder.rnx("workflow", "graph", workflow_id, "--format=svg", "--output=g.svg") == ""
    assert (folder.path / "g.svg").read_text().startswith("<svg ")
    assert folder.rnx("workflow", "graph", "w.yaml").startswith("w.yaml\n\n")


def test_a_failure_is_tried_again(folder: Folder) -> None:
    once = "if [ -e /workflow/been ]; then exit 0; fi; touch /workflow/been; exit 7"
    jobs = bash("first", "echo x >> /workflow/first") + bash("flaky", once, requires=["first"])
    workflow_id = folder.start("jobs:\n" + jobs + bash("last", "cat /workflow/first", requires=["flaky"]))
    ended = folder.run("workflow", "follow", workflow_id)
    assert ended.returncode == 1
    assert "flaky FAILED 7 first\n" in folder.rnx("status", f"--workflow={workflow_id}")
    assert folder.rnx("workflow", "retry", workflow_id).startswith(f"Workflow tried again:\nID: {workflow_id}\n")
    ended = folder.run("workflow", "follow", workflow_id)
    assert ended.returncode == 0
    rows = [line.split()[1:4] for line in folder.rnx("status", f"--workflow={workflow_id}").splitlines()[8:]]
    assert rows == [[name, "COMPLETED", "0"] for name in ("first", "flaky", "last")]
    again = folder.run("workflow", "retry", workflow_id)
    assert again.returncode == 1
    assert again.stderr.startswith("Error: ")
    assert again.stderr.count("\n") == 1


@pytest.mark.parametrize("end", [Server.kill, Server.stop])
def test_a_view_survives_the_restart_of_the_server(fresh: Folder, end: Callable[[Server], object]) -> None:
    workflow_id = fresh.start("jobs:\n" + bash("a", f"echo ready; {UNTIL_GO}") + bash("b", "echo b", requires=["a"]))
    command = fresh.server.rnx_command("workflow", "follow", workflow_id, "--logs")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as view:
        assert view.stdout is not None
        while view.stdout.readline() != "a | ready\n":
            assert view.poll() is None
        end(fresh.server)
        fresh.server.start()
        fresh.go(workflow_id)
        output, errors = view.communicate(timeout=PATIENCE)
    assert (view.returncode, errors) == (0, "")
    assert "b | b\n" in output
    assert output.endswith(f"Workflow {workflow_id} COMPLETED (2 completed)\n")


def test_one_job_of_a_file(folder: Folder) -> None:
    folder.write("w.yaml", "jobs:\n" + bash("a", "exit 1") + bash("b", "echo only me", requires=["a"]))
    output = folder.rnx("run", "--workflow=w.yaml:b", "--follow", "--logs")
    assert "Jobs: 1\n" in output
    assert "b | only me\n" in output


def test_the_same_key_is_the_same_workflow(folder: Folder) -> None:
    text = "jobs:\n" + bash("a", "true")
    first = folder.start(text, f"--job-key={folder.path.name}")
    assert folder.start(text, f"--job-key={folder.path.name}") == first


def test_ctrl_c_on_a_terminal_ends_only_the_view(folder: Folder) -> None:
    workflow_id = folder.start("jobs:\n" + bash("a", UNTIL_GO))
    main, other = pty.openpty()
    command = folder.server.rnx_command("workflow", "follow", workflow_id)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    view = subprocess.Popen(command, stdin=other, stdout=other, stderr=subprocess.PIPE, env=environment)
    os.close(other)
    seen = b""
    while b"RUNNING" not in seen or b"0/1 jobs ended" not in seen:
        ready, _, _ = select.select([main], [], [], PATIENCE)
        assert ready, seen
        seen += os.read(main, 65536)
    view.send_signal(signal.SIGINT)
    _, errors = view.communicate(timeout=PATIENCE)
    os.close(main)
    assert view.returncode == 130
    assert errors.decode() == f"The workflow goes on; to see it again: rnx workflow follow {workflow_id}\n"
    assert "Status: RUNNING\n" in folder.rnx("status", f"--workflow={workflow_id}")
    folder.go(workflow_id)
    assert folder.run("workflow", "follow", workflow_id).returncode == 0


def test_what_has_happened_is_told_once(folder: Folder) -> None:
    workflow_id = folder.start("jobs:\n" + bash("a", "exit 3"))
    folder.run("workflow", "follow", workflow_id)
    lines = folder.rnx("workflow", "events", f"--workflow={workflow_id}", "--json").splitlines()
    events = [json.loads(line) for line in lines]
    sequences = [event["sequence"] for event in events]
    assert sequences == sorted(set(sequences))
    assert {event["workflowId"] for event in events} == {workflow_id}
    assert [event["status"] for event in events if not event["jobName"]][-1] == "FAILED"
    assert [event["status"] for event in events if event["jobName"] == "a"][-2:] == ["RUNNING", "FAILED"]
    rest = folder.rnx("workflow", "events", f"--after={sequences[0]}", f"--workflow={workflow_id}", "--json")
    assert rest.splitlines() == lines[1:]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["status", "--workflow=999999"], "workflow not found: 999999"),
        (["workflow", "follow", "999999"], "workflow not found: 999999"),
        (["workflow", "stop", "999999"], "workflow not found: 999999"),
        (["workflow", "events", "--workflow=999999"], "workflow not found: 999999"),
    ],
)
def test_errors_are_one_line(server: Server, arguments: list[str], text: str) -> None:
    result = server.rnx(*arguments)
    assert (result.returncode, result.stderr) == (1, f"Error: {text}\n")


def test_viewers_may_look_only(folder: Folder) -> None:
    workflow_id = folder.start("jobs:\n" + bash("a", "true"))
    assert folder.run("workflow", "follow", workflow_id, name="viewer").returncode == 0
    for operation, arguments in {
        "run_workflow": ["run", "--workflow=w.yaml"],
        "retry_workflow": ["workflow", "retry", workflow_id],
        "stop_workflow": ["workflow", "stop", workflow_id],
        "delete_workflow": ["workflow", "delete", workflow_id],
    }.items():
        refused = folder.run(*arguments, name="viewer")
        assert refused.stderr == f"Error: role viewer is not allowed to perform operation {operation}\n"


def test_a_job_gets_its_files_and_variables(folder: Folder) -> None:
    folder.write("script.sh", "cat lib/part; echo $PLAIN $HUSH $PWD")
    folder.write("project/lib/part", "part\n")
    flags = ["--upload=script.sh", "--upload-dir=project", "--env=PLAIN=seen", "-s", "HUSH", "--name=nightly"]
    output = folder.rnx("run", *flags, "bash", "script.sh", env={**os.environ, "HUSH": "hidden"})
    job_id = re.findall(r"^ID: (\d+)$", output, re.MULTILINE)[0]
    assert folder.rnx("log", job_id).splitlines()[1:] == ["part", "seen hidden /work"]
    verbose = folder.rnx("status", "--verbose", job_id)
    assert "Name: nightly\nOwner: admin\nEnvironment: PLAIN=seen\nEnvironment: HUSH=***\n" in verbose
    output = folder.rnx("run", "--workdir=a/b", "pwd")
    job_id = re.findall(r"^ID: (\d+)$", output, re.MULTILINE)[0]
    assert folder.rnx("log", job_id).splitlines()[1:] == ["/work/a/b"]


def test_from_python(folder: Folder) -> None:
    certificates = folder.server.certificates
    names = ("admin-cert.pem", "admin-key.pem", "ca-cert.pem")
    config = ClientConfig(f"localhost:{folder.server.port}", *(str(certificates / name) for name in names))

    async def use() -> None:
        async with Client(config) as client:
            jobs = "jobs:\n" + bash("a", "echo n=1 >> $JOBLET_OUTPUT; cat x", uploads={"files": ["x"]})
            workflow = await client.run_workflow("w.yaml", text=jobs, files={"x": b"content"}, retry=True)
            ended = await workflow.wait()
            assert (ended.workflow.status, ended.jobs[0].outputs) == ("COMPLETED", {"n": "1"})
            assert [chunk async for chunk in client.logs(ended.jobs[0].job_id)] == [b"content"]
            events = [event async for event in client.events(workflow=workflow.id, follow=False)]
            assert events[-1].of_workflow
            assert (await client.list_workflows(limit=1))[0].id == workflow.id
            with pytest.raises(InvalidWorkflow):
                await client.run_workflow("w.yaml", text="jobs: {}\n")
            with pytest.raises(InvalidArgument):
                await client.run("cat", "x", uploads=["no-such-file"])

    asyncio.run(use())


def test_the_file_is_checked_before_there_is_a_server(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("jobs:\n  a: {command: a, requires: [b]}\n")
    command = [sys.executable, "-m", "rnx", "--server=127.0.0.1:1", "run", "--workflow=w.yaml"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == 'Error: w.yaml:2: job "a": requires[0]: unknown job "b"\n'
