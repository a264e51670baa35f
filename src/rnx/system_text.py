"""How a server and its host are, as lines for people and as JSON. No I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from joblet.command_line import one_line
from rnx.columns import cut
from rnx.usage_text import length, number, size

if TYPE_CHECKING:
    from joblet.client import SystemMetrics, SystemStatus

Part = tuple[str, str]
"""a heading, and what is said below it"""

_WIDEST = 200
"""columns of the terminal that a name or a fault takes at most"""
_LEAST = (8, 4, 4, 5, 5, 6, 6, 6, 6)
_HEADINGS = ("AT", "RUN", "WAIT", "CPU %", "LOAD", "MEMORY", "DISK", "IN/S", "OUT/S")


def title(status: SystemStatus, now: datetime) -> str:
    """What stays the same while one looks: host, version, and since when."""
    host, server = status.host, status.server
    cpus = f"{host.cpus} {'CPU' if host.cpus == 1 else 'CPUs'}"
    return (
        f"{_short(host.name)}: joblet {_short(server.version)}, up {_since(server.start_time, now)}; "
        f"Linux {_short(host.kernel)} {_short(host.machine)}, {cpus}, up {_since(host.boot_time, now)}"
    )


def parts(status: SystemStatus, sample: SystemMetrics, before: SystemMetrics | None) -> list[Part]:
    """A line for each part; how fast things go where there is an earlier sample of the same server."""
    cpu, memory, disk, network = sample.cpu, sample.memory, sample.disk, sample.network
    jobs, streams, store, process = sample.jobs, sample.streams, sample.store, sample.process
    rate = _Rates(sample, before)
    found: list[Part] = []
    if status.host.fault:
        found.append(("FAULT", f"no job can run here: {_short(status.host.fault)}"))
    if jobs:
        following = f" (next {jobs.next_time})" if jobs.next_time else ""
        paused = f", {jobs.paused} of them paused" if jobs.paused else ""
        found.append(
            (
                "JOBS",
                f"{jobs.running + jobs.initializing} of {status.server.slots} run{paused}, {jobs.pending} wait, "
                f"{jobs.scheduled} scheduled{following}; {_count(jobs.workflows, 'workflow')}",
            )
        )
        ended = [f"{_short(cause)} {count}" for cause, count in jobs.ended.items() if count]
        found.append(("ENDED", ", ".join(ended) or "none since the server's start"))
    if cpu:
        loads = " ".join(f"{load:.2f}" for load in (cpu.load1, cpu.load5, cpu.load15))
        used = f"{number(rate.cores('cpu', 'busy_usec'))} % of a core, jobs {number(rate.cores('cpu', 'jobs_usec'))} %"
        found.append(("CPU", f"{used}; load {loads}"))
    if memory:
        swap = f"; swap {size(memory.swap_total - memory.swap_free)} of {size(memory.swap_total)}"
        used = f"{size(memory.total - memory.available)} of {size(memory.total)} used, jobs {size(memory.jobs)}"
        found.append(("MEMORY", used + (swap if memory.swap_total else "")))
    if disk:
        read, written = (size(rate.of("disk", name)) for name in ("jobs_read", "jobs_written"))
        free = f"{size(disk.free)} of {size(disk.total)} free"
        found.append(("DISK", f"{free}; jobs read {read}/s, write {written}/s"))
    if network:
        received, sent = (size(rate.of("network", name)) for name in ("received", "sent"))
        found.append(("NETWORK", f"in {received}/s, out {sent}/s"))
    if streams:
        behind = f" ({streams.followers_behind} behind)" if streams.followers_behind else ""
        found.append(
            (
                "STREAMS",
                f"{_count(streams.connections, 'connection')}, {_count(streams.calls, 'call')}, "
                f"{_count(streams.followers, 'follower')}{behind}; logs {size(rate.of('streams', 'log_sent'))}/s",
            )
        )
    if store:
        damaged = "; DAMAGED" if store.damaged else ""
        took = rate.each("store", "commit_usec", "commits")
        each = f", {took / 1000:.1f} ms each" if took is not None else ""
        commits = f"{number(rate.of('store', 'commits'))} commits/s{each}"
        found.append(("STORE", f"{size(store.bytes)}, {commits}{damaged}"))
    if process:
        used = f"{number(rate.cores('process', 'cpu_usec'))} % of a core, {size(process.memory)}"
        found.append(("SERVER", f"{used}, {process.descriptors} descriptors, {process.threads} threads"))
    return found


def page(status: SystemStatus, sample: SystemMetrics, before: SystemMetrics | None) -> str:
    """All of it."""
    lines = [f"{heading:<8} {text}" for heading, text in parts(status, sample, before)]
    return "\n".join([title(status, sample.time), "", *lines, ""])


def headings() -> str:
    """The line above those of `line`."""
    return _row(_HEADINGS)


def line(sample: SystemMetrics, before: SystemMetrics | None) -> str:
    """The most important of a sample, in one line."""
    rate = _Rates(sample, before)
    cpu, memory, disk, jobs = sample.cpu, sample.memory, sample.disk, sample.jobs
    return _row(
        (
            f"{sample.time:%H:%M:%S}",
            str(jobs.running + jobs.initializing if jobs else "-"),
            str(jobs.pending if jobs else "-"),
            number(rate.cores("cpu", "busy_usec")),
            f"{cpu.load1:.2f}" if cpu else "-",
            size(memory.total - memory.available if memory else None),
            size(disk.free if disk else None),
            size(rate.of("network", "received")),
            size(rate.of("network", "sent")),
        )
    )


def sample_json(status: SystemStatus, sample: SystemMetrics) -> str:
    """A line: an object with the fields of SystemStatusRes, metrics of SystemMetricsRes among them."""
    time = f"{sample.time:%Y-%m-%dT%H:%M:%S}.{sample.time.microsecond // 1000:03d}Z"
    metrics = {"time": time, **{key: value for key, value in _camel(asdict(sample)).items() if key != "time"}}
    told = {"host": _camel(asdict(status.host)), "server": _camel(asdict(status.server)), "metrics": metrics}
    return json.dumps(told) + "\n"


def is_restart(sample: SystemMetrics, before: SystemMetrics) -> bool:
    """Whether another server tells the later one: its counts have begun anew."""
    return bool(sample.store and before.store and sample.store.commits < before.store.commits) or bool(
        sample.process and before.process and sample.process.cpu_usec < before.process.cpu_usec
    )


class _Rates:
    """How fast what grows has grown between two samples; None where that cannot be told."""

    def __init__(self, sample: SystemMetrics, before: SystemMetrics | None) -> None:
        self._sample = sample
        self._before = before
        self._seconds = (sample.time - before.time).total_seconds() if before else 0.0

    def grown(self, part: str, field: str) -> float | None:
        """By how much."""
        later, earlier = (getattr(getattr(each, part, None), field, None) for each in (self._sample, self._before))
        return None if later is None or earlier is None else max(0, later - earlier)

    def of(self, part: str, field: str) -> float | None:
        """By how much a second."""
        grown = self.grown(part, field)
        return None if grown is None or self._seconds <= 0 else grown / self._seconds

    def cores(self, part: str, field: str) -> float | None:
        """Of microseconds of processor time: percent of one."""
        used = self.of(part, field)
        return None if used is None else used / 10_000

    def each(self, part: str, field: str, count: str) -> float | None:
        """Divided by how much `count` has grown."""
        grown, divisor = self.grown(part, field), self.grown(part, count)
        return grown / divisor if grown is not None and divisor else None


def _row(texts: Sequence[str]) -> str:
    cells = zip(texts, _LEAST, strict=True)
    return (
        "  ".join(text.ljust(width) if place == 0 else text.rjust(width) for place, (text, width) in enumerate(cells))
        + "\n"
    )


def _camel(values: dict[str, Any]) -> dict[str, Any]:
    """Names as the API has them: `busyUsec`."""
    return {
        _name(key): _camel(value) if isinstance(value, dict) and key != "ended" else value
        for key, value in values.items()
    }


def _name(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _short(text: str) -> str:
    return cut(one_line(text), _WIDEST)


def _since(start: str, now: datetime) -> str:
    return length(max(0.0, (now - datetime.fromisoformat(start)).total_seconds())) if start else "-"
