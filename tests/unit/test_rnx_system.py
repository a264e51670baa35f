"""How `rnx monitor` tells samples, without a server."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from rich.console import Console

from joblet.client import (
    CpuMetrics,
    DiskMetrics,
    HostStatus,
    JobMetrics,
    MemoryMetrics,
    NetworkMetrics,
    ProcessMetrics,
    ServerStatus,
    StoreMetrics,
    StreamMetrics,
    SystemMetrics,
    SystemStatus,
)
from rnx.monitor_screen import picture
from rnx.system_text import headings, is_restart, line, page, sample_json

MIB = 1 << 20
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEFORE = SystemMetrics(
    AT,
    CpuMetrics(1_000_000, 1.0, 0.5, 0.25, 0),
    MemoryMetrics(1024 * MIB, 512 * MIB, 100 * MIB, 75 * MIB, 64 * MIB),
    DiskMetrics(1000 * MIB, 400 * MIB, 10, 5, 0, 0),
    NetworkMetrics(0, 0),
    JobMetrics(1, 2, 0, 3, 1, {"completed": 7, "lost": 0, "out_of_memory": 1}, 3, 2, 1, "2026-01-03T00:00:00Z"),
    StreamMetrics(4, 1, 2, 1, 0),
    StoreMetrics(3 * MIB, 10, 20, 10_000, damaged=False),
    ProcessMetrics(500_000, 80 * MIB, 30, 6),
)
AFTER = replace(
    BEFORE,
    time=AT + timedelta(seconds=2),
    cpu=CpuMetrics(4_000_000, 2.0, 0.5, 0.25, 1_000_000),
    disk=DiskMetrics(1000 * MIB, 400 * MIB, 10, 5, 8 * MIB, 2 * MIB),
    network=NetworkMetrics(2048, 4096),
    streams=StreamMetrics(4, 1, 2, 1, 20 * MIB),
    store=StoreMetrics(3 * MIB, 14, 40, 16_000, damaged=False),
    process=ProcessMetrics(520_000, 80 * MIB, 30, 6),
)
STATUS = SystemStatus(
    HostStatus("web1", "6.1.0", "x86_64", 1, "2026-01-01T03:04:05Z", ""),
    ServerStatus("1.2", "2026-01-02T03:00:00Z", 100, 1000, 10_000),
    AFTER,
)


def test_a_page_tells_how_fast_between_two_samples() -> None:
    assert page(STATUS, AFTER, BEFORE).splitlines() == [
        "web1: joblet 1.2, up 4m07s; Linux 6.1.0 x86_64, 1 CPU, up 1d00h",
        "",
        "JOBS     3 of 100 run, 1 of them paused, 2 wait, 1 scheduled (next 2026-01-03T00:00:00Z); 1 workflow",
        "ENDED    completed 7, out_of_memory 1",
        "CPU      150 % of a core, jobs 50 %; load 2.00 0.50 0.25",
        "MEMORY   512M of 1.0G used, jobs 64M; swap 25M of 100M",
        "DISK     400M of 1.0G free; jobs read 4.0M/s, write 1.0M/s",
        "NETWORK  in 1.0K/s, out 2.0K/s",
        "STREAMS  4 connections, 1 call, 2 followers (1 behind); logs 10M/s",
        "STORE    3.0M, 2.0 commits/s, 1.5 ms each",
        "SERVER   1.0 % of a core, 80M, 30 descriptors, 6 threads",
    ]


def test_alone_a_sample_tells_no_speed() -> None:
    text = page(STATUS, BEFORE, None)
    assert "CPU      - % of a core, jobs - %; load 1.00 0.50 0.25\n" in text
    assert "STORE    3.0M, - commits/s\n" in text


def test_what_the_server_does_not_tell_is_left_out() -> None:
    bare = SystemMetrics(AT, None, None, None, None, None, None, None, None)
    assert page(STATUS, bare, BEFORE).splitlines()[2:] == []
    assert line(bare, BEFORE).split() == ["03:04:05", *["-"] * 8]
    unlimited = replace(BEFORE, cpu=CpuMetrics(1, 0, 0, 0, None), memory=MemoryMetrics(1, 1, 0, 0, None))
    assert "jobs - %" in page(STATUS, unlimited, BEFORE)
    assert "swap" not in page(STATUS, unlimited, BEFORE)


def test_lines_stand_below_their_headings() -> None:
    above, below = headings().rstrip("\n"), line(AFTER, BEFORE).rstrip("\n")
    assert len(above) == len(below)
    assert below.split() == ["03:04:07", "3", "2", "150", "2.00", "512M", "400M", "1.0K", "2.0K"]


def test_an_object_has_the_names_of_the_api() -> None:
    told = json.loads(sample_json(STATUS, AFTER))
    assert told["host"]["bootTime"] == "2026-01-01T03:04:05Z"
    assert told["server"] == {
        "version": "1.2",
        "startTime": "2026-01-02T03:00:00Z",
        "slots": 100,
        "queuePlaces": 1000,
        "maxConnections": 10_000,
    }
    assert told["metrics"]["time"] == "2026-01-02T03:04:07.000Z"
    assert told["metrics"]["jobs"]["ended"] == {"completed": 7, "lost": 0, "out_of_memory": 1}
    assert told["metrics"]["store"]["commitUsec"] == 16_000


def test_another_server_is_noticed() -> None:
    assert not is_restart(AFTER, BEFORE)
    assert is_restart(BEFORE, AFTER)
    assert is_restart(replace(AFTER, process=ProcessMetrics(1, 1, 1, 1)), BEFORE)
    assert not is_restart(AFTER, replace(BEFORE, store=None, process=None))


def test_faults_stand_first_and_hostile_names_steer_no_terminal() -> None:
    bad = replace(
        STATUS, host=replace(STATUS.host, name="\x1b[2J\n", fault="cgroup setup failed: no memory controller")
    )
    damaged = replace(AFTER, store=StoreMetrics(1, 1, 1, 1, damaged=True))
    text = page(bad, damaged, None)
    assert "\x1b" not in text
    assert text.splitlines()[2] == "FAULT    no job can run here: cgroup setup failed: no memory controller"
    assert "DAMAGED" in text
    console = Console(width=60, height=24, color_system=None)
    with console.capture() as capture:
        console.print(picture(bad, damaged, None))
    drawn = capture.get()
    assert "\x1b" not in drawn
    assert all(len(row) <= 60 for row in drawn.splitlines())
    assert "Ctrl-C ends the view" in drawn
