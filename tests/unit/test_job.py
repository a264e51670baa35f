from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from joblet.errors import InvalidArgument
from joblet.job import TRANSITIONS, Ending, Limits, State, conclude, signal_name, sources
from joblet.order import (
    DANGEROUS,
    MAX_ARG_BYTES,
    MAX_COMMAND_BYTES,
    format_cores,
    parse_cores,
    resolve_limits,
    validate_command,
)

DEFAULT = Limits(100, 512, 0)
CEILING = Limits(800, 4096, 2**31 - 1)


def verdict(
    code: int | None = None, killed_by: int | None = None, *, stopped: bool = False, why: str = "", oom: int = 0
) -> Ending:
    return conclude(code=code, killed_by=killed_by, stopped=stopped, stop_reason=why, oom_kills=oom)


def test_the_final_states_are_those_of_the_specification() -> None:
    assert {state for state in State if state.final} == {State.COMPLETED, State.FAILED, State.STOPPED}


def test_every_state_can_be_reached_and_every_job_can_end() -> None:
    reached = {State.SCHEDULED, State.PENDING, State.INITIALIZING}  # what RunJob may create
    while more := {target for state in reached for target in TRANSITIONS[state]} - reached:
        reached |= more
    assert reached == set(State)
    for state in State:
        assert state.final or TRANSITIONS[state] >= {State.FAILED, State.STOPPED}


def test_only_a_running_job_completes() -> None:
    assert sources(State.COMPLETED) == (State.RUNNING,)


def test_only_its_time_comes_before_a_jobs_place_in_the_queue() -> None:
    assert sources(State.SCHEDULED) == ()
    assert sources(State.PENDING) == (State.SCHEDULED,)


@given(st.sampled_from(State), st.sampled_from(State))
def test_sources_are_the_transitions_read_backwards(source: State, target: State) -> None:
    assert (source in sources(target)) == (target in TRANSITIONS[source])


def test_every_state_says_what_it_means_and_reads_as_its_name() -> None:
    for state in State:
        assert state.meaning
        assert f"{state}" == state.name == state.value


@pytest.mark.parametrize("character", sorted(DANGEROUS))
def test_a_command_with_a_dangerous_character_is_refused(character: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        validate_command(f"echo{character}x", [])
    assert str(refusal.value) == "invalid command: command contains dangerous characters"


def test_the_dangerous_characters_are_those_of_the_contract() -> None:
    assert frozenset(";&|`$(){}[]<>\n\0") == DANGEROUS


def test_an_empty_command_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="command cannot be empty"):
        validate_command("", ["x"])


def test_arguments_may_hold_what_a_command_may_not() -> None:
    validate_command("bash", ["-c", "sleep 10 && echo done", ";&|`$(){}[]<>\n", ""])


