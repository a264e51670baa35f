"""Limits by cgroup v1 controllers, each a hierarchy of its own (also the v1 part of a hybrid host)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from joblet.errors import HostUnable
from joblet.executor.local.spec import Group
from joblet.job import Limits

_PERIOD_US = 100_000
_MIB = 1 << 20


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
        """Create what is above the jobs' groups. Raises OSError."""
        for controller in ("cpu", "memory", "pids", "blkio"):
            if controller in self._bases:
                self._bases[controller].mkdir(parents=True, exist_ok=True)

    def groups(self, name: str, limits: Limits, max_processes: int, devices: tuple[str, ...]) -> list[Group]:
        """The groups of one job. `devices` are `MAJOR:MINOR` of the disks that an I/O limit covers."""
        quota = limits.max_cpu * _PERIOD_US // 100
        memory = limits.max_memory * _MIB
        groups = [
            self._group("cpu", name, (("cpu.cfs_period_us", _PERIOD_US), ("cpu.cfs_quota_us", quota))),
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
        """Remove what a lost monitor left of a job's groups. Its init has died with it and its namespace with that."""
        for base in self._bases.values():
            with contextlib.suppress(OSError):
                (base / name).rmdir()

    def leftovers(self) -> set[str]:
        """Names of the groups that exist."""
        bases = [base for base in self._bases.values() if base.is_dir()]
        return {entry.name for base in bases for entry in base.iterdir() if entry.is_dir()}

    def remove(self) -> None:
        """Remove the groups above the jobs', where no job is left."""
        for base in self._bases.values():
            for path in (base, base.parent):
                with contextlib.suppress(OSError):
                    path.rmdir()

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
