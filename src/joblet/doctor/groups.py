"""Control groups: which kind, which controllers, and what a job or its receipt does without."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from joblet.doctor.context import Context, read
from joblet.doctor.hierarchies import Hierarchies, own_group, parse_disabled, parse_mounts
from joblet.doctor.report import Checks, Row, Verdict, unknown
from joblet.errors import HostUnable
from joblet.executor.local import host as local_host

_UNIFIED = "systemd.unified_cgroup_hierarchy=1"
"""the boot parameter that makes systemd mount v2 only"""


@dataclass(frozen=True, slots=True)
class Use:
    """What a controller is for."""

    use: str
    without: str
    needed: bool = False
    v1_only: bool = False


_CONTROLLERS = {
    "cpu": Use("--max-cpu, and the receipt's throttled time", "no job starts", needed=True),
    "memory": Use("--max-memory, and the receipt's peak", "no job starts", needed=True),
    "pids": Use("--max-processes", "no job starts", needed=True),
    "io": Use("--max-iobps, and the receipt's bytes read and written", "--max-iobps is refused"),
    "cpuset": Use("--cpu-cores", "--cpu-cores is refused"),
    "cpuacct": Use("the receipt's cpu time", "receipts lack cpu time", v1_only=True),
    "freezer": Use("rnx pause", "rnx pause is refused", v1_only=True),
}


def checks(context: Context) -> Checks:
    """The section's checks by name."""
    found = parse_mounts(read("/proc/self/mountinfo"), lambda mount: read(mount / "cgroup.controllers"))
    disabled = parse_disabled(read("/proc/cgroups"))
    return {
        "mode": lambda: judge_mode(found),
        "controllers": lambda: [
            judge_controller(name, found, disabled)
            for name, use in _CONTROLLERS.items()
            if found.used != "none" and not (use.v1_only and found.used == "v2")
        ],
        "groups": lambda: _files(context, found),
    }


def judge_mode(found: Hierarchies) -> Row:
    if found.used == "none":
        advice = "Mount control groups at /sys/fs/cgroup, as systemd does."
        return Row("mode", "no control groups are mounted", "limits", Verdict.FAILS, advice)
    if found.used == "v2":
        return Row("mode", found.mode, "v2: one group for each job, killed whole")
    host = "hybrid: v1, and v2 without memory" if found.mode == "hybrid" else "v1"
    use = "v1: --max-iobps holds for direct I/O only, not for writes through the page cache"
    return Row("mode", host, use, Verdict.GAP, f"Boot with {_UNIFIED} for v2, which limits both.")


def judge_controller(name: str, found: Hierarchies, disabled: set[str]) -> Row:
    """`name` as v2 has it."""
    use = _CONTROLLERS[name]
    label = "io (blkio)" if name == "io" and found.used == "v1" else name
    mount = found.mount(name)
    verdict = Verdict.FAILS if use.needed else Verdict.GAP
    if mount in found.read_only:
        return Row(label, f"{mount}, read-only", use.without, verdict, f"Mount {mount} writable for the server.")
    if mount is not None:
        return Row(label, f"{found.used}, {mount}", use.use)
    off = name in disabled or (name == "io" and "blkio" in disabled)
    if off:
        advice = f"Boot with cgroup_enable={name} and without cgroup_disable."
        return Row(label, "switched off at boot", use.without, verdict, advice)
    if found.used == "v2" and found.mode == "hybrid":
        return Row(label, "not on v2", use.without, verdict, f"Boot with {_UNIFIED}: v1 has taken it.")
    advice = "Let the controller be delegated to this container, or use a kernel that has it."
    return Row(label, "missing", use.without, verdict, advice)


