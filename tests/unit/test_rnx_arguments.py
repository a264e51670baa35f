"""What of a command line belongs to rnx, and what to the job's command."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from joblet.client import (
    Downloaded,
    Event,
    JobInfo,
    JobList,
    LogChunk,
    Schedule,
    StopResult,
    WorkflowFile,
    WorkflowInfo,
    WorkflowList,
    WorkflowStatus,
)
from rnx import copy, jobs, listing, log, main, run, workflow
from rnx.session import FLAGS
from rnx.workflow_file import locate

JOB = JobInfo("1", "c", (), "RUNNING", 0, 0, 0, "", "", 0)
INFO = WorkflowInfo("1", "w.yaml", "PENDING", 1, 0, 0, 0, 0, None, None, None)
OnProgress = Callable[[int, int], None]
SECRETS = {"T": "x", "INHERITED": "from rnx"}


class Asked:
    """Takes the place of the client: remembers the call, and the flags it was to be made with."""

    def __init__(self) -> None:
        self.call: tuple[Any, ...] = ()
        self.flags: dict[str, str] = {}
        self.patience: float | None = None
        self.id = "1"
        self.info = JOB

    def with_client(
        self,
        ctx: typer.Context,
        call: Callable[[Any], Awaitable[None]],
        *,
        patience: float | None = None,
        failure: int = 1,
    ) -> None:
        self.patience, self.failure = patience, failure
        given = ctx.find_root().params
        self.flags = {name: given[name] for name in FLAGS if given[name] is not None}
        asyncio.run(call(self))  # type: ignore[arg-type]

    async def run(self, *command: str, **limits: float | str) -> Asked:
        assert callable(limits.pop("on_progress", print))  # rerun has nothing to tell of
        self.call = (command, limits)
        return self

    async def status(self, job_id: str) -> JobInfo:
        self.call = ("status", job_id)
        return JOB

    async def list(self, *, limit: int, before: str) -> JobList:
        self.call = ("list", limit, before)
        return JobList()

    async def list_all(self, *, before: str) -> AsyncIterator[JobInfo]:
        self.call = ("list_all", before)
        return
        yield JOB

    async def set_timeout(self, job_id: str, seconds: float) -> JobInfo:
        self.call = ("timeout", job_id, seconds)
        return JOB

    async def delete(self, job_id: str) -> None:
        self.call = (*(self.call or ("delete",)), job_id)

    async def delete_all(self) -> tuple[int, int]:
        self.call = ("delete_all",)
        return 0, 0

    async def pause(self, job_id: str, verb: str = "pause") -> JobInfo:
        self.call = (*(self.call or (verb,)), job_id)
        return JOB

    async def resume(self, job_id: str) -> JobInfo:
        return await self.pause(job_id, "resume")

    async def stop(self, job_id: str, signal: str, grace: float | None) -> StopResult:
        self.call = (*(self.call or ("stop",)), job_id, *([signal, grace] if signal or grace is not None else []))
        return StopResult(job_id, "", "", 0)

    async def run_workflow(self, file: WorkflowFile, *, key: str, on_progress: OnProgress) -> Asked:
        self.call = ("run_workflow", str(file.path), file.job, dict(file.parameters), key)
        self.info = INFO
        return self

    async def workflow(self, workflow_id: str) -> WorkflowStatus:
        self.call = ("workflow", workflow_id)
        return WorkflowStatus(INFO, (), 0)

    async def download(
        self, job_id: str, path: str, target: Path, *, workflow: bool, on_progress: OnProgress
    ) -> Downloaded:
        self.call = ("cp", job_id, path, target, workflow)
        return Downloaded(target, 1, 1, (), 0)

    async def list_workflows(self, *, limit: int, before: str) -> WorkflowList:
        self.call = ("list_workflows", limit, before)
        return WorkflowList()

    async def list_all_workflows(self, *, before: str) -> AsyncIterator[WorkflowInfo]:
        self.call = ("list_all_workflows", before)
        return
        yield INFO

    async def stop_workflow(self, workflow_id: str) -> WorkflowInfo:
        self.call = ("stop_workflow", workflow_id)
        return INFO

    async def retry_workflow(self, workflow_id: str) -> WorkflowInfo:
        self.call = ("retry_workflow", workflow_id)
        return INFO

    async def delete_workflow(self, workflow_id: str) -> None:
        self.call = (*(self.call or ("delete_workflow",)), workflow_id)

    async def events(self, after: int, *, workflow: str, follow: bool, reconnect: bool) -> AsyncIterator[Event]:
        self.call = ("events", after, workflow, follow)
        assert reconnect is follow
        return
        yield

    async def logs(self, job_id: str, *, follow: bool, reconnect: bool, **part: object) -> AsyncIterator[bytes]:
        asked = {name: value for name, value in part.items() if value not in (None, "")}
        self.call = ("log", job_id, follow, *([asked] if asked else []))
        assert reconnect
        return
        yield b""

    async def log_chunks(self, job_id: str, **part: object) -> AsyncIterator[LogChunk]:
        async for _ in self.logs(job_id, **part):  # type: ignore[arg-type]
            yield LogChunk(b"", 0, ())
        assert self.call
        self.call = ("log with times", *self.call[1:])


def rnx(*arguments: str) -> Asked:
    asked = Asked()
    with pytest.MonkeyPatch.context() as patch, open(os.devnull, "w") as nowhere:
        for commands in (copy, jobs, listing, log, run, workflow):
            patch.setattr(commands, "with_client", asked.with_client)
        patch.setattr(sys, "stdout", nowhere)
        main.app(args=list(arguments), prog_name="rnx", standalone_mode=False)
    return asked


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["7:out/x.csv", "."], ("7", "out/x.csv", Path(), False)),
        (["7:", "new"], ("7", "", Path("new"), False)),
        (["7:./a//b/", "new"], ("7", "a/b", Path("new"), False)),
        (["7:a:b", "C:x"], ("7", "a:b", Path("C:x"), False)),
        (["--workflow", "7:x", "."], ("7", "x", Path(), True)),
    ],
)
def test_cp(arguments: list[str], asked: tuple[object, ...]) -> None:
    assert rnx("cp", *arguments).call == ("cp", *asked)


def finished(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """Exit status, output and errors of the whole program, in this process: to start one takes longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rnx", *arguments])
        with pytest.raises(SystemExit) as end:
            main.main()
    return end.value.code, *capsys.readouterr()


