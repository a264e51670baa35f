"""What v1 and v2 control groups have in common."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from joblet.executor.base import Usage
from joblet.executor.local.spec import Group
from joblet.job import Limits, Receipt

PERIOD_US = 100_000
"""of CPU accounting; a quota is a share of it"""
MIB = 1 << 20

Counts = tuple[tuple[str, str, int], ...]
"""what a file counts: field of Usage, word before its numbers (empty: it holds a single one), how many make a unit"""

_PATIENCE = 10.0
"""seconds in which killed processes have left their group"""
_PAUSE = 0.005


class Cgroups(Protocol):
    """Control groups of one kind, for the jobs of one server."""

    name: str
    """`v1` or `v2`"""

    def prepare(self) -> None:
        """Create what is above the jobs' groups. Raises OSError."""

    def groups(self, name: str, limits: Limits, devices: tuple[str, ...]) -> list[Group]:
        """The groups of one job. `devices` are `MAJOR:MINOR` of the disks that an I/O limit covers.

        Raises HostUnable when the host has no controller for a limit.
        """

    def usage(self, name: str) -> Usage | None:
        """What a job uses now; None when its groups are not there."""

    def total(self) -> Usage | None:
        """What all jobs use now, and have used since their first; None when there has been none."""

    def add_ended(self, used: Receipt) -> None:
        """Let `total` count on what a job has used whose groups are gone, where the kernel forgets it with them."""

    def freeze(self, name: str) -> None:
        """Keep a job's processes from running; blocks until all stand still, for freezer.PATIENCE seconds at most.

        Raises CannotPause, and FileNotFoundError when the job is over.
        """

    def thaw(self, name: str) -> None:
        """Let them go on; nothing for a job that is over."""

    def is_frozen(self, name: str) -> bool:
        """Whether they are kept from running, or about to be."""

    def forget(self, name: str) -> None:
        """Remove what the monitor does not know of, of a job that is over."""

    def clean(self, name: str) -> None:
        """End and remove what a lost monitor left of a job's groups; blocks until nothing is left of the job."""

    def leftovers(self) -> set[str]:
        """Names of the jobs' groups that exist."""

    def remove(self) -> None:
        """Remove what `prepare` made, where no job is left."""


def quota_us(limits: Limits) -> int:
    """CPU time a job gets in each period, in microseconds."""
    return limits.max_cpu * PERIOD_US // 100


def read_usage(files: Iterable[tuple[Path, Counts]]) -> Usage | None:
    """What some files count; None without those of memory, which every group of a job has while it is there."""
    found = read_counts(files)
    return Usage(**found) if "memory" in found else None


def read_counts(files: Iterable[tuple[Path, Counts]]) -> dict[str, int]:
    """What some files count, by the fields of Usage; nothing of a file that is not there."""
    found: dict[str, int] = {}
    for path, counts in files:
        try:
            words = _without_loops(path.read_text(encoding="ascii")).replace("=", " ").split()
        except OSError:  # this kernel has none, or the group is gone
            continue
        for name, key, unit in counts:
            found[name] = (_sum(words, key) if key else int(words[0])) // unit
    return found


def _without_loops(text: str) -> str:
    """Version 2 counts what a loop device does on its line, and what that makes the disk do on the disk's."""
    if "\n7:" not in f"\n{text}":
        return text
    return "".join(line for line in text.splitlines(keepends=True) if not (line.startswith("7:") and "=" in line))


def _sum(words: Sequence[str], key: str) -> int:
    """Of the numbers behind the word: a file may have a line for each device, or none yet."""
    return sum(int(number) for word, number in pairwise(words) if word == key)


def remove_emptied(group: Path) -> None:
    """Remove a group whose processes have been killed; the last may take a moment to leave it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return
            time.sleep(_PAUSE)
        else:
            return


def lift(files: Iterable[Path], lifted: Callable[[str], str]) -> None:
    """Take back what files of groups that are to be removed limit, by what becomes of each of their lines."""
    for file in files:
        with contextlib.suppress(OSError):
            for line in file.read_text(encoding="ascii").splitlines():
                file.write_text(lifted(line), encoding="ascii")


def remove_unused(groups: Iterable[Path]) -> None:
    """Remove those of the groups that have no groups below them."""
    for group in groups:
        with contextlib.suppress(OSError):
            group.rmdir()


def names_below(groups: Iterable[Path]) -> set[str]:
    """Names of the groups directly below these."""
    found: set[str] = set()
    for group in set(groups):
        with contextlib.suppress(FileNotFoundError), os.scandir(group) as entries:
            found.update(entry.name for entry in entries if entry.is_dir())
    return found
