"""Another command in a running job, started by its init (shim/PROTOCOL.md, "Commands in a running job")."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import posixpath
import re
import socket
import struct
import termios
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from joblet.command import Command
from joblet.executor.base import STDERR, STDOUT, CommandEnd, JobGone, LaunchFailed
from joblet.executor.local import record, spec
from joblet.executor.local.record import BadRecord
from joblet.job import Job, Terminal, signal_name
from joblet.threads import acquire

_SOCKET = "exec"
_CONNECT_SECONDS = 10.0
_PACKET = 4096
_PIECE = 64 << 10
"""bytes of output that are read at a time"""
_REST = 1 << 20
"""bytes that are read at most of what a command has left in its output when it ended: as much as a pipe may hold, but
not for ever, for what it has left running may go on to write"""
_END_OF_INPUT = b"\x04"
"""what a terminal takes for it: VEOF, termios(3)"""
_TERM = "xterm"
_HANGUP = b"hup"
_GRACE = 2.0
"""seconds from SIGHUP to SIGKILL for the command of a client that has gone"""
_END = re.compile(r"(exited|signaled) (\d{1,3})\n")
_ENDED_WITH_JOB = CommandEnd(137, "the job has ended")
_GIVEN_UP = CommandEnd(137, "given up")


def encode(job: Job, command: Command) -> bytes:
    """The orders for the job's init. The command has the job's environment, and its own over that."""
    cwd = posixpath.join(spec.WORK, command.workdir) if command.workdir else spec.start_directory(job)
    terminal = command.terminal
    kind = {} if terminal is None else {"TERM": terminal.term or _TERM}
    environment = {**spec.environment(job), **kind, **command.environment, "PWD": cwd}
    pairs = [("cwd", cwd)]
    if terminal is not None:
        pairs += [("rows", str(terminal.rows)), ("columns", str(terminal.columns))]
    pairs += [("env", f"{name}={value}") for name, value in environment.items()]
    pairs += [("arg", arg) for arg in (command.command, *command.args)]
    return b"".join(f"{key}={value}\0".encode() for key, value in [*pairs, ("end", "")])


@dataclass(frozen=True, slots=True)
class _Opened:
    """A command that has been asked for, and this side's ends."""

    connection: socket.socket
    output: dict[int, int]
    """by the stream; of a terminal not yet"""
    input: int
    """-1: there is none, or not yet"""


