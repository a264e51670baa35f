"""Killing the monitors of jobs at chosen instants."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from harness import start_time


def kill(directory: Path, patience: float = 1.0, delay: float = 0.0) -> bool:
    """SIGKILL to the monitor of the job in `directory`, `delay` seconds after it has told who it is.

    False when it did not appear within `patience` seconds, or has ended by itself.
    """
    deadline = time.monotonic() + patience
    while (monitor := read(directory)) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0002)
    pid, started = monitor
    if delay:
        time.sleep(delay)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def read(directory: Path) -> tuple[int, str] | None:
    """Pid and start time of the monitor of the job in `directory`, when it has written them down."""
    try:
        text = (directory / "monitor").read_text()
    except OSError:
        return None
    values = dict(line.split("=", 1) for line in text.splitlines())
    return int(values["pid"]), values["start"]