def limits(**asked: Any) -> dict[str, Any]:
    numbers = ("max_cpu", "max_memory", "max_iobps", "max_processes", "max_open_files", "max_disk", "priority")
    texts = ("cpu_cores", "key", "name", "workdir")
    others = {"run_timeout": 0, "environment": {}, "secret_environment": {}, "uploads": []}
    others |= {"stdin": False, "terminal": None, "separate_streams": False}
    later = {"labels": {}, "schedule": "", "retries": 0, "retry_delay": 0}
    return {**dict.fromkeys(numbers, 0), **dict.fromkeys(texts, ""), **others, **later, **asked}


@pytest.mark.parametrize(
    ("arguments", "command", "asked"),
    [
        (["echo", "hello world"], ("echo", "hello world"), {}),
        (["--max-cpu=50", "python3", "script.py"], ("python3", "script.py"), {"max_cpu": 50}),
        (["--max-memory=1024", "java", "-jar", "app.jar"], ("java", "-jar", "app.jar"), {"max_memory": 1024}),
        (["bash", "-c", "sleep 10 && echo done"], ("bash", "-c", "sleep 10 && echo done"), {}),
        (["python3", "-u", "x.py", "--max-cpu=1"], ("python3", "-u", "x.py", "--max-cpu=1"), {}),
        (["python3", "--help"], ("python3", "--help"), {}),
        (["git", "--", "x"], ("git", "--", "x"), {}),
        (["--", "cmd", "--max-cpu=1"], ("cmd", "--max-cpu=1"), {}),
        (["--", "--odd", "x"], ("--odd", "x"), {}),
        (["--max-iobps", "7", "--", "cmd", "--"], ("cmd", "--"), {"max_iobps": 7}),
        (["--max-cpu", "-1", "cmd", ""], ("cmd", ""), {"max_cpu": -1}),
        (["--cpu-cores=0-3,5", "--max-processes=9", "cmd"], ("cmd",), {"cpu_cores": "0-3,5", "max_processes": 9}),
        (["--max-open-files=20", "--max-disk=64", "cmd"], ("cmd",), {"max_open_files": 20, "max_disk": 64}),
        (["--timeout=1h30m", "--priority", "-5", "cmd"], ("cmd",), {"run_timeout": 5400, "priority": -5}),
        (["--job-key=a b", "--timeout", "250ms", "cmd"], ("cmd",), {"key": "a b", "run_timeout": 0.25}),
        (["cmd", "--server", "x", "--version"], ("cmd", "--server", "x", "--version"), {}),
        (["cmd", "--workflow=x", "-f"], ("cmd", "--workflow=x", "-f"), {}),
        (["--name=nightly", "--workdir", "a/b", "cmd"], ("cmd",), {"name": "nightly", "workdir": "a/b"}),
        (["-e", "A=1=2", "--env=B=", "cmd"], ("cmd",), {"environment": {"A": "1=2", "B": ""}}),
        (["-e", "INHERITED", "cmd"], ("cmd",), {"environment": {"INHERITED": "from rnx"}}),
        (["-s", "T=x", "--secret-env", "INHERITED", "cmd"], ("cmd",), {"secret_environment": SECRETS}),
        (["--upload", __file__, "--upload-dir=.", "cmd"], ("cmd",), {"uploads": [Path(__file__), Path()]}),
        (["--label=a=b=c", "--label", "d", "cmd"], ("cmd",), {"labels": {"a": "b=c", "d": ""}}),
        (["--schedule=1h", "--retries=3", "cmd"], ("cmd",), {"schedule": Schedule("1h"), "retries": 3}),
        (
            ["--schedule", "0 3 * * *", "--timezone=Europe/Berlin", "--overlap=queue", "--catch-up=none", "cmd"],
            ("cmd",),
            {"schedule": Schedule("0 3 * * *", "Europe/Berlin", "queue", 0, "none")},
        ),
        (["--schedule=@daily", "--jitter=30s", "cmd"], ("cmd",), {"schedule": Schedule("@daily", jitter_ms=30_000)}),
        (["--retries=1", "--retry-delay=250ms", "cmd"], ("cmd",), {"retries": 1, "retry_delay": 0.25}),
        (["--separate", "cmd"], ("cmd",), {"separate_streams": True}),
        ([""], ("",), {}),
    ],
)
def test_run(
    arguments: list[str], command: tuple[str, ...], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHERITED", "from rnx")
    assert rnx("run", *arguments).call == (command, limits(**asked))


@settings(deadline=None)  # each example runs an event loop
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_all_that_follows_the_command_is_passed_on(arguments: list[str]) -> None:
    assert rnx("run", "--max-cpu=5", "cmd", *arguments).call == (("cmd", *arguments), limits(max_cpu=5))


@settings(deadline=None)  # each example runs an event loop
@given(st.lists(st.sampled_from(["--", "-f", "--help", "--max-cpu=1", "--server", "-", "x"]), min_size=1))
def test_all_that_follows_two_dashes_is_the_command(arguments: list[str]) -> None:
    assert rnx("run", "--", *arguments).call == (tuple(arguments), limits())


@pytest.mark.parametrize(
    ("arguments", "follow"),
    [
        (["1"], True),
        (["-f", "1"], True),
        (["--follow", "1"], True),
        (["1", "-f"], True),
        (["--follow=true", "1"], True),
        (["--follow=false", "1"], False),
        (["--follow=False", "1"], False),
        (["-f=false", "1"], False),
        (["--follow=0", "1"], False),
        (["1", "--follow=false"], False),
        (["--no-follow", "1"], False),
    ],
)
def test_log(arguments: list[str], follow: bool) -> None:
    assert rnx("log", *arguments).call == ("log", "1", follow)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--tail=5"], {"tail": 5}),
        (["--tail", "0"], {"tail": 0}),
        (["--grep=^E.*x"], {"grep": "^E.*x"}),
        (["--since=1h30m"], {"since": timedelta(minutes=90)}),
        (["--since=0s", "--tail=1"], {"since": timedelta(0), "tail": 1}),
        (["--until", "2024-01-15T10:30:00.5Z"], {"until": datetime(2024, 1, 15, 10, 30, 0, 500_000, UTC)}),
        (["--since=2024-01-15T10:30:00+02:00"], {"since": datetime(2024, 1, 15, 8, 30, tzinfo=UTC)}),
    ],
)
def test_part_of_a_log(arguments: list[str], part: dict[str, object]) -> None:
    assert rnx("log", *arguments, "1").call == ("log", "1", True, part)
    assert rnx("log", "-t", *arguments, "1").call == ("log with times", "1", True, part)


