"""How the server and its host are, as clients are told."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import Collection
from dataclasses import fields

from joblet import __version__
from joblet.clock import now_ns, rfc3339
from joblet.executor.base import Usage
from joblet.job import State
from joblet.proto import joblet as pb
from joblet.server.figures import Figures, Parts

KINDS = tuple(field.name for field in fields(pb.SystemMetricsRes) if field.name != "time")
"""what a sample tells of"""


class System:
    """Reads when it is asked. What has to do with files is done in a thread."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._started_at = now_ns()

    async def status(self) -> pb.SystemStatusRes:
        """All that there is to tell."""
        figures = self._parts.figures()
        host, metrics = await asyncio.to_thread(lambda: (_host(figures), self._read(figures)))
        server = pb.ServerStatus(
            version=__version__,
            start_time=rfc3339(self._started_at),
            slots=figures.slots,
            queue_places=figures.queue_places,
            max_connections=figures.connections_most,
        )
        return pb.SystemStatusRes(host=host, server=server, metrics=metrics)

    async def metrics(self) -> pb.SystemMetricsRes:
        """What changes of it."""
        figures = self._parts.figures()
        return await asyncio.to_thread(self._read, figures)

    def _read(self, figures: Figures) -> pb.SystemMetricsRes:
        import psutil  # which not every server needs

        used = self._parts.executor.total_usage() or Usage()
        times = psutil.cpu_times()
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        devices = [counts for name, counts in psutil.net_io_counters(pernic=True).items() if name != "lo"]
        disk = os.statvfs(self._parts.state_dir)
        process = psutil.Process()
        own = process.cpu_times()
        one, five, fifteen = os.getloadavg()
        return pb.SystemMetricsRes(
            time=now_ns(),
            cpu=pb.CpuMetrics(
                # what guests have used is in `user` and `nice` too: proc_stat(5)
                busy_usec=_usec(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice),
                load1=one,
                load5=five,
                load15=fifteen,
                jobs_usec=used.cpu_usec,
            ),
            memory=pb.MemoryMetrics(
                total=memory.total,
                available=memory.available,
                swap_total=swap.total,
                swap_free=swap.free,
                jobs=used.memory,
            ),
            disk=pb.DiskMetrics(
                total=disk.f_blocks * disk.f_frsize,
                free=disk.f_bavail * disk.f_frsize,
                inodes=disk.f_files,
                inodes_free=disk.f_favail,
                jobs_read=used.io_read,
                jobs_written=used.io_write,
            ),
            network=pb.NetworkMetrics(
                received=sum(counts.bytes_recv for counts in devices),
                sent=sum(counts.bytes_sent for counts in devices),
            ),
            jobs=_jobs(figures),
            streams=pb.StreamMetrics(
                connections=figures.connections,
                calls=sum(figures.calls_under_way.values()),
                followers=figures.followers,
                followers_behind=figures.followers_behind,
                log_sent=figures.log_sent,
            ),
            store=pb.StoreMetrics(
                bytes=sum(self._parts.database.sizes().values()),
                commits=sum(figures.commit_seconds.counts),
                changes=round(figures.commit_changes.sum),
                commit_usec=_usec(figures.commit_seconds.sum),
                damaged=figures.damaged,
            ),
            process=pb.ProcessMetrics(
                cpu_usec=_usec(own.user + own.system),
                memory=process.memory_info().rss,
                descriptors=process.num_fds(),
                threads=process.num_threads(),
            ),
        )


def only(metrics: pb.SystemMetricsRes, kinds: Collection[str]) -> pb.SystemMetricsRes:
    """What it tells of these kinds; of all, if none is named."""
    if not kinds:
        return metrics
    return pb.SystemMetricsRes(time=metrics.time, **{kind: getattr(metrics, kind) for kind in kinds})


def _host(figures: Figures) -> pb.HostStatus:
    import psutil

    return pb.HostStatus(
        name=socket.gethostname(),
        kernel=platform.release(),
        machine=platform.machine(),
        cpus=os.cpu_count() or 0,
        boot_time=rfc3339(int(psutil.boot_time() * 1e9)),
        fault=figures.host_error,
    )


def _jobs(figures: Figures) -> pb.JobMetrics:
    return pb.JobMetrics(
        scheduled=figures.jobs[State.SCHEDULED],
        pending=figures.jobs[State.PENDING],
        initializing=figures.jobs[State.INITIALIZING],
        running=figures.jobs[State.RUNNING],
        paused=figures.paused,
        ended={str(cause): count for cause, count in figures.ended.items()},
        slots_used=figures.slots_taken,
        queue_places_used=figures.queue_counted,
        workflows=sum(figures.workflows.values()),
        next_time=rfc3339(figures.next_time),
    )


def _usec(seconds: float) -> int:
    return round(seconds * 1_000_000)
