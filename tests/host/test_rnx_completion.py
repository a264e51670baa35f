"""Shell completion: what is offered where, live ids included, and silence where no server is."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import PATIENCE, Server, Stock

from rnx import main


def offered(capsys: pytest.CaptureFixture[str], line: str, shell: str = "fish") -> list[str]:
    """The words that may stand at the end of a line, in this process; `''` is an empty word."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rnx", "complete", shell, "--", *shlex.split(line)])
        with pytest.raises(SystemExit) as end:
            main.main()
    told = capsys.readouterr()
    assert (end.value.code, told.err) == (0, "")
    return [found.partition("\t")[0] for found in told.out.splitlines()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("st", ["status", "stop"]),
        ("comp", ["completion"]),
        ("workflow val", ["validate"]),
        ("--nod", ["--node"]),
        ("list --si", ["--since"]),
        ("list --limit 5 --si", ["--since"]),
        ("list --status F", ["FAILED"]),
        ("list --status=FA", ["--status=FAILED"]),
        ("list --sort max", ["maxCPU", "maxMemory", "maxIOBPS", "maxProcesses", "maxOpenFiles", "maxDisk"]),
        ("run --max-c", ["--max-cpu"]),
        ("run ls --max-c", []),
        ("run ''", []),
        ("run --workflow ''", []),
        ("completion ''", ["bash", "zsh", "fish"]),
        ("workflow graph --format m", ["mermaid"]),
        ("nonsense ''", []),
        ("version x ''", []),
    ],
)
def test_what_is_offered(capsys: pytest.CaptureFixture[str], line: str, words: list[str]) -> None:
    assert offered(capsys, line) == words


def test_forms_of_the_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert offered(capsys, "list --status = FA", "bash") == ["FAILED"]
    assert offered(capsys, "list --status =", "bash")[:2] == ["PENDING", "SCHEDULED"]
    assert offered(capsys, "list --sort stat", "zsh") == ["status"]
    assert offered(capsys, "versi", "zsh") == ["version:Show the version."]


def test_live_ids(capsys: pytest.CaptureFixture[str], server: Server, client: Stock, tmp_path: Path) -> None:
    running = client.started("sleep", "1000").id
    ended = client.run("true").id
    client.output(ended)
    (tmp_path / "w.yaml").write_text("jobs: {a: {command: 'true'}}\n")
    server.rnx("run", "--workflow=w.yaml", "--wait", cwd=tmp_path)
    command, *flags = server.rnx_command()[2:]
    assert command == "rnx"
    connection = shlex.join(flags)
    assert {running, ended} <= set(offered(capsys, f"{connection} log ''"))
    assert offered(capsys, f"{connection} log {ended}")[0] == ended
    waited = offered(capsys, f"wait {connection} ''")
    assert running in waited
    assert ended not in waited
    assert "1" in offered(capsys, f"{connection} why --workflow ''")
    assert "1" in offered(capsys, f"{connection} workflow retry ''")
    client.stop(running)


def test_it_is_quick_and_silent_where_no_server_is(capsys: pytest.CaptureFixture[str], server: Server) -> None:
    flags = [flag for flag in server.rnx_command()[3:] if not flag.startswith("--server")]
    began = time.monotonic()
    # 192.0.2.0/24 is for documentation: nothing answers there, nothing refuses
    for address in ("192.0.2.1:50051", "127.0.0.1:1", "no such address"):
        assert offered(capsys, f"{shlex.join([*flags, f'--server={address}'])} stop ''") == []
    assert offered(capsys, "--cert=none.pem stop ''") == []
    assert offered(capsys, "--config=none.yml --node ''") == []
    assert time.monotonic() - began < PATIENCE


def test_bash_completes(tmp_path: Path) -> None:
    (tmp_path / "rnx").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m rnx "$@"\n')
    (tmp_path / "rnx").chmod(0o755)
    script = (
        f'PATH={shlex.quote(str(tmp_path))}:"$PATH"\nsource <(rnx completion bash)\n'
        "COMP_WORDS=(rnx list --status = FA); COMP_CWORD=4; _rnx\n"
        'echo "${COMPREPLY[*]}"\nCOMP_WORDS=(rnx sta); COMP_CWORD=1; _rnx; echo "${COMPREPLY[*]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (done.stdout, done.stderr) == ("FAILED\nstatus\n", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_have_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rnx", "completion", shell])
        with pytest.raises(SystemExit):
            main.main()
    assert f"rnx complete {shell} -- " in capsys.readouterr().out
