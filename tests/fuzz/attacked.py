"""The server that is fuzzed, a client of it who notices when it falls silent, and what is measured of it."""

from __future__ import annotations

import math
import os
import re
import socket
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from harness import PATIENCE, Server, Stock, memory_kb, poll_until

SECTIONS: dict[str, dict[str, object]] = {
    # Small in all, so that what jobs and files cost is soon the most that they may, and memory is flat from then on.
    "joblet": {
        "maxConcurrentJobs": 4,
        "maxQueuedJobs": 8,
        "maxWorkflows": 4,
        "maxScheduledJobs": 16,
        "jobTimeout": "5s",
        "cleanupTimeout": "500ms",
        "maxUploadSize": 1 << 20,
        "uploadTimeout": "10s",
        "maxLogSize": 1,
        "defaultProcessLimit": 64,
        "defaultMemoryLimit": 64,
    },
    "ceilings": {"maxCPU": 100, "maxMemory": 128, "maxProcesses": 128, "maxDisk": 16},
    "retention": {"maxJobs": 50, "maxWorkflows": 8, "maxAge": "5m"},
    "grpc": {"keepAliveTime": "2s", "maxConnections": 500},
    "security": {"minTlsVersion": "1.2"},
}
ALARM = re.compile(
    r"\[ERROR\] (?!(job|workflow) ended)|Traceback|never retrieved|was never awaited|Exception ignored|[A-Za-z]Error\("
)
"""what the server's log never holds"""
SILENCE = 5.0
"""seconds until an answer to another client is late: nothing that one client does may hold up the others so long"""
GROWTH = 24 * 1024
"""KiB by which memory may differ: what the allocator keeps"""
_MOST_LINGERING = 60
_PULSE = 0.1
"""seconds between two questions of the other client"""


class Finding(Exception):
    """The server has done what it never may; the message says what."""


class Pulse:
    """Another client, in a thread of its own: it asks all the time, and measures how long the answers take.

    The mutable state is when it last asked, and has no answer yet, and the longest that it has waited for one.
    """

    def __init__(self, server: Server) -> None:
        self._slowest = 0.0
        self._asked_at = math.inf
        self.failed: str = ""
        self._channel = server.channel("viewer")
        self._ask = self._channel.unary_unary("/grpc.health.v1.Health/Check")  # empty, and so without its message
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @property
    def slowest(self) -> float:
        """Seconds, that of the question under way included."""
        return max(self._slowest, time.monotonic() - self._asked_at)

    def stop(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._thread.join(PATIENCE)
        self._channel.close()

    def _beat(self) -> None:
        while not self._ended.wait(_PULSE):
            self._asked_at = time.monotonic()
            try:
                self._ask(b"", timeout=PATIENCE)
            except grpc.RpcError as error:
                self.failed = f"another client's call failed: {error.code()}: {error.details()}"
                return
            self._slowest, self._asked_at = self.slowest, math.inf


class Attacked:
    """A server of its own, and the means to judge it. `check` after each case, `conclude` at the end."""

    def __init__(self, folder: Path, certificates: Path, stock: tuple[ModuleType, ModuleType]) -> None:
        self.server = Server(folder, certificates, **SECTIONS).start()
        self._stock = stock
        self._seen = 0
        self._samples: list[int] = []
        self.descriptors_before = 0
        self.silence = SILENCE
        """seconds that another client may be kept waiting"""
        self.lingering: list[socket.socket] = []
        """connections that a case has left open"""
        self.pulse = Pulse(self.server)

    def warm(self) -> None:
        """What was opened and allocated up to now is the measure for what comes."""
        self._leave()
        self.run_a_job()
        poll_until(lambda: not self.server.monitors())
        self.descriptors_before = self._descriptors()
        self._samples.clear()

    def linger(self, connection: socket.socket) -> None:
        """Keep a connection open when its case is done; of many the oldest is closed."""
        self.lingering.append(connection)
        if len(self.lingering) > _MOST_LINGERING:
            self.lingering.pop(0).close()

    def sample(self) -> int:
        """Look at the server's memory, in KiB."""
        self._samples.append(memory_kb(self.server.pid))
        return self._samples[-1]

    def check(self) -> None:
        """Raises Finding when the server has ended, complained about itself, or kept another client waiting."""
        lines = self.server.lines
        fresh, self._seen = lines[self._seen :], len(lines)
        for line in fresh:
            if ALARM.search(line):
                raise Finding(f"the server's log: {line}")
        if "(end)" in fresh:
            raise Finding("the server has ended:\n" + "\n".join(lines[-20:]))
        if self.pulse.failed:
            raise Finding(self.pulse.failed)
        if self.pulse.slowest > self.silence:
            raise Finding(f"another client's answer took {self.pulse.slowest:.1f}s")

    def run_a_job(self) -> None:
        """A job runs, whatever was before, and says what it should."""
        with self.server.channel() as channel:
            client = Stock(channel, *self._stock)
            answers: list[Any] = []

            def taken() -> bool:
                try:
                    answers.append(client.run("echo", "fine"))
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                return bool(answers)

            poll_until(taken)  # until the queue has room: jobs have 5 s each
            if (output := client.output(answers[0].id)) != b"fine\n":
                raise Finding(f"a job printed {output!r}")

    def conclude(self) -> str:
        """Raises Finding when memory or descriptors have grown, or no job runs any more; the figures."""
        self._leave()
        self.run_a_job()
        try:
            poll_until(lambda: self._descriptors() <= self.descriptors_before)
        except AssertionError:
            links = sorted(os.readlink(path) for path in self._open_files())
            raise Finding(f"of {self.descriptors_before} descriptors have come {len(links)}: {links}") from None
        self.check()
        third = max(len(self._samples) // 3, 1)
        first, last = sorted(self._samples[:third])[third // 2], sorted(self._samples[-third:])[third // 2]
        if last - first > GROWTH:
            raise Finding(f"memory has grown from {first} to {last} KiB: {self._samples}")
        memory = f"memory {first >> 10} -> {last >> 10} MiB (most {max(self._samples) >> 10})"
        descriptors = f"descriptors {self.descriptors_before} -> {self._descriptors()}"
        return f"{memory}, {descriptors}, another client waited {self.pulse.slowest:.2f}s at most"

    def close(self) -> None:
        self._leave()
        self.pulse.stop()
        self.server.close()

    def _leave(self) -> None:
        while self.lingering:
            self.lingering.pop().close()

    def _open_files(self) -> list[Path]:
        return list(Path(f"/proc/{self.server.pid}/fd").iterdir())

    def _descriptors(self) -> int:
        return len(self._open_files())
