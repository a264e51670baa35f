"""Watching a workflow: what events make of what is known, and what is shown of it."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from joblet.client import Event, WorkflowInfo, WorkflowJob, WorkflowStatus
from rnx.follow.live import Frame, Picture, duration
from rnx.follow.logs import Splitter
from rnx.follow.screen import ending
from rnx.follow.view import ENDED, JobView, View, advance, selected, summary

BEGAN = datetime(2024, 1, 15, 10, 30, 0, tzinfo=UTC)
NOW = BEGAN + timedelta(seconds=12.5)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def info(status: str = "RUNNING", total: int = 0) -> WorkflowInfo:
    return WorkflowInfo("7", "w.yaml", status, total, 0, 0, 0, 0, BEGAN, BEGAN, None)


def job(name: str, status: str = "PENDING", job_id: str = "0", **more: object) -> WorkflowJob:
    return replace(WorkflowJob(job_id, name, status, (), None, None, 0, max_attempts=3), **more)


def event(sequence: int, name: str, status: str, job_id: str = "", attempt: int = 0, reason: str = "") -> Event:
    return Event(sequence, at(sequence), "7", name, job_id, status, 0, reason, attempt)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What may happen to a workflow of a few jobs: each goes its way, with attempts, some are cancelled."""
    ways = []
    for number in range(draw(st.integers(1, 4))):
        name = f"job{number}"
        if draw(st.booleans()):
            ways.append([(name, "CANCELED", "", 0, "why")])
            continue
        attempts = draw(st.integers(1, 3))
        way = []
        for attempt in range(1, attempts + 1):
            job_id = f"{number}{attempt}"
            way += [(name, status, job_id, attempt, "") for status in ("PENDING", "INITIALIZING", "RUNNING")]
            way.append((name, "FAILED" if attempt < attempts else "COMPLETED", job_id, attempt, "exit code"))
            if attempt < attempts:
                way.append((name, "PENDING", "", attempt, "tried again"))
        ways.append(way)
    merged = []
    while any(ways):
        way = draw(st.sampled_from([way for way in ways if way]))
        merged.append(way.pop(0))
    told = [event(2 + place, *change) for place, change in enumerate(merged)]
    return [event(1, "", "RUNNING"), *told, event(len(told) + 2, "", draw(st.sampled_from(sorted(ENDED))))]


def state(view: View) -> object:
    return view.status, view.reason, view.started, view.ended, view.jobs, +view.counts, view.sequence


def status_after(events: list[Event]) -> WorkflowStatus:
    """What a server would say after these: by another way than the view's own."""
    last: dict[str, Event] = {}
    began: dict[tuple[str, str], Event] = {}
    for each in events:
        last[each.job_name] = each
        if each.status in ("INITIALIZING", "RUNNING"):
            began.setdefault((each.job_name, each.job_id), each)
    jobs = []
    for number in range(4):
        name = f"job{number}"
        if name not in last:
            jobs.append(job(name))
            continue
        latest = last[name]
        start = began.get((name, latest.job_id))
        ended = latest.time if latest.status in ENDED else None
        jobs.append(
            job(
                name,
                latest.status,
                latest.job_id or "0",
                start_time=start.time if start else None,
                end_time=ended,
                attempt=latest.attempt,
                reason=latest.reason,
            )
        )
    whole = last.get("")
    workflow = replace(info(whole.status if whole else "PENDING"), started_at=events[0].time if events else None)
    if whole is not None and whole.status in ENDED:
        workflow = replace(workflow, completed_at=whole.time)
    return WorkflowStatus(workflow, tuple(jobs), events[-1].sequence if events else 0)


@given(histories(), st.data())
def test_a_status_and_the_events_after_it_come_to_the_same_as_all_events(
    events: list[Event], data: st.DataObject
) -> None:
    seen = data.draw(st.integers(0, len(events)))
    view = View(status_after(events[:seen]))
    for each in events:  # those that the status reflects already change nothing
        view.apply(each)
    assert state(view) == state(View(status_after(events)))
    view.apply(data.draw(st.sampled_from(events)))
    assert state(view) == state(View(status_after(events)))


@given(histories())
def test_every_job_counts_once(events: list[Event]) -> None:
    view = View(status_after([]))
    for each in events:
        view.apply(each)
        assert Counter(job.status for job in view.jobs.values()) == +view.counts
        assert view.total == 4


def test_events_of_others_are_passed_over() -> None:
    view = View(WorkflowStatus(info(), (job("a"),), 5))
    before = state(view)
    view.apply(replace(event(6, "a", "RUNNING"), workflow_id="8"))
    assert state(view) == before
    view.apply(event(6, "no such job", "RUNNING"))
    assert view.total == 1


def test_an_attempt_is_timed_by_itself() -> None:
    first = advance(JobView("a"), event(1, "a", "INITIALIZING", "5", 1))
    running = advance(first, event(2, "a", "RUNNING", "5", 1))
    assert running.seconds(at(4)) == 3
    failed = advance(running, event(5, "a", "FAILED", "5", 1))
    assert failed.seconds(at(100)) == 4
    waiting = advance(failed, event(6, "a", "PENDING", "", 1))
    assert waiting.seconds(at(100)) is None
    again = advance(waiting, event(8, "a", "RUNNING", "6", 2))
    assert (again.seconds(at(9)), again.attempt, again.ended) == (1, 2, None)


