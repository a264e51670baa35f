"""This installation: Python, OpenSSL, the shim, and a job of nothing that shows whether all of it works together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import ssl
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from joblet import __version__
from joblet.doctor.context import Context, existing
from joblet.doctor.report import Checks, Row, Verdict, unknown
from joblet.errors import HostUnable
from joblet.executor.local import LocalExecutor
from joblet.executor.local.ranges import COUNT
from joblet.executor.local.shim import shim_path
from joblet.job import Limits
from joblet.server.settings import executor_settings

_OLDEST_PYTHON = (3, 11)
_USAGE_STATUS = 2
"""of a shim that nobody gave a job"""
_TRIAL_USE = "every step of a job's start"
_EVERY_LIMIT = Limits(
    max_cpu=50, max_memory=64, max_iobps=1 << 20, max_processes=16, max_open_files=64, max_disk=16, cpu_cores="0"
)
_SHIM_USE = "starts, watches and records each job"


def checks(context: Context) -> Checks:
    """The section's checks by name."""
    return {
        "joblet": lambda: judge_python(sys.version_info[:2], ssl.OPENSSL_VERSION),
        "shim": lambda: _shim(context),
        "trial job": lambda: _trial_jobs(context),
    }


def judge_python(version: tuple[int, int], openssl: str) -> Row:
    host = f"{__version__} on Python {platform.python_version()}, {openssl.rsplit(' ', 3)[0]}"
    use = "TLS 1.3 between server and clients"
    if version < _OLDEST_PYTHON:
        return Row("joblet", host, use, Verdict.FAILS, "Use Python 3.11 or newer.")
    if not ssl.HAS_TLSv1_3:
        return Row("joblet", host, use, Verdict.FAILS, "Use a Python whose OpenSSL has TLS 1.3.")
    return Row("joblet", host, use)


def _shim(context: Context) -> Row:
    try:
        path = shim_path()
        done = subprocess.run([path], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20)
    except HostUnable as error:
        return judge_shim(None, str(error))
    except PermissionError as error:
        return judge_shim(None, f"it does not run: {error}") if context.root else unknown("shim", _SHIM_USE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return judge_shim(None, f"it does not run: {error}")
    return judge_shim(done.returncode, str(path))


def judge_shim(status: int | None, text: str) -> Row:
    """`status` of the shim run without a job, None when it did not run; `text` is its path, or why."""
    if status == _USAGE_STATUS:
        return Row("shim", text, _SHIM_USE)
    advice = "Install joblet again on this machine, with a C compiler at hand: pip install --force-reinstall."
    host = text if status is None else f"{text}: ended with {status}"
    return Row("shim", host, _SHIM_USE, Verdict.FAILS, advice)


def _trial_jobs(context: Context) -> list[Row]:
    if not context.root:
        return [unknown("trial job", _TRIAL_USE)]
    first = judge_trial_job(_why_no_job(context, None))
    if first.verdict is Verdict.FAILS:
        return [first]
    return [first, judge_limited_job(_why_no_job(context, _EVERY_LIMIT))]


def _why_no_job(context: Context, limits: Limits | None) -> str:
    """Launch a job that does nothing, as the server would, beside its state; empty when it ran and ended."""
    try:
        directory = Path(tempfile.mkdtemp(prefix=".joblet-doctor-", dir=existing(context.state_dir)))
    except OSError as error:
        return f"no directory for it: {error.strerror}"
    try:
        settings = executor_settings(context.config, context.config_path, directory)
        base = free_range(settings.id_base, settings.id_ranges, _uids_in_use())
        executor = LocalExecutor(replace(settings, id_base=base, id_ranges=1), f"doctor-{os.getpid()}")
        with contextlib.closing(executor):
            asyncio.run(executor.probe() if limits is None else executor.probe(limits))
    except (HostUnable, OSError) as error:
        return str(error)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return ""


def free_range(base: int, ranges: int, uids: set[int]) -> int:
    """The last range of the pool that no process has: a running server may have jobs, and begins at the other end."""
    used = {(uid - base) // COUNT for uid in uids}
    return next((base + n * COUNT for n in reversed(range(ranges)) if n not in used), base)


def _uids_in_use() -> set[int]:
    uids = set()
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                uids.add(entry.stat().st_uid)
    return uids


def judge_trial_job(trouble: str) -> Row:
    if trouble:
        advice = "See to the other failures first: this is the sentence that every job would end with."
        return Row("trial job", trouble, _TRIAL_USE, Verdict.FAILS, advice)
    return Row("trial job", "ran isolated, and ended", _TRIAL_USE)


def judge_limited_job(trouble: str) -> Row:
    use = "every limit at once: cpu, cores, memory, I/O, processes, open files, disk"
    if trouble:
        advice = "See to the other gaps first: this is the sentence that a job with such a limit ends with."
        return Row("limited trial", trouble, use, Verdict.GAP, advice)
    return Row("limited trial", "ran isolated, and ended", use)
