"""The machine that figures are of, without which they are worth nothing."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path

from benchmarks.commands import missing, version

PROGRAMS = {"bwrap": "bwrap", "unshare": "unshare", "crun": "crun", "GNU parallel": "parallel", "Slurm": "slurmd"}


def describe() -> dict[str, object]:
    """What it is made of, what runs on it, and how busy it was."""
    model = [row.split(":")[1].strip() for row in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in row]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": model[0] if model else platform.machine(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "kernel": platform.release(),
        "control groups": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1",
        "fsync": f"{fsync_seconds() * 1000:.1f} ms",
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "grpcio": metadata.version("grpcio"),
        **{name: version(program).split()[-1] for name, program in PROGRAMS.items() if not missing(program)},
    }


def sentence(machine: dict[str, object]) -> str:
    """The description in a line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def fsync_seconds() -> float:
    """What the disk takes to make a few bytes safe, in the directory where servers have their state."""
    took = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(50):
            file.write(b"a job's record")
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)
