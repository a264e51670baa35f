"""Where the server keeps its state and jobs write: room, durability, disks to limit."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from joblet.doctor.child import Outcome, attempt
from joblet.doctor.context import Context, existing, read
from joblet.doctor.report import Checks, Row, Verdict, size, unknown
from joblet.errors import HostUnable
from joblet.executor.local import disk
from joblet.executor.local import host as local_host
from joblet.server.settings import executor_settings

_LITTLE = 1 << 30
"""bytes; fewer free ones are a gap"""
_FEW_INODES = 10_000
_VOLATILE = ("tmpfs", "ramfs", "overlay")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    point: str
    kind: str
    source: str


def checks(context: Context) -> Checks:
    """The section's checks by name."""
    directory = existing(context.state_dir)
    return {
        "state directory": lambda: _state_directory(context.state_dir, directory),
        "durable writes": lambda: judge_durable(directory, attempt(lambda: _write_durably(directory))),
        "direct I/O": lambda: judge_direct(attempt(lambda: _open_directly(directory))),
        "disks": lambda: _disks(context, directory),
        "job disks": lambda: _job_disks(context),
    }


def find_mount(mountinfo: str, path: str) -> Mount | None:
    """The mount that holds an absolute path: the deepest, and of several there the last (proc_pid_mountinfo(5))."""
    best: Mount | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, what = before.split(), after.split(" ")
        if len(fields) < 5 or len(what) < 2:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])  # spaces and their like
        if Path(path).is_relative_to(point) and (best is None or len(point) >= len(best.point)):
            best = Mount(point, what[0], what[1])
    return best


def _state_directory(wanted: Path, directory: Path) -> list[Row]:
    status, room = directory.stat(), os.statvfs(directory)
    return [
        judge_state_directory(wanted, directory, status.st_uid, status.st_mode),
        judge_room(
            find_mount(read("/proc/self/mountinfo"), str(directory.resolve())),
            room.f_bavail * room.f_frsize,
            room.f_favail if room.f_files else None,
        ),
    ]


def judge_state_directory(wanted: Path, directory: Path, owner: int, mode: int) -> Row:
    use = "database, job directories, logs"
    if wanted != directory:
        return Row("state directory", f"{wanted}: not yet there", f"{use}: the server makes it")
    if owner != 0 or mode & 0o077:
        advice = f"Run chown root {wanted} and chmod 700 {wanted}."
        host = f"{wanted}: mode {mode & 0o777:o} of user {owner}"
        return Row("state directory", host, f"{use}, for root only", Verdict.GAP, advice)
    return Row("state directory", str(wanted), use)


def judge_room(mount: Mount | None, free: int, inodes: int | None) -> Row:
    """`inodes` is None for a file system that does not count them."""
    use = "logs and work directories of jobs"
    host = f"{mount.kind} on {mount.source}" if mount else "unknown file system"
    host += f", {size(free)} and {'any number of' if inodes is None else inodes} files free"
    if free < _LITTLE or (inodes is not None and inodes < _FEW_INODES):
        return Row("room", host, use, Verdict.GAP, "Make room, or move server.stateDir to a larger file system.")
    if mount and mount.kind in _VOLATILE:
        advice = "Set server.stateDir to a directory on a disk: what is here ends with the host or its container."
        return Row("room", host, use, Verdict.GAP, advice)
    return Row("room", host, use)


def _write_durably(directory: Path) -> None:
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".joblet-doctor-") as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())
        os.fsync(folder)


def judge_durable(directory: Path, written: Outcome) -> Row:
    use = "every acknowledged job is on disk"
    if written.ok:
        return Row("durable writes", f"fsync works in {directory}", use)
    if written.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        return unknown("durable writes", use)
    advice = "Set server.stateDir to a directory of a file system that can be written and synchronised."
    return Row("durable writes", f"{directory}: {written.why}", use, Verdict.FAILS, advice)


def _open_directly(directory: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".joblet-doctor-") as file:
        os.close(os.open(file.name, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC))


def judge_direct(opened: Outcome) -> Row:
    use = "job disks without a second copy in memory; on v1 what --max-iobps holds for"
    if opened.ok:
        return Row("direct I/O", "O_DIRECT works", use)
    if opened.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        return unknown("direct I/O", use)
    return Row(
        "direct I/O", f"O_DIRECT: {opened.why}", use, Verdict.NOTE, "Keep server.stateDir on ext4, xfs or btrfs."
    )


def _disks(context: Context, directory: Path) -> Row:
    try:
        view = local_host.view(executor_settings(context.config, context.config_path, directory).view, ())
        disks = local_host.backing_disks([directory, *local_host.on_disks(view)])
    except (HostUnable, OSError) as error:
        return judge_disks((), str(error))
    return judge_disks(tuple(f"{number} {_disk_name(number)}".strip() for number in disks), "")


def _disk_name(number: str) -> str:
    entry = Path("/sys/dev/block", number)
    return entry.resolve().name if entry.exists() else ""


def judge_disks(disks: tuple[str, ...], trouble: str) -> Row:
    if trouble:
        advice = "Keep server.stateDir on a file system of a disk where jobs shall have I/O limits."
        return Row("disks", trouble, "--max-iobps is refused", Verdict.GAP, advice)
    return Row("disks", ", ".join(disks), "--max-iobps holds on each")


def _job_disks(context: Context) -> Row:
    ext4 = "ext4" in read("/proc/filesystems").split() or _has_module("ext4")
    control = Path("/dev/loop-control").exists() or _has_module("loop")
    loop = attempt(_open_loop_control) if context.root and control else Outcome()
    return judge_job_disks(disk.find_mkfs(), ext4, control, loop)


def _has_module(name: str) -> bool:
    """Whether the kernel's modules, loaded on demand, include it: modules.dep(5)."""
    listing = read(f"/lib/modules/{os.uname().release}/modules.dep")
    return any(line.partition(":")[0].rpartition("/")[2].startswith(f"{name}.ko") for line in listing.splitlines())


def _open_loop_control() -> None:
    """Opening loads the module: the device's node is there before it, loop(4)."""
    os.close(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC))


def judge_job_disks(program: str | None, ext4: bool, control: bool, loop: Outcome) -> Row:
    missing = {
        "mkfs.ext4": (program is not None, "install e2fsprogs"),
        "ext4": (ext4, "use a kernel with ext4"),
        "loop devices": (control and loop.ok, "run modprobe loop, and let the server open /dev/loop-control"),
    }
    lacking = [name for name, (there, _) in missing.items() if not there]
    if not lacking:
        return Row("job disks", "mkfs.ext4, ext4, loop devices", "--max-disk: a file system for each such job")
    steps = " and ".join(missing[name][1] for name in lacking)
    advice = f"{steps[:1].upper()}{steps[1:]}."
    return Row("job disks", f"no {', no '.join(lacking)}", "--max-disk is refused", Verdict.GAP, advice)
