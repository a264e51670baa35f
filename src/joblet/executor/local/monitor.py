"""Whether a job's monitor lives, and which process it is."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from joblet.executor.local.record import Monitor


def boot_id() -> str:
    """Names the time since the host was started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def lives(directory: Path) -> bool:
    """Whether a monitor holds the lock in a job's directory. One that does not now never will: it is born with it."""
    try:
        with open(directory / "lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def has_begun(directory: Path) -> bool:
    """Whether there was a monitor. Its first deed is to say who it is: one that did not has done nothing."""
    return any((directory / name).exists() for name in ("monitor", "exit"))


def open_process(monitor: Monitor, boot: str) -> int | None:
    """A pidfd of the monitor, if the process with its pid is still the same one; `boot` is this time's id."""
    if monitor.boot != boot:
        return None
    try:
        pidfd = os.pidfd_open(monitor.pid)
    except OSError:
        return None
    if _start_time(monitor.pid) != monitor.start:
        os.close(pidfd)
        return None
    return pidfd


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)); the second field may hold spaces and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])
