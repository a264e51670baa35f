"""What the server counts of itself as it goes: plain numbers, which cost next to nothing until somebody asks.

Each has one writer; readers copy (`server/figures.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from joblet.job import Cause, Job

QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""seconds, for what should take milliseconds"""
SLOW = (0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
"""seconds, for what jobs wait for"""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Histogram:
    """How many values lay between some bounds. The mutable state is those counts, and the sum of the values."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper ones, ascending; what is above the last is counted too."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> Histogram:
        """As it is now."""
        taken = Histogram(self.bounds)
        taken.counts, taken.sum = self.counts.copy(), self.sum
        return taken


@dataclass(slots=True)
class JobMeasures:
    """Of the jobs that this server has seen begin or end."""

    ended: Counter[Cause] = field(default_factory=lambda: Counter(dict.fromkeys(Cause, 0)))
    queue_wait: Histogram = field(default_factory=lambda: Histogram(SLOW))
    """seconds from a job's order, or its time, to its slot"""
    launch: Histogram = field(default_factory=lambda: Histogram(QUICK))
    """seconds from a job's slot to the exec of its command; where a slot is free, that is from the order on"""
    log_bytes: int = 0
    """in the logs of those that have ended"""
    log_lost: int = 0
    """bytes of output for which the disk or the log's limit had no room"""

    def started(self, job: Job) -> None:
        """A job's command has been exec'd."""
        if job.started_at is not None and job.exec_at is not None:
            self.queue_wait.observe(max(0, job.started_at - (job.scheduled_at or job.created_at)) / 1e9)
            self.launch.observe(max(0, job.exec_at - job.started_at) / 1e9)


@dataclass(slots=True)
class StoreMeasures:
    """Of the database. Its writer's thread counts."""

    seconds: Histogram = field(default_factory=lambda: Histogram(QUICK))
    """that a commit took, with the changes in it"""
    changes: Histogram = field(default_factory=lambda: Histogram(SIZES))
    """in a commit"""
    failures: int = 0
    """commits that were undone"""


@dataclass(slots=True)
class CallMeasures:
    """Of calls, by method (`/package.Service/Method`; only such as there are)."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    """by method and the name of the status"""
    seconds: dict[str, Histogram] = field(default_factory=dict)
    """that calls took of which question and answer are one message each"""
    under_way: Counter[str] = field(default_factory=Counter)

    def took(self, method: str, seconds: float) -> None:
        """Count how long a call took."""
        histogram = self.seconds.get(method)
        if histogram is None:
            histogram = self.seconds[method] = Histogram(QUICK)
        histogram.observe(seconds)


@dataclass(slots=True)
class ConnectionMeasures:
    """Of connections."""

    most: int = 0
    """at a time"""
    open: int = 0
    """those that shake hands included"""
    handshakes: int = 0
    """that have been completed"""
    failures: Counter[str] = field(default_factory=lambda: Counter({"tls": 0, "timeout": 0, "closed": 0}))
    """handshakes that came to nothing: by a TLS error, for want of time, by the client"""
    refused: Counter[str] = field(default_factory=lambda: Counter({"limit": 0, "descriptors": 0}))
    """connections that were closed at once: above grpc.maxConnections, for want of a descriptor"""
    ended: int = 0
    """by this server, for what the client did"""
