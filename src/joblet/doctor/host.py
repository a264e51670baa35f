"""The machine and the caller: kernel, privileges, root directory, numbers, time."""

from __future__ import annotations

import errno
import os
import platform
import resource
import sys
from collections.abc import Mapping

from joblet.doctor import kernel
from joblet.doctor.child import Outcome, attempt
from joblet.doctor.context import Context, read
from joblet.doctor.report import Checks, Row, Verdict

ARCHITECTURES = ("x86_64", "aarch64")
"""those that the shim has a system call filter for"""
OLDEST = (5, 12)
"""has every system call that the shim cannot do without"""

_SERVER_FILES, _FILES_OF_A_JOB = 256, 4
"""descriptors the server holds, with what the readers of a job take"""

_CALLS: Mapping[str, tuple[int, tuple[int | None, ...]]] = {
    "pidfd_send_signal": (kernel.PIDFD_SEND_SIGNAL, (-1, 0, None, -1)),
    "open_tree": (kernel.OPEN_TREE, (-1, None, -1)),
    "move_mount": (kernel.MOVE_MOUNT, (-1, None, -1, None, -1)),
    "fsopen": (kernel.FSOPEN, (None, -1)),
    "fsconfig": (kernel.FSCONFIG, (-1, -1, None, None, 0)),
    "fsmount": (kernel.FSMOUNT, (-1, -1, 0)),
    "pidfd_open": (kernel.PIDFD_OPEN, (-1, -1)),
    "clone3": (kernel.CLONE3, (None, 0)),
    "close_range": (kernel.CLOSE_RANGE, (1, 0, 0)),
    "openat2": (kernel.OPENAT2, (-1, None, None, 0)),
    "mount_setattr": (kernel.MOUNT_SETATTR, (-1, None, 0, None, 0)),
}
"""What the shim calls that is younger than Linux 5, with arguments that every kernel refuses."""

_CAPABILITIES: Mapping[str, tuple[int, bool]] = {
    "CAP_CHOWN": (0, True),
    "CAP_DAC_OVERRIDE": (1, True),
    "CAP_FOWNER": (3, True),
    "CAP_KILL": (5, True),
    "CAP_SETGID": (6, True),
    "CAP_SETUID": (7, True),
    "CAP_SETPCAP": (8, True),
    "CAP_SYS_CHROOT": (18, True),
    "CAP_SYS_ADMIN": (21, True),
    "CAP_SYS_RESOURCE": (24, False),
    "CAP_MKNOD": (27, False),
}
"""What the server and its shims use: the number, and whether they cannot do without (capabilities(7))."""


def checks(context: Context) -> Checks:
    """The section's checks by name."""
    return {
        "kernel": lambda: judge_kernel(platform.machine(), os.uname().release, context.release),
        "system calls": lambda: judge_calls([name for name in _CALLS if not _has_call(name)]),
        "privileges": lambda: judge_caller(
            context.root, os.geteuid(), context.capabilities, read("/proc/self/uid_map")
        ),
        "root directory": lambda: _root_directory(context),
        "processes": lambda: _processes(context),
        "open files": lambda: _open_files(context),
        "clock": lambda: judge_clock(attempt(lambda: "yes" if kernel.clock_is_synchronised() else "no")),
        "boot id": lambda: judge_boot_id(read("/proc/sys/kernel/random/boot_id")),
    }


def judge_kernel(machine: str, release: str, version: tuple[int, int]) -> Row:
    host, use = f"Linux {release}, {machine}", f"needs {OLDEST[0]}.{OLDEST[1]} or newer on {' or '.join(ARCHITECTURES)}"
    if machine not in ARCHITECTURES:
        advice = f"Use a machine of {' or '.join(ARCHITECTURES)}: there is no system call filter for {machine}."
        return Row("kernel", host, use, Verdict.FAILS, advice)
    if sys.maxsize < 2**32:
        advice = "Use a 64-bit Python: the shim is built for what Python runs on."
        return Row("kernel", f"{host}, 32-bit Python", use, Verdict.FAILS, advice)
    if version < OLDEST:
        advice = "Use a newer kernel: on Debian, release 12 or newer has one."
        return Row("kernel", host, use, Verdict.FAILS, advice)
    return Row("kernel", host, use)


def _has_call(name: str) -> bool:
    number, arguments = _CALLS[name]
    outcome = attempt(lambda: str(kernel.syscall(number, *arguments)))
    return outcome.errno != errno.ENOSYS and not outcome.signal


def judge_calls(missing: list[str]) -> Row:
    use = "the shim makes mounts and processes with them"
    if missing:
        advice = "Use a newer kernel, or loosen the system call filter that this container runs under."
        return Row("system calls", f"missing: {', '.join(missing)}", use, Verdict.FAILS, advice)
    return Row("system calls", f"all {len(_CALLS)} of the newer ones answer", use)


