"""RunJob beside systemd-run, where systemd is: in a booted machine with control groups v2 only, all of it emulated."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from harness import ROOT

from benchmarks import report
from benchmarks.commands import missing
from benchmarks.measure import Contest, Figure, Result

NEEDED = ("qemu-system-x86_64", "mmdebstrap", "busybox", "cpio", "mke2fs", "python3.11")


async def contests(*, short: bool) -> AsyncIterator[Contest | Result]:
    """What has been measured there (benchmarks.beside_systemd). To boot takes longer than a moment."""
    if short:
        return
    if why := missing(*NEEDED):
        yield Result(Figure("launch, in the machine", "s"), {}, absent={"systemd-run": why})
        return
    with tempfile.TemporaryDirectory(prefix="joblet-bench-") as folder:
        command = (f"{ROOT}/tests/vm/service", "-o", folder, f"{ROOT}/benchmarks/beside_systemd.py")
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"tests/vm/service ended with {process.returncode}: {said[-2000:].decode()}")
        _, (results,) = report.load(Path(folder, "results.json"))
    for result in results:
        yield result
