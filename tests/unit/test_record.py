from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from joblet.executor.base import Exit, LaunchFailed
from joblet.executor.local.record import (
    BadRecord,
    Monitor,
    Started,
    parse_report,
    read_exit,
    read_monitor,
    read_started,
)
from joblet.job import Receipt

with_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

EXITED = {
    "version": "1",
    "outcome": "exited",
    "code": "3",
    "started_at": "1705314600000000000",
    "ended_at": "1705314601000000000",
    "log_bytes": "12",
    "stat.oom_kill": "0",
    "stat.memory_peak": "4096",
    "end": "1",
}


def write(folder: Path, name: str, pairs: dict[str, str]) -> None:
    (folder / name).write_bytes("".join(f"{key}={value}\n" for key, value in pairs.items()).encode())


def exit_of(folder: Path, pairs: dict[str, str]) -> Exit:
    write(folder, "exit", pairs)
    record = read_exit(folder)
    assert record is not None
    return record


def without(*keys: str, **changed: str) -> dict[str, str]:
    return {key: value for key, value in (EXITED | changed).items() if key not in keys}


def test_started_is_a_launch_that_succeeded() -> None:
    assert parse_report(b"started 4711\n") is None


def test_failed_is_a_launch_error_with_its_sentence() -> None:
    error = parse_report(b"failed exec 2 command not found: no such thing\n")
    assert error is not None
    assert (error.stage, error.errno, str(error)) == ("exec", 2, "command not found: no such thing")


@pytest.mark.parametrize(
    ("stage", "errno", "code"),
    [("exec", 2, 127), ("exec", 13, 126), ("exec", 8, 126), ("cgroup", 2, -1), ("namespace", 1, -1)],
)
def test_a_command_that_cannot_run_has_the_shells_exit_code_and_another_failure_has_none(
    stage: str, errno: int, code: int
) -> None:
    assert LaunchFailed(stage, errno, "x").exit_code == code


@pytest.mark.parametrize(
    "line",
    [b"", b"started 1", b"started\n", b"started x\n", b"started 1 2\n", b"failed exec 2\n", b"failed exec x y\n", b"\n",
     b"STARTED 1\n", b"started -1\n", b"started 1\nstarted 2\n", b"failed exec 2 " + b"x" * 5000 + b"\n", b"\xff\n"],
)  # fmt: skip
def test_another_line_is_no_report(line: bytes) -> None:
    with pytest.raises(BadRecord):
        parse_report(line)


report_like = st.one_of(
    st.binary(max_size=80),
    st.text(alphabet="started failed exec 0123456789\u0663\u00b2-+_\n", max_size=60).map(str.encode),
    st.builds(
        lambda stage, errno, reason: b"failed %s %s %s\n" % (stage, errno, reason),
        st.binary(max_size=8),
        st.one_of(st.binary(max_size=8), st.integers(0).map(lambda number: b"%d" % number)),
        st.binary(max_size=40),
    ),
)


@given(report_like)
@example(b"started " + b"9" * 5000 + b"\n")
@example(b"failed exec " + b"9" * 4000 + b" x\n")
def test_any_bytes_are_a_report_or_a_bad_record(line: bytes) -> None:
    try:
        error = parse_report(line)
    except BadRecord:
        return
    if error is None:
        assert line.startswith(b"started ")
    else:
        assert line.startswith(b"failed ")
        assert error.errno >= 0
        assert error.exit_code in (-1, 126, 127)


def test_the_record_of_an_exit_is_read(tmp_path: Path) -> None:
    assert exit_of(tmp_path, EXITED) == Exit(
        ended_at=1705314601000000000,
        started_at=1705314600000000000,
        code=3,
        log_bytes=12,
        receipt=Receipt(oom_kills=0, memory_peak=4096),
    )


def test_the_record_of_a_death_by_signal_is_read(tmp_path: Path) -> None:
    record = exit_of(tmp_path, without("code", outcome="signaled", signal="9", stop="kill", log_lost="7"))
    assert (record.code, record.signal, record.stopped, record.log_lost) == (None, 9, True, 7)