def test_an_argument_with_nul_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidArgument, match=r"args\[1\] contains a NUL byte"):
        validate_command("echo", ["fine", "a\0b"])


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\U0001f600"])
def test_lengths_are_bounded_in_bytes_exactly_at_the_kernels_limits(letter: str) -> None:
    size = len(letter.encode())
    command, arg = letter * (MAX_COMMAND_BYTES // size), letter * (MAX_ARG_BYTES // size)
    validate_command(command, [arg])
    with pytest.raises(InvalidArgument, match="at most 4095"):
        validate_command(command + letter, [])
    with pytest.raises(InvalidArgument, match=r"args\[0\] is \d+ bytes long \(at most 131071\)"):
        validate_command("x", [arg + letter])


@given(st.text(max_size=50), st.lists(st.text(max_size=20), max_size=3))
def test_a_command_is_accepted_or_refused_as_an_invalid_argument(command: str, args: list[str]) -> None:
    allowed = bool(command) and not DANGEROUS & set(command) and not any("\0" in arg for arg in args)
    try:
        validate_command(command, args)
    except InvalidArgument:
        assert not allowed
    else:
        assert allowed


numbers = st.integers(-(2**31), 2**31 - 1)


@given(st.builds(Limits, numbers, numbers, numbers))
@example(Limits(0, 0, 0))
@example(CEILING)
@example(Limits(0, 0, 1))
@example(Limits(0, 0, 2))
def test_limits_are_the_asked_ones_with_defaults_for_zero_or_refused(asked: Limits) -> None:
    allowed = (
        0 <= asked.max_cpu <= CEILING.max_cpu
        and 0 <= asked.max_memory <= CEILING.max_memory
        and asked.max_iobps >= 0
        and asked.max_iobps != 1
    )
    try:
        limits = resolve_limits(asked, DEFAULT, CEILING)
    except InvalidArgument as error:
        assert not allowed
        assert str(error).startswith("job creation failed: max")
        assert ("is below" if asked.max_iobps == 1 else "exceeds") + " system limits" in str(error)
    else:
        assert allowed
        assert limits.max_cpu == (asked.max_cpu or 100)
        assert limits.max_memory == (asked.max_memory or 512)
        assert limits.max_iobps == asked.max_iobps


FULL = Limits(800, 4096, 2**31 - 1, 5000, 4096, 2**31 - 1, "0-3,8")
"""a host's ceilings"""


def test_what_is_not_asked_for_is_the_default_or_the_ceiling_where_that_is_lower() -> None:
    default = Limits(100, 512, 0, 1024, 65536, 0)
    assert resolve_limits(Limits(0, 0, 0), default, FULL) == Limits(100, 512, 0, 1024, 4096, 0)
    lower = Limits(50, 256, 1000, 10, 100, 64, "0")
    assert resolve_limits(Limits(0, 0, 0), default, lower) == replace(lower, cpu_cores="")
    assert resolve_limits(Limits(20, 0, 10, 5, 0, 1), default, lower) == Limits(20, 256, 10, 5, 100, 1)


@pytest.mark.parametrize(
    ("asked", "resolved"),
    [("", ""), ("0", "0"), ("3,2,1,0", "0-3"), ("0-1,8", "0-1,8"), ("1-1,1", "1"), ("0,2", "0,2")],
)
def test_cores_are_bound_in_the_kernels_form(asked: str, resolved: str) -> None:
    assert resolve_limits(Limits(0, 0, 0, cpu_cores=asked), DEFAULT, FULL).cpu_cores == resolved


@pytest.mark.parametrize(
    "asked", ["-", ",", "0-", "-1", "1-0", "0,,1", "a", " 0", "0 ", "0x1", "²", "0-99999", "0--1", "0\n"]
)
def test_what_is_no_list_of_cores_is_refused(asked: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid cpuCores: "):
        resolve_limits(Limits(0, 0, 0, cpu_cores=asked), DEFAULT, FULL)


def test_cores_that_the_host_lacks_are_refused_by_their_bound() -> None:
    with pytest.raises(InvalidArgument) as caught:
        resolve_limits(Limits(0, 0, 0, cpu_cores="3-4"), DEFAULT, FULL)
    assert str(caught.value) == 'job creation failed: cpuCores exceeds system limits ("3-4", allowed 0-3,8)'


@given(st.frozensets(st.integers(0, 9999), min_size=1))
def test_a_list_of_cores_is_read_back(cores: frozenset[int]) -> None:
    assert parse_cores(format_cores(cores)) == cores


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Limits(0, 0, 0, -1), "maxProcesses"),
        (Limits(0, 0, 0, 0, -1), "maxOpenFiles"),
        (Limits(0, 0, 0, 0, 0, -1), "maxDisk"),
        (Limits(801, 0, 0), "maxCPU"),
        (Limits(0, 4097, 0), "maxMemory"),
        (Limits(0, 0, -1), "maxIOBPS"),
        (Limits(-1, 0, 0), "maxCPU"),
        (Limits(0, -1, 0), "maxMemory"),
    ],
)
def test_a_refused_limit_is_named(asked: Limits, field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^job creation failed: {field} exceeds system limits"):
        resolve_limits(asked, DEFAULT, CEILING)


def test_an_io_limit_that_no_kernel_keeps_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        resolve_limits(Limits(0, 0, 1), DEFAULT, replace(FULL, max_iobps=1000))
    assert str(caught.value) == "job creation failed: maxIOBPS is below system limits (1, allowed 0 and 2 to 1000)"


def test_exit_code_zero_completes() -> None:
    assert verdict(code=0) == Ending(State.COMPLETED, 0, "exit code 0")


def test_another_exit_code_fails_with_it() -> None:
    assert verdict(code=3) == Ending(State.FAILED, 3, "exit code 3")


def test_a_signal_fails_with_128_and_its_name() -> None:
    assert verdict(killed_by=signal.SIGSEGV) == Ending(State.FAILED, 139, "killed by signal 11 (SIGSEGV)")


def test_a_requested_stop_is_stopped_with_minus_one_and_its_reason_however_the_command_ended() -> None:
    for ended in ({"code": 0}, {"code": 9}, {"killed_by": 9}, {"killed_by": 9, "oom": 1}):
        assert verdict(**ended, stopped=True, why="timeout after 1h") == Ending(State.STOPPED, -1, "timeout after 1h")


def test_a_stop_that_nobody_gave_a_reason_for_is_still_stopped() -> None:
    assert verdict(code=0, stopped=True) == Ending(State.STOPPED, -1, "stopped")


def test_a_stop_request_that_came_too_late_does_not_change_the_verdict() -> None:
    assert verdict(code=0, why="stopped by alice") == Ending(State.COMPLETED, 0, "exit code 0")


@pytest.mark.parametrize("ended", [{"killed_by": 9}, {"code": 137}])
def test_out_of_memory_is_told_by_the_kernels_count_and_never_by_137_alone(ended: dict[str, int]) -> None:
    assert verdict(**ended, oom=1) == Ending(State.FAILED, 137, "out of memory")  # type: ignore[arg-type]
    assert "out of memory" not in verdict(**ended).reason  # type: ignore[arg-type]


def test_an_out_of_memory_kill_of_a_child_is_told_of_a_command_that_went_on() -> None:
    assert verdict(code=0, oom=2) == Ending(
        State.COMPLETED, 0, "exit code 0 (2 of its processes killed: out of memory)"
    )


@given(
    st.one_of(st.tuples(st.integers(0, 255), st.none()), st.tuples(st.none(), st.integers(1, 64))),
    st.booleans(),
    st.text(max_size=5),
    st.integers(0, 3),
)
def test_every_verdict_is_a_state_that_a_running_job_may_end_in(
    ended: tuple[int | None, int | None], stopped: bool, why: str, oom: int
) -> None:
    ending = verdict(*ended, stopped=stopped, why=why, oom=oom)
    assert ending.state.final
    assert ending.state in TRANSITIONS[State.RUNNING]
    assert (ending.state is State.COMPLETED) == (ending.exit_code == 0)
    assert (ending.state is State.STOPPED) == stopped == (ending.exit_code == -1)
    assert ending.reason


def test_signals_without_a_name_are_told_by_number() -> None:
    assert signal_name(15) == "SIGTERM"
    assert signal_name(35) == "signal 35"
    assert signal_name(999) == "signal 999"