def judge_caller(root: bool, uid: int, capabilities: int, uid_map: str) -> Row:
    use = "the server runs as root"
    if not root:
        advice = "Run joblet doctor as root for the rest; this shows what an unprivileged user can find out."
        return Row("privileges", f"user id {uid}, unprivileged", use, Verdict.NOTE, advice)
    lacking = [name for name, (bit, _) in _CAPABILITIES.items() if not capabilities >> bit & 1]
    needed = [name for name in lacking if _CAPABILITIES[name][1]]
    host = f"root without {', '.join(lacking)}" if lacking else "root with every capability it needs"
    if needed:
        advice = f"Give the server {', '.join(needed)}, as by --cap-add or CapabilityBoundingSet."
        return Row("privileges", host, use, Verdict.FAILS, advice)
    if uid_map.split()[2:3] not in (["4294967295"], []):
        advice = (
            "Run the server as root of the host: here it is root of a user namespace, which may not mount or limit."
        )
        return Row("privileges", f"{host}, in a user namespace", use, Verdict.GAP, advice)
    return Row("privileges", host, f"{use}, and does without" if lacking else use)


def _root_directory(context: Context) -> Row:
    def identity() -> tuple[int, int, int]:
        here = os.stat("/")
        return here.st_dev, here.st_ino, kernel.mount_id("/")

    def compare() -> str:
        before = identity()
        kernel.join_own_mount_namespace()
        return "same" if identity() == before else "other"

    if context.root:
        return judge_root_directory(attempt(compare), False)
    return judge_root_directory(None, has_root_mount(read("/proc/self/mountinfo")))


def has_root_mount(mountinfo: str) -> bool:
    """Whether something is mounted on `/`, which is not so in most chroots: proc_pid_mountinfo(5)."""
    return any(line.split()[4:5] == ["/"] for line in mountinfo.splitlines())


def judge_root_directory(compared: Outcome | None, root_mounted: bool) -> Row:
    """`compared` with the root of the mount namespace; None where the caller may not look."""
    use = "jobs see its system directories"
    chroot = not root_mounted if compared is None else compared.value == "other"
    if chroot:
        return Row("root directory", "a chroot", use, Verdict.NOTE, "Nothing to do: jobs see the chroot's system.")
    if compared is not None and not compared.ok:
        advice = "Run the server where setns(2) is allowed: every job starts with it."
        return Row("root directory", f"setns: {compared.why}", use, Verdict.FAILS, advice)
    return Row("root directory", "not in a chroot", use)


def _processes(context: Context) -> Row:
    numbers = [int(text) for name in ("pid_max", "threads-max") if (text := read(f"/proc/sys/kernel/{name}")).isdigit()]
    section = context.config.joblet
    return judge_processes(min(numbers, default=0), section.maxConcurrentJobs, section.defaultProcessLimit)


def judge_processes(most: int, jobs: int, each: int) -> Row:
    use = f"{jobs} jobs at a time, of up to {each} processes each"
    if not most:
        return Row("processes", "not readable", use, Verdict.NOTE, "Mount /proc whole.")
    host = f"room for {most} processes and threads"
    if most <= each:
        advice = "Raise kernel.pid_max and kernel.threads-max by sysctl: one job can take every process number."
        return Row("processes", host, use, Verdict.GAP, advice)
    if most < jobs * each:
        advice = (
            f"Raise kernel.pid_max and kernel.threads-max by sysctl if {most // each + 1} jobs may fork their fill."
        )
        return Row("processes", host, use, Verdict.NOTE, advice)
    return Row("processes", host, use)


def _open_files(context: Context) -> Row:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    section = context.config.joblet
    return judge_open_files(hard, section.maxConcurrentJobs, section.defaultOpenFilesLimit)


def judge_open_files(hard: int, jobs: int, each: int) -> Row:
    """The server's own hard limit is the most that it gives to a job."""
    use = f"the server, and {each} for each process of a job"
    if hard == resource.RLIM_INFINITY:
        return Row("open files", "unlimited", use)
    host = f"at most {hard} in a process"
    advice = "Raise it, in the service by LimitNOFILE= as deploy/joblet.service does."
    if hard < _SERVER_FILES + _FILES_OF_A_JOB * jobs:
        return Row("open files", host, f"the server: {jobs} jobs and their readers", Verdict.GAP, advice)
    if hard < each:
        return Row("open files", host, f"{use}: they get {hard}", Verdict.NOTE, advice)
    return Row("open files", host, use)


def judge_clock(synchronised: Outcome) -> Row:
    use = "certificates and start times"
    if not synchronised.ok:
        advice = "Look at the clock yourself: the kernel does not tell."
        return Row("clock", f"adjtimex: {synchronised.why}", use, Verdict.NOTE, advice)
    if synchronised.value == "no":
        advice = "Let a time service keep it, such as systemd-timesyncd or chrony."
        return Row("clock", "nothing keeps it synchronised", use, Verdict.GAP, advice)
    return Row("clock", "synchronised", use)


def judge_boot_id(text: str) -> Row:
    use = "tells the jobs of this boot from older ones"
    if len(text) != 36:
        advice = "Mount /proc whole: /proc/sys/kernel/random/boot_id cannot be read."
        return Row("boot id", "not readable", use, Verdict.FAILS, advice)
    return Row("boot id", "readable", use)
