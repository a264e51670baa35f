"""Jobs between their wire form and their own: the order that a request holds, and what answers tell of a job."""

from __future__ import annotations

from typing import Any

from joblet.clock import rfc3339
from joblet.job import MASK, Job, Limits, Receipt, Schedule, Terminal
from joblet.order import Order
from joblet.proto import joblet as pb


def order_of(message: pb.RunJobReq) -> Order:
    """What the request asks for, without its files."""
    return Order(
        command=message.command,
        args=tuple(message.args),
        limits=Limits(
            message.max_cpu,
            message.max_memory,
            message.max_iobps,
            message.max_processes,
            message.max_open_files,
            message.max_disk,
            message.cpu_cores,
        ),
        timeout_ms=message.timeout_ms,
        priority=message.priority,
        key=message.key,
        name=message.name,
        environment=dict(message.environment),
        secret_environment=dict(message.secret_environment),
        workdir=message.workdir,
        labels=dict(message.labels),
        schedule=_schedule_of(message.schedule),
        retries=message.retries,
        retry_delay_ms=message.retry_delay_ms,
        stdin=message.stdin or message.terminal is not None,
        terminal=terminal_of(message.terminal),
        separate_streams=message.separate_streams,
    )


def terminal_of(message: pb.Terminal | None) -> Terminal | None:
    """A terminal that is asked for."""
    return None if message is None else Terminal(message.rows, message.columns, message.term)


def fields_of(job: Job, reason: str) -> dict[str, Any]:
    """What RunJobRes, GetJobStatusRes and Job have in common, by betterproto2's names."""
    limits = job.limits
    return {
        "id": str(job.id),
        "command": job.command,
        "args": list(job.args),
        "max_cpu": limits.max_cpu,
        "max_memory": limits.max_memory,
        "max_iobps": limits.max_iobps,
        "max_processes": limits.max_processes,
        "max_open_files": limits.max_open_files,
        "max_disk": limits.max_disk,
        "cpu_cores": limits.cpu_cores,
        "timeout_ms": job.timeout_ms,
        "priority": job.priority,
        "key": job.key,
        "name": job.name,
        "environment": dict(job.environment),
        "secret_environment": dict.fromkeys(job.secret_environment, MASK),
        "workdir": job.workdir,
        "workflow_id": str(job.part.workflow_id) if job.part else "",
        "status": job.state,
        "start_time": rfc3339(job.started_at),
        "end_time": rfc3339(job.ended_at),
        "exit_code": job.exit_code,
        "reason": reason,
        "labels": dict(job.labels),
        "schedule": _schedule(job.schedule),
        "schedule_id": str(job.schedule_id or ""),
        "retries": job.retries,
        "retry_delay_ms": job.retry_delay_ms,
        "attempt": job.attempt if job.retries else 0,
        "retry_of": str(job.retry_of or ""),
        "retried_by": str(job.retried_by or ""),
        "stdin": job.stdin,
        "terminal": _terminal(job.terminal),
        "separate_streams": job.separate_streams,
        "paused_by": job.paused_by,
        "has_uploads": job.uploads is not None,
        "scheduled_time": rfc3339(job.scheduled_at),
        "owner": job.owner,
    }


def receipt_of(receipt: Receipt | None) -> dict[str, int]:
    """What a job has used, by the names of the protocol; nothing before its end."""
    if receipt is None:
        return {}
    told = {
        "wallUsec": receipt.wall_usec,
        "cpuUsec": receipt.cpu_usec,
        "throttledUsec": receipt.throttled_usec,
        "memoryPeakBytes": receipt.memory_peak,
        "ioReadBytes": receipt.io_read,
        "ioWriteBytes": receipt.io_write,
        "processesPeak": receipt.processes_peak,
        "oomKills": receipt.oom_kills,
    }
    return {name: count for name, count in told.items() if count is not None}


def _schedule_of(message: pb.Schedule | None) -> Schedule | None:
    if message is None:
        return None
    return Schedule(message.when, message.timezone, message.overlap, message.jitter_ms, message.catch_up)


def _schedule(schedule: Schedule | None) -> pb.Schedule | None:
    if schedule is None:
        return None
    return pb.Schedule(
        when=schedule.when,
        timezone=schedule.timezone,
        overlap=schedule.overlap,
        jitter_ms=schedule.jitter_ms,
        catch_up=schedule.catch_up,
    )


def _terminal(terminal: Terminal | None) -> pb.Terminal | None:
    return None if terminal is None else pb.Terminal(terminal.rows, terminal.columns, terminal.term)
