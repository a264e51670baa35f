"""What makes an installed joblet the service of a machine: which files there are, and which are left to whom.

The Debian package (deploy/deb) has the same layout, from the same files.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

UNITS = ("joblet.service", "joblet.slice")
PROGRAM = "/opt/joblet/venv/bin/joblet"
"""as the unit's file names it"""
PACKAGED = Path("/usr/lib/systemd/system/joblet.service")
"""the unit of the Debian package"""
_ETC, _OPT = Path("/etc/joblet"), Path("/opt/joblet")
_CONFIG, _CERTIFICATES = "joblet-config.yml", "certs"


class InstallError(Exception):
    """The service cannot be put there, or taken away; the message says what is in its way."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of ours, or with `keep` one that is the operator's once it is there."""

    path: Path
    text: str
    keep: bool = False

    def __str__(self) -> str:
        return str(self.path)

    @property
    def wanted(self) -> bool:
        """Whether it is absent, or ours and another."""
        if not os.path.lexists(self.path):
            return True
        return not self.keep and self.path.read_text(encoding="utf-8") != self.text

    def make(self) -> None:
        """Write it, whole or not at all. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        fresh.write_text(self.text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(self.path)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that only root may look into."""

    path: Path

    def __str__(self) -> str:
        return f"{self.path}/"

    @property
    def wanted(self) -> bool:
        """Whether it is absent."""
        return not self.path.exists()

    def make(self) -> None:
        """Make it. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700)


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link where nothing else is."""

    path: Path
    target: Path

    def __str__(self) -> str:
        return f"{self.path} -> {self.target}"

    @property
    def wanted(self) -> bool:
        """Whether it is absent."""
        return not os.path.lexists(self.path)

    @property
    def leads_there(self) -> bool:
        """Whether it is just this link."""
        return self.path.is_symlink() and Path(os.readlink(self.path)) == self.target

    def make(self) -> None:
        """Make it. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.symlink_to(self.target)


Entry = File | Directory | Link


def layout(program: Path, root: Path) -> list[Entry]:
    """All that belongs to an installation below `root` whose `joblet` is `program`, whether it is there or not.

    A configuration or certificates that /opt/joblet has of its own stay in use, and nothing stands in for them.
    """
    entries: list[Entry] = [File(path, text(path.name).replace(PROGRAM, str(program))) for path in _units(root)]
    etc, opt = root / _ETC.relative_to("/"), root / _OPT.relative_to("/")
    for entry in (File(etc / _CONFIG, text(_CONFIG), keep=True), Directory(etc / _CERTIFICATES)):
        link = Link(opt / entry.path.name, _ETC / entry.path.name)
        if link.wanted or link.leads_there:
            entries += [entry, link]
    return entries


def removable(root: Path) -> list[Path]:
    """What `uninstall` takes away: the units, and the links to /etc/joblet. The rest is the operator's."""
    links = [Link(root / _OPT.relative_to("/") / name, _ETC / name) for name in (_CONFIG, _CERTIFICATES)]
    return [path for path in _units(root) if os.path.lexists(path)] + [link.path for link in links if link.leads_there]


def program() -> Path:
    """The `joblet` of this Python environment. Raises InstallError when it has none."""
    path = Path(sys.executable).with_name("joblet")
    if not path.exists():
        raise InstallError(f"there is no {path}")
    return path


def text(name: str) -> str:
    """A file of deploy/ that comes with the package."""
    return (resources.files("joblet") / "deploy" / name).read_text(encoding="utf-8")


def _units(root: Path) -> list[Path]:
    return [root / "etc/systemd/system" / name for name in UNITS]
