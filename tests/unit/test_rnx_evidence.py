"""What `rnx why` concludes from what the server tells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joblet.client import JobInfo, Receipt, WorkflowJob
from rnx.evidence import explanation, last_lines, usage, waits_for
from rnx.wait import ending, exit_status

JOB = JobInfo("7", "c", (), "FAILED", 50, 64, 0, "", "", 1, "exit code 1", max_processes=8, timeout_ms=60_000)
USED = Receipt(2_000_000, 1_000_000, 0, 16 * 2**20, 0, 3 * 2**20, 4, 0)


@pytest.mark.parametrize(
    ("told", "begins"),
    [
        ({"status": "PENDING"}, "It starts when one of the server's slots is free"),
        ({"status": "INITIALIZING"}, "Its isolation"),
        ({"status": "RUNNING"}, "Its command may run for 1m."),
        ({"status": "STOPPED", "exit_code": -1, "reason": "timeout after 1m"}, "It ran for longer than it may"),
        ({"status": "STOPPED", "exit_code": -1, "reason": "stopped by alice"}, "Somebody asked for it"),
        ({"exit_code": 137, "reason": "out of memory"}, "It needed more than its 64 MB of memory"),
        ({"exit_code": -1, "reason": "lost: the host was restarted"}, "Its command has no exit code"),
        ({"exit_code": 139, "reason": "killed by signal 11 (SIGSEGV)"}, "SIGSEGV means: it used memory"),
        ({"exit_code": 138, "reason": "killed by signal 10 (SIGUSR1)"}, "SIGUSR1 means: a signal that it did not"),
        ({"exit_code": 139}, "Exit code 139 is what shells give when a command was killed by SIGSEGV"),
        ({"exit_code": 127, "reason": "command not found: c"}, "Its command could not be executed"),
        ({"exit_code": 126}, "Exit code 126 is what shells give when a command cannot be executed"),
        ({"exit_code": 127}, "Exit code 127 is what shells give when a command is not to be found"),
        ({}, "Its command chose the exit code 1"),
    ],
)
def test_the_first_sentence(told: dict[str, object], begins: str) -> None:
    assert explanation(replace(JOB, **told))[0].startswith(begins)  # type: ignore[arg-type]


def test_nothing_speaks_against_what_has_completed() -> None:
    assert explanation(replace(JOB, status="COMPLETED", exit_code=0, receipt=USED)) == []


def test_limits_that_were_met_are_named() -> None:
    used = replace(USED, throttled_usec=500_000, processes_peak=8, oom_kills=2)
    assert explanation(replace(JOB, status="COMPLETED", exit_code=0, receipt=used)) == [
        "2 of its processes were killed because 64 MB of memory were not enough.",
        "Its CPU limit held it back for 0.50 s: see --max-cpu.",
        "It had as many processes as it may (8): see --max-processes.",
    ]


def test_what_was_used_stands_beside_the_limits() -> None:
    assert usage(replace(JOB, receipt=USED)) == [
        ("Time", "2.00 s of 1m"),
        ("CPU", "1.00 s, 50 % of a core where 50 % is the limit"),
        ("Throttled", "0.00 s"),
        ("Memory", "16.0 of 64 MB (25 %)"),
        ("Processes", "4 of 8 (50 %)"),
        ("Disk", "0.0 MB read, 3.0 MB written"),
    ]
    assert usage(JOB) == usage(replace(JOB, receipt=Receipt(*[None] * 8))) == []


def test_the_end_of_a_log_commands_no_terminal() -> None:
    assert last_lines(b"".join(b"%d\n" % number for number in range(30)))[0] == "20"
    assert last_lines(b"\x1b[31mred\xff\n") == ["\\x1b[31mred\ufffd"]
    assert len(last_lines(b"x" * 1000)[0]) == 200
    assert last_lines(b"") == []


def test_what_a_job_of_a_workflow_waits_for() -> None:
    def job(name: str, status: str, *dependencies: str, condition: str = "") -> WorkflowJob:
        return WorkflowJob("0", name, status, dependencies, None, None, 0, condition=condition)

    waiting = job("c", "PENDING", "a", "b", condition="a=COMPLETED && b=FAILED")
    jobs = [job("a", "COMPLETED"), job("b", "RUNNING"), waiting]
    assert waits_for(waiting, jobs) == "requires a=COMPLETED && b=FAILED, and a is COMPLETED, b is RUNNING"
    assert waits_for(job("x", "PENDING"), jobs) == "requires nothing: waits for its turn"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("COMPLETED", 0, 0),
        ("FAILED", 3, 3),
        ("FAILED", 137, 137),
        ("STOPPED", -1, 255),
        ("FAILED", -1, 125),
        ("FAILED", 300, 255),
    ],
)
def test_the_exit_status_of_a_job(status: str, code: int, expected: int) -> None:
    assert exit_status(replace(JOB, status=status, exit_code=code)) == expected


def test_the_line_on_an_end_is_one() -> None:
    assert ending(replace(JOB, reason="a\nb")) == "Job 7 FAILED: a\\nb\n"
