"""The text of API.md, and JSON with its field names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from joblet.clock import format_duration
from joblet.command_line import one_line

if TYPE_CHECKING:
    from joblet.client import JobInfo, JobList, StopResult

_LATER_FIELDS = {
    "labels": "labels",
    "schedule": "schedule",
    "scheduledTime": "scheduled_time",
    "scheduleId": "schedule_id",
    "retries": "retries",
    "retryDelayMs": "retry_delay_ms",
    "attempt": "attempt",
    "retryOf": "retry_of",
    "retriedBy": "retried_by",
    "stdin": "stdin",
    "terminal": "terminal",
    "separateStreams": "separate_streams",
    "pausedBy": "paused_by",
    "hasUploads": "has_uploads",
    "owner": "owner",
}

STATUS_FIELDS = {
    "id": "id",
    "command": "command",
    "args": "args",
    "maxCPU": "max_cpu",
    "maxMemory": "max_memory",
    "maxIOBPS": "max_iobps",
    "status": "status",
    "startTime": "start_time",
    "endTime": "end_time",
    "exitCode": "exit_code",
    "reason": "reason",
    "cpuCores": "cpu_cores",
    "maxProcesses": "max_processes",
    "maxOpenFiles": "max_open_files",
    "maxDisk": "max_disk",
    "timeoutMs": "timeout_ms",
    "priority": "priority",
    "key": "key",
    "name": "name",
    "environment": "environment",
    "secret_environment": "secret_environment",
    "workdir": "workdir",
    "workflowId": "workflow_id",
    "outputs": "outputs",
    **_LATER_FIELDS,
}
"""GetJobStatusRes: the field's name, and its name in JobInfo"""

RECEIPT_FIELDS = {
    "wallUsec": "wall_usec",
    "cpuUsec": "cpu_usec",
    "throttledUsec": "throttled_usec",
    "memoryPeakBytes": "memory_peak_bytes",
    "ioReadBytes": "io_read_bytes",
    "ioWriteBytes": "io_write_bytes",
    "processesPeak": "processes_peak",
    "oomKills": "oom_kills",
}
"""Receipt: the field's name, and its name in the client's Receipt"""

JOB_FIELDS = {
    "id": "id",
    "name": "name",
    "command": "command",
    "args": "args",
    "maxCPU": "max_cpu",
    "cpuCores": "cpu_cores",
    "maxMemory": "max_memory",
    "maxIOBPS": "max_iobps",
    "status": "status",
    "startTime": "start_time",
    "endTime": "end_time",
    "exitCode": "exit_code",
    "scheduledTime": "scheduled_time",
    "runtime": "runtime",
    "environment": "environment",
    "secret_environment": "secret_environment",
    "reason": "reason",
    "maxProcesses": "max_processes",
    "maxOpenFiles": "max_open_files",
    "maxDisk": "max_disk",
    "timeoutMs": "timeout_ms",
    "priority": "priority",
    "key": "key",
    "workdir": "workdir",
    "workflowId": "workflow_id",
    **_LATER_FIELDS,
}
"""Job: the field's name, and its name in JobInfo"""


def started(job: JobInfo) -> str:
    """What `rnx run` prints."""
    return "Job started:\n" + lines(
        ("ID", job.id),
        ("Command", command(job)),
        ("Status", job.status),
        ("StartTime", job.start_time),
        ("MaxCPU", job.max_cpu),
        ("MaxMemory", job.max_memory),
        ("Network", "host (shared with system)"),
    )


def status(job: JobInfo, *, verbose: bool = False) -> str:
    """What `rnx status` prints; `verbose` adds the reason, the rest of the order and the receipt, if there are any."""
    text = lines(
        ("Id", job.id),
        ("Command", command(job)),
        ("Status", job.status),
        ("Started At", job.start_time),
        ("Ended At", job.end_time),
        ("MaxCPU", job.max_cpu),
        ("MaxMemory", job.max_memory),
        ("MaxIOBPS", job.max_iobps),
        ("ExitCode", job.exit_code),
    )
    return text + _details(job) if verbose else text


