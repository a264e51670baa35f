"""Whether what was sampled stayed flat: the second half beside the first. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Series:
    """What is sampled, and how much more of it in the second half is none."""

    name: str
    """the field of Sample"""
    unit: str
    """bytes, s, or empty for a count"""
    share: float
    slack: float
    of_history: bool = False
    """it grows with what has ended and is kept: judged by its growth for each job"""


SERIES = (
    Series("resident", "bytes", 0.03, 1 << 20),
    Series("proportional", "bytes", 0.03, 1 << 20),
    Series("descriptors", "", 0.05, 3),
    Series("threads", "", 0.0, 1),
    Series("monitors", "", 0.25, 2),
    Series("groups", "", 0.25, 8),
    Series("mounts", "", 0.0, 0),
    Series("processor", "s", 0.10, 0.0002),
    Series("call_p50", "s", 0.25, 0.001),
    Series("call_p99", "s", 0.25, 0.005),
    Series("end_p50", "s", 0.25, 0.001),
    Series("end_p99", "s", 0.25, 0.005),
    Series("log_ahead", "bytes", 0.25, 4 << 20),
    Series("database", "bytes", 0.25, 10, of_history=True),
)


class Verdict(StrEnum):
    """What became of a series."""

    FLAT = "flat"
    GROWS = "GROWS"
    HISTORY = "grows by the history alone"
    UNKNOWN = "too few samples"


@dataclass(frozen=True)
class Judgement:
    """One series, judged."""

    name: str
    unit: str
    first: float
    """median of the first half"""
    second: float
    """median of the second half"""
    per_job: float
    """growth for each job in the second half, by least squares"""
    verdict: Verdict


def judge(series: Series, jobs: Sequence[float], values: Sequence[float]) -> Judgement:
    """Judge values that were sampled when so many jobs had ended, both in order of time."""
    half = len(values) // 2
    if half < 3:
        return Judgement(series.name, series.unit, *(statistics.median(values or [0]),) * 2, 0, Verdict.UNKNOWN)
    first, second = statistics.median(values[:half]), statistics.median(values[half:])
    before, after = _slope(jobs[:half], values[:half]), _slope(jobs[half:], values[half:])
    if series.of_history:
        steady = after <= before * (1 + series.share) + series.slack
        verdict = Verdict.HISTORY if steady else Verdict.GROWS
    else:
        allowed = abs(first) * series.share + series.slack
        # The second: what began to grow late moves the median little.
        grown = max(second - first, after * (jobs[-1] - jobs[half]))
        verdict = Verdict.GROWS if grown > allowed else Verdict.FLAT
    return Judgement(series.name, series.unit, first, second, after, verdict)


def _slope(places: Sequence[float], values: Sequence[float]) -> float:
    if len(set(places)) < 2:
        return 0.0
    return statistics.linear_regression(places, values).slope
