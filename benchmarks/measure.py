"""Measures contestants in turn, so that what slows the machine slows all of them, and compares them pair by pair."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

Round = Callable[[], Awaitable[float]]
"""does a piece of work once, and returns what it measured"""

OURS = "joblet"


@dataclass(frozen=True)
class Spread:
    """What became of a number of rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Contest:
    """One thing, done by several: joblet and its references."""

    name: str
    unit: str
    contestants: Mapping[str, Round]
    """by name, joblet as OURS"""
    higher_is_better: bool = False
    rounds: int = 10
    warm_up: int = 1
    goal: str = ""
    """the reference that counts and how many times its value is aimed for, such as `bwrap 1.0`"""


@dataclass(frozen=True)
class Result:
    """What a contest has shown."""

    name: str
    unit: str
    higher_is_better: bool
    goal: str
    values: dict[str, list[float]] = field(default_factory=dict)
    """of each contestant, round by round"""

    def spread(self, contestant: str) -> Spread:
        return Spread.of(self.values[contestant])

    def ratio(self, reference: str) -> Spread:
        """Ours to the reference's, of the same round each."""
        pairs = zip(self.values[OURS], self.values[reference], strict=True)
        return Spread.of([ours / other for ours, other in pairs if other])

    @property
    def references(self) -> list[str]:
        return [name for name in self.values if name != OURS]


async def hold(contest: Contest, *, rounds: int | None = None) -> Result:
    """All rounds of a contest. Each begins with another contestant."""
    names = list(contest.contestants)
    for _ in range(contest.warm_up):
        for name in names:
            await contest.contestants[name]()
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds or contest.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            values[name].append(await contest.contestants[name]())
    return Result(contest.name, contest.unit, contest.higher_is_better, contest.goal, values)


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
