"""Sampled stacks become flame graphs."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from benchmarks.flame import drawing, stacks

LOOP = "Runner.run (/usr/lib/python3.11/asyncio/runners.py)"
THREAD = "Thread.run (/usr/lib/python3.11/threading.py)"
RAW = f"""\
thread (12): MainThread;serve (/opt/app.py:7);{LOOP};handle (/v/site-packages/grpclib/server.py);\
<listcomp> (/checkout/src/joblet/server/jobs.py) 60
thread (12): MainThread;{LOOP};handle (/v/site-packages/grpclib/server.py) 30
thread (13): uvloop_3;{THREAD};spawn (/v/src/joblet/executor/local/spawn.py) 5
thread (14): uvloop_4;{THREAD};spawn (/v/src/joblet/executor/local/spawn.py) 4
thread (14): uvloop_4;{THREAD};a<b (/v/src/joblet/tree.py) 1
"""
HANDLE, JOBS = "handle (grpclib/server.py)", "<listcomp> (joblet/server/jobs.py)"
SPAWN = "spawn (joblet/executor/local/spawn.py)"


def test_stacks_begin_with_a_threads_own_work_and_threads_of_a_pool_are_one() -> None:
    assert stacks.parse(RAW) == {
        ("MainThread", HANDLE, JOBS): 60,
        ("MainThread", HANDLE): 30,
        ("uvloop", SPAWN): 9,
        ("uvloop", "a<b (joblet/tree.py)"): 1,
    }


def test_a_frame_counts_once_with_all_that_it_calls() -> None:
    assert stacks.inclusive({("t", "f", "g", "f"): 1, ("t", "g"): 3}) == {"t": 1, "g": 1, "f": 0.25}


def test_the_innermost_frame_that_fits_tells_the_part() -> None:
    parts = (("calls", r"joblet/server/"), ("gRPC", r"grpclib/"))
    assert stacks.shares(stacks.parse(RAW), parts) == {"calls": 0.6, "gRPC": 0.3, "other": 0.1}


def test_the_graph_has_a_bar_for_each_frame_that_is_seen_often_enough(tmp_path: Path) -> None:
    drawing.draw(stacks.tree(stacks.parse(RAW), 0.05), "a <title>", tmp_path / "graph.svg")
    space = {"svg": "http://www.w3.org/2000/svg"}
    bars = ElementTree.parse(tmp_path / "graph.svg").getroot().findall("svg:g", space)
    found = {bar.findtext("svg:title", None, space): bar.find("svg:rect", space).attrib for bar in bars}
    assert found.keys() == {
        "all: 100.0%", "MainThread: 90.0%", f"{HANDLE}: 90.0%", f"{JOBS}: 60.0%", "uvloop: 10.0%", f"{SPAWN}: 9.0%"
    }  # fmt: skip
    assert float(found[f"{JOBS}: 60.0%"]["width"]) == 720
    assert float(found["uvloop: 10.0%"]["x"]) == 1080
