"""API.md's own examples, as they stand in the specification, against the renderer."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.client import JobInfo, JobList, Receipt, Schedule, StopResult, Terminal
from joblet.command_line import one_line
from rnx import render

SPECIFICATION = """\
# CLI
rnx run --max-cpu=50 --max-memory=512 python3 script.py
# Expected Response
Job started:
ID: 1
Command: python3 script.py
Status: INITIALIZING
StartTime: 2024-01-15T10:30:00Z
MaxCPU: 50
MaxMemory: 512
Network: host (shared with system)

# CLI
rnx status 1
# Expected Response
Id: 1
Command: python3 script.py
Status: RUNNING
Started At: 2024-01-15T10:30:00Z
Ended At:
MaxCPU: 50
MaxMemory: 512
MaxIOBPS: 0
ExitCode: 0

# CLI
rnx stop 1
# Expected Response
Job stopped successfully:
ID: 1
Status: STOPPED
ExitCode: -1
EndTime: 2024-01-15T10:45:00Z

# CLI
rnx list
# Expected Response
1 COMPLETED StartTime: 2024-01-15T10:30:00Z Command: echo hello
2 RUNNING StartTime: 2024-01-15T10:35:00Z Command: python3 script.py
3 FAILED StartTime: 2024-01-15T10:40:00Z Command: invalid-command

