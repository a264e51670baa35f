"""The file system of a work directory whose size is limited: ext4 in a sparse file, which the shim mounts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


class DiskError(Exception):
    """There is no file system for the work directory."""


class TooSmall(DiskError):
    """What should be in the file system from the start does not fit."""


def find_mkfs() -> str | None:
    """The program that makes the file system (e2fsprogs)."""
    return shutil.which("mkfs.ext4", path=_PATH)


def make(path: Path, megabytes: int, content: Path | None = None) -> None:
    """Make a file system of that size, its own tables included. Blocks for milliseconds.

    It has what is in the directory `content`, with the same owners. Raises TooSmall, DiskError or OSError.
    It has no journal: it lives as long as its job, and a job does not outlive the host.
    """
    program = find_mkfs()
    if program is None:
        raise DiskError("a disk limit needs mkfs.ext4, which is not installed (package e2fsprogs)")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, megabytes << 20)
    finally:
        os.close(fd)
    options = ("-q", "-b", "4096", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard")
    filled = ("-d", str(content)) if content is not None and any(content.iterdir()) else ()
    made = subprocess.run([program, *options, *filled, str(path)], capture_output=True, text=True, check=False)
    if made.returncode:
        if "Could not allocate" in made.stderr:
            raise TooSmall
        said = (made.stderr.strip().splitlines() or [f"exit status {made.returncode}"])[-1]
        raise DiskError(f"mkfs.ext4: {said}")
