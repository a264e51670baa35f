"""What a step requires of others: an expression over how they have ended, with three values. No I/O.

None stands for "not known yet" (Kleene's strong logic of three values): a condition holds, or cannot hold any more, as
soon as what has ended says so, whatever is still running.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from joblet.meaning import Meaning


class End(Meaning):
    """How a step has ended."""

    COMPLETED = "COMPLETED", "its command ended with exit code 0"
    FAILED = "FAILED", "its command ended otherwise, or never ran"
    STOPPED = "STOPPED", "ended by a user's request or a timeout"
    CANCELED = "CANCELED", "not started, for what it requires can no longer be"


class Wanted(Meaning):
    """What may be required of a step."""

    COMPLETED = "COMPLETED", "it has completed, or failed where it may (continue_on_failure)"
    FAILED = "FAILED", "it has failed"
    STOPPED = "STOPPED", "it was stopped"
    CANCELED = "CANCELED", "it was not started, and will not be"
    FINISHED = "FINISHED", "it has ended in any of these ways"


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known of a step that has ended."""

    end: End
    tolerated: bool = False
    """it may fail: so much as completed for those that require that"""

    def meets(self, wanted: Wanted) -> bool:
        if wanted is Wanted.FINISHED:
            return True
        if wanted is Wanted.COMPLETED and self.tolerated and self.end in (End.FAILED, End.STOPPED):
            return True
        return self.end.value == wanted.value


@dataclass(frozen=True, slots=True)
class Is:
    """One step has come to what is wanted of it."""

    name: str
    wanted: Wanted

    def __str__(self) -> str:
        return f"{quote(self.name)}={self.wanted}"


@dataclass(frozen=True, slots=True)
class All:
    """Every one of some conditions; of none, true."""

    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        return " && ".join(f"({part})" if isinstance(part, Any) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Any:
    """At least one of some conditions."""

    parts: tuple[Condition, ...]

    def __str__(self) -> str:
        return " || ".join(f"({part})" if isinstance(part, All) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary of a condition."""

    part: Condition

    def __str__(self) -> str:
        return f"!{self.part}" if isinstance(self.part, Not) else f"!({self.part})"


Condition = Is | All | Any | Not

NOTHING = All(())
"""what a step requires that requires nothing"""

_BARE = re.compile(r"[A-Za-z0-9_.-]+(\[[^\[\]\"]*\])?")


def quote(name: str) -> str:
    """A step's name as it stands in an expression."""
    return name if _BARE.fullmatch(name) else f'"{name}"'


def names(condition: Condition) -> Iterator[str]:
    """The steps that it speaks of, as often as it does, in order."""
    match condition:
        case Is(name):
            yield name
        case Not(part):
            yield from names(part)
        case All(parts) | Any(parts):
            for part in parts:
                yield from names(part)


def evaluate(condition: Condition, ended: Mapping[str, Ended]) -> bool | None:
    """Whether it holds, for all that can still come; None when that is open."""
    match condition:
        case Is(name, wanted):
            return ended[name].meets(wanted) if name in ended else None
        case Not(part):
            value = evaluate(part, ended)
            return None if value is None else not value
        case All(parts):
            return _decide(parts, ended, decisive=False)
        case Any(parts):
            return _decide(parts, ended, decisive=True)


def _decide(parts: tuple[Condition, ...], ended: Mapping[str, Ended], *, decisive: bool) -> bool | None:
    unknown = False
    for part in parts:
        value = evaluate(part, ended)
        if value is decisive:
            return decisive
        unknown = unknown or value is None
    return None if unknown else not decisive


def why_not(condition: Condition, ended: Mapping[str, Ended]) -> str:
    """What keeps it from holding ever, for one that evaluates to False: `a is FAILED`, of several the first."""
    told: list[str] = []
    for name in _guilty(condition, ended, blame=False):
        text = f"{name} is {ended[name].end}"
        if text not in told:
            told.append(text)
    return " and ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else "")


def _guilty(condition: Condition, ended: Mapping[str, Ended], *, blame: bool) -> Iterator[str]:
    """The steps whose ends give the condition the value `blame`, which it has."""
    match condition:
        case Is(name):
            yield name
        case Not(part):
            yield from _guilty(part, ended, blame=not blame)
        case All(parts) | Any(parts):
            giving = [part for part in parts if evaluate(part, ended) is blame]
            one_is_enough = isinstance(condition, Any) is blame
            for part in giving[:1] if one_is_enough else giving:
                yield from _guilty(part, ended, blame=blame)