# CLI
rnx log -f 1
# Expected Response (streaming)
Logs for job 1 (Press Ctrl+C to exit if streaming):
"""
EXPECTED = dict(
    re.findall(r"# CLI\nrnx (\w+).*\n# Expected Response.*\n((?:.+\n)+)", SPECIFICATION),
)

JOB = JobInfo(
    id="1",
    command="python3",
    args=("script.py",),
    status="RUNNING",
    max_cpu=50,
    max_memory=512,
    max_iobps=0,
    start_time="2024-01-15T10:30:00Z",
    end_time="",
    exit_code=0,
)


def job(job_id: str, status: str, start: str, command: str, *args: str) -> JobInfo:
    return replace(JOB, id=job_id, status=status, start_time=start, command=command, args=args)


LISTED = [
    job("1", "COMPLETED", "2024-01-15T10:30:00Z", "echo", "hello"),
    job("2", "RUNNING", "2024-01-15T10:35:00Z", "python3", "script.py"),
    job("3", "FAILED", "2024-01-15T10:40:00Z", "invalid-command"),
]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("run", render.started(replace(JOB, status="INITIALIZING"))),
        ("status", render.status(JOB)),
        ("stop", render.stopped(StopResult("1", "STOPPED", "2024-01-15T10:45:00Z", -1))),
        ("list", render.listed(LISTED)),
        ("log", render.log_header("1")),
    ],
)
def test_the_text_of_the_specification(command: str, text: str) -> None:
    assert text == EXPECTED[command]


def test_an_ended_job_has_an_end() -> None:
    assert "\nEnded At: 2024-01-15T10:45:00Z\n" in render.status(replace(JOB, end_time="2024-01-15T10:45:00Z"))


def test_the_reason_is_shown_only_when_asked_for() -> None:
    failed = replace(JOB, status="FAILED", exit_code=137, reason="out of memory")
    assert "out of memory" not in render.status(failed)
    assert render.status(failed, verbose=True).startswith(render.status(failed) + "Reason: out of memory\n")


def test_the_order_and_the_receipt_are_shown_only_when_asked_for() -> None:
    limits = (
        "CpuCores: 0-1\nMaxProcesses: 100\nMaxOpenFiles: 50\nMaxDisk: 0\nTimeout: 1h30m\nPriority: -5\nKey: nightly\n"
    )
    running = replace(
        JOB, cpu_cores="0-1", max_processes=100, max_open_files=50, timeout_ms=5_400_000, priority=-5, key="nightly"
    )
    assert render.status(running) == render.status(JOB)
    assert render.status(running, verbose=True) == render.status(JOB) + limits
    receipt = Receipt(1_500_000, 250_000, 0, 3 << 20, 0, 4096, None, 1)
    ended = replace(running, receipt=receipt)
    assert render.status(ended) == render.status(JOB)
    assert render.status(ended, verbose=True) == render.status(JOB) + limits + (
        "WallTime: 1.500000 s\n"
        "CpuTime: 0.250000 s\n"
        "ThrottledTime: 0.000000 s\n"
        "MemoryPeak: 3145728 B (3.0 MB)\n"
        "IORead: 0 B (0.0 MB)\n"
        "IOWrite: 4096 B (0.0 MB)\n"
        "ProcessesPeak: - (not counted by the server's kernel)\n"
        "OOMKills: 1\n"
    )
    assert json.loads(render.status_json(ended))["receipt"] == {
        "wallUsec": 1_500_000,
        "cpuUsec": 250_000,
        "throttledUsec": 0,
        "memoryPeakBytes": 3 << 20,
        "ioReadBytes": 0,
        "ioWriteBytes": 4096,
        "processesPeak": None,
        "oomKills": 1,
    }
    assert json.loads(render.status_json(running))["receipt"] is None


def test_a_job_that_waits_has_no_start() -> None:
    waiting = replace(JOB, status="PENDING", start_time="")
    assert render.listed([waiting]) == "1 PENDING StartTime: Command: python3 script.py\n"


def test_a_job_that_waits_says_where() -> None:
    waiting = replace(JOB, status="PENDING", reason="waiting for a slot, place 3 in the queue")
    assert "\nReason: waiting for a slot, place 3 in the queue\n" in render.status(waiting, verbose=True)


def test_an_older_servers_answer_lacks_a_timeout_and_a_key() -> None:
    text = render.status(JOB, verbose=True)
    assert "Timeout" not in text
    assert "Key" not in text


def test_a_changed_timeout() -> None:
    text = render.timeout_changed(replace(JOB, timeout_ms=7_200_500))
    assert text == "Job timeout changed:\nID: 1\nStatus: RUNNING\nTimeout: 2h500ms\n"


def test_deletion_is_told_as_stopping_is() -> None:
    assert render.deleted("1") == "Job deleted successfully:\nID: 1\n"
    assert render.all_deleted(3, 1) == "Jobs deleted successfully:\nDeleted: 3\nNotEnded: 1\n"


def test_a_list_that_is_not_all_says_how_to_go_on() -> None:
    text = render.more(JobList(LISTED[1:], more=True))
    assert text == "2 newest jobs listed; for older ones: rnx list --before=2; for all: rnx list --all\n"


@given(st.lists(st.sampled_from(LISTED)), st.integers(1, 3))
def test_a_list_in_pieces_is_the_list(jobs: list[JobInfo], size: int) -> None:
    pieces = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    for output, whole in ((render.Lines(), render.listed(jobs)), (render.JsonArray(), render.list_json(jobs))):
        assert "".join(map(output.piece, pieces)) + output.end() == whole
    assert [entry["id"] for entry in json.loads(render.list_json(jobs))] == [job.id for job in jobs]


def test_no_jobs_no_lines() -> None:
    assert render.listed([]) == ""
    assert render.list_json([]) == "[]\n"


def test_json_has_the_fields_of_the_specification() -> None:
    full = replace(
        JOB,
        reason="r",
        name="n",
        owner="alice",
        environment={"A": "b"},
        secret_environment={"S": "***"},
        timeout_ms=9,
        priority=7,
        key="k",
        workdir="w",
        workflow_id="7",
        outputs={"acc": "0.9"},
        labels={"team": "ml"},
        schedule=Schedule("0 3 * * *", "Europe/Berlin", "skip", 500, "last"),
        scheduled_time="2024-01-16T02:00:00Z",
        retries=2,
        retry_delay_ms=1000,
        attempt=2,
        retry_of="5",
        stdin=True,
        terminal=Terminal(24, 80, "xterm"),
        paused_by="admin",
    )
    expected = {
        "id": "1",
        "command": "python3",
        "args": ["script.py"],
        "maxCPU": 50,
        "maxMemory": 512,
        "maxIOBPS": 0,
        "status": "RUNNING",
        "startTime": "2024-01-15T10:30:00Z",
        "endTime": "",
        "exitCode": 0,
        "reason": "r",
        "cpuCores": "",
        "maxProcesses": 0,
        "maxOpenFiles": 0,
        "maxDisk": 0,
        "timeoutMs": 9,
        "priority": 7,
        "key": "k",
        "name": "n",
        "environment": {"A": "b"},
        "secret_environment": {"S": "***"},
        "workdir": "w",
        "workflowId": "7",
        "labels": {"team": "ml"},
        "schedule": {
            "when": "0 3 * * *",
            "timezone": "Europe/Berlin",
            "overlap": "skip",
            "jitterMs": 500,
            "catchUp": "last",
        },
        "scheduledTime": "2024-01-16T02:00:00Z",
        "scheduleId": "",
        "retries": 2,
        "retryDelayMs": 1000,
        "attempt": 2,
        "retryOf": "5",
        "retriedBy": "",
        "stdin": True,
        "terminal": {"rows": 24, "columns": 80, "term": "xterm"},
        "separateStreams": False,
        "pausedBy": "admin",
        "hasUploads": False,
        "owner": "alice",
    }
    assert json.loads(render.status_json(full)) == expected | {"receipt": None, "outputs": {"acc": "0.9"}}
    assert json.loads(render.list_json([full])) == [expected | {"runtime": ""}]


texts = st.text(st.characters(codec="utf-8"))
infos = st.builds(
    JobInfo,
    id=texts,
    command=texts,
    args=st.lists(texts).map(tuple),
    status=texts,
    max_cpu=st.integers(),
    max_memory=st.integers(),
    max_iobps=st.integers(),
    start_time=texts,
    end_time=texts,
    exit_code=st.integers(),
    reason=texts,
    key=texts,
)


@given(st.lists(infos))
def test_one_line_a_job_whatever_it_is_called(jobs: list[JobInfo]) -> None:
    lines = render.listed(jobs).splitlines()
    assert len(lines) == len(jobs)
    assert all(line.isprintable() for line in lines)


@given(infos)
def test_nothing_in_a_job_adds_a_line_or_commands_a_terminal(info: JobInfo) -> None:
    assert len(render.started(info).splitlines()) == 8
    assert len(render.status(info).splitlines()) == 9
    assert all(line.isprintable() for line in render.status(info, verbose=True).splitlines())


@given(infos)
def test_json_gives_back_what_there_was(info: JobInfo) -> None:
    told = json.loads(render.status_json(info))
    assert (told["command"], tuple(told["args"]), told["exitCode"]) == (info.command, info.args, info.exit_code)


@given(texts.filter(str.isprintable))
def test_printable_text_is_left_alone(text: str) -> None:
    assert one_line(text) == text


def test_control_characters_are_escaped() -> None:
    assert one_line("a\nb\x1b[2Jc\x7f\u2028") == r"a\nb\x1b[2Jc\x7f\u2028"
