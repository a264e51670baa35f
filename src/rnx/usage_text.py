"""What running jobs use, as rows of a table and as JSON. No I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from joblet.command_line import one_line
from rnx.columns import cells, cut, padded

if TYPE_CHECKING:
    from joblet.client import JobUsage, Rates, UsageSample

HEADINGS = ("ID", "NAME", "COMMAND", "CPU %", "MEMORY", "PROCS", "READ/S", "WRITE/S", "TIME")
TEXTS = 3
"""columns of text; those after them are numbers"""
COMMAND = 2
_WIDEST = (20, 20, 40)
"""columns of the terminal that id, name and command take at most"""
_LEAST = (5, 12, 30, 9, 11, 5, 7, 7, 6)
"""columns of the terminal that each column takes where lines come one after another"""
_UNKNOWN = "-"
_UNITS = ("", "K", "M", "G", "T", "P")


class Order(StrEnum):
    """By what jobs are sorted."""

    CPU = "cpu"
    MEMORY = "memory"
    IO = "io"
    ID = "id"


@dataclass(frozen=True)
class Line:
    """A running job, and how fast it uses what there is; None in the first sample that it is in."""

    job: JobUsage
    seconds: float
    """for which it has run"""
    cpu: float | None = None
    """percent of one core"""
    read: float | None = None
    """bytes per second"""
    written: float | None = None
    """bytes per second"""

    def texts(self) -> tuple[str, ...]:
        """A text for each column."""
        job = self.job
        names = (job.id, job.name, " ".join((job.command, *job.args)))
        return (
            *(cut(one_line(text), width) for text, width in zip(names, _WIDEST, strict=True)),
            "paused" if job.paused_by else f"{number(self.cpu)}/{job.max_cpu}",
            f"{size(job.memory_bytes)}/{size(job.max_memory << 20)}",
            _UNKNOWN if job.processes is None else str(job.processes),
            size(self.read),
            size(self.written),
            length(self.seconds),
        )


def lines_of(sample: UsageSample, before: UsageSample | None, order: Order) -> list[Line]:
    """The jobs of a sample in order: those that use most first, or by id."""
    rates = sample.rates(before)
    lines = [_line_of(job, sample.time, rates.get(job.id)) for job in sample.jobs]
    if order is Order.CPU:
        return sorted(lines, key=lambda line: -(line.cpu or 0))  # stable: what uses the same is by id
    if order is Order.MEMORY:
        return sorted(lines, key=lambda line: -(line.job.memory_bytes or 0))
    if order is Order.IO:
        return sorted(lines, key=lambda line: -(line.read or 0) - (line.written or 0))
    return lines


def _line_of(job: JobUsage, now: datetime, rates: Rates | None) -> Line:
    began = _seconds(job.start_time, now)
    return Line(job, began, rates.cpu_percent, rates.io_read, rates.io_write) if rates else Line(job, began)


def _seconds(started: str, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(started)).total_seconds()) if started else 0.0


def table(_: UsageSample, lines: Sequence[Line]) -> str:
    """All of them below their headings."""
    return _aligned([HEADINGS, *(line.texts() for line in lines)])


def stream_headings() -> str:
    """The line above those of `stream_text`."""
    return "AT         " + _aligned([HEADINGS], _LEAST)


def stream_text(sample: UsageSample, lines: Sequence[Line]) -> str:
    """A line for each job, that begins with the sample's time of day."""
    rows = _aligned([line.texts() for line in lines], _LEAST)
    return "".join(f"{sample.time:%H:%M:%S}Z  {row}\n" for row in rows.splitlines())


def _aligned(rows: Sequence[Sequence[str]], least: Sequence[int] = (0,) * len(HEADINGS)) -> str:
    """Rows as lines; texts begin, and numbers end, in the same column, which is as wide as `least` at least."""
    widths = [max([least[place], *(len(cells(row[place])) for row in rows)]) for place in range(len(HEADINGS))]
    text = ""
    for row in rows:
        columns = [padded(cell, width) for cell, width in zip(row[:TEXTS], widths, strict=False)]
        columns += [cell.rjust(width) for cell, width in zip(row[TEXTS:], widths[TEXTS:], strict=True)]
        text += "  ".join(columns) + "\n"
    return text


def summary(lines: Sequence[Line]) -> str:
    """`2 jobs, 150 % of a core, 1.5G`."""
    memory = sum(line.job.memory_bytes or 0 for line in lines)
    count = f"{len(lines)} {'job' if len(lines) == 1 else 'jobs'}"
    return f"{count}, {number(sum(line.cpu or 0 for line in lines))} % of a core, {size(memory)}"


def sample_json(sample: UsageSample, lines: Sequence[Line]) -> str:
    """A line: an object with the fields of UsageSample, and of each job also how fast."""
    time = f"{sample.time:%Y-%m-%dT%H:%M:%S}.{sample.time.microsecond // 1000:03d}Z"
    return json.dumps({"time": time, "jobs": [_job_object(line) for line in lines]}) + "\n"


def _job_object(line: Line) -> dict[str, Any]:
    job = line.job
    return {
        "id": job.id,
        "name": job.name,
        "command": job.command,
        "args": job.args,
        "cpuPercent": _rounded(line.cpu),
        "ioReadPerSecond": _rounded(line.read),
        "ioWritePerSecond": _rounded(line.written),
        "cpuUsec": job.cpu_usec,
        "throttledUsec": job.throttled_usec,
        "memoryBytes": job.memory_bytes,
        "memoryPeakBytes": job.memory_peak_bytes,
        "ioReadBytes": job.io_read_bytes,
        "ioWriteBytes": job.io_write_bytes,
        "processes": job.processes,
        "maxCPU": job.max_cpu,
        "maxMemory": job.max_memory,
        "maxProcesses": job.max_processes,
        "startTime": job.start_time,
        "pausedBy": job.paused_by,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def number(value: float | None) -> str:
    """A number below ten with one digit behind the point."""
    if value is None:
        return _UNKNOWN
    return f"{value:.1f}" if 0.05 <= value < 9.95 else f"{value:.0f}"


def size(count: float | None) -> str:
    """`0`, `512`, `1.5K`, `12M`: bytes, in units of 1,024 each."""
    if count is None:
        return _UNKNOWN
    place = 0
    while count >= 999.5 and place < len(_UNITS) - 1:
        count /= 1024
        place += 1
    return (number(count) if place else f"{count:.0f}") + _UNITS[place]


def length(seconds: float) -> str:
    """`7s`, `12m05s`, `2h07m`, `3d04h`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"
