"""What a job's command can be sent: frames through a FIFO, to its stdin or its terminal."""

from __future__ import annotations

import hashlib
import itertools
import os
import select
import signal
import stat
import struct
from pathlib import Path

import pytest
from shim_harness import Launcher, Shim, job_entries, wait_until

pytest_plugins = ["shim_harness"]

PIPED = [("input", "")]
SMALL = [("terminal", "24 80")]
PAYLOAD = 4092


def frame(kind: str, payload: bytes = b"") -> bytes:
    return struct.pack("=BBH", ord(kind), 0, len(payload)) + payload


class Feeder:
    """A writer of a job's input, as the server is one."""

    def __init__(self, shim: Shim) -> None:
        shim.started()
        self.fd = os.open(shim.directory / "input", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def send(self, kind: str, payload: bytes = b"") -> None:
        """One frame; waits while the FIFO is full."""
        while True:
            try:
                assert os.write(self.fd, frame(kind, payload)) == 4 + len(payload)
            except BlockingIOError:
                self.wait()
            else:
                return

    def fill(self) -> int:
        """Frames until there is no room for more; how many bytes they held."""
        for sent in itertools.count(0, PAYLOAD):
            try:
                os.write(self.fd, frame("d", b"x" * PAYLOAD))
            except BlockingIOError:
                return sent
        raise AssertionError

    def wait(self) -> None:
        poller = select.poll()
        poller.register(self.fd, select.POLLOUT)
        assert poller.poll(30_000)

    def close(self) -> None:
        os.close(self.fd)


def start(launcher: Launcher, *argv: str, how: list[tuple[str, str]]) -> Shim:
    return launcher.start(job_entries(*argv, extra=how, env={"TERM": "xterm"}))


def test_a_pipe_brings_bytes_and_their_end(launcher: Launcher) -> None:
    shim = start(launcher, "cat", how=PIPED)
    feeder = Feeder(shim)
    feeder.send("d", b"one ")
    feeder.send("d", b"two")
    shim.await_log(b"one two")
    feeder.send("e")
    assert shim.wait()["code"] == "0"
    assert shim.log == b"one two"
    feeder.close()


def test_the_fifo_is_the_servers_alone(launcher: Launcher) -> None:
    shim = start(launcher, "cat", how=PIPED)
    feeder = Feeder(shim)
    what = (shim.directory / "input").lstat()
    assert stat.S_ISFIFO(what.st_mode)
    assert (stat.S_IMODE(what.st_mode), what.st_uid) == (0o600, 0)
    feeder.send("e")
    shim.wait()


def test_stdin_can_be_opened_by_its_name(launcher: Launcher) -> None:
    shim = start(launcher, "sh", "-c", "exec cat /dev/stdin", how=PIPED)
    feeder = Feeder(shim)
    feeder.send("d", b"named")
    feeder.send("e")
    assert shim.wait()["code"] == "0"
    assert shim.log == b"named"


def test_input_outlives_its_writers(launcher: Launcher) -> None:
    shim = start(launcher, "cat", how=PIPED)
    for text in (b"first,", b"second,", b"third"):
        feeder = Feeder(shim)
        feeder.send("d", text)
        feeder.close()
        shim.await_log(text)
    feeder = Feeder(shim)
    feeder.send("e")
    assert shim.wait()["code"] == "0"
    assert shim.log == b"first,second,third"


def test_much_input_comes_whole_and_in_order(launcher: Launcher) -> None:
    shim = start(launcher, "sha256sum", how=PIPED)
    feeder = Feeder(shim)
    digest = hashlib.sha256()
    for number in range(2000):
        piece = number.to_bytes(4, "big") * (PAYLOAD // 4)
        digest.update(piece)
        feeder.send("d", piece)
    feeder.send("e")
    assert shim.wait()["code"] == "0"
    assert shim.log.split()[0].decode() == digest.hexdigest()


def test_frames_of_two_writers_do_not_mix(launcher: Launcher) -> None:
    shim = start(launcher, "cat", how=PIPED)
    feeders = [Feeder(shim), Feeder(shim)]
    lines = [b"a" * 1000 + b"\n", b"b" * 3000 + b"\n"]
    for number in range(400):
        feeders[number % 2].send("d", lines[number % 2])
    feeders[0].send("e")
    assert shim.wait()["code"] == "0"
    assert sorted(shim.log.splitlines(keepends=True)) == sorted(lines * 200)


def test_a_job_that_does_not_read_holds_up_its_input_only(launcher: Launcher) -> None:
    code = "import time, signal; print('there', flush=True); signal.pause()"
    shim = start(launcher, "python3", "-c", code, how=PIPED)
    shim.await_log(b"there\n")
    feeder = Feeder(shim)
    assert feeder.fill() >= 32 << 10
    shim.signal(signal.SIGTERM)
    record = shim.wait()
    assert (record["signal"], record["stop"]) == (str(int(signal.SIGTERM)), "term")


@pytest.mark.parametrize("how", [PIPED, SMALL])
def test_output_flows_while_input_waits(launcher: Launcher, how: list[tuple[str, str]]) -> None:
    script = "trap 'echo more; exit 3' TERM; echo there; while :; do sleep 0.01; done"
    shim = start(launcher, "bash", "-c", script, how=how)
    shim.await_log(b"there")
    Feeder(shim).fill()
    shim.signal(signal.SIGTERM)
    assert shim.wait()["code"] == "3"
    assert b"more" in shim.log


def test_who_writes_learns_that_nobody_reads(launcher: Launcher) -> None:
    shim = start(launcher, "bash", "-c", "read word; exec <&-; echo closed; exec sleep 1000", how=PIPED)
    feeder = Feeder(shim)
    feeder.send("d", b"word\n")
    shim.await_log(b"closed")

    def refused() -> bool:
        try:
            os.write(feeder.fd, frame("d", b"x"))
        except BrokenPipeError:
            return True
        return False

    wait_until(refused)
    with pytest.raises(OSError, match="No such device or address"):
        Feeder(shim)
    assert not shim.is_over()


def test_what_is_no_frame_ends_the_input(launcher: Launcher) -> None:
    shim = start(launcher, "cat", how=PIPED)
    feeder = Feeder(shim)
    feeder.send("d", b"fine")
    os.write(feeder.fd, frame("?", b"what") + frame("d", b"too late"))
    assert shim.wait()["code"] == "0"
    assert shim.log == b"fine"


def test_without_input_there_is_no_fifo(launcher: Launcher) -> None:
    shim = launcher.run("cat")
    assert shim.record["code"] == "0"
    assert not (shim.directory / "input").exists()


def test_a_terminal_controls_the_session(launcher: Launcher) -> None:
    code = (
        "import os; print(os.ttyname(0), os.isatty(1), os.isatty(2), os.tcgetpgrp(0) == os.getpgrp(),"
        " os.fstat(os.open('/dev/tty', os.O_RDWR)).st_rdev != 0, os.stat(os.ttyname(0)).st_uid,"
        " sorted(os.listdir('/proc/self/fd'), key=int))"
    )
    shim = start(launcher, "python3", "-c", code, how=SMALL)
    assert shim.wait()["code"] == "0"
    assert shim.log == b"/dev/pts/0 True True True True 0 ['0', '1', '2', '3', '4']\r\n", shim.log


def test_a_terminal_has_a_size_and_gets_another(launcher: Launcher) -> None:
    script = "stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
    shim = start(launcher, "bash", "-c", script, how=[("terminal", "31 117")])
    feeder = Feeder(shim)
    shim.await_log(b"31 117\r\nready\r\n")
    feeder.send("s", struct.pack("=HH", 40, 132))
    assert shim.wait()["code"] == "0"
    assert shim.log.endswith(b"40 132\r\n")


def test_control_c_at_a_terminal_interrupts(launcher: Launcher) -> None:
    shim = start(launcher, "bash", "-c", "echo ready; exec sleep 1000", how=SMALL)
    feeder = Feeder(shim)
    shim.await_log(b"ready")
    feeder.send("d", b"\x03")
    assert shim.wait()["signal"] == str(int(signal.SIGINT))


@pytest.mark.parametrize(("typed", "read"), [(b"line\n", b"b'line\\n'"), (b"half", b"b'half'"), (b"", b"b''")])
def test_the_end_at_a_terminal_ends_the_reading(launcher: Launcher, typed: bytes, read: bytes) -> None:
    code = "import sys; sys.stdout.write('ready\\n'); sys.stdout.flush(); print(sys.stdin.buffer.read())"
    shim = start(launcher, "python3", "-c", code, how=SMALL)
    feeder = Feeder(shim)
    shim.await_log(b"ready")
    if typed:
        feeder.send("d", typed)
    feeder.send("e")
    assert shim.wait()["code"] == "0"
    assert shim.log.rstrip().endswith(read), shim.log


def test_all_output_of_a_terminal_is_kept(launcher: Launcher) -> None:
    shim = start(launcher, "seq", "20000", how=SMALL)
    assert shim.wait()["code"] == "0"
    assert shim.log == b"".join(b"%d\r\n" % number for number in range(1, 20001))


def test_a_terminal_may_be_left_alone_for_a_while(launcher: Launcher) -> None:
    script = "exec </dev/null >/dev/null 2>&1; sleep 0.1; echo back >/dev/tty; exec >/dev/tty; echo again"
    shim = start(launcher, "bash", "-c", script, how=SMALL)
    assert shim.wait()["code"] == "0"
    assert shim.log == b"back\r\nagain\r\n"


def test_a_command_that_is_not_there_has_no_terminal(launcher: Launcher) -> None:
    shim = start(launcher, "not-there", how=SMALL)
    assert shim.report().startswith("failed exec 2 command not found: not-there")
    assert shim.wait()["outcome"] == "failed"


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ([("input", "x")], "input has a value"),
        ([("terminal", "")], "not a size"),
        ([("terminal", "24")], "not a size"),
        ([("terminal", "0 80")], "not a size"),
        ([("terminal", "24 65536")], "not a size"),
        ([("terminal", "24 80 ")], "not a size"),
        ([("terminal", "0000000024 80")], "not a size"),
        ([*PIPED, *SMALL], "a terminal has an input of its own"),
    ],
)
def test_what_is_no_such_order_is_refused(launcher: Launcher, how: list[tuple[str, str]], why: str) -> None:
    shim = start(launcher, "true", how=how)
    assert shim.report().startswith("failed spec")
    assert why in shim.report()
    shim.wait()
    assert not (Path(shim.directory) / "input").exists()