def _ask(directory: Path, order: bytes, command: Command) -> _Opened:
    """Ask the init of the job in `directory` for it. Raises JobGone or OSError. May block."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:

        def pipe(*, inwards: bool) -> tuple[int, int]:
            ends = os.pipe2(os.O_CLOEXEC)
            own, other = reversed(ends) if inwards else ends
            ours.callback(os.close, own)
            theirs.callback(os.close, other)
            os.set_blocking(own, False)
            os.fchown(other, owner, owner)  # for who opens /dev/stdout, which is a link to it
            return own, other

        def opened(path: Path, flags: int) -> int:
            fd = os.open(path, flags | os.O_CLOEXEC)
            theirs.callback(os.close, fd)
            return fd

        try:
            owner = (directory / "work").stat(follow_symlinks=False).st_uid
            folder = opened(directory, os.O_PATH | os.O_DIRECTORY)
            connection = ours.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            connection.settimeout(_CONNECT_SECONDS)
            connection.connect(f"/proc/self/fd/{folder}/{_SOCKET}")  # whose path may be too long: unix(7)
        except (FileNotFoundError, ConnectionRefusedError):
            raise JobGone from None
        orders = spec.sealed_memfd(order)
        theirs.callback(os.close, orders)
        handed, output, entrance = [orders], {}, -1
        if command.terminal is None:
            for stream in (STDOUT, STDERR):
                output[stream], other = pipe(inwards=False)
                handed.append(other)
            if command.stdin:
                entrance, other = pipe(inwards=True)
                handed.append(other)
        try:
            socket.send_fds(connection, [b"exec"], handed)
        except (BrokenPipeError, ConnectionResetError):
            raise JobGone from None
        connection.setblocking(False)
        ours.pop_all()
        return _Opened(connection, output, entrance)


async def start(job: Job, directory: Path, command: Command) -> Session:
    """Start the command. Raises JobGone or OSError."""
    return Session(await acquire(_drop, _ask, directory, encode(job, command), command), command)


def _drop(opened: _Opened) -> None:
    """Of who has gone while it was asked for: without a connection the command ends."""
    opened.connection.close()
    for fd in {*opened.output.values(), opened.input} - {-1}:
        os.close(fd)


class Session:
    """A command under way. The mutable state is its descriptors, and how it has ended."""

    def __init__(self, opened: _Opened, command: Command) -> None:
        self._connection: socket.socket | None = opened.connection
        self._output = opened.output
        self._input = opened.input
        self._terminal = command.terminal is not None
        self._takes_input = command.stdin
        self._size: Terminal | None = None
        self._connected = asyncio.Event()
        """its output can be read, or will never be"""
        if not self._terminal:
            self._connected.set()
        self._end: CommandEnd | None = None
        self._ended = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()
        asyncio.get_running_loop().add_reader(opened.connection.fileno(), self._on_packet)

    async def output(self) -> AsyncGenerator[tuple[int, bytes]]:
        """What it writes, by the stream, until it has ended and all that it had written is given.

        A reader that is slow slows the command.
        """
        await self._connected.wait()
        pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(1)
        pumps = [asyncio.create_task(self._pump(stream, fd, pieces)) for stream, fd in self._output.items()]
        left = len(pumps)
        try:
            while left:
                piece = await pieces.get()
                if piece is None:
                    left -= 1
                else:
                    yield piece
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def wait(self) -> CommandEnd:
        """Wait until it has ended."""
        await self._ended.wait()
        assert self._end is not None
        return self._end

    async def write(self, data: bytes) -> None:
        """Give it input; returns when it has taken all, or takes no more."""
        await self._connected.wait()
        rest = memoryview(data)
        while rest and self._input >= 0 and self._takes_input:
            try:
                rest = rest[os.write(self._input, rest) :]
            except BlockingIOError:
                await self._until(self._input, writing=True)
                if self._ended.is_set():
                    return
            except OSError:  # it has closed its input
                self._close_input()

    async def end_input(self) -> None:
        """Nothing more comes: its next read meets the end of its input."""
        if self._terminal:
            await self.write(_END_OF_INPUT)
        else:
            self._close_input()

    def resize(self, terminal: Terminal) -> None:
        """Its terminal has another size now, if it has one."""
        self._size = terminal  # should it not have come yet
        if self._terminal and self._input >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, struct.pack("HHHH", terminal.rows, terminal.columns, 0, 0))

    async def end(self) -> None:
        """End it, if it has not ended: SIGHUP to its process group, and after a short grace SIGKILL."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.send(_HANGUP)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE):
                    await self._ended.wait()
        self._finish(_GIVEN_UP)

    async def close(self) -> None:
        """End it, and free its descriptors; when nobody reads or writes any more."""
        await self.end()
        self._close_input()
        for fd in self._output.values():
            os.close(fd)
        self._output = {}

    def _on_packet(self) -> None:
        assert self._connection is not None
        try:
            data, handed, _, _ = socket.recv_fds(self._connection, _PACKET, 1)
        except BlockingIOError:
            return
        except OSError:
            data, handed = b"", []
        if handed:
            self._take_terminal(handed[0])
        elif not data:
            self._finish(_ENDED_WITH_JOB)
        else:
            self._finish(_end_of(data))

    def _take_terminal(self, fd: int) -> None:
        os.set_blocking(fd, False)
        os.set_inheritable(fd, False)
        self._output = {STDOUT: fd}
        self._input = os.dup(fd)
        if self._size is not None:
            self.resize(self._size)
        self._connected.set()

    def _finish(self, end: CommandEnd) -> None:
        """The connection is of no more use. Closed before it told of the end, it has the command's group killed."""
        if self._connection is None:
            return
        asyncio.get_running_loop().remove_reader(self._connection.fileno())
        self._connection.close()
        self._connection = None
        self._end = end
        self._ended.set()
        self._connected.set()
        for waiting in self._waiting:
            _settle(waiting)

    async def _pump(self, stream: int, fd: int, pieces: asyncio.Queue[tuple[int, bytes] | None]) -> None:
        left = _REST
        while left > 0:
            try:
                data = os.read(fd, _PIECE)
            except BlockingIOError:
                if self._ended.is_set():
                    break
                await self._until(fd)
                continue
            except OSError:  # EIO: no process has the terminal open any more
                break
            if not data:
                break
            if self._ended.is_set():
                left -= len(data)
            await pieces.put((stream, data))
        await self._ended.wait()
        await pieces.put(None)

    async def _until(self, fd: int, *, writing: bool = False) -> None:
        """Wait until a descriptor can be read, or written, or the command has ended."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        self._waiting.add(ready)
        (loop.add_writer if writing else loop.add_reader)(fd, _settle, ready)
        try:
            if not self._ended.is_set():
                await ready
        finally:
            (loop.remove_writer if writing else loop.remove_reader)(fd)
            self._waiting.discard(ready)

    def _close_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _end_of(packet: bytes) -> CommandEnd:
    """How a command has ended, or why it never ran, by what the init says of it."""
    if (found := _END.fullmatch(packet.decode(errors="replace"))) is not None:
        number = int(found[2])
        if found[1] == "exited":
            return CommandEnd(number, f"exit code {number}")
        return CommandEnd(128 + number, f"killed by signal {number} ({signal_name(number)})")
    try:
        failure = record.parse_report(packet)
    except BadRecord as error:
        failure = LaunchFailed("shim", 0, str(error))
    if failure is None:
        failure = LaunchFailed("shim", 0, "not an answer")
    return CommandEnd(failure.exit_code if failure.stage == "exec" else 126, str(failure))
