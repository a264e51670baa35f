from __future__ import annotations

import time
from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from joblet.clock import SteadyClock, format_duration, now_ns, parse_duration, rfc3339


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1h", 3600),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("2d", 172800),
        ("1m30s500ms", 90.5),
        ("0s", 0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5 s", " 5s", "5s\n", "-5s", "+5s", "1e3s", "5S", "5us", "1h,5m", "nan"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)^not a duration: .*write for example"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9" * 65, "1s" * 33, "٣s"])
def test_a_duration_is_short_and_of_ascii_digits(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a duration: ") as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 200


def test_half_a_million_digits_take_no_time() -> None:
    began = time.process_time()
    with pytest.raises(ValueError):
        parse_duration("9" * 500_000)
    assert time.process_time() - began < 1  # where each digit was tried as a first one it was minutes


@given(st.text(alphabet="0123456789.msdh -", max_size=12))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert seconds >= 0


@given(st.integers(0, 10**13))
@example(0)
@example(999)
@example(3_599_999)
def test_what_is_written_is_read_back_to_the_millisecond(milliseconds: int) -> None:
    text = format_duration(milliseconds / 1000)
    assert round(parse_duration(text) * 1000) == milliseconds
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize(("seconds", "text"), [(3600, "1h"), (90, "1m30s"), (0.25, "250ms"), (0, "0s"), (86400, "24h")])
def test_durations_are_written_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_an_instant_is_written_as_in_the_specification() -> None:
    assert rfc3339(1_705_314_600_000_000_000) == "2024-01-15T10:30:00Z"


def test_an_instant_not_yet_known_is_empty() -> None:
    assert rfc3339(None) == ""


def test_the_epoch_is_an_instant_like_any_other() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"


@given(st.integers(0, 253_402_300_799 * 10**9))
def test_an_instant_is_cut_to_its_second(instant: int) -> None:
    assert datetime.fromisoformat(rfc3339(instant)).timestamp() == instant // 10**9


def test_now_is_the_time_of_day() -> None:
    before = time.time_ns()
    now = now_ns()
    assert before <= now <= time.time_ns()


HOUR = 3600 * 10**9


def test_a_clock_that_goes_is_believed() -> None:
    steady = SteadyClock()
    wall, boot = now_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for hours in range(100):
        assert steady._read(wall + hours * HOUR, boot + hours * HOUR) == wall + hours * HOUR


@pytest.mark.parametrize("jump", [1000 * HOUR, -1000 * HOUR])
def test_a_clock_that_was_set_is_believed_after_a_day(jump: int) -> None:
    steady, told = SteadyClock(), []
    steady.on_set = told.append
    wall, boot = now_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for hours in range(24):
        assert steady._read(wall + jump + hours * HOUR, boot + hours * HOUR) == pytest.approx(
            wall + hours * HOUR, abs=10**9
        )
    assert steady._read(wall + jump + 25 * HOUR, boot + 25 * HOUR) == wall + jump + 25 * HOUR
    assert told == [pytest.approx(jump / 1e9, abs=1)]


def test_a_clock_set_back_in_time_was_never_set() -> None:
    steady, told = SteadyClock(), []
    steady.on_set = told.append
    wall, boot = now_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    steady._read(wall + 5000 * HOUR, boot)
    for hours in range(1, 50):
        assert steady._read(wall + hours * HOUR, boot + hours * HOUR) == wall + hours * HOUR
    assert len(told) == 1
