"""What the doctor found: rows of a table, and whether jobs can run here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from joblet import __version__


class Verdict(StrEnum):
    """What a finding means for jobs on this host."""

    OK = "ok"
    """as it should be"""
    NOTE = "note"
    """good to know, or not to be found out; nothing is lost by it"""
    GAP = "gap"
    """jobs run, and something that joblet offers is weaker or missing"""
    FAILS = "fails"
    """needed: jobs do not run here as they are promised to"""


@dataclass(frozen=True, slots=True)
class Row:
    """One finding. Where the verdict is not OK, `advice` says in one sentence what to do."""

    check: str
    host: str
    """what the host has"""
    use: str
    """what joblet uses it for, or does without it"""
    verdict: Verdict = Verdict.OK
    advice: str = ""


Checks = Mapping[str, Callable[[], Row | Sequence[Row]]]
"""What a section looks at, by name."""


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that belong together."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The whole examination."""

    sections: tuple[Section, ...]
    root: bool
    """whether root asked; anybody else sees only a part"""

    @property
    def rows(self) -> Iterable[Row]:
        """Every row, in order."""
        return (row for section in self.sections for row in section.rows)

    @property
    def status(self) -> int:
        """Exit status: 0 when nothing needed fails."""
        return int(any(row.verdict is Verdict.FAILS for row in self.rows))

    def count(self, verdict: Verdict) -> int:
        """How many rows have that verdict."""
        return sum(row.verdict is verdict for row in self.rows)

    @property
    def summary(self) -> str:
        """One sentence."""
        failing = self.count(Verdict.FAILS)
        if failing:
            head = f"Jobs cannot run here: {failing} of the things they need {'fails' if failing == 1 else 'fail'}"
        elif self.root:
            head = "Jobs can run here"
        else:
            head = "Nothing seen that keeps jobs from running here; only root sees everything"
        gaps, notes = self.count(Verdict.GAP), self.count(Verdict.NOTE)
        return f"{head} ({_number(gaps, 'gap')}, {_number(notes, 'note')})."

    def as_dict(self) -> dict[str, object]:
        """The same for machines."""
        return {
            "version": __version__,
            "root": self.root,
            "jobsCanRun": self.status == 0,
            "summary": self.summary,
            "checks": [
                {
                    "section": section.title,
                    "check": row.check,
                    "host": row.host,
                    "use": row.use,
                    "verdict": row.verdict.value,
                    "advice": row.advice,
                }
                for section in self.sections
                for row in section.rows
            ],
        }


AS_ROOT = "Run joblet doctor as root."


def unknown(check: str, use: str) -> Row:
    """The row of what only root can find out."""
    return Row(check, "only root can find out", use, Verdict.NOTE, AS_ROOT)


def size(number: int) -> str:
    """Bytes for people: `512 MB`, `7.4 GB`."""
    value, units = float(number), ["TB", "GB", "MB", "kB", "B"]
    unit = units.pop()
    while value >= 1000 and units:
        value, unit = value / 1000, units.pop()
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
