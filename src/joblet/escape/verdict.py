"""What the outcome of an attempt means. Judged here, outside of the job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from joblet.escape.attempts.frame import Attempt
from joblet.meaning import Meaning

DONE = "done"
UNTRIED = "not tried"


class Verdict(Meaning):
    """How an attempt ended."""

    HELD = "held", "refused as it must be"
    BREACH = "BREACH", "it succeeded"
    DIFFERS = "DIFFERS", "neither success nor the refusal that is right: what stopped it is not what should"
    GAP = "gap", "it succeeded for want of a feature that this host lacks, and joblet cannot make up for it"
    UNTRIED = "not tried", "the attempt cannot be made here"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to."""

    name: str
    """`done`, `not tried`, `error`, or a refusal: an errno's name, `absent`, `signal SIGSYS`, a job's reason"""
    detail: str = ""
    lacks: str = ""
    """the feature that is shown to be missing, where that is why it succeeded"""


@dataclass(frozen=True, slots=True)
class Result:
    """An attempt, what it came to, and what that means."""

    attempt: Attempt
    outcome: Outcome
    verdict: Verdict

    @property
    def advice(self) -> str:
        """What to do about a gap."""
        return self.attempt.gap.advice if self.attempt.gap and self.verdict is Verdict.GAP else ""


def judge(attempt: Attempt, outcome: Outcome) -> Result:
    """The verdict on one attempt."""
    if outcome.name == DONE:
        verdict = Verdict.GAP if outcome.lacks else Verdict.BREACH
    elif outcome.name in attempt.expect:
        verdict = Verdict.HELD
    elif outcome.name == UNTRIED:
        verdict = Verdict.UNTRIED
    else:
        verdict = Verdict.DIFFERS
    return Result(attempt, outcome, verdict)


def passed(results: Iterable[Result]) -> bool:
    """Whether there is neither a breach nor a refusal of another kind than the right one."""
    return not any(result.verdict in (Verdict.BREACH, Verdict.DIFFERS) for result in results)
