"""Other commands in a running job, asked of its init as the server does: shim/PROTOCOL.md."""

from __future__ import annotations

import fcntl
import os
import random
import select
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shim_harness import PATH, TIMEOUT, Entries, Launcher, Shim, encode, job_entries, wait_until

pytest_plugins = ["shim_harness"]

Ask = Callable[..., "Session"]


class Session:
    """A connection to the init, with the reading end of its command's output."""

    def __init__(self, directory: Path) -> None:
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(f"/proc/self/fd/{folder}/exec")
        os.close(folder)
        self.output = -1
        self.terminal = -1

    def ask(self, spec: Entries | bytes, *, fds: int = 3) -> Session:
        text = spec if isinstance(spec, bytes) else encode(spec)
        memfd = os.memfd_create("spec")
        os.write(memfd, text)
        self.output, writing = os.pipe()
        socket.send_fds(self.socket, [b"exec"], [memfd, writing, writing, self.output][:fds])
        os.close(memfd)
        os.close(writing)
        return self

    def answer(self) -> str:
        """The next packet; empty when the connection is closed."""
        try:
            data, handed, _, _ = socket.recv_fds(self.socket, 4096, 1)
        except ConnectionResetError:
            return ""
        if handed:
            self.terminal = handed[0]
        return data.decode()

    def written(self) -> bytes:
        """What the command had written when it ended."""
        return os.read(self.output, 65536)

    def close(self) -> None:
        self.socket.close()
        for fd in {self.output, self.terminal} - {-1}:
            os.close(fd)
        self.output = self.terminal = -1


def spec(*argv: str, cwd: str = "/work", extra: Entries | None = None) -> Entries:
    return [("cwd", cwd), *(extra or []), ("env", f"PATH={PATH}"), *(("arg", word) for word in argv), ("end", "")]


@pytest.fixture
def job(launcher: Launcher) -> Shim:
    shim = launcher.start(job_entries("sleep", "1000"))
    shim.started()
    return shim


@pytest.fixture
def connect(job: Shim) -> Iterator[Ask]:
    made: list[Session] = []

    def one() -> Session:
        made.append(Session(job.directory))
        return made[-1]

    yield one
    for session in made:
        session.close()


def test_it_tells_how_a_command_has_ended(connect: Ask) -> None:
    session = connect().ask(spec("sh", "-c", "pwd; exit 3", cwd="/tmp"))
    assert session.answer() == "exited 3\n"
    assert session.written() == b"/tmp\n"
    assert session.answer() == ""
    assert connect().ask(spec("sh", "-c", "kill -9 $$")).answer() == "signaled 9\n"


@pytest.mark.parametrize(
    ("entries", "fds", "answer"),
    [
        (spec("none-such"), 3, "failed exec 2 command not found: none-such\n"),
        (spec("/etc/passwd"), 3, "failed exec 13 cannot execute /etc/passwd: permission denied\n"),
        (spec("true", cwd="/nowhere"), 3, "failed exec 2 cannot enter /nowhere: no such file or directory\n"),
        (spec("true", extra=[("unheard", "of")]), 3, "failed spec 22 invalid job spec: unknown key\n"),
        (spec("true", extra=[("end", "")]), 3, "failed spec 22 invalid job spec: bytes after end\n"),
        (spec("true")[:-1], 3, "failed spec 22 invalid job spec: incomplete\n"),
        (spec(), 3, "failed spec 22 invalid job spec: incomplete\n"),
        (spec("true")[1:], 3, "failed spec 22 invalid job spec: incomplete\n"),
        (spec("true", extra=[("rows", "0")]), 3, "failed spec 22 invalid job spec: not a size\n"),
        (spec("true", extra=[("columns", "65536")]), 3, "failed spec 22 invalid job spec: not a size\n"),
        (b"arg=true", 3, "failed spec 22 invalid job spec: does not end with a NUL\n"),
        (b"", 3, "failed spec 22 invalid job spec: too long, or empty\n"),
        (spec("true"), 2, "failed exec 22 cannot execute another process: invalid argument\n"),
    ],
)
def test_what_cannot_be_done_is_told_as_of_a_job(connect: Ask, entries: Entries | bytes, fds: int, answer: str) -> None:
    assert connect().ask(entries, fds=fds).answer() == answer
    assert connect().ask(spec("true")).answer() == "exited 0\n"


