"""What this host offers and shows: control groups, system directories, disks, and the ceilings that follow."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from joblet.errors import HostUnable
from joblet.executor.local import cgroup_v1, cgroup_v2
from joblet.executor.local.cgroup import Cgroups
from joblet.executor.local.spec import View
from joblet.job import MAX_INT32, Limits

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc")
_SECRETS = (
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d",
    "/etc/ssh", "/etc/ssl/private", "/etc/joblet", "/etc/krb5.keytab", "/etc/machine-id",
)  # fmt: skip
_TMP_BYTES = 256 << 20


def find_cgroups(instance: str) -> Cgroups:
    """The host's control groups: v2 where it has the controllers, else v1. Raises HostUnable."""
    mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    unified = cgroup_v2.find_mount(mountinfo)
    mounts = cgroup_v1.find_mounts(mountinfo)
    if unified is not None and ("memory" not in mounts or _has_memory(unified)):
        return cgroup_v2.CgroupV2(unified, instance)
    if not mounts:
        raise HostUnable("cgroup setup failed: no cgroup file system is mounted")
    return cgroup_v1.CgroupV1(mounts, instance)


def _has_memory(unified: Path) -> bool:
    return "memory" in (unified / "cgroup.controllers").read_text(encoding="utf-8").split()


def ceiling() -> Limits:
    """The most a job may ask for on this host."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return Limits(max_cpu=100 * (os.cpu_count() or 1), max_memory=memory, max_iobps=MAX_INT32)


def default_view(private: Iterable[Path]) -> View:
    """The host's system directories, without its secrets and without `private` paths."""
    shown = [Path(name) for name in _SYSTEM if os.path.lexists(name)]
    resolver = Path("/etc/resolv.conf").resolve()
    if resolver.exists() and not any(resolver.is_relative_to(path) for path in shown):
        shown.append(resolver)
    masked = [Path(name) for name in _SECRETS]
    masked += [path.resolve() for path in private]
    return View(tuple(shown), tuple(masked), _TMP_BYTES)


def backing_disks(paths: Iterable[Path]) -> tuple[str, ...]:
    """`MAJOR:MINOR` of the whole disks behind `paths`, where I/O limits apply.

    Raises HostUnable for a file system with no disk behind it that the kernel could throttle.
    """
    disks: dict[str, None] = {}
    for path in paths:
        try:
            device = path.stat().st_dev
        except FileNotFoundError:
            continue
        if os.major(device) == 0:
            device = _source_device(path)
        disks[_whole_disk(device)] = None
    return tuple(disks)


def _source_device(path: Path) -> int:
    """The block device named as source of the mount that holds `path` (file systems such as btrfs)."""
    best, source = "", ""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split()[4]
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, source = mount, after.split(" ")[1]
    try:
        status = os.stat(source)
    except OSError:
        status = None
    if status is None or not stat.S_ISBLK(status.st_mode):
        raise HostUnable(f"cgroup setup failed: no disk behind {path} to limit I/O on")
    return status.st_rdev


def _whole_disk(device: int) -> str:
    """Limits are set on disks, not on partitions (sysfs: a partition's directory lies in its disk's)."""
    name = f"{os.major(device)}:{os.minor(device)}"
    entry = Path("/sys/dev/block", name).resolve()
    if (entry / "partition").exists():
        return (entry.parent / "dev").read_text(encoding="utf-8").strip()
    return name
