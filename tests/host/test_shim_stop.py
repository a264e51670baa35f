"""The real shim, driven through its protocol: how a job is stopped that the server has said more about."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from held_up import holding_up
from shim_harness import TIMEOUT, UID_BASE, Launcher, Shim, job_entries, processes_of

pytest_plugins = ["shim_harness"]

NAMES = ("TERM", "INT", "HUP", "QUIT", "ABRT", "USR1", "USR2", "ALRM", "WINCH")
TELLS = f"""
import os, signal, time
def on(name, then):
    def say(*_):
        os.write(1, name.encode() + b"\\n")
        then()
    signal.signal(getattr(signal, "SIG" + name), say)
for name in {NAMES}:
    on(name, lambda: None)
"""
"""a program that says which signals it gets"""
WAITS = "\nos.write(1, b'ready\\n')\nwhile True: signal.pause()"


def ending_at(name: str) -> str:
    return f"{TELLS}on('{name}', lambda: os._exit(5)){WAITS}"


def wish(shim: Shim, number: int, grace_ms: int) -> None:
    say(shim.directory, f"signal={number}\ngrace_ms={grace_ms}\n")


def say(directory: Path, text: str) -> None:
    (directory / ".stop").write_text(text)
    os.rename(directory / ".stop", directory / "stop")


def started(launcher: Launcher, code: str, **changes: str) -> Shim:
    shim = launcher.start(job_entries("python3", "-c", code, **changes))
    shim.started()
    shim.await_log(b"ready\n")
    return shim


@contextmanager
def launch_that_waits(launcher: Launcher) -> Iterator[Shim]:
    """For its program, until the end of the block."""
    directory = launcher.make_directory()
    program = Path(shutil.copy("/bin/true", directory / "work/slow"))
    with holding_up(program) as wanted:
        shim = launcher.start(job_entries("/work/slow"), directory)
        assert wanted(TIMEOUT)
        yield shim


@pytest.mark.parametrize("name", NAMES)
def test_the_job_gets_the_signal_that_was_asked_for(launcher: Launcher, name: str) -> None:
    shim = started(launcher, ending_at(name))
    wish(shim, signal.Signals[f"SIG{name}"], 60_000)
    shim.signal(signal.SIGTERM)
    record = shim.wait()
    assert (record["code"], record["stop"]) == ("5", "term")
    assert shim.log == f"ready\n{name}\n".encode()


def test_a_signal_without_a_handler_ends_it(launcher: Launcher) -> None:
    shim = started(launcher, f"import os, signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL){WAITS}")
    wish(shim, signal.SIGINT, 60_000)
    shim.signal(signal.SIGTERM)
    record = shim.wait()
    assert (record["outcome"], record["signal"], record["stop"]) == ("signaled", "2", "term")


def test_after_the_grace_that_was_asked_for_it_is_killed(launcher: Launcher) -> None:
    shim = started(launcher, f"{TELLS}{WAITS}", grace_ms="60000")
    began = time.monotonic()
    wish(shim, signal.SIGINT, 150)
    shim.signal(signal.SIGTERM)
    assert shim.wait()["stop"] == "kill"
    assert 0.15 <= time.monotonic() - began < 30
    assert shim.log == b"ready\nINT\n"


def test_no_grace_is_no_signal_before_the_kill(launcher: Launcher) -> None:
    shim = started(launcher, f"{TELLS}{WAITS}")
    wish(shim, signal.SIGINT, 0)
    shim.signal(signal.SIGTERM)
    assert shim.wait()["stop"] == "kill"
    assert shim.log == b"ready\n"


def test_another_wish_shortens_the_grace_and_the_same_one_does_nothing(launcher: Launcher) -> None:
    shim = started(launcher, f"{TELLS}{WAITS}")
    wish(shim, signal.SIGINT, 600_000)
    shim.signal(signal.SIGTERM)
    shim.await_log(b"INT\n")
    shim.signal(signal.SIGTERM)
    wish(shim, signal.SIGHUP, 900_000)  # longer: only the signal is new
    shim.signal(signal.SIGTERM)
    shim.await_log(b"HUP\n")
    wish(shim, signal.SIGHUP, 100)
    shim.signal(signal.SIGTERM)
    assert shim.wait()["stop"] == "kill"
    assert shim.log == b"ready\nINT\nHUP\nHUP\n"


def test_a_grace_is_never_lengthened(launcher: Launcher) -> None:
    shim = started(launcher, f"{TELLS}{WAITS}")
    began = time.monotonic()
    wish(shim, signal.SIGINT, 300)
    shim.signal(signal.SIGTERM)
    shim.await_log(b"INT\n")
    wish(shim, signal.SIGHUP, 600_000)
    shim.signal(signal.SIGTERM)
    assert shim.wait()["stop"] == "kill"
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("text", ["", "signal=2\n", "grace_ms=5\nsignal=2\n", "signal=65\ngrace_ms=5\n", "signal=0\n\n",
                                  "signal=2\ngrace_ms=4294967295\n", "signal=x\ngrace_ms=1\n"])  # fmt: skip
def test_a_wish_that_cannot_be_read_is_none(launcher: Launcher, text: str) -> None:
    shim = started(launcher, ending_at("TERM"))
    say(shim.directory, text)
    shim.signal(signal.SIGTERM)
    assert shim.wait()["stop"] == "term"
    assert shim.log == b"ready\nTERM\n"


def test_a_wish_is_not_followed_anywhere_else(launcher: Launcher, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("signal=2\ngrace_ms=0\n")
    shim = started(launcher, ending_at("TERM"))
    (shim.directory / "stop").symlink_to(elsewhere)
    shim.signal(signal.SIGTERM)
    assert shim.wait()["stop"] == "term"


def test_what_the_job_sends_to_its_own_init_is_as_before(launcher: Launcher) -> None:
    """SIGTERM is forwarded; others do nothing, as to any process 1."""
    sends = f"for name in {NAMES[::-1]}: os.kill(1, getattr(signal, 'SIG' + name))"
    shim = launcher.start(job_entries("python3", "-c", f"{TELLS}on('TERM', lambda: os._exit(5))\n{sends}{WAITS}"))
    assert shim.wait()["code"] == "5"
    assert shim.log.replace(b"ready\n", b"") == b"TERM\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_launch_that_waits_can_be_stopped(launcher: Launcher, number: signal.Signals) -> None:
    with launch_that_waits(launcher) as shim:
        shim.signal(number)
        record = shim.wait()
    assert shim.report() == f"failed stopped {errno.ECANCELED} stopped while it was being started\n"
    assert (record["outcome"], record["stage"], record["stop"]) == ("failed", "stopped", "kill")
    assert record["reason"] == "stopped while it was being started"
    assert shim.log == b""
    assert processes_of(UID_BASE) == []


def test_a_launch_that_waits_goes_on_when_it_can(launcher: Launcher) -> None:
    with launch_that_waits(launcher) as shim:
        assert shim.log == b""
    assert shim.wait()["code"] == "0"
