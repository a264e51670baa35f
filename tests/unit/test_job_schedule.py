"""When scheduled jobs run: cron's times against a look at every minute, and what is due after an absence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from joblet.errors import InvalidArgument
from joblet.job import Schedule
from joblet.order import Order, validate_again, validate_labels
from joblet.schedule import GRACE, MOST_MISSED, SECOND, Cron, due, first, start

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOW = int(datetime(2026, 3, 28, 12, tzinfo=UTC).timestamp()) * SECOND
"""the day before the clocks of Europe are put forward"""

CHANGES = {
    "Europe/Berlin": ["2026-03-29T01:00", "2026-10-25T01:00"],
    "America/New_York": ["2026-03-08T07:00", "2026-11-01T06:00"],
    "Africa/Cairo": ["2024-04-25T22:00", "2024-10-31T21:00"],  # at midnight
    "America/Havana": ["2024-03-10T05:00", "2024-11-03T05:00"],
    "Australia/Lord_Howe": ["2026-04-04T15:00", "2026-10-03T15:30"],  # by half an hour
    "Asia/Kolkata": ["2026-01-01T00:00"],
    "UTC": ["2026-02-28T00:00", "2028-02-28T00:00"],
}
"""zones, and instants near which their clocks are changed, or months end"""


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def text(time: int | None) -> str:
    assert time is not None
    return datetime.fromtimestamp(time // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Field:
    """One field of an expression, as text and as the numbers that it means."""

    def __init__(self, text: str, lowest: int, highest: int) -> None:
        self.star = text.startswith("*")
        self.values: set[int] = set()
        for part in text.split(","):
            span, _, step = part.partition("/")
            begin, _, end = span.partition("-")
            low = lowest if begin == "*" else int(begin)
            high = highest if begin == "*" or (step and not end) else int(end or begin)
            self.values |= set(range(low, high + 1, int(step or 1)))


def expected(expression: str, zone: str, begin: int, end: int) -> list[int]:
    """Cron's times in [begin, end), by looking at each minute (cron(8) of Debian, "Daylight Saving Time")."""
    minute, hour, day, month, weekday = (
        Field(text, low, high)
        for text, (low, high) in zip(expression.split(), ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7)), strict=True)
    )

    def matches(moment: datetime) -> bool:
        by_day = moment.day in day.values
        by_weekday = bool({moment.isoweekday(), moment.isoweekday() % 7} & weekday.values)
        days = by_day and by_weekday if day.star or weekday.star else by_day or by_weekday
        clock = moment.minute in minute.values and moment.hour in hour.values
        return clock and moment.month in month.values and days

    tz = ZoneInfo(zone)
    times: set[int] = set()
    shown: set[datetime] = set()
    previous = None
    for time in range(begin - 3 * HOUR, end, MINUTE):
        moment = datetime.fromtimestamp(time // SECOND, tz)
        naive = moment.replace(tzinfo=None, fold=0)
        if minute.star or hour.star:  # by the time that passes
            if matches(moment):
                times.add(time)
        else:
            # What the clock leaves out comes at once, what it shows again does not.
            skipped = [] if previous is None else between(previous, naive)
            if any(matches(step) for step in [*skipped, naive] if step not in shown):
                times.add(time)
            shown.update([*skipped, naive])
            previous = naive
    return sorted(time for time in times if time >= begin)


def between(previous: datetime, now: datetime) -> list[datetime]:
    steps = []
    while (previous := previous + timedelta(minutes=1)) < now:
        steps.append(previous)
    return steps


def fields(lowest: int, highest: int, steps: Sequence[int]) -> st.SearchStrategy[str]:
    number = st.integers(lowest, highest)
    return st.one_of(
        st.just("*"),
        st.sampled_from([f"*/{step}" for step in steps]),
        number.map(str),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.lists(number, min_size=1, max_size=4).map(lambda numbers: ",".join(map(str, numbers))),
        st.tuples(number, st.sampled_from(steps)).map(lambda pair: f"{pair[0]}-{highest}/{pair[1]}"),
    )


EXPRESSIONS = st.tuples(
    fields(0, 59, (5, 7, 15, 30)),
    st.one_of(fields(0, 23, (2, 3, 6)), st.sampled_from(["0", "1", "2", "3", "0-3", "1,2"])),
    st.one_of(st.just("*"), fields(1, 28, (2, 10))),
    st.one_of(st.just("*"), fields(1, 12, (2, 3))),
    st.one_of(st.just("*"), fields(0, 7, (2, 3))),
).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(zone, change) for zone, all_of in CHANGES.items() for change in all_of]),
    EXPRESSIONS,
    st.lists(st.integers(0, 50 * HOUR - 1), max_size=5),
)
@example(("Europe/Berlin", "2026-03-29T01:00"), "30 2 * * *", [])
@example(("Europe/Berlin", "2026-10-25T01:00"), "30 2 * * *", [])
@example(("Europe/Berlin", "2026-10-25T01:00"), "*/15 2 * * *", [])
@example(("Africa/Cairo", "2024-04-25T22:00"), "*/5 0 * * *", [])
@example(("Africa/Cairo", "2024-04-25T22:00"), "5 0 * * *", [])
@example(("Africa/Cairo", "2024-04-25T22:00"), "* * * * 5", [])
@example(("Africa/Cairo", "2024-04-25T22:00"), "*/5 1 * * 5", [])
@example(("America/Havana", "2024-11-03T05:00"), "0 0 * * *", [])
def test_times_are_those_that_a_look_at_every_minute_finds(
    place: tuple[str, str], expression: str, moments: list[int]
) -> None:
    zone, change = place
    begin, end = at(change) - DAY - HOUR, at(change) + DAY + HOUR
    try:
        cron = Cron(expression, zone)
    except InvalidArgument:  # a day that none of its months has
        assert expected(expression, zone, begin, end) == []
        return
    times = expected(expression, zone, begin, end)
    assert cron.newest(begin, end - 1, 10_000) == times
    # From wherever one begins, also within an hour that comes twice, the next one is the same.
    for moment in (begin + offset for offset in moments or range(0, end - begin, 37 * MINUTE)):
        wanted = next((time for time in times if time > moment), None)
        found = cron.after(moment)
        assert found == wanted if wanted is not None else found is None or found >= end
        assert cron.newest(begin, moment, 3) == [time for time in times if time <= moment][-3:]


