"""What becomes of a workflow, worked out naively: all follows anew from what the attempts of its steps came to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from joblet.order import Order
from joblet.workflow.condition import All, Any, Condition, End, Is, Not, Wanted, names
from joblet.workflow.plan import Plan, Retry, Step

SIGNAL = 128
"""exit codes above it are those of signals"""


@dataclass(frozen=True)
class Result:
    """What one attempt came to."""

    end: End
    exit_code: int = 0
    timed_out: bool = False


COMPLETED = Result(End.COMPLETED)
NOT_LAUNCHED = Result(End.FAILED, 127)
TIMED_OUT = Result(End.STOPPED, -1, timed_out=True)
STOPPED_BY_USER = Result(End.STOPPED, -1)
RESULTS = (
    *[COMPLETED] * 12,
    *(Result(End.FAILED, code) for code in (1, 2, 3, SIGNAL + 9, SIGNAL + 11)),
    NOT_LAUNCHED,
    TIMED_OUT,
    STOPPED_BY_USER,
)


def truth(condition: Condition, ends: Mapping[str, End], tolerated: set[str]) -> float:
    """1 for what holds whatever comes, 0 for what cannot hold any more, 0.5 for what is open."""
    match condition:
        case Is(name, wanted):
            return float(meets(ends[name], wanted, name in tolerated)) if name in ends else 0.5
        case Not(part):
            return 1 - truth(part, ends, tolerated)
        case All(parts):
            return min((truth(part, ends, tolerated) for part in parts), default=1)
        case Any(parts):
            return max((truth(part, ends, tolerated) for part in parts), default=0)


def meets(end: End, wanted: Wanted, tolerated: bool) -> bool:
    ends = {Wanted.FINISHED: set(End)}.get(wanted, {End(wanted.value)} if wanted.value in set(End) else set())
    if wanted is Wanted.COMPLETED and tolerated:
        ends |= {End.FAILED, End.STOPPED}
    return end in ends


def tolerated_of(plan: Plan) -> set[str]:
    return {step.name for step in plan.steps if step.continue_on_failure}


def is_tried_again(retry: Retry, results: Sequence[Result]) -> bool:
    """Whether there is another attempt after these."""
    last = results[-1]
    failed = last.end is End.FAILED or (last.timed_out and not retry.exit_codes)
    worth = failed and (not retry.exit_codes or last.exit_code in retry.exit_codes)
    return worth and len(results) <= retry.limit


def ends_of(
    plan: Plan, results: Mapping[str, Sequence[Result]], kept: Mapping[str, End] | None = None
) -> dict[str, End]:
    """How each step ends that would have these results, in order, if it were run; `kept` have ended before."""
    ends = dict(kept or {})
    tolerated = tolerated_of(plan)
    while True:
        before = len(ends)
        for step in plan.steps:
            if step.name in ends:
                continue
            value = truth(step.condition, ends, tolerated)
            if value == 0:
                ends[step.name] = End.CANCELED
            elif value == 1 and (attempts := attempts_of(step, results[step.name])):
                ends[step.name] = results[step.name][attempts - 1].end
        if len(ends) == before:
            return ends


def attempts_of(step: Step, results: Sequence[Result]) -> int:
    """How many attempts a step takes that has these results; 0 when they are too few."""
    for attempts in range(1, len(results) + 1):
        if not is_tried_again(step.retry, results[:attempts]):
            return attempts
    return 0


def to_run_again(plan: Plan, ends: Mapping[str, End]) -> set[str]:
    """What has not completed, and what requires any of that, and so on."""
    again = {name for name, end in ends.items() if end is not End.COMPLETED}
    while True:
        below = {step.name for step in plan.steps if again.intersection(names(step.condition))}
        if below <= again:
            return again
        again |= below


def is_failed(plan: Plan, ends: Mapping[str, End]) -> bool:
    return any(ends[name] in (End.FAILED, End.STOPPED) for name in ends if name not in tolerated_of(plan))


def is_true_reason(step: Step, reason: str, ends: Mapping[str, End], tolerated: set[str]) -> bool:
    """Whether a step is cancelled for what its reason says: that part of its condition cannot hold, for these ends."""
    told = re.fullmatch(r"requires (.+), but (.+?)(?: and (\d+) more)?", reason)
    if told is None:
        return False
    guilty = dict(part.split(" is ") for part in told[2].split(" and "))
    if any(ends.get(name) != end for name, end in guilty.items()):
        return False
    known = ends if told[3] else {name: End(end) for name, end in guilty.items()}
    named = [part for part in _conjuncts(step.condition) if _is_shown_as(str(part), told[1])]
    return any(truth(part, known, tolerated) == 0 for part in named)


def _is_shown_as(condition: str, shown: str) -> bool:
    return condition == shown or (shown.endswith("...") and condition.startswith(shown.removesuffix("...")))


def _conjuncts(condition: Condition) -> Iterator[Condition]:
    """What all must hold for it to hold, itself included."""
    yield condition
    if isinstance(condition, All):
        for part in condition.parts:
            yield from _conjuncts(part)


def random_plan(random: Random, count: int) -> Plan:
    """A plan of so many steps, that require any of each other."""
    density = random.choice((0.5, 1.5, 3))
    steps = []
    for number in range(count):
        known = [f"s{other}" for other in range(number)]
        nearby = known[-random.choice((2, 10, 200)) :]
        wanted = min(round(random.expovariate(1 / density)), len(nearby))
        parts = [_random_condition(random, nearby, 2) for _ in range(wanted)]
        steps.append(
            Step(
                name=f"s{number}",
                order=Order("scripted", name=f"s{number}", priority=random.choice((0, 0, 0, 5, -5))),
                condition=parts[0] if len(parts) == 1 else All(tuple(dict.fromkeys(parts))),
                retry=Retry(random.choice((0, 0, 1, 3)), exit_codes=frozenset(random.choice(((), (), (1, 3), (137,))))),
                continue_on_failure=random.random() < 0.15,
            )
        )
    random.shuffle(steps)
    return Plan(tuple(steps), max_parallel=random.choice((0, 0, 1, 3, 10)))


def _random_condition(random: Random, known: Sequence[str], depth: int) -> Condition:
    kind = random.random()
    if depth == 0 or kind < 0.7:
        wanted = random.choice((*[Wanted.COMPLETED] * 5, *Wanted, Wanted.FINISHED))
        return Is(random.choice(known), wanted)
    if kind < 0.8:
        return Not(_random_condition(random, known, depth - 1))
    parts = tuple(_random_condition(random, known, depth - 1) for _ in range(random.randint(2, 3)))
    return Any(parts) if kind < 0.92 else All(parts)
