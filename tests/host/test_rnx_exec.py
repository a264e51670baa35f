"""`rnx exec`, as programs and people at a terminal use it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest
from harness import PATIENCE, Server, Stock, poll_until


@pytest.fixture
def job(client: Stock) -> Iterator[str]:
    """A job that does nothing until it is stopped."""
    job_id = client.started("sleep", "1000").id
    yield job_id
    client.stop(job_id)


def test_streams_and_exit_code_are_the_commands(server: Server, job: str) -> None:
    done = server.rnx("exec", "-e", "WHO=me", job, "sh", "-c", "echo out $WHO; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out me\n", "err\n")
    done = server.rnx("exec", "--workdir=/tmp", job, "pwd")
    assert (done.returncode, done.stdout, done.stderr) == (0, "/tmp\n", "")


def test_input_is_given_only_when_it_is_asked_for(server: Server, job: str) -> None:
    assert server.rnx("exec", "-i", job, "cat", input="line\n" * 100_000).stdout == "line\n" * 100_000
    assert server.rnx("exec", job, "cat", input="line\n").stdout == ""
    done = server.rnx("exec", "-i", job, "head", "-c1", input="x" * 5_000_000)
    assert (done.returncode, done.stdout) == (0, "x")


@pytest.mark.parametrize(
    ("name", "arguments", "status", "sentence"),
    [
        ("admin", ["none-such"], 127, "command not found: none-such"),
        ("admin", ["sh", "-c", "kill -9 $$"], 137, "killed by signal 9 (SIGKILL)"),
        ("admin", ["a;b"], 125, "invalid command: command contains dangerous characters"),
        ("viewer", ["true"], 125, "role viewer is not allowed to perform operation exec_in_job"),
    ],
)
def test_what_goes_wrong(server: Server, job: str, name: str, arguments: list[str], status: int, sentence: str) -> None:
    done = server.rnx("exec", job, *arguments, name=name)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"Error: {sentence}\n")


def test_without_a_terminal_there_is_none_to_hand_on(server: Server, job: str) -> None:
    done = server.rnx("exec", "-it", job, "sh", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (
        125,
        "Error: stdin is no terminal; without -t, -i sends what comes from it\n",
    )


def test_an_interrupted_rnx_ends_the_command(server: Server, job: str) -> None:
    command = server.rnx_command("exec", job, "sh", "-c", "trap 'rm /work/on; exit' HUP; >/work/on; sleep 1000 & wait")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as rnx:
        poll_until(lambda: server.rnx("exec", job, "ls", "/work").stdout == "on\n")
        rnx.send_signal(signal.SIGINT)
        assert rnx.wait(PATIENCE) == 130
    poll_until(lambda: server.rnx("exec", job, "ls", "/work").stdout == "")


def test_a_reader_that_leaves_ends_the_command(server: Server, job: str) -> None:
    command = server.rnx_command("exec", job, "yes")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as rnx:
        assert rnx.stdout is not None
        assert rnx.stdout.readline() == b"y\n"
        rnx.stdout.close()
        assert rnx.wait(PATIENCE) == 141
    poll_until(lambda: "yes" not in server.rnx("exec", job, "ps", "-A", "-o", "comm").stdout)


class Screen:
    """rnx at a terminal of its own."""

    def __init__(self, command: list[str]) -> None:
        self.shown = b""
        self.pid, self.keys = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, command)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.keys, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: bytes) -> None:
        while text not in self.shown:
            ready, _, _ = select.select([self.keys], [], [], PATIENCE)
            assert ready, self.shown
            self.shown += os.read(self.keys, 4096)
        self.shown = self.shown.partition(text)[2]

    def type(self, text: bytes) -> None:
        os.write(self.keys, text)


def test_a_shell_at_a_terminal(server: Server, job: str) -> None:
    screen = Screen(server.rnx_command("exec", "-it", "-e", "PS1=ready> ", job, "sh"))
    before = termios.tcgetattr(screen.keys)
    try:
        screen.until(b"ready> ")
        screen.resize(31, 97)  # of which rnx is told by SIGWINCH
        screen.type(b"until [ \"$(stty size)\" = '31 97' ]; do :; done; tty\r")
        screen.until(b"/dev/pts/0\r\nready> ")
        screen.type(b"cat\rtyped\r")
        screen.until(b"typed\r\ntyped\r\n")  # so that it runs
        screen.type(b"\x03")
        screen.until(b"^C\r\nready> ")
        screen.type(b"exit 9\r")
        screen.until(b"exit 9\r\n")
        assert os.waitstatus_to_exitcode(os.waitpid(screen.pid, 0)[1]) == 9
        assert termios.tcgetattr(screen.keys) == before
    finally:
        os.close(screen.keys)