def test_nonsense_ends_the_connection_and_nothing_else(connect: Ask, job: Shim) -> None:
    chance = random.Random(7)
    words = [b"cwd=/", b"arg=true", b"env=A=B", b"end=", b"rows=3", b"=", b"", b"\xff" * 300]
    for _ in range(60):
        text = b"\0".join(chance.choices(words, k=chance.randrange(9))) + chance.choice([b"", b"\0"])
        session = connect().ask(text, fds=chance.randrange(1, 5))
        while session.answer():
            pass
        session.close()
    assert connect().ask(spec("true")).answer() == "exited 0\n"
    assert not job.is_over()


def test_a_closed_connection_kills_the_commands_group(connect: Ask) -> None:
    session = connect().ask(spec("sh", "-c", "trap '' HUP; echo on; sleep 1000; echo off"))
    assert session.written() == b"on\n"
    session.socket.close()
    assert session.written() == b""  # nobody has it open any more


def test_a_hangup_is_passed_on(connect: Ask) -> None:
    session = connect().ask(spec("sh", "-c", "trap 'exit 5' HUP; echo on; sleep 1000 & wait"))
    assert session.written() == b"on\n"
    session.socket.send(b"hup")
    assert session.answer() == "exited 5\n"
    session = connect().ask(spec("sleep", "1000"))
    session.socket.send(b"hup")  # before it can have begun
    assert session.answer() == "signaled 1\n"


def test_a_terminal_is_of_the_jobs_own(connect: Ask) -> None:
    terminal = spec("sh", "-c", "tty; stty size; read line; echo got $line; ps -o tty= -p $$", extra=[("rows", "30")])
    session = connect().ask([("columns", "100"), *terminal], fds=1)
    assert session.answer() == "terminal\n"
    assert struct.unpack("HHHH", fcntl.ioctl(session.terminal, termios.TIOCGWINSZ, bytes(8)))[:2] == (30, 100)
    os.write(session.terminal, b"a line\n")
    assert session.answer() == "exited 0\n"
    shown = b""
    while select.select([session.terminal], [], [], 0)[0]:
        try:
            shown += os.read(session.terminal, 4096)
        except OSError:  # EIO, its end
            break
    assert b"/dev/pts/0\r\n" in shown
    assert b"30 100\r\n" in shown
    assert shown.endswith(b"got a line\r\npts/0\r\n")


def test_there_are_sixteen_at_a_time(connect: Ask) -> None:
    begun = [connect().ask(spec("sh", "-c", "echo on; exec sleep 1000")) for _ in range(16)]
    for session in begun:
        assert session.written() == b"on\n"
    assert connect().answer() == ""
    begun[3].close()

    def taken_again() -> bool:
        try:
            return connect().ask(spec("true")).answer() == "exited 0\n"
        except (BrokenPipeError, ConnectionResetError):
            return False

    wait_until(taken_again)


def test_it_ends_with_the_job_and_leaves_the_job_its_end(launcher: Launcher) -> None:
    shim = launcher.start(job_entries("sh", "-c", "until [ -p fifo ]; do sleep 0.01; done; read line < fifo; exit 6"))
    shim.started()
    session = Session(shim.directory).ask(
        spec("sh", "-c", "trap '' TERM HUP; mkfifo fifo; echo on; echo x > fifo; sleep 1000")
    )
    assert session.written() == b"on\n"
    assert session.answer() == ""
    session.close()
    assert shim.wait()["code"] == "6"
    with pytest.raises(ConnectionRefusedError):
        Session(shim.directory)