def test_an_id_may_look_like_a_flag() -> None:
    assert rnx("log", "--", "--follow=false").call == ("log", "--follow=false", True)


@pytest.mark.parametrize(("arguments", "patience"), [([], 60), (["--reconnect=2m"], 120), (["--reconnect", "0s"], 0)])
def test_how_long_log_tries_to_reconnect(arguments: list[str], patience: float) -> None:
    assert rnx("log", *arguments, "1").patience == patience


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["status", "1"], ("status", "1")),
        (["stop", "1"], ("stop", "1")),
        (["stop", "1", "2", "1"], ("stop", "1", "2")),
        (["stop", "--signal=INT", "--grace", "5s", "1"], ("stop", "1", "INT", 5.0)),
        (["stop", "--grace=0s", "1"], ("stop", "1", "", 0.0)),
        (["pause", "1", "2"], ("pause", "1", "2")),
        (["resume", "1", "2"], ("resume", "1", "2")),
        (["list"], ("list", 0, "")),
        (["list", "--limit=5", "--before", "77"], ("list", 5, "77")),
        (["list", "--all"], ("list_all", "")),
        (["list", "--all", "--before=9", "--json"], ("list_all", "9")),
        (["timeout", "1", "2h"], ("timeout", "1", 7200)),
        (["delete", "1"], ("delete", "1")),
        (["delete", "3", "1", "2"], ("delete", "3", "1", "2")),
        (["delete", "--all", "--yes"], ("delete_all",)),
        (["delete", "-y", "--all"], ("delete_all",)),
        (["status", "--workflow", "7"], ("workflow", "7")),
        (["status", "--workflow=7", "--json"], ("workflow", "7")),
        (["list", "--workflow"], ("list_workflows", 0, "")),
        (["list", "--workflow", "--limit=5", "--before=9"], ("list_workflows", 5, "9")),
        (["list", "--all", "--workflow"], ("list_all_workflows", "")),
        (["workflow", "stop", "7"], ("stop_workflow", "7")),
        (["workflow", "retry", "7"], ("retry_workflow", "7")),
        (["workflow", "delete", "7", "8"], ("delete_workflow", "7", "8")),
        (["workflow", "graph", "7"], ("workflow", "7")),
        (["workflow", "events"], ("events", 0, "", False)),
        (["workflow", "events", "-f", "--after=3", "--workflow=7", "--json"], ("events", 3, "7", True)),
    ],
)
def test_the_others(arguments: list[str], call: tuple[Any, ...]) -> None:
    assert rnx(*arguments).call == call


