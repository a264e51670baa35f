"""Measures contestants in turn, so that what slows the machine slows all of them, and compares them pair by pair."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

OURS = "joblet"
QUANTILES = 200
"""steps in which the times of many operations are kept"""


@dataclass(frozen=True)
class Sample:
    """What one round has shown."""

    values: Sequence[float]
    """one for each of the contest's figures"""
    times: Sequence[float] = ()
    """seconds of each operation, where their distribution tells something"""


class CannotRunError(Exception):
    """A reference does not run here, or has failed; the message says why."""


Round = Callable[[], Awaitable[Sample]]
"""does a piece of work once; one of a reference may raise CannotRunError"""


@dataclass(frozen=True)
class Spread:
    """What became of a number of rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Aim:
    """What a figure is wanted to be: so many times a reference's, or, without one, so much."""

    bound: float
    reference: str = ""


@dataclass(frozen=True)
class Figure:
    """One thing that is measured."""

    name: str
    unit: str
    """`s`, `/s`, `MB/s` or `MB`"""
    higher_is_better: bool = False
    aim: Aim | None = None
    series: str = ""
    """whose point it is in a plot"""
    at: float = 0
    """where in the plot: jobs in flight, connections, jobs running or ended"""


@dataclass(frozen=True)
class Contest:
    """One piece of work, done by several: joblet and its references."""

    figures: Sequence[Figure]
    contestants: Mapping[str, Round]
    """by name, joblet as OURS"""
    absent: Mapping[str, str] = field(default_factory=dict)
    """references that cannot be measured here, and why"""
    rounds: int = 10
    warm_up: int = 1


@dataclass(frozen=True)
class Result:
    """What a contest has shown of one figure."""

    figure: Figure
    values: dict[str, list[float]]
    """of each contestant, round by round"""
    quantiles: dict[str, list[float]] = field(default_factory=dict)
    """of the times of all operations of all rounds, by contestant: QUANTILES + 1 of them, least and most included"""
    absent: dict[str, str] = field(default_factory=dict)

    def spread(self, contestant: str) -> Spread:
        return Spread.of(self.values[contestant])

    def ratio(self, reference: str) -> Spread:
        """Ours to the reference's, of the same round each."""
        pairs = zip(self.values[OURS], self.values[reference], strict=True)
        return Spread.of([ours / other for ours, other in pairs if other])

    @property
    def references(self) -> list[str]:
        return [name for name in self.values if name != OURS]


async def hold(contest: Contest, *, rounds: int | None = None, short: bool = False) -> list[Result]:
    """All rounds of a contest, each begun by another contestant; a result for each figure. If short, one round.

    A reference that fails in one of them is absent from the results.
    """
    names = list(contest.contestants)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    absent = dict(contest.absent)
    warm_up = 0 if short else contest.warm_up
    for number in range(warm_up + (1 if short else rounds or contest.rounds)):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if name in absent:
                continue
            try:
                sample = await contest.contestants[name]()
            except CannotRunError as error:
                absent[name] = str(error)
                del samples[name]
                continue
            if number >= warm_up:
                samples[name].append(sample)
    times = {name: [time for sample in own for time in sample.times] for name, own in samples.items()}
    quantiles = {name: quantiles_of(own) for name, own in times.items() if own}
    return [
        Result(
            figure,
            {name: [sample.values[place] for sample in own] for name, own in samples.items()},
            {} if place else quantiles,
            absent,
        )
        for place, figure in enumerate(contest.figures)
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def quantiles_of(values: Sequence[float]) -> list[float]:
    """Values that so many equal shares of them lie between."""
    ordered = sorted(values)
    return [ordered[round((len(ordered) - 1) * place / QUANTILES)] for place in range(QUANTILES + 1)]
