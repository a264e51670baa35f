"""What the server says of a job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

from joblet.proto import joblet as pb

ENDED = frozenset({"COMPLETED", "FAILED", "STOPPED"})


@dataclass(frozen=True)
class Receipt:
    """What a job has used, by the kernel's own count; None is what the server's kernel does not count."""

    wall_usec: int | None
    """microseconds from exec to the end"""
    cpu_usec: int | None
    """microseconds of CPU time, of all its processes"""
    throttled_usec: int | None
    """microseconds it was kept from running by its CPU limit"""
    memory_peak_bytes: int | None
    """page cache included"""
    io_read_bytes: int | None
    """from disks"""
    io_write_bytes: int | None
    """to disks; on control groups v1 direct and synchronous writing only"""
    processes_peak: int | None
    """processes and threads at once, the job's init included"""
    oom_kills: int | None
    """processes killed for want of memory"""


@dataclass(frozen=True)
class JobInfo:
    """A job as of one answer. Fields that the answer lacks have their defaults."""

    id: str
    command: str
    args: tuple[str, ...]
    status: str
    """INITIALIZING, RUNNING, COMPLETED, FAILED or STOPPED; PENDING or SCHEDULED while it waits"""
    max_cpu: int
    """percent of one core"""
    max_memory: int
    """MB"""
    max_iobps: int
    """bytes per second, 0 is unlimited"""
    start_time: str
    """RFC 3339 in UTC; empty when not yet known"""
    end_time: str
    exit_code: int
    reason: str = ""
    """why the job is in its status, where there is more to say"""
    name: str = ""
    """for people to know it by; of a workflow's job the name there"""
    cpu_cores: str = ""
    """the cores it may run on, such as `0-3,5`; empty is any"""
    max_processes: int = 0
    max_open_files: int = 0
    """of each process"""
    max_disk: int = 0
    """MB in the work directory, 0 is unlimited"""
    timeout_ms: int = 0
    """milliseconds that its command may run"""
    priority: int = 0
    key: str = ""
    """the client's own name for the order"""
    receipt: Receipt | None = None
    """in the answer to `status`, once the command has ended"""
    scheduled_time: str = ""
    runtime: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    secret_environment: dict[str, str] = field(default_factory=dict)
    """names, with the values masked"""
    workdir: str = ""
    """where its command starts, if not in the work directory"""
    workflow_id: str = ""
    """the workflow that it is of; empty for individual jobs"""
    outputs: dict[str, str] = field(default_factory=dict)
    """what it has written to $JOBLET_OUTPUT, in the answer to `status` once it has ended"""

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ENDED


class JobList(list[JobInfo]):
    """Jobs by id. `more`: there are older ones."""

    def __init__(self, jobs: Iterable[JobInfo] = (), *, more: bool = False) -> None:
        super().__init__(jobs)
        self.more = more


@dataclass(frozen=True)
class StopResult:
    """How a stopped job ended."""

    id: str
    status: str
    end_time: str
    exit_code: int


def info_of(message: pb.RunJobRes | pb.GetJobStatusRes | pb.Job) -> JobInfo:
    """Translate an answer."""
    info = JobInfo(
        id=message.id,
        command=message.command,
        args=tuple(message.args),
        status=message.status,
        max_cpu=message.max_cpu,
        max_memory=message.max_memory,
        max_iobps=message.max_iobps,
        start_time=message.start_time,
        end_time=message.end_time,
        exit_code=message.exit_code,
        reason=message.reason,
        cpu_cores=message.cpu_cores,
        max_processes=message.max_processes,
        max_open_files=message.max_open_files,
        max_disk=message.max_disk,
        timeout_ms=message.timeout_ms,
        priority=message.priority,
        key=message.key,
        name=message.name,
        environment=dict(message.environment),
        secret_environment=dict(message.secret_environment),
        workdir=message.workdir,
        workflow_id=message.workflow_id,
    )
    if isinstance(message, pb.GetJobStatusRes):
        receipt = None if message.receipt is None else _receipt_of(message.receipt)
        return replace(info, receipt=receipt, outputs=dict(message.outputs))
    if isinstance(message, pb.Job):
        return replace(info, scheduled_time=message.scheduled_time, runtime=message.runtime)
    return info


def _receipt_of(message: pb.Receipt) -> Receipt:
    return Receipt(**{field.name: getattr(message, field.name) for field in fields(Receipt)})
