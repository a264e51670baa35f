"""What running jobs use, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from joblet.proto import joblet as pb

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class JobUsage:
    """A running job as of one sample, by the kernel's own count; None is what the server's kernel does not count."""

    id: str
    name: str
    command: str
    args: tuple[str, ...]
    """many or long ones are cut"""
    cpu_usec: int | None
    """microseconds of CPU time so far"""
    throttled_usec: int | None
    """microseconds it was kept from running by its CPU limit so far"""
    memory_bytes: int | None
    """now, page cache included"""
    memory_peak_bytes: int | None
    io_read_bytes: int | None
    """from disks so far"""
    io_write_bytes: int | None
    """to disks so far; on control groups v1 direct and synchronous writing only"""
    processes: int | None
    """processes and threads now, the job's init included"""
    max_cpu: int
    """percent of one core"""
    max_memory: int
    """MB"""
    max_processes: int
    start_time: str
    """RFC 3339 in UTC"""
    paused_by: str = ""
    """who has paused it; empty while it runs"""


@dataclass(frozen=True)
class Rates:
    """How fast a job has used what there is, between two samples; None is what the server's kernel does not count."""

    cpu_percent: float | None
    """of one core"""
    io_read: float | None
    """bytes per second"""
    io_write: float | None
    """bytes per second"""


@dataclass(frozen=True)
class UsageSample:
    """All jobs that ran at an instant, or those of them that were asked for."""

    time: datetime
    """by the server's clock, in UTC"""
    jobs: tuple[JobUsage, ...]
    """by id"""

    def rates(self, before: UsageSample | None) -> dict[str, Rates]:
        """Of the jobs that are in an earlier sample too, by their ids."""
        if before is None:
            return {}
        seconds = (self.time - before.time).total_seconds()
        earlier = {job.id: job for job in before.jobs}
        if seconds <= 0:  # the server's clock was set
            return {}
        return {job.id: _rates(earlier[job.id], job, seconds) for job in self.jobs if job.id in earlier}


def _rates(before: JobUsage, after: JobUsage, seconds: float) -> Rates:
    cpu = _rate(before.cpu_usec, after.cpu_usec, seconds)
    return Rates(
        None if cpu is None else cpu / 10_000,
        _rate(before.io_read_bytes, after.io_read_bytes, seconds),
        _rate(before.io_write_bytes, after.io_write_bytes, seconds),
    )


def _rate(before: int | None, after: int | None, seconds: float) -> float | None:
    return None if before is None or after is None else max(0, after - before) / seconds


def sample_of(message: pb.UsageSample) -> UsageSample:
    """Translate a message."""
    return UsageSample(_EPOCH + timedelta(microseconds=message.time // 1000), tuple(map(_job_of, message.jobs)))


def _job_of(message: pb.JobUsage) -> JobUsage:
    return JobUsage(
        id=message.id,
        name=message.name,
        command=message.command,
        args=tuple(message.args),
        cpu_usec=message.cpu_usec,
        throttled_usec=message.throttled_usec,
        memory_bytes=message.memory_bytes,
        memory_peak_bytes=message.memory_peak_bytes,
        io_read_bytes=message.io_read_bytes,
        io_write_bytes=message.io_write_bytes,
        processes=message.processes,
        max_cpu=message.max_cpu,
        max_memory=message.max_memory,
        max_processes=message.max_processes,
        start_time=message.start_time,
        paused_by=message.paused_by,
    )
