"""What the server says of a job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from joblet.proto import joblet as pb

ENDED = frozenset({"COMPLETED", "FAILED", "STOPPED"})


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
    """the name in its workflow"""
    cpu_cores: str = ""
    scheduled_time: str = ""
    runtime: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    secret_environment: dict[str, str] = field(default_factory=dict)
    """names, with the values masked"""

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ENDED


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
    )
    return info if not isinstance(message, pb.Job) else _with_details(info, message)


def _with_details(info: JobInfo, job: pb.Job) -> JobInfo:
    return replace(
        info,
        name=job.name,
        cpu_cores=job.cpu_cores,
        scheduled_time=job.scheduled_time,
        runtime=job.runtime,
        environment=dict(job.environment),
        secret_environment=dict(job.secret_environment),
    )
