"""Files that are on the disk, whole, once they are written, and room on it for what is to come."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE = 1


def replace(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, in the place of one that is there. Raises OSError."""
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)  # of one who did not come to the end
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        while written < len(content):  # as much as there is room for
            written += os.write(fd, content[written:])
        os.fsync(fd)
    finally:
        os.close(fd)
    partial.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def keep_room(fd: int, start: int, length: int) -> None:
    """Give a file these bytes of the disk, whatever its own length, which stays (FALLOC_FL_KEEP_SIZE, fallocate(2)).

    Raises OSError.
    """
    if _libc.fallocate(fd, _KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(length)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
