"""What this host offers and shows: control groups, system directories, disks, and the ceilings that follow."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable
from pathlib import Path

from joblet.errors import HostUnable
from joblet.executor.local import cgroup_v1, cgroup_v2
from joblet.executor.local.cgroup import Cgroups
from joblet.executor.local.spec import View
from joblet.job import Limits
from joblet.order import MAX_INT32

_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc",
    # what language runtimes ask for: how many cores there are, and what memory allocators go by
    "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/kernel/mm/transparent_hugepage",
)  # fmt: skip
_SECRETS = (
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd",
    "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/etc/ssl/private", "/etc/letsencrypt", "/etc/joblet",
    "/etc/krb5.keytab", "/etc/ipsec.secrets", "/etc/wireguard", "/etc/NetworkManager/system-connections",
    "/etc/apt/auth.conf", "/etc/apt/auth.conf.d", "/etc/docker", "/etc/kubernetes", "/etc/machine-id",
)  # fmt: skip


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
    return Limits(
        max_cpu=100 * (os.cpu_count() or 1),
        max_memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        max_iobps=MAX_INT32,
        max_processes=int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii")),
        # what an infinite hard limit means: fs.nr_open (proc_sys_fs(5))
        max_open_files=min(resource.getrlimit(resource.RLIMIT_NOFILE)[1] % 2**64, _most_open_files()),
        max_disk=MAX_INT32,
        cpu_cores=Path("/sys/devices/system/cpu/online").read_text(encoding="ascii").strip(),
    )


def _most_open_files() -> int:
    return min(int(Path("/proc/sys/fs/nr_open").read_text(encoding="ascii")), MAX_INT32)


def view(more: View, private: Iterable[Path]) -> View:
    """What jobs see: the host's system directories and `more`, without the host's secrets and `private` paths.

    Raises HostUnable when a path of `more` cannot be shown as it should be.
    """
    private = [path.resolve() for path in private]
    for path in (*more.read_only, *more.writable):
        _check_shown(path)
    for path in more.writable:
        if any(path.is_relative_to(own) or own.is_relative_to(path) for own in private):
            raise HostUnable(f"isolation.writable: {path} would lay the server's own files open to jobs")
        if path.stat().st_uid == 0:
            raise HostUnable(f"isolation.writable: {path} belongs to root; give it to an unprivileged user (chown)")
        if not os.statvfs(path).f_flag & os.ST_NOSUID:
            raise HostUnable(
                f"isolation.writable: {path} is not mounted nosuid, so a job could leave setuid programs there; "
                f"mount it so, say by `mount -o bind,nosuid {path} {path}`"
            )
    shown = [Path(name) for name in _SYSTEM if os.path.lexists(name)]
    resolver = Path("/etc/resolv.conf").resolve()
    if resolver.exists() and not any(resolver.is_relative_to(path) for path in shown):
        shown.append(resolver)
    masked = (*map(Path, _SECRETS), *more.masked, *private)
    return View((*shown, *more.read_only), more.writable, masked, more.tmp_bytes)


def _check_shown(path: Path) -> None:
    if not path.exists():
        raise HostUnable(f"isolation: {path} does not exist")
    if path.resolve() != path:
        raise HostUnable(f"isolation: {path} leads through a symbolic link; write {path.resolve()}")


def on_disks(view: View) -> list[Path]:
    """The paths of a view whose reading or writing is disk I/O."""
    return [path for path in (*view.read_only, *view.writable) if not path.is_relative_to("/sys")]


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
