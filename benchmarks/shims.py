"""Starts shims as the server does, with nothing else of a server: what is left of a launch is what the server adds.

Speaks like `benchmarks.spawner`; its arguments are a command. Needs root.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from joblet.executor.local import host, record, shim, spec
from joblet.executor.local.spec import Group, View
from joblet.job import Job, Limits, State

BASE, COUNT = 0x70000000, 65536
"""ids of all these jobs: none is apart from the others"""
LIMITS = Limits(100, 512, 0, 1024, 1024)
_GRACE = 5000


def order(
    number: int,
    command: list[str],
    view: View,
    groups: list[Group],
    limits: Limits = LIMITS,
    server_lock: Path | None = None,
) -> bytes:
    """What a shim is told of a job."""
    return spec.encode(
        Job(number, command[0], tuple(command[1:]), limits, State.INITIALIZING, owner="", created_at=0),
        uid_base=BASE,
        id_count=COUNT,
        grace_ms=_GRACE,
        log_limit=0,
        view=view,
        groups=groups,
        server_lock=server_lock,
    )


def prepare(folder: Path) -> None:
    """Make a job's directory, in which there is nothing yet."""
    (folder / "work").mkdir(parents=True)
    os.chown(folder / "work", BASE, BASE)


class Shims:
    """Starts one command again and again; each has a directory and control groups of its own."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self._folder = folder
        self._command = command
        # So shims leave it to us to write their records to the disk.
        self._lock = (folder / "lock").open("w")
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        self._view = host.view(View((), (), (), 256 << 20), [])
        self._numbers = count(1)
        self._cgroups = host.find_cgroups(f"bench{os.getpid()}")
        self._cgroups.prepare()

    def close(self) -> None:
        self._cgroups.remove()
        self._lock.close()

    def to_exec(self, times: int, workers: int) -> list[float]:
        """Seconds of each until the shim says that the command has been exec'd."""
        with ThreadPoolExecutor(workers) as pool:
            return [took for took, _ in pool.map(lambda _: self._run(), range(times))]

    def to_end(self, times: int, workers: int) -> float:
        """Seconds for all to run to their ends."""
        began = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            for _, directory in pool.map(lambda _: self._run(), range(times)):
                if "outcome=exited\ncode=0\n" not in (directory / "exit").read_text():
                    raise RuntimeError((directory / "exit").read_text())
        return time.perf_counter() - began

    def _run(self) -> tuple[float, Path]:
        number = next(self._numbers)
        directory = self._folder / str(number)
        began = time.perf_counter()
        prepare(directory)
        groups = self._cgroups.groups(str(number), LIMITS, ())
        orders = order(number, self._command, self._view, groups, server_lock=Path(self._lock.name))
        launched = shim.start(number, directory, orders)
        try:
            failure = record.parse_report(_read(launched.report))
            took = time.perf_counter() - began
            os.waitid(os.P_PIDFD, launched.pidfd, os.WEXITED)
        finally:
            os.close(launched.report)
            os.close(launched.pidfd)
        if failure is not None:
            raise failure
        return took, directory


def _read(pipe: int) -> bytes:
    """All that comes from a pipe that does not block, until its end."""
    os.set_blocking(pipe, True)
    said = b""
    while more := os.read(pipe, 4096):
        said += more
    return said


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="joblet-shims-"))
    shims = Shims(folder, sys.argv[1:])
    try:
        for request in sys.stdin:
            what, times, workers = request.split()
            do = shims.to_exec if what == "exec" else shims.to_end
            print(json.dumps(do(int(times), int(workers))), flush=True)
    finally:
        shims.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # stdin ends when whoever asks has ended
    main()
