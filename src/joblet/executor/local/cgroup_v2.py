"""Limits by cgroup v2, the unified hierarchy (kernel's admin-guide/cgroup-v2)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from joblet.errors import HostUnable
from joblet.executor.local.spec import Group
from joblet.job import Limits

_PERIOD_US = 100_000
_MIB = 1 << 20
_NEEDED = ("cpu", "memory", "pids")


class CgroupV2:
    """Makes one group for each job, below `joblet.slice`.

    Started by systemd in `joblet.slice` with Delegate=yes, the server's own group is where jobs belong; the server then
    moves into a leaf of it, since a group with controllers for its children holds no process itself.
    """

    name = "v2"

    def __init__(self, mount: Path, own: str, instance: str) -> None:
        """`own` is this process's group relative to `mount`. Raises HostUnable when a needed controller is missing."""
        available = (mount / "cgroup.controllers").read_text().split()
        missing = [controller for controller in _NEEDED if controller not in available]
        if missing:
            raise HostUnable(f"cgroup setup failed: no {missing[0]} controller")
        self._controllers = [controller for controller in (*_NEEDED, "io", "cpuset") if controller in available]
        self._delegated = own.startswith("/joblet.slice/")
        self._top = mount / own.strip("/").removesuffix("/server") if self._delegated else mount / "joblet.slice"
        self._base = self._top / instance
        self._mount = mount

    def prepare(self) -> None:
        """Create what is above the jobs' groups and hand them the controllers. Raises OSError."""
        self._base.mkdir(parents=True, exist_ok=True)
        if self._delegated:
            leaf = self._top / "server"
            leaf.mkdir(exist_ok=True)
            for pid in (self._top / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (leaf / "cgroup.procs").write_text(pid)
            parents = [self._top, self._base]
        else:
            parents = [self._mount, self._top, self._base]
        for parent in parents:
            (parent / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in self._controllers))

    def groups(self, name: str, limits: Limits, max_processes: int, devices: tuple[str, ...]) -> list[Group]:
        """The group of one job. `devices` are `MAJOR:MINOR` of the disks that an I/O limit covers."""
        settings: list[tuple[str, str]] = [
            ("cpu.max", f"{limits.max_cpu * _PERIOD_US // 100} {_PERIOD_US}"),
            ("memory.max", str(limits.max_memory * _MIB)),
            ("memory.oom.group", "1"),
            ("pids.max", str(max_processes)),
        ]
        # Absent when the kernel has no swap support at all, and then there is nothing to close.
        if os.path.exists("/proc/swaps"):
            settings.append(("memory.swap.max", "0"))
        if limits.max_iobps:
            if "io" not in self._controllers:
                raise HostUnable("cgroup setup failed: no io controller")
            settings += [("io.max", f"{device} rbps={limits.max_iobps} wbps={limits.max_iobps}") for device in devices]
        stats = (
            ("oom_kill", "memory.events:oom_kill"),
            ("memory_peak", "memory.peak"),
            ("cpu_usec", "cpu.stat:usage_usec"),
        )
        return [Group(self._base / name, True, tuple(settings), stats, "cgroup.kill")]

    def clean(self, name: str) -> None:
        """End and remove what a lost monitor left of a job's group."""
        group = self._base / name
        with contextlib.suppress(OSError):
            (group / "cgroup.kill").write_text("1")
        with contextlib.suppress(OSError):
            group.rmdir()

    def leftovers(self) -> set[str]:
        """Names of the groups that exist."""
        return {entry.name for entry in self._base.iterdir() if entry.is_dir()} if self._base.is_dir() else set()

    def remove(self) -> None:
        """Remove the groups above the jobs', where no job is left."""
        for path in (self._base, self._top):
            with contextlib.suppress(OSError):
                path.rmdir()


def find_mount(mountinfo: str) -> Path | None:
    """Mount point of the unified hierarchy, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            return Path(before.split()[4])
    return None
