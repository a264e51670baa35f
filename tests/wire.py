"""What goes over the wire, counted, and the most memory that a program has had meanwhile."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from harness import Server, memory_kb

PIECE = 1 << 20


class Wire:
    """A port that leads to a server. The mutable state is how many bytes have come from there."""

    def __init__(self, port: int) -> None:
        self.received = 0
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._forward, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while piece := source.recv(PIECE):
                self.received += len(piece) if counted else 0
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:  # one side is gone
            target.close()


@dataclass(frozen=True)
class Reading:
    """What reading a log has come to."""

    written: int
    """bytes of output"""
    received: int
    """bytes that came over the wire"""
    client_kb: int
    """the most memory that rnx had"""
    server_kb: int
    """the most memory that the server had meanwhile"""
    last: bytes
    """the end of the output"""


def read_log(server: Server, *arguments: str) -> Reading:
    """Run `rnx log` with these arguments, to its end."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # its peak is what it has now: proc_pid_clear_refs(5)
    with Wire(server.port) as wire:
        command = server.rnx_command("log", f"--server=localhost:{wire.port}", *arguments)
        with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            written, last = 0, b""
            while piece := program.stdout.read1(PIECE):  # type: ignore[attr-defined]
                written += len(piece)
                last = (last + piece)[-1000:]
            _, status, used = os.wait4(program.pid, 0)
            program.returncode = os.waitstatus_to_exitcode(status)
        assert program.returncode == 0
        return Reading(written, wire.received, used.ru_maxrss, memory_kb(server.pid, "VmHWM"), last)