def test_the_record_of_a_failed_launch_is_read(tmp_path: Path) -> None:
    pairs = without("code", "started_at", outcome="failed", stage="exec", errno="2", reason="command not found: a=b")
    record = exit_of(tmp_path, pairs)
    assert record.launch_error is not None
    assert (record.launch_error.stage, record.launch_error.errno) == ("exec", 2)
    assert str(record.launch_error) == "command not found: a=b"
    assert (record.started_at, record.code, record.signal) == (None, None, None)


@pytest.mark.parametrize("breaker", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_a_reason_cannot_forge_another_line(tmp_path: Path, breaker: str) -> None:
    """A command's name is in its reason, and the shim replaces ASCII control characters only."""
    reason = breaker.join(["command not found: x", "outcome=exited", "code=0", "stop=term"])
    record = exit_of(tmp_path, without("code", outcome="failed", stage="exec", errno="2", reason=reason))
    assert record.launch_error is not None
    assert str(record.launch_error) == reason
    assert (record.code, record.stopped) == (None, False)


@pytest.mark.parametrize(
    "pairs",
    [
        {},
        without("end"),
        without("version"),
        without(version="2"),
        without("outcome"),
        without(outcome="dreamt"),
        without("code"),
        without(code="-1"),
        without(code=""),
        without("ended_at"),
        without(started_at="soon"),
        without(outcome="signaled"),
        without(outcome="failed", stage="exec"),
        without(**{"stat.oom_kill": "none"}),
        without(log_bytes="1.5"),
    ],
    ids=str,
)
def test_an_incomplete_or_foreign_record_is_bad(tmp_path: Path, pairs: dict[str, str]) -> None:
    with pytest.raises(BadRecord):
        exit_of(tmp_path, pairs)


@pytest.mark.parametrize("digits", [20, 5000])
@pytest.mark.parametrize("key", ["ended_at", "code", "stat.oom_kill"])
def test_a_number_that_no_shim_writes_is_bad(tmp_path: Path, key: str, digits: int) -> None:
    with pytest.raises(BadRecord):
        exit_of(tmp_path, without(**{key: "9" * digits}))


def test_what_a_job_gave_out_is_read_with_its_record(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_bytes(b"ACCURACY=0.9\n")
    record = exit_of(tmp_path, without(outputs="13"))
    assert (record.outputs, record.outputs_error) == ({"ACCURACY": "0.9"}, "")
    (tmp_path / "outputs").write_bytes(b"ACCURACY 0.9\n")
    record = exit_of(tmp_path, without(outputs="13"))
    assert (record.outputs, record.outputs_error) == ({}, "line 1 is not KEY=VALUE")


def test_a_job_that_gave_nothing_out_has_no_outputs_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_bytes(b"A=1\n")
    record = exit_of(tmp_path, EXITED)
    assert (record.outputs, record.outputs_error) == ({}, "")


def test_why_the_monitor_kept_no_outputs_is_told(tmp_path: Path) -> None:
    record = exit_of(tmp_path, without(outputs_error="not a regular file"))
    assert (record.code, record.outputs, record.outputs_error) == (3, {}, "not a regular file")


@pytest.mark.parametrize("content", [None, b"", b"A=1\nB"])
def test_outputs_that_were_kept_and_are_gone_are_not_taken_for_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "outputs").write_bytes(content)
    record = exit_of(tmp_path, without(outputs="4"))
    assert (record.code, record.outputs, record.outputs_error) == (3, {}, "missing or cut short on the server")


Reader = Callable[[Path], object]
READERS: list[tuple[str, Reader]] = [("exit", read_exit), ("monitor", read_monitor), ("started", read_started)]


@pytest.mark.parametrize(("name", "read"), READERS, ids=["exit", "monitor", "started"])
def test_an_absent_file_is_none(tmp_path: Path, name: str, read: Reader) -> None:
    assert read(tmp_path) is None
    assert read(tmp_path / "absent") is None


@pytest.mark.parametrize(("name", "read"), READERS, ids=["exit", "monitor", "started"])
def test_a_file_that_cannot_be_read_is_bad(tmp_path: Path, name: str, read: Reader) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(BadRecord, match=f"^{name} cannot be read: Is a directory$"):
        read(tmp_path)


def test_the_monitor_is_read(tmp_path: Path) -> None:
    write(tmp_path, "monitor", {"version": "5", "pid": "4711", "start": "123456", "boot": "8a1c"})
    assert read_monitor(tmp_path) == Monitor(4711, 123456, "8a1c", protocol=5)
    write(tmp_path, "monitor", {"pid": "4711", "start": "123456", "boot": "8a1c"})
    assert read_monitor(tmp_path) == Monitor(4711, 123456, "8a1c", protocol=4)


def test_the_start_is_read(tmp_path: Path) -> None:
    write(tmp_path, "started", {"init": "4712", "at": "1705314600000000000", "monotonic_us": "12500000"})
    assert read_started(tmp_path) == Started(1705314600000000000, 12.5)


record_keys = st.sampled_from(
    [*EXITED, "signal", "stage", "errno", "reason", "stop", "pid", "start", "boot", "at", "x"]
)
record_values = st.one_of(
    st.sampled_from(["1", "0", "exited", "signaled", "failed", "", "-1", "\u0663", "\u00b2", "9" * 5000, "=", "1\n2"]),
    st.text(alphabet=string.printable, max_size=12),
)
record_bytes = st.one_of(
    st.binary(max_size=200),
    st.dictionaries(record_keys, record_values, max_size=8).map(
        lambda changed: "".join(f"{key}={value}\n" for key, value in {**EXITED, **changed}.items()).encode()
    ),
)


@with_folder
@given(record_bytes)
def test_any_bytes_in_any_file_are_a_value_or_a_bad_record(tmp_path: Path, content: bytes) -> None:
    for name, read in READERS:
        (tmp_path / name).write_bytes(content)
        try:
            value = read(tmp_path)
        except BadRecord:
            continue
        match value:
            case Exit():
                assert (value.code is not None) + (value.signal is not None) + (value.launch_error is not None) == 1
                assert 0 <= value.ended_at < 2**63
                numbers = [number for number in dataclasses.astuple(value.receipt) if number is not None]
                assert all(0 <= number < 2**63 for number in numbers)
            case Monitor():
                assert value.pid >= 0
            case _:
                assert isinstance(value, int)


STATS = {
    "wall_usec": ("wall_usec", 1),
    "cpu_usec": ("cpu_usec", 1),
    "throttled_nsec": ("throttled_usec", 1000),
    "memory_peak": ("memory_peak", 1),
    "io_read": ("io_read", 1),
    "io_write": ("io_write", 1),
    "processes_peak": ("processes_peak", 1),
    "oom_kill": ("oom_kills", 1),
}
"""a line's name, the receipt's, and what the one is divided by to get the other"""

outcomes = st.one_of(
    st.integers(0, 255).map(lambda code: {"outcome": "exited", "code": str(code)}),
    st.integers(1, 64).map(lambda number: {"outcome": "signaled", "signal": str(number)}),
)


@with_folder
@given(outcomes, st.integers(0, 2**62), st.dictionaries(st.sampled_from(list(STATS)), st.integers(0, 2**62)))
def test_what_a_shim_writes_is_read_back(
    tmp_path: Path, outcome: dict[str, str], ended_at: int, stats: dict[str, int]
) -> None:
    lines = {f"stat.{name}": str(number) for name, number in stats.items()}
    record = exit_of(tmp_path, {"version": "1", **outcome, "ended_at": str(ended_at), **lines, "end": "1"})
    assert str(record.code) == outcome.get("code", "None")
    assert str(record.signal) == outcome.get("signal", "None")
    expected = {STATS[name][0]: number // STATS[name][1] for name, number in stats.items()}
    assert (record.ended_at, record.receipt) == (ended_at, Receipt(**expected))
