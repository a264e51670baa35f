"""Keeping all processes of a control group from running (cgroups(7); the kernel's cgroup-v1/freezer-subsystem)."""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path

from joblet.errors import CannotPause

PATIENCE = 10.0
"""seconds in which processes have come to stand still; one that waits for a broken disk never does"""
_PAUSE = 0.002


def freeze_v2(group: Path, patience: float = PATIENCE) -> None:
    """Freeze a v2 group; blocks until all in it stand still. Raises CannotPause, and FileNotFoundError without it."""
    if not (group / "cgroup.freeze").exists() and group.exists():
        raise CannotPause("this kernel cannot freeze a control group (Linux 5.2 can)")
    _write(group / "cgroup.freeze", "1")
    deadline = time.monotonic() + patience
    events = os.open(group / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        notice = select.poll()
        notice.register(events, select.POLLPRI)  # of a change since the last read: cgroups(7)
        while b"frozen 1\n" not in os.pread(events, 4096, 0):
            left = deadline - time.monotonic()
            if left <= 0:
                raise _too_slow(patience)
            notice.poll(left * 1000)
    finally:
        os.close(events)


def thaw_v2(group: Path) -> None:
    """Let a v2 group go on; one that is not there, or never was frozen, is left alone."""
    with contextlib.suppress(FileNotFoundError):
        _write(group / "cgroup.freeze", "0")


def is_frozen_v2(group: Path) -> bool:
    """Whether the group was told to freeze."""
    try:
        return (group / "cgroup.freeze").read_text(encoding="ascii").strip() == "1"
    except FileNotFoundError:
        return False


def freeze_v1(group: Path, members: Path, root: Path, patience: float = PATIENCE) -> None:
    """Freeze all processes that are in the group `members` of another hierarchy, in a freezer group of their own.

    Made here, and frozen first: each process stands still as it comes, and what it has forked before is moved in the
    next round. A number can go to a stranger between reading and moving; such a one is sent back to the `root`. Blocks
    until all stand still. Raises CannotPause, and FileNotFoundError without members' group.
    """
    deadline = time.monotonic() + patience
    group.mkdir(exist_ok=True)
    _write(group / "freezer.state", "FROZEN")
    while outside := processes_of(members) - processes_of(group):
        if time.monotonic() > deadline:
            raise _too_slow(patience)
        for pid in outside:
            _move(pid, group)
    for pid in processes_of(group) - processes_of(members):
        _move(pid, root)
    # The kernel gives no notice of this one.
    while (group / "freezer.state").read_text(encoding="ascii").strip() != "FROZEN":
        if time.monotonic() > deadline:
            raise _too_slow(patience)
        time.sleep(_PAUSE)


def thaw_v1(group: Path) -> None:
    """Let a freezer group go on; one that is not there is left alone."""
    with contextlib.suppress(FileNotFoundError):
        _write(group / "freezer.state", "THAWED")


def is_frozen_v1(group: Path) -> bool:
    """Whether there is such a group that was told to freeze."""
    try:
        return (group / "freezer.state").read_text(encoding="ascii").strip() != "THAWED"
    except FileNotFoundError:
        return False


def processes_of(group: Path) -> set[int]:
    """The processes of a group. Raises FileNotFoundError without one."""
    try:
        return set(map(int, (group / "cgroup.procs").read_text(encoding="ascii").split()))
    except OSError as error:  # of a group that was removed while its file was open: ENODEV
        raise FileNotFoundError(error.errno, error.strerror, str(group)) from error


def _move(pid: int, group: Path) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        _write(group / "cgroup.procs", str(pid))


def _write(file: Path, text: str) -> None:
    """Control files take their value in one write, and are never created."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def _too_slow(patience: float) -> CannotPause:
    return CannotPause(f"one of its processes has not come to stand still within {patience:g} s")
