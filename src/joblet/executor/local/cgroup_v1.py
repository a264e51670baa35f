"""Limits by cgroup v1 controllers, each a hierarchy of its own (also the v1 part of a hybrid host)."""

from __future__ import annotations

import os
from pathlib import Path

from joblet.errors import HostUnable
from joblet.executor.local.cgroup import MIB, PERIOD_US, names_below, quota_us, remove_emptied, remove_unused
from joblet.executor.local.spec import Group
from joblet.job import Limits


class CgroupV1:
    """Makes a group in each controller that limits a job. Groups lie below `joblet.slice/INSTANCE`."""

    name = "v1"

    def __init__(self, mounts: dict[str, Path], instance: str) -> None:
        """`mounts` gives each controller's mount point. Raises HostUnable when a needed one is missing."""
        missing = [controller for controller in ("cpu", "memory", "pids") if controller not in mounts]
        if missing:
            raise HostUnable(f"cgroup setup failed: no {missing[0]} controller")
        self._bases = {controller: mount / "joblet.slice" / instance for controller, mount in mounts.items()}

    def prepare(self) -> None:
        for controller in ("cpu", "memory", "pids", "blkio"):
            if controller in self._bases:
                self._bases[controller].mkdir(parents=True, exist_ok=True)

    def groups(self, name: str, limits: Limits, max_processes: int, devices: tuple[str, ...]) -> list[Group]:
        memory = limits.max_memory * MIB
        groups = [
            self._group("cpu", name, (("cpu.cfs_period_us", PERIOD_US), ("cpu.cfs_quota_us", quota_us(limits)))),
            self._group(
                "memory",
                name,
                (("memory.limit_in_bytes", memory), *self._swap(memory)),
                (("oom_kill", "memory.oom_control:oom_kill"), ("memory_peak", "memory.max_usage_in_bytes")),
            ),
            self._group("pids", name, (("pids.max", max_processes),)),
        ]
        if limits.max_iobps:
            if "blkio" not in self._bases:
                raise HostUnable("cgroup setup failed: no blkio controller")
            files = ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device")
            settings = tuple((file, f"{device} {limits.max_iobps}") for device in devices for file in files)
            groups.append(self._group("blkio", name, settings))
        return groups

    def clean(self, name: str) -> None:
        # Its init has died with the monitor, by the parent-death signal, and its namespace with that.
        for base in self._bases.values():
            remove_emptied(base / name)

    def leftovers(self) -> set[str]:
        return names_below(self._bases.values())

    def remove(self) -> None:
        for base in self._bases.values():
            remove_unused((base, base.parent))

    def _group(
        self,
        controller: str,
        name: str,
        settings: tuple[tuple[str, object], ...],
        stats: tuple[tuple[str, str], ...] = (),
    ) -> Group:
        path = self._bases[controller] / name
        return Group(path, False, tuple((file, str(value)) for file, value in settings), stats)

    def _swap(self, memory: int) -> tuple[tuple[str, object], ...]:
        # Memory and swap together get the same bound, so swap adds nothing. Without swap accounting in the kernel the
        # group may not swap at all.
        if (self._bases["memory"] / "memory.memsw.limit_in_bytes").exists():
            return (("memory.memsw.limit_in_bytes", memory),)
        return (("memory.swappiness", 0),)


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
