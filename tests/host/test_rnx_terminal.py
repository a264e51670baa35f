"""`rnx run -it` and `rnx attach` in a real terminal: keys, size, Ctrl-C, leaving and coming back."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import PATIENCE, Server, poll_until

BASH = ("--env", "PS1=$ ", "--env", "HISTFILE=", "bash", "--norc", "--noprofile")
DETACH = b"\x10\x11"


class Screen:
    """A terminal, and a program in it."""

    def __init__(self, command: list[str], rows: int = 24, columns: int = 100) -> None:
        self.master, self._slave = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm"},
        )
        self.output = b""
        self._seen = 0

    @property
    def restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def expect(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until this comes after what was expected before."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.output[self._seen :])):
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, (pattern, self.output)
            self.output += os.read(self.master, 65536)
        self._seen += found.end()
        return found

    def started(self) -> str:
        """The id of the job that the program says it has started."""
        return self.expect(rb"Job (\d+) started\r\n")[1].decode()

    def is_raw(self) -> None:
        poll_until(lambda: not self.restored)

    def end(self) -> int:
        """Wait for the program's end; its status. The terminal must be as it was."""
        status = self.process.wait(PATIENCE)
        assert self.restored, self.output
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def screen(server: Server) -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def make(*args: str, at: Server | None = None, **size: int) -> Screen:
        screens.append(Screen((at or server).rnx_command(*args), **size))
        return screens[-1]

    yield make
    for each in screens:
        each.close()


def test_a_shell(screen: Callable[..., Screen]) -> None:
    shell = screen("run", "-it", *BASH, rows=30, columns=90)
    shell.started()
    shell.expect(rb"\$ ")
    shell.type(b"echo $((6*7)) $TERM; stty size; tty\r")
    shell.expect(rb"42 xterm\r\n30 90\r\n/dev/pts/0\r\n")
    shell.type(b"ab\x7f\x7fecho edi\x7f\x7f\x7fwell\r")
    shell.expect(rb"\rwell\r\n")
    shell.resize(41, 121)
    # Not before the terminal is the command's: bash itself would be interrupted, and the command would go on.
    shell.type(b"sh -c 'echo sleeping; exec sleep 1000'\r")
    shell.expect(rb"\rsleeping\r\n")
    shell.type(b"\x03")
    shell.expect(rb"\^C\r\n")
    shell.type(b"echo was $?; stty size\r")
    shell.expect(rb"was 130\r\n41 121\r\n")
    shell.type(b"exit 3\r")
    assert shell.end() == 3
    assert b": exit code 3\r\n" in shell.output + os.read(shell.master, 65536)


def test_size_changes_while_a_program_runs(screen: Callable[..., Screen]) -> None:
    # bash would lose a signal that comes while it handles the last.
    code = (
        "import os, signal; both = {signal.SIGWINCH, signal.SIGQUIT}; signal.pthread_sigmask(signal.SIG_BLOCK, both)\n"
        "print('ready', flush=True)\n"
        "while signal.sigwait(both) == signal.SIGWINCH:\n"
        "    size = os.get_terminal_size(); print(size.lines, size.columns, flush=True)\n"
        "raise SystemExit(9)"
    )
    program = screen("run", "-it", "python3", "-c", code)
    program.expect(rb"ready\r\n")
    program.resize(33, 77)
    program.expect(rb"33 77\r\n")
    program.resize(44, 88)
    program.expect(rb"44 88\r\n")
    program.type(b"\x1c")
    assert program.end() == 9


def test_leaving_and_coming_back(server: Server, screen: Callable[..., Screen]) -> None:
    shell = screen("run", "-it", *BASH)
    job_id = shell.started()
    shell.expect(rb"\$ ")
    shell.type(b"kept=still-here; clear; echo on-the-screen\r")
    shell.expect(rb"\r\non-the-screen|\x1b\[H.*on-the-screen\r\n")
    shell.type(b"# \x10 is not yet all\x15" + DETACH)
    assert shell.end() == 0
    shell.expect(b"Detached from job %s, which goes on; to come back: rnx attach %s" % ((job_id.encode(),) * 2))
    assert "Status: RUNNING" in server.rnx("status", job_id).stdout

    again = screen("attach", "--detach-keys=ctrl-],.", job_id)
    again.expect(rb"on-the-screen")
    again.type(b"echo $kept" + b"\r")
    again.expect(rb"still-here\r\n")
    again.type(b"\x1d.")
    assert again.end() == 0
    last = screen("attach", "--tail=0", job_id)
    last.is_raw()
    last.type(b"exit 4\r")
    assert last.end() == 4


def test_a_job_that_does_not_read_can_be_left(server: Server, screen: Callable[..., Screen]) -> None:
    job = screen("run", "-it", "sh", "-c", "stty raw -echo; echo there; exec sleep 1000")
    job_id = job.started()
    job.expect(rb"there")
    for _ in range(64):
        poll = select.poll()
        poll.register(job.master, select.POLLOUT)
        assert poll.poll(PATIENCE * 1000)
        job.type(b"x" * 4000)
    job.type(DETACH)
    assert job.end() == 0
    server.rnx("stop", job_id)


