"""How a shim is started, and what it says of that."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from joblet.errors import HostUnable
from joblet.executor.base import LaunchFailed
from joblet.executor.local import record, spec
from joblet.executor.local.record import BadRecord
from joblet.executor.local.spawn import spawn


@dataclass(frozen=True, slots=True)
class Launched:
    """A shim that has been started. All descriptors are the caller's."""

    pid: int
    pidfd: int
    report: int
    """the report pipe's read end"""


def start(job_id: int, directory: Path, order: bytes) -> Launched:
    """Start a shim in a job's prepared directory. Blocks for about a millisecond.

    Raises HostUnable, spawn.Unfollowed or OSError.
    """
    with contextlib.ExitStack() as stack:

        def closing(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        folder = closing(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        # The monitor is born with its lock.
        lock = closing(os.open("lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        null = closing(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        orders = closing(spec.sealed_memfd(order))
        report, report_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        closing(report_end)
        try:
            descriptors = {0: null, 1: null, 2: null, 3: orders, 4: folder, 5: report_end, 6: lock}
            pid, pidfd = spawn(str(shim_path()), ["joblet-shim", str(job_id)], descriptors)
        except BaseException:
            os.close(report)
            raise
        return Launched(pid, pidfd, report)


async def read_report(fd: int) -> LaunchFailed | None:
    """What the shim says when the command has been exec'd (None), or could not be. Closes the pipe `fd`."""
    try:
        return record.parse_report(await _read_line(fd))
    except BadRecord as error:
        return LaunchFailed("shim", 0, f"failed to create isolated environment: {error}")


def shim_path() -> Path:
    """The shim that was built with this package. Raises HostUnable when there is none."""
    path = Path(str(resources.files("joblet") / "_bin" / "joblet-shim"))
    if not path.is_file():
        raise HostUnable(f"job execution requires the joblet-shim program, and this installation has none ({path})")
    return path


async def _read_line(fd: int) -> bytes:
    """All that comes from pipe `fd` until its end; closes it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    data = b""
    try:
        while True:
            await ready.wait()
            ready.clear()
            with contextlib.suppress(BlockingIOError):
                piece = os.read(fd, 4096)
                if not piece:
                    return data
                data += piece
    finally:
        loop.remove_reader(fd)
        os.close(fd)
