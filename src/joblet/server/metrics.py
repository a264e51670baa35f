"""The server's figures as Prometheus has them (docs/monitoring.md tells of each). Loaded where they are asked for."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from joblet import __version__
from joblet.executor.base import Usage
from joblet.measures import Histogram
from joblet.server.figures import Figures
from joblet.store.schema import newest_schema


@dataclass(frozen=True, slots=True)
class Sources:
    """What a scrape reads, in a thread of its own."""

    figures: Callable[[], Figures]
    """those of the event loop, asked for from another thread"""
    lag: Histogram
    """of the event loop"""
    total_usage: Callable[[], Usage | None]
    """of all jobs"""
    log_path: Callable[[int], Path]
    """of a job"""
    expiries: Callable[[], Mapping[str, datetime]]
    """when certificates end, by what they are"""
    state_dir: Path
    store_sizes: Callable[[], Mapping[str, int]]
    """bytes of the database's files"""


def registry_of(sources: Sources) -> CollectorRegistry:
    """All metrics of a server, and those of its process."""
    registry = CollectorRegistry()
    registry.register(_ServerCollector(sources))
    ProcessCollector(registry=registry)
    GCCollector(registry)
    return registry


class _ServerCollector(Collector):
    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Nothing: without it, registering would collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        figures = self._sources.figures()
        yield InfoMetricFamily(
            "joblet_build",
            "What runs.",
            {"version": __version__, "python": platform.python_version(), "schema": str(newest_schema())},
        )
        yield from _of_jobs(figures)
        yield from _of_workflows(figures)
        yield from _of_logs(figures, self._sources.log_path)
        yield from _of_calls(figures)
        yield from _of_connections(figures, self._sources.expiries())
        yield from _of_store(figures, self._sources.store_sizes())
        yield from _of_host(self._sources)
        yield _histogram(
            "joblet_event_loop_lag_seconds", "How late the event loop came to what was due.", self._sources.lag
        )


def _of_jobs(figures: Figures) -> Iterator[Metric]:
    yield _gauges("joblet_jobs", "Jobs that have not ended.", "state", _lower(figures.jobs))
    yield _gauge("joblet_jobs_paused", "Running jobs that somebody has paused.", figures.paused)
    yield _counters("joblet_jobs_ended", "Jobs that have ended, by what of.", "cause", _lower(figures.ended))
    yield _histogram(
        "joblet_job_queue_wait_seconds", "From a job's order, or its time, to its slot.", figures.queue_wait
    )
    yield _histogram("joblet_job_launch_seconds", "From a job's slot to the exec of its command.", figures.launch)
    yield _gauge("joblet_slots", "Jobs that may run at a time.", figures.slots)
    yield _gauge("joblet_slots_used", "Slots that have a job.", figures.slots_taken)
    yield _gauge("joblet_queue_jobs", "Jobs that wait for a slot.", figures.queue_waiting)
    yield _gauge("joblet_queue_places", "Places in the queue for clients' orders.", figures.queue_places)
    yield _gauge("joblet_queue_places_used", "Places in the queue that are taken.", figures.queue_counted)
    yield _gauge("joblet_schedules", "Recurring schedules.", figures.schedules)
    yield _gauge("joblet_schedules_overdue", "Jobs whose time has passed and that still wait for it.", figures.overdue)
    next_time = GaugeMetricFamily("joblet_schedule_next_timestamp_seconds", "The earliest time that a job waits for.")
    if figures.next_time is not None:
        next_time.add_metric([], figures.next_time / 1e9)
    yield next_time
    yield _gauge("joblet_host_able", "1 while this host can isolate and limit jobs, else 0.", not figures.host_error)


def _of_workflows(figures: Figures) -> Iterator[Metric]:
    yield _gauges("joblet_workflows", "Workflows that have not ended.", "state", _lower(figures.workflows))
    yield _counters("joblet_workflows_ended", "Workflows that have ended.", "state", _lower(figures.workflows_ended))


def _of_logs(figures: Figures, log_path: Callable[[int], Path]) -> Iterator[Metric]:
    live = figures.followers - figures.followers_behind
    yield _gauges(
        "joblet_log_followers",
        "Streams that follow a log: at its end, or behind it.",
        "position",
        {"live": live, "behind": figures.followers_behind},
    )
    yield _counter("joblet_log_fallbacks", "How often a follower was slower than its log.", figures.fallen_behind)
    yield _counter("joblet_log_sent_bytes", "Output that was given to readers.", figures.log_sent)
    yield _counter("joblet_log_written_bytes", "Output in the logs of jobs that have ended.", figures.log_bytes)
    yield _counter("joblet_log_lost_bytes", "Output for which there was no room.", figures.log_lost)
    written = sum(_size(log_path(job_id)) for job_id in figures.running)
    yield _gauge("joblet_log_running_bytes", "Output in the logs of jobs that run.", written)


