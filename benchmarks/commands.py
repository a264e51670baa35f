"""Other programs that isolate a command: how each is called, and what has to be there for it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.measure import CannotRunError

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
"""what a joblet job sees of the host"""

SHIM = "the shim alone"
"""of joblet itself what isolates and limits, started without a server: what a launch could take at the least"""

NUMBER = "{number}"
"""stands in a command line for what no other has"""


def shown() -> list[str]:
    return [path for path in SYSTEM if os.path.lexists(path)]


def bwrap(*command: str) -> list[str]:
    """Bubblewrap with joblet's namespaces and mounts, and no limits: it sets none."""
    binds = [word for path in shown() for word in ("--ro-bind", path, path)]
    return [
        *("bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"),
        *(*binds, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--dir", "/work", "--chdir", "/work"),
        *("--die-with-parent", "--new-session", "--", *command),
    ]


def unshare(*command: str) -> list[str]:
    """util-linux's, with the namespaces alone: no mounts, no limits, no filter."""
    return ["unshare", "--map-root-user", "--pid", "--fork", "--mount", "--uts", "--ipc", "--cgroup", *command]


def systemd_run(*command: str) -> dict[str, list[str]]:
    """As transient units: with the limits of a job, and with as much of its isolation as systemd 252 has."""
    limits = ("MemoryMax=512M", "CPUQuota=100%", "TasksMax=1024")
    apart = (
        *("PrivateUsers=yes", "PrivateIPC=yes", "PrivateDevices=yes", "PrivateTmp=yes", "ProtectHostname=yes"),
        *("ProtectSystem=strict", "ProtectControlGroups=yes", "NoNewPrivileges=yes", "CapabilityBoundingSet="),
        *("DynamicUser=yes", "SystemCallFilter=@system-service"),
    )
    words = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
    return {
        name: [*words, *(f"--property={each}" for each in properties), "--", *command]
        for name, properties in (("systemd-run", limits), ("systemd-run, isolating", (*limits, *apart)))
    }


@contextmanager
def crun(*command: str) -> Iterator[list[str]]:
    """The OCI runtime in C, with the same view of the host, limits included."""
    with tempfile.TemporaryDirectory(prefix="joblet-crun-") as folder:
        bundle = Path(folder)
        (bundle / "rootfs").mkdir()
        for path in filter(os.path.islink, shown()):
            (bundle / "rootfs" / path[1:]).symlink_to(os.readlink(path))
        (bundle / "config.json").write_text(json.dumps(_container(command)))
        yield ["crun", f"--root={folder}/state", "run", f"--bundle={folder}", f"joblet-bench-{NUMBER}"]


def _container(command: tuple[str, ...]) -> dict[str, object]:
    """An OCI runtime specification as near to a joblet job as it comes."""
    mounts = [
        {"destination": path, "source": path, "type": "bind", "options": ["rbind", "ro"]}
        for path in shown()
        if not os.path.islink(path)
    ]
    mounts += [
        {"destination": "/proc", "source": "proc", "type": "proc"},
        {"destination": "/dev", "source": "tmpfs", "type": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/tmp", "source": "tmpfs", "type": "tmpfs", "options": ["nosuid", "nodev"]},
    ]
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {
            "resources": {
                "memory": {"limit": 512 << 20},
                "cpu": {"quota": 100_000, "period": 100_000},
                "pids": {"limit": 1024},
            },
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc")],
        },
    }


def missing(*programs: str) -> str:
    """Why a reference cannot be measured: what of it is not installed; empty when all is there."""
    absent = [program for program in programs if shutil.which(program) is None]
    return f"no {' or '.join(absent)} installed" if absent else ""


async def spawners(stack: AsyncExitStack, *command: str) -> tuple[dict[str, Spawner], dict[str, str]]:
    """For the command, those references that run here, and of the others why they do not."""
    lines = {"bwrap": bwrap(*command), "unshare": unshare(*command), "crun": stack.enter_context(crun(*command))}
    found, absent = {}, {}
    for name, line in lines.items():
        why = missing(name) or await asyncio.to_thread(_fails, line)
        if why:
            absent[name] = why
        else:
            found[name] = await stack.enter_async_context(Spawner(line))
    found[SHIM] = await stack.enter_async_context(Spawner([*command], "benchmarks.shims"))
    return found, absent


# crun takes a hybrid hierarchy for v2 alone as long as it sees the unified part of it.
_ALONE = ["unshare", "--mount", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]


def _fails(line: list[str]) -> str:
    """What a command line says when it does not run here."""
    words = [word.replace(NUMBER, f"{os.getpid()}-trial") for word in line]
    done = subprocess.run([*_ALONE, *words], capture_output=True, text=True, check=False)
    return f"does not run here: {done.stderr.strip()[-200:]}" if done.returncode else ""


class Spawner:
    """Starts one command line again and again, in a process of its own: benchmarks.spawner, or what speaks like it."""

    def __init__(self, line: list[str], module: str = "benchmarks.spawner") -> None:
        self._line = line
        self._module = module

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *_ALONE,
            *(sys.executable, "-m", self._module, *self._line),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=1 << 20,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def to_exec(self, count: int, workers: int) -> list[float]:
        """Seconds of each, by workers, from the spawn to the first byte that the command writes.

        Raises CannotRunError, as `to_end` does.
        """
        times: list[float] = await self._ask("exec", count, workers)
        return times

    async def to_end(self, count: int, workers: int) -> float:
        """Seconds for so many, each run to its end, by workers that begin the next when one has ended."""
        seconds: float = await self._ask("end", count, workers)
        return seconds

    async def _ask(self, *words: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        answer = await self._process.stdout.readline()
        if not answer:
            raise CannotRunError(f"{self._line[0]} has failed")
        return json.loads(answer)


def version(program: str) -> str:
    """What a program says of itself, in a line."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (said.stdout or said.stderr).partition("\n")[0].strip()