def test_nicknames_and_what_a_time_may_be() -> None:
    assert text(first(Schedule("@daily", "Europe/Berlin"), NOW)) == "2026-03-28T23:00:00Z"
    assert text(first(Schedule("@DAILY", "Europe/Berlin"), NOW)) == "2026-03-28T23:00:00Z"
    assert text(first(Schedule("0 9 * * mon"), NOW)) == "2026-03-30T09:00:00Z"
    assert text(first(Schedule("1h30m"), NOW)) == "2026-03-28T13:30:00Z"
    assert text(first(Schedule("2026-03-29T03:00:00+02:00"), NOW)) == "2026-03-29T01:00:00Z"
    assert text(first(Schedule("2026-03-29 03:00:00.5z"), NOW)) == "2026-03-29T03:00:00Z"
    assert text(first(Schedule("2026-03-28T11:59:30Z"), NOW)) == "2026-03-28T11:59:30Z"  # a clock that is behind


@pytest.mark.parametrize(
    ("when", "zone", "why"),
    [
        ("tomorrow", "", "is neither a time .* nor a cron expression"),
        ("1h 30m", "", "is neither"),
        ("2026-03-29T03:00:00", "", "has no zone"),
        ("2026-02-30T03:00:00Z", "", "is no time that there is"),
        ("2026-03-28T11:58:59Z", "", r"has passed \(it is 2026-03-28T12:00:00Z\)"),
        ("2046-03-28T12:00:00Z", "", "more than ten years away"),
        ("9" * 60 + "d", "", "more than ten years away"),
        ("0 3 * *", "", "has not five fields"),
        ("0 0 3 * * *", "", "has not five fields"),
        ("60 3 * * *", "", "bad minute"),
        ("0 0 31 2 *", "", "bad day-of-month"),
        ("0 0 */31 2 5L", "", "never comes"),
        ("@reboot", "", "is none of @hourly"),
        ("0 3 * * *", "Europe/Bonn", 'there is no timezone "Europe/Bonn"'),
        ("0 3 * * *", "Europe", "there is no timezone"),
        ("0 3 * * *", "../../etc/passwd", "there is no timezone"),
        ("0 3 * * *", "/etc/localtime", "there is no timezone"),
        ("0 3 * * *", "a" + 2000 * "/a", "there is no timezone"),
        ("0 3 * * *", "a" + 2000 * ".a" + "/b", "there is no timezone"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(when: str, zone: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^invalid schedule: .*{why}"):
        first(Schedule(when, zone), NOW)


@given(st.text(st.sampled_from("0123456789*/,-L#W@? MONdecTZ:h"), max_size=30))
def test_any_text_is_a_time_or_refused(when: str) -> None:
    try:
        assert first(Schedule(when), NOW) >= NOW - GRACE
    except InvalidArgument as error:
        assert str(error).startswith("invalid schedule: ")


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (Order("x", retries=101), r"retries: 101 \(allowed 0 to 100\)"),
        (Order("x", retries=-1), "retries: -1"),
        (Order("x", retries=1, retry_delay_ms=3_600_001), "retryDelayMs: 3600001 ms"),
        (Order("x", schedule=Schedule("1h", timezone="UTC")), "schedule: timezone is of cron expressions only"),
        (Order("x", schedule=Schedule("1h", overlap="skip")), "schedule: overlap is of cron expressions only"),
        (
            Order("x", schedule=Schedule("@daily", overlap="join")),
            "overlap 'join' is none of skip, queue, allow, replace",
        ),
        (Order("x", schedule=Schedule("@daily", catch_up="some")), "catchUp 'some' is none of last, none, all"),
        (Order("x", schedule=Schedule("@daily", catch_up="all")), 'needs overlap "allow"'),
        (Order("x", schedule=Schedule("@daily", jitter_ms=-1)), "jitterMs -1"),
        (Order("x", schedule=Schedule("0 " * 100)), "at most 128"),
        (Order("x", schedule=Schedule("@daily\n")), "printable"),
    ],
)
def test_what_cannot_be_run_again_as_it_says_is_refused(order: Order, why: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^invalid .*{why}"):
        validate_again(order)


def test_labels_have_the_form_of_others() -> None:
    validate_labels({"app": "", "example.com/team-a": "Größe 1", "a" * 63: "x" * 256, "7": "é"})
    validate_labels({f"l{number}": "" for number in range(64)})
    for key in ("", "-a", "a-", "A", "a b", "a" * 64, "ä", "a\n"):
        with pytest.raises(InvalidArgument, match="is no name of a label"):
            validate_labels({key: "x"})
    for value in ("x" * 257, "a\nb", "\0"):
        with pytest.raises(InvalidArgument, match="at most 256 printable"):
            validate_labels({"a": value})
    with pytest.raises(InvalidArgument, match=r"65 labels \(at most 64\)"):
        validate_labels({f"l{number}": "" for number in range(65)})


HOURLY = Cron("0 * * * *")


def test_after_an_absence_the_last_none_or_all_of_the_times_are_made_up_for() -> None:
    next_time, now = at("2026-01-01T01:00"), at("2026-01-01T05:30")
    hours = [at(f"2026-01-01T0{hour}:00") for hour in range(1, 7)]
    for catch_up, times in (("", hours[4:5]), ("last", hours[4:5]), ("none", []), ("all", hours[:5])):
        found = due(HOURLY, Schedule("0 * * * *", catch_up=catch_up), 1, next_time, now)
        assert (found.times, found.missed, found.following) == (times, True, hours[5])


def test_a_time_that_is_hardly_late_has_not_been_missed() -> None:
    time = at("2026-01-01T01:00")
    for catch_up in ("last", "none", "all"):
        found = due(HOURLY, Schedule("0 * * * *", catch_up=catch_up), 1, time, time + GRACE)
        assert (found.times, found.missed, found.following) == ([time], False, time + HOUR)
    found = due(HOURLY, Schedule("0 * * * *", catch_up="none"), 1, time - HOUR, time + GRACE)
    assert (found.times, found.missed) == ([time], True)


def test_nothing_is_due_before_its_time() -> None:
    found = due(HOURLY, Schedule("0 * * * *"), 1, at("2026-01-01T01:00"), at("2026-01-01T00:59"))
    assert (found.times, found.following) == ([], at("2026-01-01T01:00"))


def test_what_is_made_up_for_after_years_is_bounded() -> None:
    each = Cron("* * * * *")
    found = due(each, Schedule("* * * * *", overlap="allow", catch_up="all"), 1, at("2016-01-01T00:00"), NOW + 1)
    assert found.times == [NOW - minute * MINUTE for minute in range(MOST_MISSED, -1, -1)]


@given(st.integers(1, 10_000), st.integers(0, 86_400_000), st.integers(0, 500), EXPRESSIONS)
def test_chance_is_the_same_again_and_keeps_the_order(job_id: int, jitter_ms: int, days: int, expression: str) -> None:
    schedule = Schedule(expression, jitter_ms=jitter_ms)
    try:
        cron = Cron(expression)
    except InvalidArgument:
        return
    time = cron.after(NOW + days * DAY)
    following = cron.after(time) if time is not None else None
    if time is None or following is None:
        return
    begins = start(cron, schedule, job_id, time)
    assert begins == start(Cron(expression), schedule, job_id, time)
    assert time <= begins <= min(time + jitter_ms * 1_000_000, following)
    assert due(cron, schedule, job_id, time, begins).times == [time]
    if begins > time:
        assert due(cron, schedule, job_id, time, begins - 1).times == []


def test_chance_differs_between_jobs() -> None:
    schedule = Schedule("0 * * * *", jitter_ms=600_000)
    begins = {start(HOURLY, schedule, job_id, at("2026-01-01T01:00")) for job_id in range(100)}
    assert len(begins) == 100
    assert max(begins) - min(begins) > 9 * MINUTE


def test_a_single_start_is_late_by_chance_once() -> None:
    begins = {first(Schedule("1h", jitter_ms=60_000), NOW) for _ in range(50)}
    assert len(begins) > 10
    assert NOW + HOUR <= min(begins) <= max(begins) <= NOW + HOUR + MINUTE
