"""What attempts are made on: a process, files, sockets, memory, queues and a terminal of this host, and a job."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from joblet.escape.attempts import victim
from joblet.escape.attempts.calls import LIBC, call
from joblet.escape.runner import Run, Runner

IPC_CREAT, IPC_EXCL, IPC_RMID = 0o1000, 0o2000, 0
LOWEST_PID = 1000
"""Above the pids that a job sees, which begin with 1 in its namespace: a victim's number must not be one of them."""

_PROCESS = """\
import ctypes, os, signal, sys
signals = []
signal.signal(signal.SIGURG, lambda number, frame: signals.append(number))
zeros = ctypes.create_string_buffer(64)
print(os.getpid(), ctypes.addressof(zeros), flush=True)
for line in sys.stdin:
    print(len(signals), flush=True)
"""
"""It tells whoever asks how often it was signalled, and ends when nobody can ask any more."""


class EscapeError(Exception):
    """The suite cannot be run; the message is one sentence for the user."""


@dataclass(frozen=True)
class HostContext:
    """What is known of the server's host; the defaults are those of an installation."""

    state_dir: Path = Path("/var/lib/joblet")
    config: Path = Path("/opt/joblet/joblet-config.yml")
    keys: tuple[Path, ...] = (Path("/opt/joblet/certs/server-key.pem"), Path("/opt/joblet/certs/ca-key.pem"))
    shown: tuple[Path, ...] = ()
    """paths of the host that the configuration shows to jobs"""
    writable: tuple[Path, ...] = ()
    """those of them in which jobs may write"""
    scratch_megabytes: int = 256
    """size of a job's /tmp"""
    log_megabytes: int = 0
    """size of a job's log at most; 0 is unlimited"""


@dataclass
class Victims:
    """The victims, and the context that tells attempts of them."""

    process: asyncio.subprocess.Process
    job: Run
    context: dict[str, Any]

    async def was_signalled(self) -> bool:
        """Whether the process of the host got a SIGURG."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"?\n")
        await self.process.stdin.drain()
        return int(await self.process.stdout.readline()) > 0


@asynccontextmanager
async def make_victims(runner: Runner, host: HostContext) -> AsyncIterator[Victims]:
    """Make them all. Raises EscapeError."""
    marker = "joblet-escape-" + secrets.token_hex(6)
    async with AsyncExitStack() as stack:
        facts = stack.enter_context(_host_victims(marker))
        process, pid, address = await stack.enter_async_context(_host_process())
        job, job_facts = await stack.enter_async_context(_job_victim(runner, marker))
        yield Victims(
            process,
            job,
            {
                "marker": marker,
                "free_pid": _free_pid(),
                "host": {**facts, "pid": pid, "address": address},
                "job": job_facts,
                "server": {
                    "state": str(host.state_dir),
                    "config": str(host.config),
                    "keys": [str(path) for path in host.keys],
                },
                "shown": [str(path) for path in host.shown],
                "writable": [str(path) for path in host.writable],
                "nosuid": [str(path) for path in host.writable if os.statvfs(path).f_flag & os.ST_NOSUID],
                "scratch_megabytes": host.scratch_megabytes,
                "flood_megabytes": host.log_megabytes + 8,
            },
        )


@contextmanager
def _host_victims(marker: str) -> Iterator[dict[str, Any]]:
    """Files, sockets, memory, queues and a terminal, held by this process. Nothing of them is secret in earnest."""
    with ExitStack() as stack:
        files = {"tmp_file": "/tmp", "var_tmp_file": "/var/tmp", "shm_file": "/dev/shm"}
        paths = {name: str(Path(folder, marker)) for name, folder in files.items()}
        for path in paths.values():
            Path(path).write_text(marker, encoding="ascii")
            stack.callback(os.unlink, path)
        listener = f"/tmp/{marker}.socket"
        stack.enter_context(_listen(listener))
        stack.callback(os.unlink, listener)
        stack.enter_context(_listen("\0" + marker))
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagrams.bind(f"\0{marker}.datagram")
        key, shm_id = stack.enter_context(_system_v())
        queue = stack.enter_context(_message_queue(marker))
        master, slave = os.openpty()
        stack.callback(os.close, master)
        stack.callback(os.close, slave)
        yield {
            **paths,
            "socket": listener,
            "abstract": marker,
            "abstract_datagram": f"{marker}.datagram",
            "ipc_key": key,
            "shm_id": shm_id,
            "queue": queue,
            "terminal": os.ttyname(slave),
        }


def _listen(address: str) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.bind(address)
    one.listen(16)
    return one


@contextmanager
def _system_v() -> Iterator[tuple[int, int]]:
    """A shared memory segment, a semaphore and a message queue with one key: sysvipc(7)."""
    key = secrets.randbelow(1 << 30) + 1
    flags = IPC_CREAT | IPC_EXCL | 0o666
    with ExitStack() as stack:
        shm = call("shmget", key, 4096, flags)
        stack.callback(LIBC.shmctl, shm, IPC_RMID, None)
        stack.callback(LIBC.semctl, call("semget", key, 1, flags), 0, IPC_RMID)
        stack.callback(LIBC.msgctl, call("msgget", key, flags), IPC_RMID, None)
        yield key, shm


@contextmanager
def _message_queue(name: str) -> Iterator[str]:
    descriptor = call("mq_open", name.encode(), os.O_RDWR | os.O_CREAT, 0o666, None)
    try:
        yield name
    finally:
        os.close(descriptor)
        call("mq_unlink", name.encode())


@asynccontextmanager
async def _host_process() -> AsyncIterator[tuple[asyncio.subprocess.Process, int, int]]:
    """A process outside of all jobs that ends with this one: its pid, and where in its memory there are zeros."""
    pipe = asyncio.subprocess.PIPE
    while True:
        process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", _PROCESS, stdin=pipe, stdout=pipe)
        try:
            assert process.stdout is not None
            pid, address = map(int, (await process.stdout.readline()).split())
            if pid >= LOWEST_PID:
                yield process, pid, address
                return
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@asynccontextmanager
async def _job_victim(runner: Runner, marker: str) -> AsyncIterator[tuple[Run, dict[str, Any]]]:
    """A job with secrets. That it reaches a port of ours shows that this is the host that jobs run on."""
    name, abstract = f"{marker}.job", f"{marker}.of-a-job"
    key = secrets.randbelow(1 << 30) + 1
    source = resources.files("joblet.escape.attempts") / "victim.py"
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(1)
        port = door.getsockname()[1]
        arguments = [name, secrets.token_hex(16), abstract, str(key), str(port)]
        run = await runner.start(["-I", "-c", source.read_text(encoding="utf-8"), *arguments], {})
        try:
            said = ""
            async for news in run.news():
                said = str(news.get("noise", news))
                break
            if said.startswith("cannot reach"):
                raise EscapeError("the suite must be run on the server's host: its jobs do not reach this one")
            if said != victim.READY:
                raise EscapeError(f"the victim job has not started: {said or await run.reason()}")
            pids = run.host_pids()
            yield (
                run,
                {
                    "name": name,
                    "directory": run.directory,
                    "pid": pids[-1] if pids else 0,
                    "root": f"/proc/{pids[-1] if pids else 0}/root",
                    "abstract": abstract,
                    "ipc_key": key,
                },
            )
        finally:
            await run.stop()


def _free_pid() -> int:
    """A number that no process has."""
    return next(pid for pid in range(32000, LOWEST_PID, -1) if not Path(f"/proc/{pid}").exists())