def _files(context: Context, found: Hierarchies) -> list[Row]:
    """As root by groups made and removed again as the server makes them; else by one's own groups."""
    use = "a group for each job, below joblet.slice"
    if found.used == "none":
        return []
    if not context.root:
        return [unknown("job groups", use), *_judge_files(found, _own_groups(found), tried=False)]
    try:
        with _groups_of_server(found) as groups:
            return [Row("job groups", "can be made and limited", use), *_judge_files(found, groups, tried=True)]
    except (HostUnable, OSError) as error:
        text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        advice = "Let this host's root make groups: mount them writable, and in a container delegate them to it."
        return [Row("job groups", text, use, Verdict.FAILS, advice)]


@contextlib.contextmanager
def _groups_of_server(found: Hierarchies) -> Iterator[dict[str, Path]]:
    """Groups as they are above a server's jobs, by controller; v2 has one for all."""
    instance = f"doctor-{os.getpid()}"
    cgroups = local_host.find_cgroups(instance)
    try:
        cgroups.prepare()
        mounts = {"": found.unified} if found.used == "v2" else dict(found.v1)
        yield {name: mount / "joblet.slice" / instance for name, mount in mounts.items() if mount is not None}
    finally:
        cgroups.remove()


def _own_groups(found: Hierarchies) -> dict[str, Path]:
    text = read("/proc/self/cgroup")
    if found.used == "v2" and found.unified is not None:
        return {"": found.unified / own_group(text, None).lstrip("/")}
    return {name: mount / own_group(text, name).lstrip("/") for name, mount in found.v1.items()}


def _judge_files(found: Hierarchies, groups: dict[str, Path], *, tried: bool) -> list[Row]:
    def has(controller: str, name: str) -> bool:
        return (groups.get("" if found.used == "v2" else controller, Path("/nowhere")) / name).exists()

    if found.used == "v1":
        return [
            judge_swap_v1(has("memory", "memory.memsw.limit_in_bytes")),
            judge_pids_peak(has("pids", "pids.peak"), tried),
        ]
    return [
        judge_kill(has("", "cgroup.kill"), tried),
        judge_swap_v2(has("", "memory.swap.max"), Path("/proc/swaps").exists(), tried),
        judge_memory_peak(has("", "memory.peak"), tried),
        judge_pids_peak(has("", "pids.peak"), tried),
    ]


def judge_swap_v1(accounted: bool) -> Row:
    if accounted:
        return Row("swap", "accounted", "closed to jobs: one bound for memory and swap (memory.memsw)")
    return Row("swap", "not accounted", "closed to jobs by memory.swappiness=0")


def judge_swap_v2(accounted: bool, kernel_swaps: bool, tried: bool) -> Row:
    use = "closed to jobs by memory.swap.max"
    if accounted:
        return Row("swap", "memory.swap.max", use)
    if not kernel_swaps:
        return Row("swap", "the kernel has none", "nothing to close")
    if not tried:
        return unknown("swap", use)
    advice = "Boot with swapaccount=1: without the file no job starts."
    return Row("swap", "no memory.swap.max", use, Verdict.FAILS, advice)


def judge_kill(present: bool, tried: bool) -> Row:
    use = "ends a job at once"
    if present:
        return Row("cgroup.kill", "present", use)
    if not tried:
        return unknown("cgroup.kill", use)
    use = "does without: the end of its first process ends a job"
    return Row("cgroup.kill", "missing", use, Verdict.NOTE, "Linux 5.14 has it.")


def judge_memory_peak(present: bool, tried: bool) -> Row:
    return _judge_peak("memory.peak", "the receipt's peak memory", "5.19", present, tried)


def judge_pids_peak(present: bool, tried: bool) -> Row:
    return _judge_peak("pids.peak", "the receipt's peak of processes", "6.11", present, tried)


def _judge_peak(name: str, use: str, since: str, present: bool, tried: bool) -> Row:
    if present:
        return Row(name, "present", use)
    if not tried:
        return unknown(name, use)
    return Row(name, "missing", f"receipts lack it: {use}", Verdict.GAP, f"Use Linux {since} or newer.")
