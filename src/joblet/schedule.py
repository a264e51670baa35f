"""When scheduled jobs run: what a client has written, and the times that it means. No I/O but the zones' files."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from joblet.clock import parse_duration, rfc3339
from joblet.errors import InvalidArgument
from joblet.job import Schedule

SECOND = 1_000_000_000
GRACE = 60 * SECOND
"""nanoseconds by which a time may be late and is not one that has passed: a server that is restarted is not away"""
MOST_MISSED = 100
"""times that have passed and are made up for, at once"""

_FARTHEST = timedelta(days=3653)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE)
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,3}")
"""a name of the tz database (its theory.html, "Timezone identifiers"); by any other, zoneinfo imports packages too"""
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MINUTE = 60 * SECOND
_DAY = 24 * 60 * _MINUTE
_SHIFT = 3 * 60 * _MINUTE
"""more than any clock is set by at once"""
_SPAN = timedelta(hours=2)
"""how far back the newest times are looked for at first: as many as are wanted of what comes every minute"""


@dataclass(frozen=True, slots=True)
class Due:
    """What has become of the times of a schedule up to now."""

    times: list[int]
    """those at which a job is to be made now, in order: nanoseconds since the epoch"""
    missed: bool
    """some have passed while nobody was there"""
    following: int | None
    """the next time that has yet to come; None when there is none any more"""


class Cron:
    """The times of a cron expression in a zone: whole minutes, as Debian's cron has them where clocks are changed.

    There an expression without `*` in minutes and hours has each of its times once: one that the clock leaves out comes
    right after the gap, one that it shows twice only at the first. The others go by the hours that really pass.
    """

    def __init__(self, expression: str, zone: str = "") -> None:
        """Raises InvalidArgument."""
        self._zone = _zone(zone)
        self._expression = _NICKNAMES.get(expression.lower(), expression)
        shown = f'invalid schedule: "{expression}"'
        if self._expression.startswith("@"):
            raise InvalidArgument(f"{shown} is none of {', '.join(_NICKNAMES)}")
        if len(self._expression.split()) != 5:
            raise InvalidArgument(f"{shown} has not five fields: minute, hour, day, month and weekday")
        try:
            CronSim(self._expression, datetime.now(UTC))
        except CronSimError as error:
            raise InvalidArgument(f"{shown}: {str(error).lower()}") from None

    def after(self, instant: int) -> int | None:
        """The first time later than `instant`, both in nanoseconds since the epoch; None when none comes any more."""
        return next(self._times(instant), None)

    def newest(self, first: int, until: int, count: int) -> list[int]:
        """The last `count` times from `first` to `until`, in order. Takes long where they lie far back."""
        span = round(_SPAN.total_seconds()) * SECOND
        while True:
            begin = max(first, until - span)
            found: deque[int] = deque(maxlen=count)
            for time in self._times(begin - 1):
                if time > until:
                    break
                found.append(time)
            if begin == first or len(found) == count:
                return list(found)
            span *= 4

    def _times(self, after: int) -> Iterator[int]:
        minute, hour, *day = self._expression.split()
        if minute.startswith("*") or hour.startswith("*"):
            return self._passing(after, " ".join(day))
        return self._named(after)

    def _named(self, after: int) -> Iterator[int]:
        """Times that each come once, whatever is done to the clock."""
        start = datetime.fromtimestamp(after // SECOND, self._zone)
        last = after
        for moment in CronSim(self._expression, start):
            time = _nanoseconds(moment)
            # From within an hour that the clock shows twice it begins again with the first; and at midnight it names
            # times that a clock which is changed there leaves out.
            if time > last and (moment.hour, moment.minute) == _clock(time, self._zone):
                last = time
                yield time

    def _passing(self, after: int, day: str) -> Iterator[int]:
        """Times of all minutes that pass on the days which match: CronSim goes wrong on days that begin in a gap."""
        sim = CronSim(self._expression, datetime.now(UTC))
        today = datetime.fromtimestamp(after // SECOND, self._zone).replace(tzinfo=None, hour=0, minute=0, second=0)
        for date in CronSim(f"0 0 {day}", today - timedelta(days=1, hours=12)):
            midnight = _nanoseconds(date.replace(tzinfo=self._zone))
            begin = max(midnight - _SHIFT, after - after % _MINUTE + _MINUTE)
            for time in range(begin, midnight + _DAY + _SHIFT, _MINUTE):
                moment = datetime.fromtimestamp(time // SECOND, self._zone)
                matches = moment.minute in sim.minutes and moment.hour in sim.hours
                if matches and moment.date() == date.date():
                    yield time


def first(schedule: Schedule, now: int) -> int:
    """When a job that is ordered `now` is to run first, in nanoseconds since the epoch. Raises InvalidArgument."""
    if schedule.recurring:
        time = cron_of(schedule).after(now)
        if time is None:
            raise InvalidArgument(f'invalid schedule: "{schedule.when}" never comes')
        return time
    time = _moment(schedule.when, now)
    return time + random.randrange(schedule.jitter_ms + 1) * 1_000_000


def cron_of(schedule: Schedule) -> Cron:
    """Of a recurring schedule. Raises InvalidArgument."""
    return Cron(schedule.when, schedule.timezone)


def start(cron: Cron, schedule: Schedule, job_id: int, time: int) -> int:
    """When the job of one of a recurring schedule's times is made, in nanoseconds since the epoch.

    By chance, but always the same for the same job and time; and before the next time, so that they stay in order.
    """
    if not schedule.jitter_ms:
        return time
    following = cron.after(time) or time
    most = min(schedule.jitter_ms * 1_000_000, following - time)
    roll = hashlib.blake2b(f"{job_id} {time}".encode(), digest_size=8).digest()
    return time + (int.from_bytes(roll) * most >> 64)


def due(cron: Cron, schedule: Schedule, job_id: int, next_time: int, now: int) -> Due:
    """Which times from `next_time` on are due now; of those that have passed, as many as `catch_up` says.

    Takes long after a long absence.
    """
    newest = cron.newest(next_time, now, MOST_MISSED + 1)
    while newest and start(cron, schedule, job_id, newest[-1]) > now:
        newest.pop()
    if not newest:
        return Due([], missed=False, following=next_time)
    last = newest[-1]
    punctual = [last] if now - start(cron, schedule, job_id, last) <= GRACE else []
    missed = newest[: -len(punctual) or None]
    if schedule.catch_up == "none":
        times = punctual
    elif schedule.catch_up == "all":
        times = missed[-MOST_MISSED:] + punctual
    else:
        times = [last]
    return Due(times, missed=bool(missed), following=cron.after(last))


def _moment(when: str, now: int) -> int:
    shown = f'invalid schedule: "{when}"'
    farthest = now + round(_FARTHEST.total_seconds()) * SECOND
    if found := _TIME.fullmatch(when):
        if not found[1]:
            raise InvalidArgument(f"{shown} has no zone (write for example {when}Z or {when}+01:00)")
        try:
            time = _nanoseconds(datetime.fromisoformat(when.upper()))
        except (ValueError, OverflowError):
            raise InvalidArgument(f"{shown} is no time that there is") from None
        if time < now - GRACE:
            raise InvalidArgument(f"{shown} has passed (it is {rfc3339(now)})")
    else:
        try:
            seconds = parse_duration(when)
        except ValueError:
            forms = "a time (2024-01-15T10:30:00Z), a duration (1h30m) nor a cron expression (30 3 * * 1-5)"
            raise InvalidArgument(f"{shown} is neither {forms}") from None
        time = now + round(min(seconds, 2 * _FARTHEST.total_seconds()) * SECOND)
    if time > farthest:
        raise InvalidArgument(f"{shown} is more than ten years away")
    return time


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return UTC
    if _ZONE.fullmatch(name):
        with contextlib.suppress(KeyError, ValueError, OSError):  # not there, no path that may be, a directory
            return ZoneInfo(name)
    shown = name if len(name) <= 64 else name[:64] + "..."
    raise InvalidArgument(f'invalid schedule: there is no timezone "{shown}" (write for example Europe/Berlin)')


def _nanoseconds(moment: datetime) -> int:
    since = moment - datetime.fromtimestamp(0, UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


def _clock(time: int, zone: tzinfo) -> tuple[int, int]:
    shown = datetime.fromtimestamp(time // SECOND, zone)
    return shown.hour, shown.minute