def _details(job: JobInfo) -> str:
    fields: list[tuple[str, object]] = [
        ("Reason", job.reason),
        ("CpuCores", job.cpu_cores or "any"),
        ("MaxProcesses", job.max_processes),
        ("MaxOpenFiles", job.max_open_files),
        ("MaxDisk", job.max_disk),
        ("Timeout", _duration(job.timeout_ms)),
        ("Priority", job.priority),
        ("Key", job.key),
        ("Name", job.name),
        ("Workflow", job.workflow_id),
        ("Owner", job.owner),
        ("PausedBy", job.paused_by),
        ("WorkDir", job.workdir),
        *(("Environment", f"{name}={value}") for name, value in (job.environment | job.secret_environment).items()),
        *((f"Output {name}", value) for name, value in job.outputs.items()),
        *(("Label", f"{name}={value}") for name, value in job.labels.items()),
        *_later(job),
    ]
    if job.receipt is not None:
        used = job.receipt
        fields += [
            ("WallTime", _seconds(used.wall_usec)),
            ("CpuTime", _seconds(used.cpu_usec)),
            ("ThrottledTime", _seconds(used.throttled_usec)),
            ("MemoryPeak", _bytes(used.memory_peak_bytes)),
            ("IORead", _bytes(used.io_read_bytes)),
            ("IOWrite", _bytes(used.io_write_bytes)),
            ("ProcessesPeak", _UNKNOWN if used.processes_peak is None else used.processes_peak),
            ("OOMKills", _UNKNOWN if used.oom_kills is None else used.oom_kills),
        ]
    return lines(*(pair for pair in fields if pair[1] != ""))


def _later(job: JobInfo) -> list[tuple[str, object]]:
    schedule = job.schedule
    fields: list[tuple[str, object]] = []
    if schedule is not None:
        fields = [
            ("Schedule", schedule.when),
            ("Timezone", schedule.timezone),
            ("Overlap", schedule.overlap),
            ("Jitter", _duration(schedule.jitter_ms)),
            ("CatchUp", schedule.catch_up),
        ]
    fields += [("ScheduledTime", job.scheduled_time), ("OfSchedule", job.schedule_id)]
    if job.retries:
        fields += [
            ("Attempt", f"{job.attempt} of {job.retries + 1}"),
            ("RetryDelay", _duration(job.retry_delay_ms)),
            ("RetryOf", job.retry_of),
            ("RetriedBy", job.retried_by),
        ]
    return fields


_UNKNOWN = "- (not counted by the server's kernel)"


def _duration(milliseconds: int) -> str:
    return format_duration(milliseconds / 1000) if milliseconds else ""


def _seconds(microseconds: int | None) -> str:
    return _UNKNOWN if microseconds is None else f"{microseconds / 1e6:.6f} s"


def _bytes(count: int | None) -> str:
    return _UNKNOWN if count is None else f"{count} B ({count / 2**20:.1f} MB)"


def stopped(result: StopResult) -> str:
    """What `rnx stop` prints."""
    return "Job stopped successfully:\n" + lines(
        ("ID", result.id),
        ("Status", result.status),
        ("ExitCode", result.exit_code),
        ("EndTime", result.end_time),
    )


def paused(title: str, job: JobInfo) -> str:
    """What `rnx pause` and `rnx resume` print."""
    fields = [("ID", job.id), ("Status", job.status), *([("PausedBy", job.paused_by)] if job.paused_by else [])]
    return f"{title}:\n" + lines(*fields)


def timeout_changed(job: JobInfo) -> str:
    """What `rnx timeout` prints."""
    return "Job timeout changed:\n" + lines(
        ("ID", job.id),
        ("Status", job.status),
        ("Timeout", _duration(job.timeout_ms)),
    )


