"""Limits by cgroup v2, the unified hierarchy (kernel's admin-guide/cgroup-v2)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from joblet.errors import HostUnable
from joblet.executor.base import Usage
from joblet.executor.local import freezer
from joblet.executor.local.cgroup import (
    MIB,
    PERIOD_US,
    Counts,
    lift,
    names_below,
    quota_us,
    read_usage,
    remove_emptied,
    remove_unused,
)
from joblet.executor.local.spec import Group
from joblet.job import Limits, Receipt

NEEDED = ("cpu", "memory", "pids")
USEFUL = ("io", "cpuset")
"""without them there is no I/O limit and no account of it, and no binding to cores"""

_STATS = (
    ("oom_kill", "memory.events:oom_kill"),
    ("memory_peak", "memory.peak"),
    ("cpu_usec", "cpu.stat:usage_usec"),
    ("throttled_usec", "cpu.stat:throttled_usec"),
    ("processes_peak", "pids.peak"),
    ("io_read", "io.stat:rbytes"),
    ("io_write", "io.stat:wbytes"),
)

_USAGE: tuple[tuple[str, Counts], ...] = (
    ("cpu.stat", (("cpu_usec", "usage_usec", 1), ("throttled_usec", "throttled_usec", 1))),
    ("memory.current", (("memory", "", 1),)),
    ("memory.peak", (("memory_peak", "", 1),)),
    ("io.stat", (("io_read", "rbytes", 1), ("io_write", "wbytes", 1))),
    ("pids.current", (("processes", "", 1),)),
)
"""file and what it counts"""

_IO_MAX = "io.max"


class CgroupV2:
    """Makes one group for each job, below `joblet.slice/INSTANCE`.

    Not below the server's own service: systemd could not start that again while its group holds groups of jobs.
    """

    name = "v2"

    def __init__(self, mount: Path, instance: str) -> None:
        """Raises HostUnable when a needed controller is missing."""
        available = (mount / "cgroup.controllers").read_text().split()
        missing = [controller for controller in NEEDED if controller not in available]
        if missing:
            raise HostUnable(f"cgroup setup failed: no {missing[0]} controller")
        self._controllers = [controller for controller in (*NEEDED, *USEFUL) if controller in available]
        self._mount = mount
        self._slice = mount / "joblet.slice"
        self._base = self._slice / instance

    def prepare(self) -> None:
        self._base.mkdir(parents=True, exist_ok=True)
        for parent in (self._mount, self._slice, self._base):
            (parent / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in self._controllers))

    def groups(self, name: str, limits: Limits, devices: tuple[str, ...]) -> list[Group]:
        settings: list[tuple[str, str]] = [
            ("cpu.max", f"{quota_us(limits)} {PERIOD_US}"),
            ("memory.max", str(limits.max_memory * MIB)),
            ("memory.oom.group", "1"),
            ("pids.max", str(limits.max_processes)),
        ]
        # Absent when the kernel has no swap support at all, and then there is nothing to close.
        if os.path.exists("/proc/swaps"):
            settings.append(("memory.swap.max", "0"))
        if limits.max_iobps:
            if "io" not in self._controllers:
                raise HostUnable("cgroup setup failed: no io controller")
            settings += [(_IO_MAX, f"{device} rbps={limits.max_iobps} wbps={limits.max_iobps}") for device in devices]
        if limits.cpu_cores:
            if "cpuset" not in self._controllers:
                raise HostUnable("cgroup setup failed: no cpuset controller")
            settings.append(("cpuset.cpus", limits.cpu_cores))
        lifting = tuple((file, _lifted(value)) for file, value in settings if file == _IO_MAX)
        return [Group(self._base / name, True, tuple(settings), _STATS, "cgroup.kill", lifting=lifting)]

    def usage(self, name: str) -> Usage | None:
        return read_usage((self._base / name / file, counts) for file, counts in _USAGE)

    def total(self) -> Usage | None:
        return read_usage((self._base / file, counts) for file, counts in _USAGE)

    def add_ended(self, used: Receipt) -> None:
        pass

    def freeze(self, name: str) -> None:
        freezer.freeze_v2(self._base / name)

    def thaw(self, name: str) -> None:
        freezer.thaw_v2(self._base / name)

    def is_frozen(self, name: str) -> bool:
        return freezer.is_frozen_v2(self._base / name)

    def forget(self, name: str) -> None:
        pass

    def clean(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self._base / name / "cgroup.kill").write_text("1")
        lift((self._base / name / _IO_MAX,), _lifted)  # what waits for I/O does not even die
        remove_emptied(self._base / name)

    def leftovers(self) -> set[str]:
        return names_below((self._base,))

    def remove(self) -> None:
        remove_unused((self._base, self._slice))


def find_mount(mountinfo: str) -> Path | None:
    """Mount point of the unified hierarchy, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            return Path(before.split()[4])
    return None


def _lifted(limit: str) -> str:
    """What takes a limit of a device's bytes a second back."""
    return f"{limit.split()[0]} rbps=max wbps=max"