def _of_calls(figures: Figures) -> Iterator[Metric]:
    ended = CounterMetricFamily("joblet_rpcs", "Calls that have ended.", labels=["method", "code"])
    for (method, code), count in sorted(figures.calls_ended.items()):
        ended.add_metric([_short(method), code], count)
    yield ended
    under_way = {_short(method): count for method, count in figures.calls_under_way.items()}
    yield _gauges("joblet_rpcs_in_progress", "Calls under way, streams among them.", "method", under_way)
    took = HistogramMetricFamily(
        "joblet_rpc_duration_seconds", "Of calls that are one question and one answer.", labels=["method"]
    )
    for method, histogram in sorted(figures.call_seconds.items()):
        took.add_metric([_short(method)], _buckets(histogram), histogram.sum)
    yield took


def _of_connections(figures: Figures, expiries: Mapping[str, datetime]) -> Iterator[Metric]:
    yield _gauge("joblet_connections", "Connections, those that shake hands included.", figures.connections)
    yield _gauge("joblet_connections_limit", "Connections at a time.", figures.connections_most)
    yield _counter("joblet_handshakes", "TLS handshakes that were completed.", figures.handshakes)
    yield _counters(
        "joblet_handshake_failures",
        "TLS handshakes that came to nothing: by an error, for want of time, by the client.",
        "reason",
        figures.handshake_failures,
    )
    yield _counters(
        "joblet_connections_refused",
        "Connections closed at once: above the limit, or for want of a descriptor.",
        "reason",
        figures.connections_refused,
    )
    yield _counter(
        "joblet_connections_cut",
        "Connections that the server has ended for what the client did.",
        figures.connections_ended,
    )
    ends = {name: at.timestamp() for name, at in expiries.items()}
    yield _gauges("joblet_certificate_expiry_timestamp_seconds", "When it ends.", "certificate", ends)


def _of_store(figures: Figures, sizes: Mapping[str, int]) -> Iterator[Metric]:
    yield _histogram("joblet_store_commit_seconds", "Of the changes and their commit.", figures.commit_seconds)
    yield _histogram("joblet_store_commit_changes", "Changes in one commit.", figures.commit_changes)
    yield _counter("joblet_store_commit_failures", "Commits that were undone.", figures.commit_failures)
    yield _gauge("joblet_store_changes_waiting", "Changes that wait for the next commit.", figures.commit_waiting)
    yield _gauge("joblet_store_damaged", "1 when the database was found damaged, else 0.", figures.damaged)
    yield _gauges("joblet_store_bytes", "Of its files.", "file", sizes)


def _of_host(sources: Sources) -> Iterator[Metric]:
    disk = os.statvfs(sources.state_dir)
    yield _gauge("joblet_state_disk_bytes", "Of the state directory's file system.", disk.f_blocks * disk.f_frsize)
    yield _gauge("joblet_state_disk_free_bytes", "Of it, free for the server.", disk.f_bavail * disk.f_frsize)
    yield _gauge(
        "joblet_state_disk_inodes", "Of the state directory's file system; 0 where they are no matter.", disk.f_files
    )
    yield _gauge("joblet_state_disk_free_inodes", "Of it, free for the server.", disk.f_favail)
    used = sources.total_usage() or Usage()
    cpu = None if used.cpu_usec is None else used.cpu_usec / 1e6
    yield _counter("joblet_cgroup_cpu_seconds", "CPU time of all jobs.", cpu)
    yield _gauge("joblet_cgroup_memory_bytes", "Memory of all jobs, page cache included.", used.memory)
    yield _gauge("joblet_cgroup_processes", "Processes and threads of all jobs.", used.processes)
    yield _counter("joblet_cgroup_read_bytes", "From disks, by all jobs.", used.io_read)
    yield _counter("joblet_cgroup_written_bytes", "To disks, by all jobs.", used.io_write)


def _gauge(name: str, about: str, value: float | None) -> Metric:
    return GaugeMetricFamily(name, about, None if value is None else float(value))


def _counter(name: str, about: str, value: float | None) -> Metric:
    return CounterMetricFamily(name, about, value)


def _gauges(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counters(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, about: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, about, buckets=_buckets(histogram), sum_value=histogram.sum)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Each bound with how many values lay below it."""
    total = 0.0
    found = []
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        found.append((bound, total))
    return found


def _lower(values: Mapping[Any, int]) -> dict[str, float]:
    return {str(key).lower(): value for key, value in values.items()}


def _short(method: str) -> str:
    """`Service/Method` of `/package.Service/Method`."""
    service, _, name = method.strip("/").partition("/")
    return f"{service.rpartition('.')[2]}/{name}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # not there yet, or not any more
        return 0
