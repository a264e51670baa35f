"""Slurm on this host, without systemd: munged, slurmctld and slurmd on loopback, with all they keep in one directory.

Its jobs are run one by one with srun, as `crun run` would be: submitted, scheduled, run, recorded, waited for.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.commands import missing
from benchmarks.measure import CannotRunError

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun")
PATIENCE = 30.0
"""seconds until a daemon that is not ready counts as one that does not run here"""
SEATS = 64
"""jobs that the node takes at once, however few its processors are"""


class Slurm:
    """A controller with one node, this host."""

    def __init__(self, folder: Path) -> None:
        self._environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str) -> None:
        """A job, to its end. Raises CannotRunError."""
        done = subprocess.run(
            ["srun", "--quiet", "--ntasks=1", *command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CannotRunError(f"srun: {done.stderr.strip()[-200:]}")

    async def to_end(self, count: int, workers: int, *command: str) -> float:
        """Seconds for so many jobs, by workers that begin the next when one has ended."""
        return await asyncio.to_thread(self._run_all, count, workers, *command)

    def _run_all(self, count: int, workers: int, *command: str) -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda _: self.run(*command), range(count)))
        return time.perf_counter() - began

    def _ready(self) -> bool:
        listing = subprocess.run(
            ["sinfo", "--noheader", "--format=%t"], env=self._environment, capture_output=True, text=True, check=False
        )
        return listing.stdout.strip() == "idle"


@contextmanager
def running() -> Iterator[Slurm]:
    """Slurm for as long as it is needed. Raises CannotRunError."""
    if why := missing(*PROGRAMS):
        raise CannotRunError(why)
    with tempfile.TemporaryDirectory(prefix="joblet-slurm-") as name, ExitStack() as stack:
        folder = Path(name)
        for each in ("munge", "state", "spool"):
            (folder / each).mkdir(mode=0o700)
        (folder / "munge").chmod(0o711)  # munge's clients reach its socket by it
        (folder / "munge/key").write_bytes(os.urandom(128))
        (folder / "munge/key").chmod(0o600)
        (folder / "slurm.conf").write_text(_configuration(folder))
        slurm = Slurm(folder)
        munged = ["munged", "--foreground", "--force", *_munge_files(folder / "munge")]
        daemons = [
            stack.enter_context(_daemon(folder, *munged)),
            stack.enter_context(_daemon(folder, "slurmctld", "-D", "-c", "-f", f"{folder}/slurm.conf")),
            stack.enter_context(_daemon(folder, "slurmd", "-D", "-N", "bench", "-f", f"{folder}/slurm.conf")),
        ]
        deadline = time.monotonic() + PATIENCE
        while not slurm._ready():
            ended = [daemon for daemon in daemons if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise CannotRunError(f"does not run here: {_last_words(folder)}")
            time.sleep(0.1)
        slurm.run("true")
        yield slurm


def _munge_files(folder: Path) -> list[str]:
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return [f"--{option}={folder}/{name}" for option, name in files.items()]


def _configuration(folder: Path) -> str:
    """slurm.conf(5): no accounting, no health checks, and a scheduler that looks as often as it can."""
    controller, node = _free_ports(2)
    return f"""
ClusterName=bench
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
MinJobAge=2
ReturnToService=2
NodeName=bench NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 CPUs={SEATS} State=UNKNOWN
PartitionName=all Nodes=bench Default=YES MaxTime=INFINITE State=UP
"""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of the daemons, in the foreground; it is ended with the block."""
    with (folder / "said").open("ab") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _last_words(folder: Path) -> str:
    """What the daemons have said last."""
    lines = (folder / "said").read_text(errors="replace").splitlines()
    return "; ".join(lines[-3:])[-400:]
