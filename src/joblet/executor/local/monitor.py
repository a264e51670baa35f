"""Whether a job's monitor lives, and which process it is."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

from joblet.errors import HostUnable
from joblet.executor.local import record
from joblet.executor.local.record import BadRecord, Monitor, Started
from joblet.executor.local.spawn import Process
from joblet.executor.local.spec import PROTOCOL

_EXT4_ROOT = 2
"""the root directory's inode"""
_LOOP = 7
"""the major number of loop devices (Documentation/admin-guide/devices.txt)"""
_TRIES = 500
_PAUSE = 0.01
"""seconds"""


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


@dataclass(frozen=True, slots=True)
class Found:
    """A living monitor."""

    process: Process
    started: Started | None
    """None: it hangs, and the command has not been exec'd"""


async def find(directory: Path, boot: str) -> Found | None:
    """The monitor of a job's directory, or None when it does not live; `boot` is this time's id.

    A held lock means a living monitor, and then its pid, start time and boot id must all match. Raises BadRecord when
    the files do not tell which process it is, HostUnable when it is of a later version than this server.
    """
    for _ in range(_TRIES):
        if not lives(directory):
            return None
        who, started = record.read_monitor(directory), record.read_started(directory)
        if who is not None and who.protocol > PROTOCOL:
            raise HostUnable(
                f"job {directory.name} runs under a monitor of protocol {who.protocol}, this joblet knows up to "
                f"{PROTOCOL}: use a newer joblet, and stop the job with it if this one is wanted"
            )
        if who is not None and started is not None:
            break
        # Between its start and its report, which is a matter of milliseconds.
        await asyncio.sleep(_PAUSE)
    process = _process(who, boot)
    if process is None:
        raise BadRecord("its monitor cannot be found")
    return Found(process, started)


def find_process(directory: Path, boot: str) -> Process | None:
    """The process that a directory's `monitor` file names, if it is still the same one. Raises BadRecord."""
    return _process(record.read_monitor(directory), boot)


def _process(who: Monitor | None, boot: str) -> Process | None:
    """The process that somebody is, if it is still the same one."""
    pidfd = _open_process(who, boot) if who is not None else None
    return Process(who.pid, pidfd, child=False) if who is not None and pidfd is not None else None


def _open_process(monitor: Monitor, boot: str) -> int | None:
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


def open_disk(directory: Path, boot: str) -> int | None:
    """A descriptor of the file system that a job's monitor has mounted for its work directory; None when it has none.

    Blocks for less than a millisecond. The monitor's descriptors are its own alone: nothing that the job does changes
    what they are.
    """
    who = record.read_monitor(directory)
    pidfd = _open_process(who, boot) if who is not None else None
    if who is None or pidfd is None:
        return None
    try:
        owner = (directory / "work").stat(follow_symlinks=False).st_uid
        for entry in os.listdir(f"/proc/{who.pid}/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                if (fd := _open_root(f"/proc/{who.pid}/fd/{entry}", owner)) is None:
                    continue
                if _start_time(who.pid) == who.start:  # it was that process's to the end
                    return fd
                os.close(fd)
    except FileNotFoundError:
        pass
    finally:
        os.close(pidfd)
    return None


def _open_root(path: str, owner: int) -> int | None:
    """The directory at a link of /proc, if it is the root of an ext4 that the job's first id owns."""
    what = os.stat(path)
    if not stat.S_ISDIR(what.st_mode) or what.st_ino != _EXT4_ROOT or what.st_uid != owner:
        return None
    if os.major(what.st_dev) != _LOOP:
        return None
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


class Strays:
    """The shims that an earlier server left, for jobs whose files do not tell; looked for once, when it matters."""

    def __init__(self, jobs: Path) -> None:
        """`jobs` is the directory that holds the jobs' own."""
        self._jobs = jobs
        self._pids: dict[str, list[int]] | None = None

    def fault(self, directory: Path) -> str:
        """What is wrong with a directory whose job has such a shim and no lock; empty when it has none."""
        if not self._of(directory):
            return ""
        return "its lock is missing" if directory.exists() else "its directory is missing"

    async def kill(self, directory: Path) -> bool:
        """Kill those of a job, and their children with them; False when there are none."""
        pidfds = [(pid, _open_in(directory, pid)) for pid in self._of(directory)]
        processes = [Process(pid, pidfd, child=False) for pid, pidfd in pidfds if pidfd is not None]
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            await process.wait()
        return bool(processes)

    def _of(self, directory: Path) -> list[int]:
        if self._pids is None:
            self._pids = {}
            for entry in os.listdir("/proc"):
                if entry.isdecimal() and (folder := _folder(int(entry))) is not None and folder.parent == self._jobs:
                    self._pids.setdefault(folder.name, []).append(int(entry))
        return self._pids.get(directory.name, [])


def _open_in(directory: Path, pid: int) -> int | None:
    """A pidfd of the shim with this pid, if it still is that directory's."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if _folder(pid) != directory:
        os.close(pidfd)
        return None
    return pidfd


def _folder(pid: int) -> Path | None:
    """The directory that a shim has as descriptor 4 (PROTOCOL.md), also if it has been removed (proc_pid_fd(5))."""
    try:
        if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"joblet-shim\0"):
            return None
        return Path(os.readlink(f"/proc/{pid}/fd/4").removesuffix(" (deleted)"))
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)); the second field may hold spaces and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])
