"""A job's directory, made ready for its shim."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from joblet.executor.local import disk
from joblet.job import Job


def work_directory(job: Job, directory: Path, base: int) -> None:
    """Make what the job's work directory is mounted from, owned by its first id. Raises disk.DiskError, OSError."""
    work = directory / "work"
    work.mkdir(mode=0o700)
    os.chown(work, base, base)
    if job.limits.max_disk:
        disk.make(directory / "disk", job.limits.max_disk)


def taken_lock(folder: int) -> int:
    """The job's lock, locked, for its monitor to be born with. `folder` is its directory. Raises OSError."""
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock
