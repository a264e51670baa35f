"""What a server holds at an instant, as the kernel tells it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness import Server, cpu_seconds, memory_kb

from benchmarks.measure import percentile
from benchmarks.site import proportional_set_size

_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Sample:
    """One instant, and what has happened since the one before."""

    at: float
    """seconds since the load began"""
    jobs: int
    """short ones that have ended"""
    resident: int
    """bytes"""
    proportional: int
    """bytes, what is shared divided among those who share it"""
    descriptors: int
    threads: int
    monitors: int
    """children: the shims of jobs"""
    groups: int
    """control groups of jobs, in all hierarchies"""
    mounts: int
    """in the server's mount namespace, of its jobs"""
    database: int
    """bytes"""
    log_ahead: int
    """bytes of the database's write-ahead log"""
    processor: float | None
    """seconds of the server's for each job, all that else it does included"""
    call_p50: float | None
    """seconds of RunJob"""
    call_p99: float | None
    end_p50: float | None
    """seconds from the call of RunJob until its client has been told of the job's end"""
    end_p99: float | None


@dataclass
class Times:
    """Seconds that jobs have taken since the last sample."""

    calls: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    ended: int = 0
    """since the beginning"""

    def take(self) -> tuple[list[float], list[float]]:
        """Those of now; what follows is of the next sample."""
        taken = self.calls, self.ends
        self.calls, self.ends = [], []
        return taken


class Sampler:
    """Samples of one server. The mutable state is that of the last one, to tell what has happened since."""

    def __init__(self, server: Server, times: Times) -> None:
        self._server = server
        self._times = times
        self._began = time.monotonic()
        self._spent = cpu_seconds(server.pid)
        self._ended = 0

    def sample(self) -> Sample:
        """The server now. Reads some files of /proc and /sys."""
        pid, state = self._server.pid, self._server.state
        (calls, ends), ended, spent = self._times.take(), self._times.ended, cpu_seconds(self._server.pid)
        since = ended - self._ended
        taken = Sample(
            at=time.monotonic() - self._began,
            jobs=ended,
            resident=memory_kb(pid) * 1024,
            proportional=proportional_set_size(pid),
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            threads=len(os.listdir(f"/proc/{pid}/task")),
            monitors=len(children(pid)),
            groups=sum(1 for _ in groups(state)),
            mounts=len(mounts(pid, state)),
            database=size(state / "joblet.db"),
            log_ahead=size(state / "joblet.db-wal"),
            processor=(spent - self._spent) / since if since else None,
            call_p50=percentile(calls, 0.5) if calls else None,
            call_p99=percentile(calls, 0.99) if calls else None,
            end_p50=percentile(ends, 0.5) if ends else None,
            end_p99=percentile(ends, 0.99) if ends else None,
        )
        self._ended, self._spent = ended, spent
        return taken


def children(pid: int) -> list[int]:
    """Of all threads of a process (proc_pid_task(5))."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += map(int, (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            continue
    return found


def groups(state: Path) -> Iterator[Path]:
    """Control groups of the jobs of the server with this state directory."""
    instance = (state / "instance").read_text().strip()
    for hierarchy in (_GROUPS, *_GROUPS.iterdir()):
        ours = hierarchy / "joblet.slice" / instance
        if ours.is_dir() and not hierarchy.is_symlink():
            yield from (path for path in ours.iterdir() if path.is_dir())


def mounts(pid: int, state: Path) -> list[str]:
    """Lines of proc_pid_mountinfo(5) that name the state directory."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line for line in lines if f" {state}/" in line]


def size(path: Path) -> int:
    """Bytes of a file; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
