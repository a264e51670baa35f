"""Another command for a running job: what may be asked for, what its init is told, what it answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.command import Command, check
from joblet.errors import InvalidArgument
from joblet.executor.base import CommandEnd
from joblet.executor.local.exec import _end_of, encode
from joblet.job import Job, Limits, State, Terminal

JOB = Job(
    *(7, "sleep", ("1",), Limits(100, 64, 0), State.RUNNING),
    owner="a",
    created_at=1,
    environment={"A": "job", "B": "job"},
    secret_environment={"S": "secret"},
    workdir="inner",
)


def pairs(command: Command) -> list[tuple[str, str]]:
    text = encode(JOB, command)
    assert text.endswith(b"\0")
    return [(key, value) for key, _, value in (entry.decode().partition("=") for entry in text.split(b"\0")[:-1])]


def test_it_has_the_jobs_environment_under_its_own() -> None:
    told = pairs(Command("echo", ("a", "b=c"), {"B": "own", "C": "own"}))
    environment = dict(value.split("=", 1) for key, value in told if key == "env")
    own = {"A": "job", "B": "own", "C": "own", "S": "secret", "PWD": "/work/inner", "JOBLET_JOB_ID": "7"}
    assert environment.items() >= own.items()
    assert "TERM" not in environment
    assert [value for key, value in told if key == "arg"] == ["echo", "a", "b=c"]
    assert [told[0], told[-1]] == [("cwd", "/work/inner"), ("end", "")]


def test_its_directory_is_below_the_work_directory_or_absolute() -> None:
    assert pairs(Command("true", workdir="other"))[0] == ("cwd", "/work/other")
    assert pairs(Command("true", workdir="/tmp"))[0] == ("cwd", "/tmp")


def test_a_terminal_has_a_kind_unless_the_environment_says_so() -> None:
    assert ("env", "TERM=xterm") in pairs(Command("true", terminal=Terminal(1, 2)))
    assert pairs(Command("true", terminal=Terminal(1, 2)))[1:3] == [("rows", "1"), ("columns", "2")]
    assert ("env", "TERM=vt100") in pairs(Command("true", terminal=Terminal(1, 2, "vt100")))
    assert ("env", "TERM=dumb") in pairs(
        Command("true", environment={"TERM": "dumb"}, terminal=Terminal(1, 2, "vt100"))
    )


@pytest.mark.parametrize(
    "command",
    [
        Command(""),
        Command("true", ("\0",)),
        Command("true", environment={"JOBLET_X": "1"}),
        Command("true", workdir="a/../b"),
        Command("true", terminal=Terminal(0, 80)),
        Command("true", terminal=Terminal(24, 65536)),
        Command("true", terminal=Terminal(24, 80, "x" * 65)),
    ],
)
def test_what_may_not_be_asked_for(command: Command) -> None:
    with pytest.raises(InvalidArgument):
        check(command)
    check(Command("true", ("",), {"X": "\n"}, "/tmp", stdin=True, terminal=Terminal(1, 65535, "xterm-256color")))


@pytest.mark.parametrize(
    ("packet", "end"),
    [
        (b"exited 0\n", CommandEnd(0, "exit code 0")),
        (b"exited 255\n", CommandEnd(255, "exit code 255")),
        (b"signaled 15\n", CommandEnd(143, "killed by signal 15 (SIGTERM)")),
        (b"failed exec 2 command not found: x\n", CommandEnd(127, "command not found: x")),
        (b"failed terminal 28 cannot open a terminal: no space left on device\n",
         CommandEnd(126, "cannot open a terminal: no space left on device")),
    ],
)  # fmt: skip
def test_what_the_init_says_of_its_end(packet: bytes, end: CommandEnd) -> None:
    assert _end_of(packet) == end


@given(st.binary(max_size=64))
def test_nothing_that_comes_instead_confuses_it(packet: bytes) -> None:
    assert 0 <= _end_of(packet).code <= 255 + 128
