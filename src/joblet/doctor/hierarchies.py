"""Where control groups are: pure functions over the texts of /proc (cgroups(7))."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_V1_NAMES = {"io": "blkio"}
"""controllers that v1 calls otherwise"""
_NO_CONTROLLERS = ("rw", "ro", "xattr", "clone_children", "noprefix")
"""other mount options of a v1 hierarchy: cgroups(7)"""


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Mount points: of the unified hierarchy, and of each v1 controller."""

    unified: Path | None = None
    offered: frozenset[str] = frozenset()
    """controllers of the unified hierarchy"""
    v1: Mapping[str, Path] = field(default_factory=dict)
    read_only: frozenset[Path] = frozenset()

    @property
    def mode(self) -> str:
        """`v2`, `v1`, `hybrid` (v1 controllers beside a unified hierarchy), or `none`."""
        if not self.v1:
            return "none" if self.unified is None else "v2"
        return "v1" if self.unified is None else "hybrid"

    @property
    def used(self) -> str:
        """The kind that joblet takes: the one that has the memory controller."""
        if self.unified is not None and ("memory" not in self.v1 or "memory" in self.offered):
            return "v2"
        return "v1" if self.v1 else "none"

    def mount(self, controller: str) -> Path | None:
        """Where joblet finds a controller, by its v2 name; None where it is not."""
        if self.used == "v2":
            return self.unified if controller in self.offered else None
        return self.v1.get(_V1_NAMES.get(controller, controller))


def parse_mounts(mountinfo: str, offered: Callable[[Path], str]) -> Hierarchies:
    """The hierarchies in the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).

    `offered` gives the text of cgroup.controllers for the mount point of the unified one.
    """
    unified: Path | None = None
    v1: dict[str, Path] = {}
    read_only = set()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, what = before.split(), after.split(" ")
        if len(fields) < 6 or len(what) < 3 or what[0] not in ("cgroup", "cgroup2"):
            continue
        point = Path(fields[4])
        if "ro" in fields[5].split(","):
            read_only.add(point)
        if what[0] == "cgroup2":
            unified = unified or point
        else:
            for option in what[2].split(","):
                if option not in _NO_CONTROLLERS and not option.startswith("name="):
                    v1.setdefault(option, point)
    controllers = frozenset(offered(unified).split()) if unified else frozenset()
    return Hierarchies(unified, controllers, v1, frozenset(read_only))


def parse_disabled(cgroups: str) -> set[str]:
    """Controllers that the kernel has and boot parameters switched off, from the text of /proc/cgroups."""
    lines = [line.split() for line in cgroups.splitlines() if not line.startswith("#")]
    return {fields[0] for fields in lines if len(fields) == 4 and fields[3] == "0"}


def own_group(cgroup: str, controller: str | None) -> str:
    """The path of a process's group within a v1 controller's hierarchy, or for None within the unified one.

    From the text of /proc/PID/cgroup; `/` when it does not say.
    """
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (number == "0" and controller is None) or (controller is not None and controller in controllers.split(",")):
            return path
    return "/"