def test_a_clock_that_differs_gives_no_negative_time() -> None:
    assert advance(JobView("a"), event(9, "a", "RUNNING", "5")).seconds(BEGAN) == 0


SHOWN = WorkflowStatus(
    info(),
    (
        job("fetch", "COMPLETED", "1", start_time=at(0), end_time=at(1.25), attempt=1, reason="exit code 0"),
        job("train[lr=0.1]", "RUNNING", "3", start_time=at(5), attempt=2),
        job("train[lr=0.01]", "FAILED", "4", start_time=at(5), end_time=at(9), attempt=3, reason="exit code 1"),
        job("alarm", "CANCELED", reason="requires fetch=FAILED, but fetch is COMPLETED"),
        job("report", max_attempts=1),
    ),
    9,
)


def frame(view: View, *, width: int = 100, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(Frame(view, NOW))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_the_picture() -> None:
    assert frame(View(SHOWN)) == [
        "w.yaml  workflow 7  RUNNING  12.5s",
        "✓ fetch           COMPLETED     1.2s",
        "● train[lr=0.1]   RUNNING       7.5s  attempt 2/3",
        "✗ train[lr=0.01]  FAILED        4.0s  attempt 3/3  exit code 1",
        "- alarm           CANCELED            requires fetch=FAILED, but fetch is COMPLETED",
        "  report          PENDING",
        "━━━━━━━━━━━━━━━━━━━━━━━━                  3/5 jobs ended",
        "1 running, 1 failed, 1 canceled, 1 waiting, 1 completed",
    ]


def test_a_thousand_jobs_are_no_wall_of_rows() -> None:
    jobs = [job(f"done{number}", "COMPLETED", "1", end_time=at(number / 100)) for number in range(600)]
    jobs += [job(f"busy{number}", "RUNNING", "2") for number in range(3)]
    jobs += [job(f"bad{number}", "FAILED", "3") for number in range(2)]
    jobs += [job(f"next{number}") for number in range(395)]
    lines = frame(View(WorkflowStatus(info(), tuple(jobs), 1)), height=12)
    assert len(lines) == 11
    assert [line.split()[1] for line in lines[1:-2]] == [
        "done597",
        "done598",
        "done599",
        "busy0",
        "busy1",
        "busy2",
        "bad0",
        "bad1",
    ]
    assert lines[-1] == "3 running, 2 failed, 395 waiting, 600 completed (992 not shown)"


@settings(deadline=None)
@given(st.text(), st.text(), st.integers(1, 60), st.integers(1, 40), st.integers(0, 50))
def test_no_name_breaks_or_commands_the_picture(name: str, reason: str, width: int, height: int, count: int) -> None:
    jobs = tuple(job(f"{name}{number}", "FAILED", "1", reason=reason) for number in range(count))
    view = View(WorkflowStatus(replace(info(), reason=reason, workflow=name), jobs, 1))
    lines = frame(view, width=width, height=height)
    assert len(lines) <= max(height - 1, 6)
    assert all(line.isprintable() for line in lines)
    assert len(selected(view, height)) == min(height, count)


def test_a_line_of_output_stays_above_the_picture() -> None:
    console = Console(file=io.StringIO(), width=60, height=24, force_terminal=True, color_system=None)
    picture = Picture(console)
    picture.begin()
    picture.draw(View(SHOWN), NOW)
    picture.lines([("a\x1b", "[bold]no markup[/bold]"), ("b", "")])
    picture.end(View(replace(SHOWN, workflow=replace(SHOWN.workflow, status="FAILED"))), NOW)
    written = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"a\\x1b \| \[bold\]no markup\[/bold\]\s*\n.*b \| ", written)
    assert written.rindex("FAILED  12.5s") > written.index("no markup")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0s"), (59.94, "59.9s"), (61, "1m01s"), (3599, "59m59s"), (7620, "2h07m")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_the_end_in_a_line() -> None:
    view = View(replace(SHOWN, workflow=replace(SHOWN.workflow, status="FAILED", reason="train is FAILED")))
    assert ending(view) == (
        "Workflow 7 FAILED (1 running, 1 failed, 1 canceled, 1 waiting, 1 completed): train is FAILED\n"
    )
    assert summary(View(WorkflowStatus(info(), (), 1))) == ""


@given(st.binary(max_size=200), st.data())
def test_lines_do_not_depend_on_how_bytes_arrive(output: bytes, data: st.DataObject) -> None:
    whole = Splitter()
    lines = [*whole.feed(output), *whole.end()]
    pieces, start = Splitter(), 0
    split: list[str] = []
    while start < len(output):
        end = data.draw(st.integers(start + 1, len(output)))
        split += pieces.feed(output[start:end])
        start = end
    assert [*split, *pieces.end()] == lines
    assert len(lines) == output.count(b"\n") + (1 if output and not output.endswith(b"\n") else 0)
    assert all(line.isprintable() for line in lines)


def test_output_is_text_that_commands_no_terminal() -> None:
    lines = Splitter()
    assert list(lines.feed("a\tb\r\n\x1b[2Jé\n\n".encode())) == ["a       b", "\\x1b[2Jé", ""]
    assert list(lines.end()) == []


def test_a_line_without_end_is_shown_in_pieces() -> None:
    lines = Splitter()
    shown = [piece for _ in range(1000) for piece in lines.feed(b"x" * 100)]
    shown += lines.end()
    assert "".join(shown) == "x" * 100_000
    assert max(map(len, shown)) == 8192
