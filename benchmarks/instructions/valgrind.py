"""A Python process whose instructions are counted on demand, by valgrind's callgrind. Needs valgrind and vgdb."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from harness import ROOT

TOOLS = ("valgrind", "vgdb")


class Counter:
    """Counts what one process does between two calls. Its files are in a directory that is this process's alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._counts = folder / "counts"
        self._prefix = f"--vgdb-prefix={folder / 'vgdb'}"
        self._dumps = 0

    def command(self, module: str, *arguments: str) -> list[str]:
        """Run a module in this way, at a tenth of its speed; once it is counted, at a fiftieth. Needs `environment`."""
        options = ["--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={self._counts}", self._prefix]
        return ["valgrind", "--quiet", *options, sys.executable, "-m", module, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """Of the process: sets and dictionaries are in the same order each time."""
        return {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}

    async def begin(self, pid: int) -> None:
        """Count from now on."""
        await self._tell(pid, "instrumentation", "on")

    async def restart(self, pid: int) -> None:
        """Forget what has been counted."""
        await self._tell(pid, "zero")

    async def take(self, pid: int) -> int:
        """Instructions of all threads since the last call."""
        await self._tell(pid, "dump")
        self._dumps += 1
        text = await asyncio.to_thread(Path(f"{self._counts}.{self._dumps}").read_text)
        found = re.search(r"^summary: (\d+)", text, re.MULTILINE)
        assert found
        return int(found.group(1))

    async def _tell(self, pid: int, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *("vgdb", self._prefix, f"--pid={pid}", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"vgdb {' '.join(words)}: {errors.decode()}")
