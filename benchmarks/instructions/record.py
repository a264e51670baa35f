"""Counts beside those of the record. Pure, but for the record's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).parent.with_suffix(".json")

BOUNDS = {"shim": 0.05, "server": 0.10}
"""how much more is a regression, or less is reason to renew the record"""
CONDITIONS = {"shim": ("compiler", "machine", "cgroups"), "server": ("python",)}
"""where these are others the counts cannot be compared"""
COMPARED = {"shim": ("monitor", "init", "command"), "server": ("job_in_calls",)}

Counts = Mapping[str, object]


@dataclass(frozen=True)
class Comparison:
    """One count beside the record's."""

    name: str
    now: float
    then: float
    bound: float

    @property
    def ratio(self) -> float:
        """1 is as it was."""
        return self.now / self.then

    @property
    def worse(self) -> bool:
        """It has grown beyond the bound."""
        return self.ratio > 1 + self.bound

    @property
    def better(self) -> bool:
        """It has shrunk so much that the record no longer guards it."""
        return self.ratio < 1 - self.bound

    def __str__(self) -> str:
        text = f"{self.name}: {self.now:,} (record {self.then:,}, {self.ratio - 1:+.2%})"
        if self.worse:
            return f"{text} is more than the {self.bound:.0%} allowed"
        if self.better:
            return f"{text} is better: renew the record (python -m benchmarks.instructions --record)"
        return text


def differences(part: str, now: Counts, then: Counts) -> list[str]:
    """Why the counts of a part (shim or server) cannot be compared; empty when they can."""
    return [f"{name} {now[name]}, of the record {then[name]}" for name in CONDITIONS[part] if now[name] != then[name]]


def compare(part: str, now: Counts, then: Counts) -> list[Comparison]:
    """Each count of a part beside the record's."""
    return [
        Comparison(f"{part}, {name}", _number(now[name]), _number(then[name]), BOUNDS[part]) for name in COMPARED[part]
    ]


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value


def load() -> dict[str, Counts]:
    """The record: of shim and server what their `count` gives."""
    found: dict[str, Counts] = json.loads(PATH.read_text())
    return found


def save(record: Mapping[str, Counts]) -> None:
    """Replace the record."""
    PATH.write_text(json.dumps(record, indent=1) + "\n")
