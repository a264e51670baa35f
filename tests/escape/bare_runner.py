"""The second kind of runner: programs as plain root, without isolation. By it every attempt is shown to be able to
succeed. The only thing taken from them is the host's mount namespace, so that what they mount goes with them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import termios
from collections.abc import AsyncIterator
from pathlib import Path

from harness import PATIENCE

from joblet.escape.runner import News, read_line
from joblet.executor.local.spec import PATH

LIBC = ctypes.CDLL(None, use_errno=True)
MS_REC, MS_PRIVATE = 0x4000, 0x40000
CLONE_NEWNS = 0x20000
PLANTS = (
    "shadow", "gshadow", "shadow-", "gshadow-", "sudoers", "machine-id", "ssh/ssh_host_test_key", "ssl/private/key",
)  # fmt: skip
"""secrets that a host has in /etc; those that this one lacks are laid over it for the attempts"""


class BareRun:
    """A process of the host."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, terminal: int) -> None:
        self.process = process
        self.terminal = terminal
        self.directory = str(folder)
        self._log = folder / "log"

    async def news(self) -> AsyncIterator[News]:
        """By looking again: no event tells that a file grows until the end of a process that is not its only writer."""
        offset = 0
        async with asyncio.timeout(10 * PATIENCE):
            while True:
                ended = self.process.returncode is not None
                lines = self._log.read_bytes()[offset:].split(b"\n")
                for line in lines[:-1]:
                    offset += len(line) + 1
                    yield read_line(line)
                if ended:
                    return
                if len(lines) == 1:
                    await asyncio.sleep(0.01)

    async def output(self, offset: int) -> bytes:
        await self.process.wait()
        return self._log.read_bytes()[offset:]

    async def stop(self) -> None:
        """As one stops a program by its pid: by hoping that it is still the one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)

    async def reason(self) -> str:
        return f"status {await self.process.wait()}"

    def host_pids(self) -> list[int]:
        return [self.process.pid]


class BareRunner:
    """Starts processes of the host. The mutable state is those that it has started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: list[BareRun] = []
        self._layer = _make_layer(folder / "layer")
        python = shutil.which("python3", path=PATH)
        assert python, "the host has no Python for jobs"
        self._python = python

    async def start(self, arguments: list[str], limits: dict[str, int]) -> BareRun:
        folder = self._folder / str(len(self._runs))
        (folder / "work").mkdir(parents=True)
        master, slave = os.openpty()
        leaked = os.open("/etc/passwd", os.O_RDONLY)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            process = await asyncio.create_subprocess_exec(
                self._python,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder / "work",
                pass_fds=(leaked,),
                preexec_fn=lambda: self._prepare(slave),
            )
        finally:
            for fd in (slave, leaked, log):
                os.close(fd)
        self._runs.append(BareRun(process, folder, master))
        return self._runs[-1]

    def _prepare(self, terminal: int) -> None:
        """In the child: a terminal that others use, and mounts of its own."""
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        _check(LIBC.unshare(CLONE_NEWNS), "unshare")
        _check(LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "make / private")
        if self._layer:
            _check(LIBC.mount(b"overlay", b"/etc", b"overlay", 0, self._layer), "lay secrets over /etc")

    async def close(self) -> None:
        """End what is left."""
        for run in self._runs:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGKILL)
            await run.process.wait()
            os.close(run.terminal)


def _make_layer(folder: Path) -> bytes:
    """Options of an overlay over /etc that has what this host lacks; empty when it lacks nothing."""
    missing = [name for name in PLANTS if not _has_one(name)]
    for name in missing:
        path = folder / "upper" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not a secret\n")
    if not missing:
        return b""
    (folder / "work").mkdir()
    return f"lowerdir=/etc,upperdir={folder}/upper,workdir={folder}/work".encode()


def _has_one(name: str) -> bool:
    path = Path("/etc", name)
    if path.parent == Path("/etc"):
        return path.exists() and path.stat().st_size > 0
    return any(path.parent.glob("*_key" if path.parent.name == "ssh" else "*"))


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"cannot {what}")
