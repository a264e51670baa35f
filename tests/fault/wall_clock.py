"""A wall clock for one server, which a test sets."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

from harness import Server

COMPILER = shutil.which("cc")


class Clock:
    """The server's wall clock, and its alone: it can be set at any time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "offset"
        self._library = folder / "clock_offset.so"
        self.set(0)
        source = Path(__file__).with_name("clock_offset.c")
        subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O1", "-o", self._library, source], check=True)

    def set(self, seconds: float) -> None:
        """Let it be off by so much."""
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(fd, struct.pack("q", round(seconds * 1e9)), 0)
        os.close(fd)

    def start(self, server: Server) -> Server:
        environment = {**os.environ, "LD_PRELOAD": str(self._library), "JOBLET_TEST_CLOCK": str(self._file)}
        return server.start(env=environment)
