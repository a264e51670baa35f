"""What `rnx top` prints of samples."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from joblet.client import JobUsage, UsageSample
from rnx.top_screen import picture
from rnx.usage_text import Order, lines_of, number, sample_json, size, stream_headings, stream_text, table

START = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
MIB = 1 << 20


def usage(job_id: str, cpu_usec: int | None = 0, memory: int = MIB, io: int | None = 0, **fields: Any) -> JobUsage:
    known: dict[str, Any] = {
        "name": "",
        "command": "sleep",
        "args": ("1000",),
        "throttled_usec": 0,
        "memory_peak_bytes": memory,
        "processes": 2,
        "max_cpu": 50,
        "max_memory": 64,
        "max_processes": 1024,
        "start_time": "2024-01-15T10:29:00Z",
    }
    return JobUsage(
        **(known | fields), id=job_id, cpu_usec=cpu_usec, memory_bytes=memory, io_read_bytes=io, io_write_bytes=io
    )


def sample(*jobs: JobUsage, seconds: float = 0) -> UsageSample:
    return UsageSample(START + timedelta(seconds=seconds), jobs)


BEFORE = sample(usage("1"), usage("2"), usage("9", io=500))
AFTER = sample(
    usage("1", cpu_usec=1_000_000, memory=3 * MIB // 2),
    usage("2", io=8 * MIB, name="loader", paused_by="alice"),
    usage("10", memory=60 * MIB, cpu_usec=None, io=None),
    seconds=2,
)


def test_rates_are_of_the_time_between_two_samples() -> None:
    rates = AFTER.rates(BEFORE)
    assert set(rates) == {"1", "2"}
    assert rates["1"].cpu_percent == 50
    assert rates["2"].io_read == rates["2"].io_write == 4 * MIB
    assert AFTER.rates(None) == BEFORE.rates(AFTER) == AFTER.rates(AFTER) == {}
    assert sample(usage("1", cpu_usec=None), seconds=1).rates(BEFORE)["1"].cpu_percent is None


@pytest.mark.parametrize(
    ("order", "ids"),
    [(Order.CPU, "1 2 10"), (Order.MEMORY, "10 1 2"), (Order.IO, "2 1 10"), (Order.ID, "1 2 10")],
)
def test_jobs_are_in_the_order_asked_for(order: Order, ids: str) -> None:
    assert [line.job.id for line in lines_of(AFTER, BEFORE, order)] == ids.split()


def test_a_table_shows_usage_beside_limits() -> None:
    assert table(AFTER, lines_of(AFTER, BEFORE, Order.ID)) == (
        "ID  NAME    COMMAND      CPU %    MEMORY  PROCS  READ/S  WRITE/S   TIME\n"
        "1           sleep 1000   50/50  1.5M/64M      2       0        0  1m02s\n"
        "2   loader  sleep 1000  paused  1.0M/64M      2    4.0M     4.0M  1m02s\n"
        "10          sleep 1000    -/50   60M/64M      2       -        -  1m02s\n"
    )


def test_lines_of_a_stream_stand_below_its_headings() -> None:
    headings, first, *_ = (stream_headings() + stream_text(AFTER, lines_of(AFTER, BEFORE, Order.ID))).splitlines()
    assert first.startswith("10:30:02Z  1 ")
    assert len(headings) == len(first)
    assert headings.index("COMMAND") == first.index("sleep")


def test_json_has_each_sample_in_a_line() -> None:
    told = sample_json(AFTER, lines_of(AFTER, BEFORE, Order.ID))
    assert told.count("\n") == 1
    found = json.loads(told)
    assert found["time"] == "2024-01-15T10:30:02.000Z"
    first, paused, new = found["jobs"]
    assert (first["cpuPercent"], first["memoryBytes"], first["maxCPU"]) == (50.0, 3 * MIB // 2, 50)
    assert (paused["pausedBy"], paused["ioReadPerSecond"]) == ("alice", 4.0 * MIB)
    assert (new["cpuPercent"], new["cpuUsec"]) == (None, None)


def test_a_jobs_name_cannot_command_the_terminal() -> None:
    nasty = sample(replace(usage("1"), name="\x1b[2J", args=("a\nb", "\x07" * 100)))
    lines = lines_of(nasty, None, Order.CPU)
    console = Console(width=100, height=10, record=True, force_terminal=True, color_system=None)
    console.print(picture(console, lines))
    for text in (table(nasty, lines), console.export_text()):
        assert "\x1b[2J" not in text
        assert "\x07" not in text


def test_a_picture_fits_into_the_terminal() -> None:
    many = sample(*(usage(str(place)) for place in range(1, 101)))
    console = Console(width=60, height=10, record=True, force_terminal=True, color_system=None)
    console.print(picture(console, lines_of(many, None, Order.CPU)))
    lines = console.export_text().splitlines()
    assert len(lines) == 8
    assert max(map(len, lines)) <= 60
    assert "(94 more)" in lines[-1]


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0"), (999, "999"), (1000, "1.0K"), (1536, "1.5K"), (999 << 10, "999K"), (1023 << 10, "1.0M"),
     (64 << 20, "64M"), (5 << 40, "5.0T"), (1 << 62, "4096P")],
)  # fmt: skip
def test_sizes_are_short(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0, "0"), (0.04, "0"), (0.05, "0.1"), (9.94, "9.9"), (9.96, "10"), (250.4, "250")]
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text
