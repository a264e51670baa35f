"""Jobs' directories: room for them, and what lies in them beside the records."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
from pathlib import Path

from joblet.errors import DiskUnusable, NoRoom

_ROOM = 1 << 20
"""bytes; a job's own files take 40 KB, and there may be several at a time"""
_FILES = 16
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def check_room(folder: Path) -> None:
    """Raise NoRoom or DiskUnusable when the folder's disk takes no job.

    What the disk keeps for root stays for records: jobs, who are not root, could not write there.
    """
    try:
        disk = os.statvfs(folder)
        os.utime(folder)  # a disk that the kernel gave up after an error does not say so in its flags
    except OSError as error:
        raise DiskUnusable(folder, error) from None
    if disk.f_bavail * disk.f_frsize < _ROOM or (disk.f_files and disk.f_favail < _FILES):
        raise NoRoom(folder)


def remove(directory: Path) -> None:
    """Remove it whole, and so that a power failure does not bring it back: fsync(2). Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        _remove_tree(directory)
    if not directory.parent.exists():
        return
    parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _remove_tree(directory: Path) -> None:
    """Follows no link that the job has left there."""
    try:
        shutil.rmtree(directory)
    except (RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EMFILE:
            raise
        _flatten(directory)  # a frame, and a descriptor, for each level: a job can nest more than there are
        shutil.rmtree(directory)


def _flatten(directory: Path) -> None:
    """Bring every directory that is below to the top, under a name that no job can have guessed."""
    name, number = secrets.token_hex(8), itertools.count()
    top = os.open(directory, _OPEN_DIRECTORY)
    try:
        found = _directories_in(top)
        while found:
            inner = os.open(found.pop(), _OPEN_DIRECTORY, dir_fd=top)
            try:
                for deeper in _directories_in(inner):
                    found.append(f"{name}-{next(number)}")
                    os.rename(deeper, found[-1], src_dir_fd=inner, dst_dir_fd=top)
            finally:
                os.close(inner)
    finally:
        os.close(top)


def _directories_in(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def disk_bytes(directory: Path) -> int:
    """Bytes of the files below, as they take room on the disk; no link is followed."""
    total, folders = 0, [os.fspath(directory)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    return total


def tell_in_log(directory: Path, sentence: str) -> None:
    """A failure before the shim could tell of it. One that the shim met is in the log already."""
    with contextlib.suppress(OSError):
        directory.mkdir(mode=0o700, exist_ok=True)  # it may have failed before there was one
        with open(directory / "log", "x", opener=_private) as file:
            file.write(f"joblet: {sentence}\n")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
