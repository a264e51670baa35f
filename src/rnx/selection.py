"""Which jobs `rnx list` shows, and in which order. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import typer

from joblet.clock import parse_duration
from rnx.render import JOB_FIELDS

if TYPE_CHECKING:
    from joblet.client import JobInfo

STATUSES = ("PENDING", "SCHEDULED", "INITIALIZING", "RUNNING", "COMPLETED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Selection:
    """What is asked of a job, and by which field jobs are sorted."""

    statuses: frozenset[str] = frozenset()
    """any of these; empty is any"""
    name: str = ""
    """a pattern as of a shell"""
    since: datetime | None = None
    """has started then or later, or not at all"""
    until: datetime | None = None
    """has started then or earlier"""
    sort: str = ""
    """a field's name; with `-` before it the greatest comes first"""
    labels: tuple[tuple[str, str | None], ...] = ()
    """names and values of labels, all of them; None is any value"""
    schedule: str = ""
    """the id of the recurring schedule that has made it"""
    owner: str = ""
    """the name of the client that has ordered it"""

    @classmethod
    def of(
        cls,
        statuses: Iterable[str],
        name: str,
        since: str,
        until: str,
        sort: str,
        labels: Iterable[str] = (),
        schedule: str = "",
        owner: str = "",
    ) -> Selection:
        """As the command line says. Raises BadParameter."""
        wanted = frozenset(part.upper() for text in statuses for part in text.split(","))
        if unknown := sorted(wanted - set(STATUSES)):
            raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(STATUSES)}", param_hint="--status")
        if sort and sort.removeprefix("-") not in JOB_FIELDS:
            raise typer.BadParameter(f"no field {sort!r} (fields: {', '.join(JOB_FIELDS)})", param_hint="--sort")
        now = datetime.now(UTC)
        pairs = tuple(
            (key, value if equals else None) for key, equals, value in (text.partition("=") for text in labels)
        )
        began, ended = _instant(since, "--since", now), _instant(until, "--until", now)
        return cls(wanted, name, began, ended, sort, pairs, schedule, owner)

    @property
    def takes_all(self) -> bool:
        """Whether it leaves out nothing."""
        times = self.since or self.until
        return not (self.statuses or self.name or times or self.labels or self.schedule or self.owner)

    def takes(self, job: JobInfo) -> bool:
        """Whether a job is one of those."""
        if self.statuses and job.status not in self.statuses:
            return False
        if self.name and not fnmatchcase(job.name, self.name):
            return False
        if self.schedule and job.schedule_id != self.schedule:
            return False
        if self.owner and job.owner != self.owner:
            return False
        if any(key not in job.labels or value not in (None, job.labels[key]) for key, value in self.labels):
            return False
        if not (self.since or self.until):
            return True
        if not job.start_time:
            return self.until is None
        started = datetime.fromisoformat(job.start_time)
        return (self.since is None or started >= self.since) and (self.until is None or started <= self.until)

    def sorted(self, jobs: Iterable[JobInfo]) -> list[JobInfo]:
        """The jobs in order; those of the same value as they are."""
        name = self.sort.removeprefix("-")
        if not name:
            return list(jobs)
        return sorted(jobs, key=lambda job: _key(job, name), reverse=self.sort.startswith("-"))


def _key(job: JobInfo, name: str) -> Any:
    value = getattr(job, JOB_FIELDS[name])
    if isinstance(value, dict):
        return sorted(value.items())
    return (len(value), value) if name in ("id", "workflowId") else value


def _instant(text: str, option: str, now: datetime) -> datetime | None:
    """`2h` before now, or a date, or an instant, where without a zone the local one is meant."""
    if not text:
        return None
    try:
        return now - timedelta(seconds=parse_duration(text))
    except ValueError:
        pass
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is before all time", param_hint=option) from None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        expected = "expected a duration such as 2h, or a time such as 2024-01-15T10:30:00Z"
        raise typer.BadParameter(f"{text!r}: {expected}", param_hint=option) from None