def deleted(job_id: str) -> str:
    """What `rnx delete` prints of each job."""
    return "Job deleted successfully:\n" + lines(("ID", job_id))


def all_deleted(count: int, kept: int) -> str:
    """What `rnx delete --all` prints."""
    return "Jobs deleted successfully:\n" + lines(("Deleted", count), ("NotEnded", kept))


def more(jobs: JobList) -> str:
    """What `rnx list` says on stderr when there are older jobs than those it has listed."""
    oldest = min((job.id for job in jobs), key=lambda job_id: (len(job_id), job_id))
    return f"{len(jobs)} newest jobs listed; for older ones: rnx list --before={oldest}; for all: rnx list --all\n"


def listed(jobs: Iterable[JobInfo]) -> str:
    """What `rnx list` prints: one line a job."""
    return "".join(map(list_line, jobs))


def list_line(job: JobInfo) -> str:
    """What `rnx list` prints of a job."""
    return (
        f"{one_line(job.id)} {one_line(job.status)} {field('StartTime', job.start_time)} "
        f"{field('Command', command(job))}\n"
    )


def log_header(job_id: str) -> str:
    """The first line of `rnx log`."""
    return f"Logs for job {one_line(job_id)} (Press Ctrl+C to exit if streaming):\n"


def status_json(job: JobInfo) -> str:
    """One object with the fields of GetJobStatusRes; what the server's kernel does not count is null."""
    return json.dumps(status_object(job), indent=2) + "\n"


def status_object(job: JobInfo) -> dict[str, Any]:
    """The fields of GetJobStatusRes."""
    receipt = None if job.receipt is None else _object(job.receipt, RECEIPT_FIELDS)
    return _object(job, STATUS_FIELDS) | {"receipt": receipt}


def list_json(jobs: Iterable[JobInfo]) -> str:
    """An array of objects with the fields of Job."""
    array = JsonArray()
    return array.piece(jobs) + array.end()


class Lines:
    """A line for each job, in pieces."""

    def __init__(self, line: Callable[[JobInfo], str] = list_line) -> None:
        self._line = line

    def piece(self, jobs: Iterable[JobInfo]) -> str:
        return "".join(map(self._line, jobs))

    def end(self) -> str:
        return ""


def job_object(job: JobInfo) -> dict[str, Any]:
    """The fields of Job."""
    return _object(job, JOB_FIELDS)


class JsonArray:
    """An array of what `translate` makes of things, in pieces. The mutable state is whether there has been one."""

    def __init__(self, translate: Callable[[Any], dict[str, Any]] = job_object) -> None:
        self._translate = translate
        self._begun = False

    def piece(self, things: Iterable[Any]) -> str:
        objects = [self._translate(thing) for thing in things]
        if not objects:
            return ""
        opening = "," if self._begun else "["
        self._begun = True
        return opening + json.dumps(objects, indent=2)[1:-2]

    def end(self) -> str:
        return "\n]\n" if self._begun else "[]\n"


def _object(job: object, names: dict[str, str]) -> dict[str, Any]:
    return {name: _plain(getattr(job, attribute)) for name, attribute in names.items()}


def _plain(value: object) -> object:
    """A message within a message (Schedule, Terminal) by the names of its fields."""
    if not dataclasses.is_dataclass(value):
        return value
    return {_camel(field.name): getattr(value, field.name) for field in dataclasses.fields(value)}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def command(job: JobInfo) -> str:
    """The command and its arguments in a line."""
    return " ".join((job.command, *job.args))


def lines(*fields: tuple[str, object]) -> str:
    """One line a field."""
    return "".join(f"{field(label, value)}\n" for label, value in fields)


def field(label: str, value: object) -> str:
    """`Label: value`, or `Label:` without one."""
    text = one_line(str(value))
    return f"{label}: {text}" if text else f"{label}:"
