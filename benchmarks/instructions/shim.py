"""What a launch costs in the shim: its processes are run instruction by instruction until the command is exec'd."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.commands import shown, version
from benchmarks.shim_launch import Launches, compile_shim
from joblet.executor.local.spec import View

STEP = Path(__file__).with_name("step.c")
PROCESSES = ("monitor", "init", "command")
"""in order of their births"""
COMPILER = "musl-gcc"
"""glibc's functions differ by processor"""
MASKED = (Path("/etc/shadow"), Path("/etc/gshadow"))
"""of what is masked, what each Debian has"""


def count() -> dict[str, object]:
    """Instructions in user mode of each process up to exec, and what they depend on. Takes some seconds."""
    with tempfile.TemporaryDirectory(prefix="joblet-count-", dir="/var/tmp") as name:
        folder = Path(name)
        step, counts = folder / "step", folder / "counts"
        subprocess.run(["cc", "-O2", "-o", step, STEP], check=True)
        binary = compile_shim(folder / "shim")
        view = View(tuple(map(Path, shown())), (), MASKED, 16 << 20)
        launches = Launches(folder)
        try:
            launches.shim(binary, view, through=(step, counts))()
        finally:
            launches.cgroups.remove()
        found = list(map(int, counts.read_text().split()))
    return {
        "compiler": version(COMPILER),
        "machine": os.uname().machine,
        "cgroups": launches.cgroups.name,
        **dict(zip(PROCESSES, found, strict=True)),
    }
