"""Limits by cgroup v1 controllers, each a hierarchy of its own (also the v1 part of a hybrid host)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from joblet.errors import CannotPause, HostUnable
from joblet.executor.base import Usage
from joblet.executor.local import freezer
from joblet.executor.local.cgroup import (
    MIB,
    PERIOD_US,
    Counts,
    lift,
    names_below,
    quota_us,
    read_counts,
    read_usage,
    remove_emptied,
    remove_unused,
)
from joblet.executor.local.spec import Group
from joblet.job import Limits, Receipt

NEEDED = ("cpu", "memory", "pids")
_FREEZER = "freezer"
USEFUL = ("blkio", "cpuacct", "cpuset", _FREEZER)
"""without them there is no I/O limit, no account of CPU time, no binding to cores and no pausing"""

Pairs = tuple[tuple[str, str], ...]

_THROTTLES = ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device")

_IO = "blkio.throttle.io_service_bytes_recursive"
_IO_COUNTS: Counts = (("io_read", "Read", 1), ("io_write", "Write", 1))
_USAGE: tuple[tuple[str, str, Counts], ...] = (
    ("cpuacct", "cpuacct.usage", (("cpu_usec", "", 1000),)),
    ("cpu", "cpu.stat", (("throttled_usec", "throttled_time", 1000),)),
    ("memory", "memory.usage_in_bytes", (("memory", "", 1),)),
    ("memory", "memory.max_usage_in_bytes", (("memory_peak", "", 1),)),
    ("blkio", _IO, _IO_COUNTS),
    ("pids", "pids.current", (("processes", "", 1),)),
)
"""controller, file and what it counts"""


class CgroupV1:
    """Makes a group in each controller that limits or counts. Groups lie below `joblet.slice/INSTANCE`.

    The mutable state is what the kernel forgets of jobs that have ended.
    """

    name = "v1"

    def __init__(self, mounts: dict[str, Path], instance: str) -> None:
        """`mounts` gives each controller's mount point. Raises HostUnable when a needed one is missing."""
        missing = [controller for controller in NEEDED if controller not in mounts]
        if missing:
            raise HostUnable(f"cgroup setup failed: no {missing[0]} controller")
        self._bases = {
            controller: mounts[controller] / "joblet.slice" / instance
            for controller in (*NEEDED, *USEFUL)
            if controller in mounts
        }
        self._ended = self._told = (0, 0)
        """bytes read and written by jobs that have ended, and by all as `total` has said"""

    def prepare(self) -> None:
        for base in self._bases.values():
            base.mkdir(parents=True, exist_ok=True)
        if "cpuset" in self._bases:
            # A new group has no cores and no memory nodes, and takes no process until it has: cpuset(7).
            base = self._bases["cpuset"]
            for group in (base.parent, base):
                for file in ("cpuset.mems", "cpuset.cpus"):
                    (group / file).write_text((group.parent / file).read_text())

    def groups(self, name: str, limits: Limits, devices: tuple[str, ...]) -> list[Group]:
        memory = limits.max_memory * MIB
        controllers: dict[str, tuple[Pairs, Pairs]] = {
            "cpu": (
                (("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(quota_us(limits)))),
                (("throttled_nsec", "cpu.stat:throttled_time"),),
            ),
            "memory": (
                (("memory.limit_in_bytes", str(memory)), *self._swap(memory)),
                (("oom_kill", "memory.oom_control:oom_kill"), ("memory_peak", "memory.max_usage_in_bytes")),
            ),
            "pids": ((("pids.max", str(limits.max_processes)),), (("processes_peak", "pids.peak"),)),
        }
        if "cpuacct" in self._bases:
            controllers["cpuacct"] = ((), (("cpu_nsec", "cpuacct.usage"),))
        if "blkio" in self._bases:
            controllers["blkio"] = (
                _throttle(limits, devices),
                (("io_read", f"{_IO}:Read"), ("io_write", f"{_IO}:Write")),
            )
        elif limits.max_iobps:
            raise HostUnable("cgroup setup failed: no blkio controller")
        if limits.cpu_cores:
            if "cpuset" not in self._bases:
                raise HostUnable("cgroup setup failed: no cpuset controller")
            nodes = (self._bases["cpuset"] / "cpuset.mems").read_text().strip()
            controllers["cpuset"] = ((("cpuset.mems", nodes), ("cpuset.cpus", limits.cpu_cores)), ())
        return self._merge(name, controllers)

    def usage(self, name: str) -> Usage | None:
        there = ((self._bases.get(controller), file, counts) for controller, file, counts in _USAGE)
        return read_usage((base / name / file, counts) for base, file, counts in there if base is not None)

    def total(self) -> Usage | None:
        found = self.usage("")
        if found is None:
            return None
        # A group tells of the throttling of its own processes only.
        read, written = self._total_io() if found.io_read is not None else (None, None)
        return replace(found, throttled_usec=None, io_read=read, io_write=written)

    def _total_io(self) -> tuple[int, int]:
        """The kernel's own sum is without those groups that are gone, and has them for a moment after that."""
        base = self._bases["blkio"]
        there = [read_counts([(base / name / _IO, _IO_COUNTS)]) for name in names_below((base,))]
        read, written = (
            before + sum(each.get(field, 0) for each in there)
            for before, field in zip(self._ended, ("io_read", "io_write"), strict=True)
        )
        # Nothing tells, for a moment, of a job whose groups are gone and whose receipt has not come yet.
        self._told = max(self._told[0], read), max(self._told[1], written)
        return self._told

    def add_ended(self, used: Receipt) -> None:
        self._ended = self._ended[0] + (used.io_read or 0), self._ended[1] + (used.io_write or 0)

    def freeze(self, name: str) -> None:
        group = self._freezer / name
        try:
            freezer.freeze_v1(group, self._bases["pids"] / name, self._freezer.parent.parent)
        except FileNotFoundError:
            self.forget(name)
            raise

    def thaw(self, name: str) -> None:
        if _FREEZER in self._bases:
            freezer.thaw_v1(self._freezer / name)

    def is_frozen(self, name: str) -> bool:
        return _FREEZER in self._bases and freezer.is_frozen_v1(self._freezer / name)

    def forget(self, name: str) -> None:
        if _FREEZER in self._bases and (self._freezer / name).exists():
            self.thaw(name)
            remove_emptied(self._freezer / name)

    @property
    def _freezer(self) -> Path:
        if _FREEZER not in self._bases:
            raise CannotPause("this host has no freezer controller")
        return self._bases[_FREEZER]

    def clean(self, name: str) -> None:
        # What is frozen here does not even die, nor does what waits for I/O.
        self.thaw(name)
        if "blkio" in self._bases:
            lift((self._bases["blkio"] / name / file for file in _THROTTLES), _lifted)
        # Its init has died with the monitor, by the parent-death signal, and its namespace with that.
        for base in self._bases.values():
            remove_emptied(base / name)

    def leftovers(self) -> set[str]:
        return names_below(self._bases.values())

    def remove(self) -> None:
        for base in self._bases.values():
            remove_unused((base, base.parent))

    def _merge(self, name: str, controllers: dict[str, tuple[Pairs, Pairs]]) -> list[Group]:
        """One group for the controllers that are mounted together, as cpu and cpuacct often are."""
        merged: dict[Path, Group] = {}
        for controller, (settings, stats) in controllers.items():
            path = self._bases[controller] / name
            before = merged.get(path, Group(path, False, ()))
            oom = "memory.oom_control" if controller == "memory" else before.oom
            lifting = before.lifting + tuple((file, _lifted(value)) for file, value in settings if file in _THROTTLES)
            merged[path] = Group(path, False, before.settings + settings, before.stats + stats, "", oom, lifting)
        return list(merged.values())

    def _swap(self, memory: int) -> Pairs:
        # Memory and swap together get the same bound, so swap adds nothing. Without swap accounting in the kernel the
        # group may not swap at all.
        if (self._bases["memory"] / "memory.memsw.limit_in_bytes").exists():
            return (("memory.memsw.limit_in_bytes", str(memory)),)
        return (("memory.swappiness", "0"),)


def _throttle(limits: Limits, devices: tuple[str, ...]) -> Pairs:
    if not limits.max_iobps:
        return ()
    return tuple((file, f"{device} {limits.max_iobps}") for device in devices for file in _THROTTLES)


def _lifted(limit: str) -> str:
    """What takes a limit of a device's bytes a second back."""
    return f"{limit.split()[0]} 0"


def find_mounts(mountinfo: str) -> dict[str, Path]:
    """Mount point of each v1 controller, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    mounts: dict[str, Path] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup" and os.access(before.split()[4], os.W_OK):
            for option in options.split(","):
                mounts.setdefault(option, Path(before.split()[4]))
    return mounts