def test_the_servers_private_key_and_the_jobs_key_are_two_flags() -> None:
    asked = rnx("run", "--key", "k.pem", "--job-key", "nightly", "cmd")
    assert asked.flags == {"key": "k.pem"}
    assert asked.call == (("cmd",), limits(key="nightly"))


@pytest.mark.parametrize("name", FLAGS)
def test_global_flags_stand_before_or_after_the_command(name: str) -> None:
    assert rnx(f"--{name}=x", "list").flags == {name: "x"}
    assert rnx(f"--{name}", "x", "status", "1").flags == {name: "x"}
    assert rnx("list", f"--{name}=x").flags == {name: "x"}
    assert rnx("status", "1", f"--{name}", "x").flags == {name: "x"}
    assert rnx("run", f"--{name}", "x", "cmd").flags == {name: "x"}
    assert rnx("workflow", "stop", "1", f"--{name}=x").flags == {name: "x"}
    assert rnx(f"--{name}=x", "workflow", "stop", "1").flags == {name: "x"}
    assert rnx(f"--{name}=a", "list", f"--{name}=b").flags == {name: "b"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command (see rnx --help)"),
        (["bogus"], "No such command 'bogus' (see rnx --help)"),
        (["--bogus", "list"], "No such option"),
        (["run"], "Missing argument 'COMMAND', or --workflow=FILE (see rnx run --help)"),
        (["run", "--workflow=w.yaml", "cmd"], "give either COMMAND or --workflow (see rnx run --help)"),
        (["run", "--workflow=w.yaml", "--max-cpu=5"], "--max-cpu is of single jobs"),
        (["run", "--workflow=w.yaml", "-e", "A=1"], "--env is of single jobs"),
        (["run", "--workflow=w.yaml", "--logs"], "--logs needs --follow"),
        (["run", "--workflow=w.yaml", "--dry-run", "-f"], "give either --dry-run or --follow"),
        (["run", "--param", "a=1", "cmd"], "--param needs --workflow"),
        (["run", "--logs", "cmd"], "--logs needs --workflow"),
        (["run", "--workflow=w.yaml", "--dry-run", "--wait"], "give either --dry-run or --wait"),
        (["wait"], "Missing argument 'JOB-ID"),
        (["run", "-s", "NO_SUCH_VARIABLE", "cmd"], "no variable 'NO_SUCH_VARIABLE' in the environment, and no =VALUE"),
        (["run", "-e", "=x", "cmd"], "expected NAME=VALUE"),
        (["run", "--label==x", "cmd"], "expected NAME=VALUE"),
        (["run", "--label=a", "--label=a=b", "cmd"], "'a' is given twice"),
        (["run", "--overlap=skip", "cmd"], "--overlap needs --schedule"),
        (["run", "--retry-delay=1s", "cmd"], "--retry-delay needs --retries"),
        (["run", "--schedule=@daily", "--overlap=both", "cmd"], "'both' is none of skip, queue, allow, replace"),
        (["run", "-e", "A=1", "-e", "A=2", "cmd"], "'A' is given twice"),
        (["run", "--upload=no-such-file", "cmd"], "no-such-file"),
        (["status", "--workflow=1", "2"], "give either JOB-ID or --workflow=ID"),
        (["workflow"], "Missing command (see rnx workflow --help)"),
        (["workflow", "graph", "--format=png", "1"], "png"),
        (["workflow", "events", "--after=-1"], "--after"),
        (["run", "--bogus", "cmd"], "No such option"),
        (["run", "--max-cpu=x", "cmd"], "--max-cpu"),
        (["status"], "Missing argument 'JOB-ID', or --workflow=ID (see rnx status --help)"),
        (["status", "1", "2"], "2"),
        (["log", "--tail=-1", "1"], "--tail"),
        (["log", "--since=soon", "1"], 'neither a duration nor a time: "soon"'),
        (["log", "--until=2024-01-15T10:30:00", "1"], 'neither a duration nor a time: "2024-01-15T10:30:00"'),
        (["log", "--since=99999999999999d", "1"], "neither a duration nor a time"),
        (["log", "--follow=maybe", "1"], "'maybe' is neither true nor false"),
        (["list", "1"], "1"),
        (["list", "--limit=0"], "--limit"),
        (["list", "--limit=1", "--all"], "give either --limit or --all (see rnx list --help)"),
        (["run", "--timeout=5", "cmd"], 'not a duration: "5"'),
        (["log", "--reconnect=soon", "1"], 'not a duration: "soon"'),
        (["timeout", "1"], "Missing argument 'DURATION' (see rnx timeout --help)"),
        (["timeout", "1", "1x"], 'not a duration: "1x"'),
        (["delete"], "give either the ids of jobs or --all (see rnx delete --help)"),
        (["delete", "--all", "1"], "give either the ids of jobs or --all"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, errors = finished(capsys, *arguments)
    assert (status, output) == (2, "")
    assert errors.startswith("Error: ")
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["workflow", "--help"], ["version"], ["--version"]]
)
def test_help_and_version_need_no_server(arguments: list[str]) -> None:
    code = (
        "import sys; from rnx.main import main\n"
        "try: main()\n"
        "except SystemExit as end: status = end.code\n"
        "heavy = {'grpclib', 'betterproto2', 'cryptography', 'rich', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


def test_settings_that_cannot_be_used_are_one_line() -> None:
    command = [sys.executable, "-m", "rnx", "--server=host:port", "--cert=none.pem", "list"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: invalid server address 'host:port': the port must be a number from 1 to 65535\n"


def test_a_bug_is_told_in_one_line_unless_debugging() -> None:
    code = (
        "import rnx.listing, rnx.main\n"
        "def broken(*_): raise ZeroDivisionError('two\\nlines')\n"
        "rnx.listing.with_client = broken\n"
        "rnx.main.main()"
    )
    command = [sys.executable, "-c", code, "list"]
    environment = {name: value for name, value in os.environ.items() if name != "JOBLET_DEBUG"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "Error: internal error: ZeroDivisionError: two\\nlines\n")
    debug = subprocess.run(
        command, env={**environment, "JOBLET_DEBUG": "1"}, capture_output=True, text=True, check=False
    )
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr


def test_a_closed_stdout_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "rnx", "version"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "rnx", "version"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (1, b"Error: cannot write output: No space left on device\n")


WORKFLOW = """\
parameters: {epochs: 3}
jobs:
  fetch: {command: fetch}
  train: {command: train, args: ["${{ params.epochs }}"], requires: [fetch]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a workflow in `w.yaml`."""
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "job", "parameters", "key"),
    [
        (["--workflow=w.yaml"], "", {}, ""),
        (["--workflow", "w.yaml:train"], "train", {}, ""),
        (["--param=epochs=7", "--workflow=w.yaml", "--job-key=k"], "", {"epochs": "7"}, "k"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_run_workflow(arguments: list[str], job: str, parameters: dict[str, str], key: str) -> None:
    assert rnx("run", *arguments).call == ("run_workflow", "w.yaml", job, parameters, key)


def test_a_file_of_the_whole_name_wins_over_a_job(folder: Path) -> None:
    assert locate("w.yaml") == (Path("w.yaml"), "")
    assert locate("w.yaml:train") == (Path("w.yaml"), "train")
    (folder / "w.yaml:train").touch()
    assert locate("w.yaml:train") == (Path("w.yaml:train"), "")
    assert locate("missing.yaml:train") == (Path("missing.yaml"), "train")
    assert locate("missing.yaml:") == (Path("missing.yaml:"), "")
    assert locate(":train") == (Path(":train"), "")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["C:w.yaml", "C:/flows/w.yaml", "c:\\flows\\w.yaml", "flows:1/w.yaml"])
def test_a_drive_and_a_directory_are_no_file(name: str) -> None:
    assert locate(name) == (Path(name), "")


@pytest.mark.parametrize("command", [["run", "--workflow=w.yaml"], ["workflow", "validate", "w.yaml"]])
def test_faults_of_a_file_are_a_line_each_and_need_no_server(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "w.yaml").write_text("jobs:\n  a: {comand: x, command: a}\n  b: {command: b, requires: [c]}\n")
    status, output, errors = finished(capsys, *command)
    assert (status, output) == (1, "")
    assert errors == (
        'Error: w.yaml:2: job "a": comand: unknown key (did you mean command?)\n'
        'Error: w.yaml:3: job "b": requires[0]: unknown job "c"\n'
    )


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "--workflow=missing.yaml"], "cannot read missing.yaml: no such file or directory"),
        (["run", "--workflow=."], "cannot read .: is a directory"),
        (["workflow", "graph", "missing.yaml"], "cannot read missing.yaml: no such file or directory"),
        (["workflow", "graph", "w.yaml", "--output=none/x.svg"], "cannot write none/x.svg: No such file or directory"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finished(capsys, *arguments) == (1, "", f"Error: {text}\n")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["workflow", "validate", "w.yaml"], "w.yaml: 2 jobs, valid\n"),
        (["workflow", "validate", "w.yaml:train"], "w.yaml: 1 job, valid\n"),
        (
            ["run", "--workflow=w.yaml", "--dry-run"],
            "w.yaml: 2 jobs in 2 waves, if all complete\n\nWave 1:\n  fetch\n\nWave 2:\n  train  after fetch\n",
        ),
        (
            ["workflow", "graph", "w.yaml", "--format=mermaid"],
            'flowchart LR\n  n0["fetch"]\n  n1["train"]\n  n0 --> n1\n',
        ),
    ],
)
def test_what_needs_no_server(arguments: list[str], output: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert finished(capsys, *arguments) == (0, output, "")


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = finished(capsys, "workflow", "schema")
    assert (status, json.loads(output)["type"]) == (0, "object")


@pytest.mark.parametrize("arguments", [["list"], ["status", "1"], ["run", "cmd"]])
def test_single_jobs_load_nothing_of_workflows(arguments: list[str]) -> None:
    code = (
        "import sys; from rnx.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print({'rich', 'yaml', 'joblet.workflow.plan', 'rnx.graph'} & set(sys.modules))"
    )
    # no settings file, and nobody who answers
    command = [sys.executable, "-c", code, "--server=127.0.0.1:1", "--cert=x", "--key=x", "--ca=x", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
