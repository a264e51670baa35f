"""What of a command line belongs to rnx, and what to the job's command."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from joblet.client import JobInfo, JobList, StopResult
from rnx import jobs, listing, log, main
from rnx.session import _FLAGS

JOB = JobInfo("1", "c", (), "RUNNING", 0, 0, 0, "", "", 0)


class Asked:
    """Takes the place of the client: remembers the call, and the flags it was to be made with."""

    def __init__(self) -> None:
        self.call: tuple[Any, ...] = ()
        self.flags: dict[str, str] = {}
        self.patience: float | None = None
        self.id = "1"
        self.info = JOB

    def with_client(
        self, ctx: typer.Context, call: Callable[[Any], Awaitable[None]], *, patience: float | None = None
    ) -> None:
        assert ctx.parent is not None
        self.patience = patience
        self.flags = {name: ctx.parent.params[name] for name in _FLAGS if ctx.parent.params[name] is not None}
        asyncio.run(call(self))  # type: ignore[arg-type]

    async def run(self, *command: str, **limits: float | str) -> Asked:
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

    async def stop(self, job_id: str) -> StopResult:
        self.call = ("stop", job_id)
        return StopResult(job_id, "", "", 0)

    async def logs(self, job_id: str, *, follow: bool, reconnect: bool) -> AsyncIterator[bytes]:
        self.call = ("log", job_id, follow)
        assert reconnect
        return
        yield b""


def rnx(*arguments: str) -> Asked:
    asked = Asked()
    with pytest.MonkeyPatch.context() as patch, open(os.devnull, "w") as nowhere:
        patch.setattr(jobs, "with_client", asked.with_client)
        patch.setattr(listing, "with_client", asked.with_client)
        patch.setattr(log, "with_client", asked.with_client)
        patch.setattr(sys, "stdout", nowhere)
        main.app(args=list(arguments), prog_name="rnx", standalone_mode=False)
    return asked


def limits(**asked: float | str) -> dict[str, float | str]:
    numbers = ("max_cpu", "max_memory", "max_iobps", "max_processes", "max_open_files", "max_disk", "priority")
    return {**dict.fromkeys(numbers, 0), "cpu_cores": "", "run_timeout": 0, "key": "", **asked}


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
        ([""], ("",), {}),
    ],
)
def test_run(arguments: list[str], command: tuple[str, ...], asked: dict[str, float | str]) -> None:
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
        (["list"], ("list", 0, "")),
        (["list", "--limit=5", "--before", "77"], ("list", 5, "77")),
        (["list", "--all"], ("list_all", "")),
        (["list", "--all", "--before=9", "--json"], ("list_all", "9")),
        (["timeout", "1", "2h"], ("timeout", "1", 7200)),
        (["delete", "1"], ("delete", "1")),
        (["delete", "3", "1", "2"], ("delete", "3", "1", "2")),
        (["delete", "--all", "--yes"], ("delete_all",)),
        (["delete", "-y", "--all"], ("delete_all",)),
    ],
)
def test_the_others(arguments: list[str], call: tuple[Any, ...]) -> None:
    assert rnx(*arguments).call == call


def test_the_servers_private_key_and_the_jobs_key_are_two_flags() -> None:
    asked = rnx("run", "--key", "k.pem", "--job-key", "nightly", "cmd")
    assert asked.flags == {"key": "k.pem"}
    assert asked.call == (("cmd",), limits(key="nightly"))


@pytest.mark.parametrize("name", _FLAGS)
def test_global_flags_stand_before_or_after_the_command(name: str) -> None:
    assert rnx(f"--{name}=x", "list").flags == {name: "x"}
    assert rnx(f"--{name}", "x", "status", "1").flags == {name: "x"}
    assert rnx("list", f"--{name}=x").flags == {name: "x"}
    assert rnx("status", "1", f"--{name}", "x").flags == {name: "x"}
    assert rnx("run", f"--{name}", "x", "cmd").flags == {name: "x"}
    assert rnx(f"--{name}=a", "list", f"--{name}=b").flags == {name: "b"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command (see rnx --help)"),
        (["bogus"], "No such command 'bogus' (see rnx --help)"),
        (["--bogus", "list"], "No such option"),
        (["run"], "Missing argument 'COMMAND' (see rnx run --help)"),
        (["run", "--bogus", "cmd"], "No such option"),
        (["run", "--max-cpu=x", "cmd"], "--max-cpu"),
        (["status"], "Missing argument 'JOB-ID' (see rnx status --help)"),
        (["status", "1", "2"], "2"),
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
def test_usage_errors_are_one_line(arguments: list[str], message: str) -> None:
    result = subprocess.run([sys.executable, "-m", "rnx", *arguments], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["version"], ["--version"]])
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
