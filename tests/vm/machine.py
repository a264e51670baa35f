"""A booted machine that runs commands when it is told to, while this side uses what it serves."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import supplies

_AGENT = 7
"""port of guest/commands in the machine"""


class CommandFailed(Exception):
    """A command in the machine ended with another status than it should; the message has its output."""


class Machine:
    """Boots at entry, with `files` in /job, and is powered off at the end. The same `disk` makes it the same again."""

    def __init__(self, disk: Path, files: Path, port: int, *options: str) -> None:
        """`port` is the machine's that is to be reached at `self.port` of this side's loopback."""
        self.port, self._agent = _free_ports(2)
        forwards = ("-f", f"{self.port}:{port}", "-f", f"{self._agent}:{_AGENT}")
        program = supplies.HERE / "guest/commands"
        self._command = [supplies.HERE / "boot", "-s", disk, "-j", files, *forwards, *options, program]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                if line == "commands: ready\n":
                    return self
                print(line, end="")
        except BaseException:
            self._process.terminate()
            self._process.wait()
            raise
        raise CommandFailed(f"the machine has ended with status {self._process.wait()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if kind is not None:
            self._process.terminate()
        else:
            with self._connect() as channel:
                channel.sendall(b"end")
        self._process.wait()

    def run(self, line: str, status: int = 0) -> str:
        """What a line of bash prints in the machine, to both outputs. Raises CommandFailed."""
        with self._connect() as channel, tempfile.TemporaryFile() as output:
            channel.sendall(line.encode())
            channel.shutdown(socket.SHUT_WR)
            while piece := channel.recv(1 << 16):
                output.write(piece)
            output.seek(0)
            text, _, ended = output.read().decode(errors="replace").rpartition("\0")
        if ended != str(status):
            raise CommandFailed(f"`{line}` ended with status {ended}:\n{text}")
        return text

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._agent))


def _free_ports(count: int) -> list[int]:
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in listening]
    finally:
        for each in listening:
            each.close()