def test_the_terminal_is_restored_when_the_server_is_killed(
    make_server: Callable[..., Server], screen: Callable[..., Screen]
) -> None:
    server = make_server().start()
    first = screen("run", "-it", *BASH, at=server)
    job_id = first.started()
    first.expect(rb"\$ ")
    second = screen("attach", "--reconnect=0s", job_id, at=server)
    second.expect(rb"\$ ")
    second.is_raw()
    server.kill()
    assert second.end() == 125
    second.expect(
        b"The job goes on; to come back: rnx attach %s, to stop it: rnx stop %s\r\nError: connection to "
        % ((job_id.encode(),) * 2)
    )
    # The first one waits for the next server, and goes on there.
    server.start()
    first.type(b"echo $((40+2))\r")
    typed = time.monotonic()
    while not re.search(rb"\r42\r\n", first.output):
        assert time.monotonic() < typed + PATIENCE
        ready, _, _ = select.select([first.master], [], [], 1)
        if ready:
            first.output += os.read(first.master, 65536)
        else:
            first.type(b"echo $((40+2))\r")  # what is typed while the server is away is lost, and said to be
    first.type(b"exit\r")
    assert first.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_after_a_signal(
    server: Server, screen: Callable[..., Screen], number: signal.Signals
) -> None:
    shell = screen("run", "-it", *BASH)
    job_id = shell.started()
    shell.expect(rb"\$ ")
    shell.is_raw()
    shell.process.send_signal(number)
    assert shell.end() == 128 + number
    shell.expect(b"The job goes on; to come back: rnx attach " + job_id.encode())
    server.rnx("stop", job_id)


def test_a_terminal_without_input(server: Server) -> None:
    result = server.rnx("run", "-t", "sh", "-c", "tty; test -t 1 && echo terminal", stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stdout) == (0, "/dev/pts/0\nterminal\n")


def rnx_with(server: Server, *args: str, data: Any = None, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return server.rnx(*args, text=False, input=data, **options)


def test_stdin_of_a_pipe_and_its_end(server: Server) -> None:
    result = rnx_with(server, "run", "-i", "cat", data=b"hi\n\xff\x00")
    assert (result.returncode, result.stdout) == (0, b"hi\n\xff\x00")
    assert re.fullmatch(rb"Job \d+ started\n", result.stderr)
    assert rnx_with(server, "run", "-i", "cat", data=b"").stdout == b""


def test_a_script_from_a_file(server: Server, tmp_path: Any) -> None:
    (tmp_path / "script").write_text("echo from the script\nexit 7\n")
    with open(tmp_path / "script", "rb") as script:
        result = rnx_with(server, "run", "-i", "sh", stdin=script)
    assert (result.returncode, result.stdout) == (7, b"from the script\n")


def test_much_input(server: Server) -> None:
    assert rnx_with(server, "run", "-i", "wc", "-c", data=bytes(8 << 20)).stdout == b"8388608\n"


def test_a_job_that_wants_no_more(server: Server) -> None:
    yes = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    try:
        result = rnx_with(server, "run", "-i", "head", "-n", "2", stdin=yes.stdout)
    finally:
        yes.kill()
        yes.communicate()
    assert (result.returncode, result.stdout) == (0, b"y\ny\n")


def test_input_from_elsewhere(server: Server) -> None:
    job = subprocess.Popen(
        server.rnx_command("run", "-i", "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert job.stderr is not None
    found = re.match(rb"Job (\d+) started", job.stderr.readline())
    assert found
    result = rnx_with(server, "attach", "--tail=0", found[1].decode(), data=b"from elsewhere\n")
    assert (result.returncode, result.stdout) == (0, b"from elsewhere\n")
    assert job.communicate(timeout=PATIENCE)[0] == b"from elsewhere\n"
    assert job.returncode == 0


def test_the_same_order_again(server: Server) -> None:
    first = rnx_with(server, "run", "-i", "cat", data=b"first\n")
    found = re.match(rb"Job (\d+) started", first.stderr)
    assert found
    again = rnx_with(server, "rerun", "--follow", found[1].decode(), data=b"again\n")
    assert (again.returncode, again.stdout) == (0, b"again\n")


def test_what_cannot_be(server: Server) -> None:
    refused = rnx_with(server, "run", "-it", "sh", data=b"")
    assert (refused.returncode, refused.stderr) == (
        125,
        b"Error: stdin is no terminal; without -t, -i sends what comes from it\n",
    )
    refused = rnx_with(server, "run", "-it", "--detach-keys=enter", "sh", data=b"")
    assert b'Error: no key to detach with: "enter"' in refused.stderr
    job_id = re.search(r"ID: (\d+)", server.rnx("run", "sleep", "1000").stdout)
    assert job_id
    refused = rnx_with(server, "attach", job_id[1], data=b"")
    assert (refused.returncode, refused.stderr.decode()) == (
        125,
        f"Error: job takes no input: {job_id[1]} (it was not run with stdin or a terminal)\n",
    )
    server.rnx("stop", job_id[1])


def test_a_lost_server_is_told_with_what_was_taken(make_server: Callable[..., Server]) -> None:
    server = make_server().start()
    job = subprocess.Popen(
        server.rnx_command("run", "-i", "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert job.stdin is not None
    assert job.stdout is not None
    job.stdin.write(b"taken\n")
    job.stdin.flush()
    assert job.stdout.readline() == b"taken\n"
    server.kill()
    job.stdin.write(b"lost\n")
    _, errors = job.communicate(timeout=PATIENCE)
    assert job.returncode == 125
    assert re.search(
        rb"The job goes on; to come back: rnx attach 1, to stop it: rnx stop 1\n"
        rb"Error: c.*; of (6|11) bytes of input that were sent at least 0 were taken\n$",
        errors,
    ), errors
    server.start()
