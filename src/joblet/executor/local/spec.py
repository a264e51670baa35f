"""The orders for one job's shim, in the form of shim/PROTOCOL.md."""

from __future__ import annotations

import fcntl
import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from joblet.job import Job

PROTOCOL = 5
"""version of shim/PROTOCOL.md"""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TERM = "xterm"
"""the kind of a terminal of which it is not said"""
WORK = "/work"
"""the job's work directory as the job sees it"""
SHARED = "/workflow"
"""what the jobs of a workflow share, as they see it"""
OUTPUTS = ".joblet-output"
"""the file in the work directory to which a job writes what it gives out"""


@dataclass(frozen=True, slots=True)
class Group:
    """A control group to create for a job."""

    path: Path
    unified: bool
    settings: tuple[tuple[str, str], ...]
    """(file, value), written in this order before the command runs"""
    stats: tuple[tuple[str, str], ...] = ()
    """(name, file or file:key), read when the job has ended"""
    kill: str = ""
    """file into which `1` is written to kill the group"""
    oom: str = ""
    """file whose event says that memory has run out, where the kernel does not kill the group whole"""
    lifting: tuple[tuple[str, str], ...] = ()
    """(file, value), written when the command has ended: takes back limits that would hold up the end of the rest"""


@dataclass(frozen=True, slots=True)
class View:
    """What of the host a job sees."""

    read_only: tuple[Path, ...]
    writable: tuple[Path, ...]
    masked: tuple[Path, ...]
    tmp_bytes: int
    """size of /tmp and, apart, of /dev/shm"""


def encode(
    job: Job,
    *,
    uid_base: int,
    id_count: int,
    grace_ms: int,
    log_limit: int,
    view: View,
    groups: Sequence[Group],
    shared: Path | None = None,
    server_lock: Path | None = None,
) -> bytes:
    """The spec as the shim reads it.

    `shared` is the directory that the job has in common with others, `server_lock` what a server has locked while it
    lives.
    """
    pairs: list[tuple[str, str | int]] = [
        ("version", PROTOCOL),
        ("id", job.id),
        ("hostname", _hostname(job)),
        ("uid_base", uid_base),
        ("id_count", id_count),
        ("grace_ms", grace_ms),
        ("open_files", job.limits.max_open_files),
        ("log_limit", log_limit),
        ("tmp_bytes", view.tmp_bytes),
        ("work", WORK),
        *([("cwd", start_directory(job))] if job.workdir else []),
        ("outputs", OUTPUTS),
        *_input(job),
        *([("disk", "")] if job.limits.max_disk else []),
        *([("apart", "")] if job.separate_streams else []),
        *([("server", str(server_lock))] if server_lock is not None else []),
        *(("ro", str(path)) for path in view.read_only),
        *(("rw", str(path)) for path in view.writable),
        *([("shared", str(shared))] if shared is not None else []),
        *(("mask", str(path)) for path in view.masked),
    ]
    for group in groups:
        pairs.append(("cgroup2" if group.unified else "cgroup", str(group.path)))
        pairs += [("set", f"{file}={value}") for file, value in group.settings]
        pairs += [("lift", f"{file}={value}") for file, value in group.lifting]
        pairs += [("stat", f"{name}={source}") for name, source in group.stats]
        if group.kill:
            pairs.append(("kill", group.kill))
        if group.oom:
            pairs.append(("oom", group.oom))
    pairs += [("env", f"{name}={value}") for name, value in environment(job).items()]
    pairs += [("arg", arg) for arg in (job.command, *job.args)]
    pairs.append(("end", ""))
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs)


def environment(job: Job) -> dict[str, str]:
    """The variables that the job's command gets: its own over the usual ones, those that say what it is over all."""
    told = {"PWD": start_directory(job), "JOBLET_JOB_ID": str(job.id), "JOBLET_OUTPUT": f"{WORK}/{OUTPUTS}"}
    if job.name:
        told["JOBLET_JOB_NAME"] = job.name
    if job.part is not None:
        told["JOBLET_WORKFLOW_ID"] = str(job.part.workflow_id)
        told["JOBLET_ATTEMPT"] = str(job.part.attempt)
        told["JOBLET_SHARED"] = SHARED
    elif job.retries:
        told["JOBLET_ATTEMPT"] = str(job.attempt)
    usual = {"PATH": PATH, "HOME": WORK, "LANG": "C.UTF-8", "HOSTNAME": _hostname(job)}
    if job.terminal is not None:
        usual["TERM"] = job.terminal.term or TERM
    return {**usual, **job.environment, **job.secret_environment, **told}


def _input(job: Job) -> list[tuple[str, str | int]]:
    if job.terminal is not None:
        return [("terminal", f"{job.terminal.rows} {job.terminal.columns}")]
    return [("input", "")] if job.stdin else []


def start_directory(job: Job) -> str:
    """Where the job's command starts, as the job sees it."""
    return posixpath.join(WORK, job.workdir) if job.workdir else WORK


def _hostname(job: Job) -> str:
    return f"job-{job.id}"


def sealed_memfd(data: bytes) -> int:
    """A descriptor at offset 0 of a memory file that nobody can change any more."""
    fd = os.memfd_create("joblet-spec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd
