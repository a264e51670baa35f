"""What speaks for how a job has ended, or for why it does not go on: sentences and numbers. No I/O."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from joblet.clock import format_duration
from joblet.command_line import one_line
from rnx.columns import cut

if TYPE_CHECKING:
    from joblet.client import JobInfo, Receipt, WorkflowJob

_SIGNALS = {
    "SIGHUP": "a terminal or its parent went away",
    "SIGINT": "it was interrupted",
    "SIGQUIT": "it was told to quit",
    "SIGILL": "it came to an instruction that this processor does not have",
    "SIGABRT": "the program itself gave up (abort, a failed assertion)",
    "SIGBUS": "it used memory that is not there, such as a mapped file that was cut",
    "SIGFPE": "it divided by zero",
    "SIGKILL": "something inside the job killed it; it was not for want of memory, which the kernel would have counted",
    "SIGSEGV": "it used memory that is not its own",
    "SIGPIPE": "it wrote to what nobody reads any more",
    "SIGTERM": "something inside the job asked it to end",
    "SIGSYS": "it made a system call that jobs may not make",
    "SIGXCPU": "it used up a limit of CPU time that it had set",
    "SIGXFSZ": "it wrote a file larger than a limit that it had set",
}
_MUCH = 0.1
"""the part of its time from which on being throttled is told"""
_LINES = 10
"""of a log that are shown"""
_WIDEST = 200
"""columns of such a line"""


def explanation(job: JobInfo) -> list[str]:
    """Sentences on a job's status, the likeliest cause first."""
    return [*_of_status(job), *_of_limits(job), *_of_attempts(job)]


def _of_attempts(job: JobInfo) -> Iterator[str]:
    if not job.attempt:
        return
    place = f"attempt {job.attempt} of {job.retries + 1}"
    first = f"; the first was job {job.retry_of}" if job.retry_of else ""
    if not job.ended:
        yield f"It is {place}{first}."
    elif job.retried_by:
        yield f"It was {place}{first}; the next is job {job.retried_by}."
    elif job.attempt > 1 or job.status != "COMPLETED":
        last = "" if job.attempt > job.retries or job.status == "COMPLETED" else ", and nobody wanted another"
        yield f"It was {place}{first}{last}."


def _of_status(job: JobInfo) -> Iterator[str]:
    if job.status == "SCHEDULED":
        yield _of_schedule(job)
    elif job.status == "PENDING":
        yield "It starts when one of the server's slots is free and nobody of a higher priority waits for it."
    elif job.status == "INITIALIZING":
        yield "Its isolation and its limits are being set up."
    elif job.status == "RUNNING":
        if job.paused_by:
            yield f"It stands still until somebody lets it go on: `rnx resume {job.id}`. Its timeout goes on."
        if job.timeout_ms:
            yield f"Its command may run for {format_duration(job.timeout_ms / 1000)}."
    elif job.status == "STOPPED":
        if job.reason.startswith("timeout after "):
            yield f"It ran for longer than it may; `rnx timeout {job.id} DURATION` changes that while it runs."
        else:
            yield "Somebody asked for it; it did not end by itself."
    elif job.reason == "out of memory":
        yield f"It needed more than its {job.max_memory} MB of memory, and the kernel killed it: see --max-memory."
    elif job.exit_code < 0:
        yield "Its command has no exit code: joblet or the host could not bring it to its end."
    elif job.status == "FAILED":
        yield _of_exit_code(job)


def _of_schedule(job: JobInfo) -> str:
    if job.schedule is not None and job.schedule.recurring:
        zone = f" ({job.schedule.timezone or 'UTC'})"
        jobs = f"those it has made: rnx list --schedule={job.id}"
        return f"Its schedule {job.schedule.when}{zone} makes a job at {job.scheduled_time} next; {jobs}"
    if job.reason:  # it waits for something else than its time
        return "It starts when these have ended."
    return f"It starts at {job.scheduled_time}; `rnx stop {job.id}` takes it back."


