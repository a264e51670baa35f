"""How a server and its host are. Of what grows a sample tells how much it was so far: two of them tell how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from joblet.proto import joblet as pb

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class CpuMetrics:
    """Of the host."""

    busy_usec: int
    """microseconds of all processors that were not idle, since the host's start"""
    load1: float
    """processes that run or wait for a disk, over a minute"""
    load5: float
    load15: float
    jobs_usec: int | None
    """microseconds of all processors that jobs have used; None before the first of them"""


@dataclass(frozen=True)
class MemoryMetrics:
    """Of the host, in bytes."""

    total: int
    available: int
    """to new processes, without swapping"""
    swap_total: int
    swap_free: int
    jobs: int | None
    """all jobs' together, page cache included"""


@dataclass(frozen=True)
class DiskMetrics:
    """Of the file system that holds the server's state, in bytes."""

    total: int
    free: int
    """to the server"""
    inodes: int
    """their number; 0 where there is no fixed one"""
    inodes_free: int
    jobs_read: int | None
    """by all jobs, from disks"""
    jobs_written: int | None
    """by all jobs, to disks"""


@dataclass(frozen=True)
class NetworkMetrics:
    """Of the host's devices but the loopback, in bytes, since the host's start."""

    received: int
    sent: int


@dataclass(frozen=True)
class JobMetrics:
    """Jobs by their status, and what of they have ended."""

    scheduled: int
    pending: int
    initializing: int
    running: int
    paused: int
    """of those that run"""
    ended: Mapping[str, int]
    """since the server's start: completed, exit_code, signal, out_of_memory, timeout, stopped, not_started, lost"""
    slots_used: int
    queue_places_used: int
    workflows: int
    """that have not ended"""
    next_time: str
    """the earliest that a job waits for, RFC 3339 in UTC; empty when none does"""


@dataclass(frozen=True)
class StreamMetrics:
    """Connections, and what goes over them."""

    connections: int
    calls: int
    """under way"""
    followers: int
    """of logs"""
    followers_behind: int
    """of these, those that have not come to the log's end"""
    log_sent: int
    """bytes of output that were given to readers since the server's start"""


@dataclass(frozen=True)
class StoreMetrics:
    """Of the database; counts are those since the server's start."""

    bytes: int
    commits: int
    changes: int
    """in these"""
    commit_usec: int
    """microseconds that these took"""
    damaged: bool


@dataclass(frozen=True)
class ProcessMetrics:
    """Of the server's own process."""

    cpu_usec: int
    memory: int
    """bytes, resident"""
    descriptors: int
    threads: int


@dataclass(frozen=True)
class SystemMetrics:
    """One sample; what was not asked for is None."""

    time: datetime
    """by the server's clock, in UTC"""
    cpu: CpuMetrics | None
    memory: MemoryMetrics | None
    disk: DiskMetrics | None
    network: NetworkMetrics | None
    jobs: JobMetrics | None
    streams: StreamMetrics | None
    store: StoreMetrics | None
    process: ProcessMetrics | None


@dataclass(frozen=True)
class HostStatus:
    """The server's host."""

    name: str
    kernel: str
    machine: str
    cpus: int
    boot_time: str
    """RFC 3339 in UTC"""
    fault: str
    """why it can run no jobs; empty when it can"""


@dataclass(frozen=True)
class ServerStatus:
    """The server."""

    version: str
    start_time: str
    """RFC 3339 in UTC"""
    slots: int
    """jobs that may run at a time"""
    queue_places: int
    """orders that may wait for a slot"""
    max_connections: int


@dataclass(frozen=True)
class SystemStatus:
    """How a server and its host are at one moment."""

    host: HostStatus
    server: ServerStatus
    metrics: SystemMetrics
    """all of them"""


def status_of(message: pb.SystemStatusRes) -> SystemStatus:
    """Translate a message."""
    return SystemStatus(
        _like(HostStatus, message.host or pb.HostStatus()),
        _like(ServerStatus, message.server or pb.ServerStatus()),
        metrics_of(message.metrics or pb.SystemMetricsRes()),
    )


def metrics_of(message: pb.SystemMetricsRes) -> SystemMetrics:
    """Translate a message."""
    return SystemMetrics(
        _EPOCH + timedelta(microseconds=message.time // 1000),
        cpu=_part(CpuMetrics, message.cpu),
        memory=_part(MemoryMetrics, message.memory),
        disk=_part(DiskMetrics, message.disk),
        network=_part(NetworkMetrics, message.network),
        jobs=_part(JobMetrics, message.jobs),
        streams=_part(StreamMetrics, message.streams),
        store=_part(StoreMetrics, message.store),
        process=_part(ProcessMetrics, message.process),
    )


def _part(kind: type[T], message: Any) -> T | None:
    return None if message is None else _like(kind, message)


def _like(kind: type[T], message: Any) -> T:
    """An object of the kind, with the values that the message has under the same names."""
    return kind(**{field.name: getattr(message, field.name) for field in fields(kind)})  # type: ignore[arg-type]
