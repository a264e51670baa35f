"""Where the files of a job lie, for whoever reads them while it runs or when it has ended."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from joblet.errors import NoFiles
from joblet.executor.local import image, monitor
from joblet.threads import acquire

_TRIES = 500
_PAUSE = 0.01
"""seconds"""


async def open_work(directory: Path, epoch: str) -> int:
    """A descriptor of the work directory of the job with this directory. Raises NoFiles or OSError.

    With a disk limit it is a file system that only the job's monitor has mounted; when that has ended, it is mounted
    once more.
    """
    what = f"job {directory.name}"
    disk = directory / "disk"
    if not await asyncio.to_thread(disk.exists):
        return await open_directory(directory / "work", what)
    for _ in range(_TRIES):
        if (fd := await acquire(_close, monitor.open_disk, directory, epoch)) is not None:
            return fd
        if not await asyncio.to_thread(image.is_written, disk):
            try:
                return await acquire(_close, image.open_read_only, disk)
            except OSError as error:
                text = error.strerror or str(error)
                raise NoFiles(what, f"its disk cannot be mounted: {text[:1].lower()}{text[1:]}") from error
        # Its monitor is letting go of it, which is a matter of milliseconds.
        await asyncio.sleep(_PAUSE)
    raise NoFiles(what, "its disk is still in use")


async def open_directory(path: Path, what: str) -> int:
    """A descriptor of a directory that the server has made. Raises NoFiles or OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return await acquire(_close, os.open, path, flags)
    except FileNotFoundError:
        raise NoFiles(what, "nothing of it has been started") from None


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