def _of_exit_code(job: JobInfo) -> str:
    code = job.exit_code
    name = _signal(code - 128)
    if name and job.reason.startswith("killed by signal"):
        return f"{name} means: {_SIGNALS.get(name, 'a signal that it did not handle')}."
    if job.reason.startswith(("cannot execute", "command not found")):
        return "Its command could not be executed: jobs see the host's system directories, their uploads, and no more."
    if code in (126, 127):
        what = "is not to be found" if code == 127 else "cannot be executed"
        return f"Exit code {code} is what shells give when a command {what}."
    if name:
        return f"Exit code {code} is what shells give when a command was killed by {name}."
    return f"Its command chose the exit code {code}; its output may say why."


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def _of_limits(job: JobInfo) -> Iterator[str]:
    used = job.receipt
    if used is None:
        return
    if used.oom_kills and job.reason != "out of memory":
        yield f"{used.oom_kills} of its processes were killed because {job.max_memory} MB of memory were not enough."
    if used.throttled_usec and used.wall_usec and used.throttled_usec > _MUCH * used.wall_usec:
        yield f"Its CPU limit held it back for {_seconds(used.throttled_usec)}: see --max-cpu."
    if used.processes_peak and used.processes_peak >= job.max_processes > 0:
        yield f"It had as many processes as it may ({job.max_processes}): see --max-processes."


def usage(job: JobInfo) -> list[tuple[str, str]]:
    """What a job has used beside what it might, for what is known of that: label and text."""
    used = job.receipt
    return [] if used is None else [pair for pair in _usage(job, used) if pair[1]]


def _usage(job: JobInfo, used: Receipt) -> Iterator[tuple[str, str]]:
    wall = used.wall_usec
    if wall is not None:
        most = f" of {format_duration(job.timeout_ms / 1000)}" if job.timeout_ms else ""
        yield "Time", f"{_seconds(wall)}{most}"
    if used.cpu_usec is not None:
        share = f", {100 * used.cpu_usec / wall:.0f} % of a core where {job.max_cpu} % is the limit" if wall else ""
        yield "CPU", f"{_seconds(used.cpu_usec)}{share}"
    if used.throttled_usec is not None:
        yield "Throttled", _seconds(used.throttled_usec)
    if used.memory_peak_bytes is not None:
        yield "Memory", _of(used.memory_peak_bytes / 2**20, job.max_memory, " MB")
    if used.processes_peak is not None:
        yield "Processes", _of(used.processes_peak, job.max_processes, "")
    if used.io_read_bytes is not None and used.io_write_bytes is not None:
        limit = f", {job.max_iobps} bytes/s is the limit" if job.max_iobps else ""
        read, written = (f"{count / 2**20:.1f} MB" for count in (used.io_read_bytes, used.io_write_bytes))
        yield "Disk", f"{read} read, {written} written{limit}"


def _of(amount: float, limit: int, unit: str) -> str:
    text = f"{amount:.1f}" if unit else f"{amount:.0f}"
    return f"{text} of {limit}{unit} ({100 * amount / limit:.0f} %)" if limit else f"{text}{unit}"


def _seconds(microseconds: int) -> str:
    return f"{microseconds / 1e6:.2f} s"


def last_lines(log: bytes) -> list[str]:
    """The last lines of (the end of) a log, fit for a terminal."""
    lines = log.decode("utf-8", "replace").splitlines()[-_LINES:]
    return [cut(one_line(line.expandtabs()), _WIDEST) for line in lines]


def waits_for(job: WorkflowJob, jobs: Iterable[WorkflowJob]) -> str:
    """What a workflow's job that has not been started requires, and how that stands."""
    states = {other.job_name: other.status for other in jobs}
    known = ", ".join(f"{name} is {states.get(name, 'unknown')}" for name in job.dependencies)
    if not job.dependencies:
        return "requires nothing: waits for its turn"
    return f"requires {job.condition}, and {known}"
