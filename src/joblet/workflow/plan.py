"""What is to run, and what may run now: the plan of a workflow and its schedule. No I/O, no clock.

The schedule is told how attempts have ended and answers with what follows: steps that may start, steps that are
cancelled. Whoever drives it (the engine, or a test) brings time and jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from joblet.meaning import Meaning
from joblet.order import Order
from joblet.workflow.condition import NOTHING, All, Condition, End, Ended, Is, evaluate, names, why_not

_REASON_MOST = 200
"""characters of a condition in the reason of a step that is cancelled"""


class WorkflowState(Meaning):
    """A workflow's status as clients see it."""

    PENDING = "PENDING", "accepted, and none of its jobs has been started"
    RUNNING = "RUNNING", "some of its jobs have been started"
    COMPLETED = "COMPLETED", "ended, and no job failed but those that may"
    FAILED = "FAILED", "ended, and some job failed or was stopped"
    CANCELED = "CANCELED", "stopped before any of its jobs had been started"
    STOPPED = "STOPPED", "ended by a user's request or a timeout"

    @property
    def final(self) -> bool:
        return self not in (WorkflowState.PENDING, WorkflowState.RUNNING)


@dataclass(frozen=True, slots=True)
class Retry:
    """Whether and when a step that failed is tried again."""

    limit: int = 0
    """attempts beyond the first"""
    backoff: float = 0.0
    """seconds before the second attempt"""
    factor: float = 2.0
    """by which each further pause is longer"""
    max_backoff: float = 300.0
    """seconds that a pause lasts at most"""
    exit_codes: frozenset[int] = frozenset()
    """those that are worth another attempt; none: all, and timeouts"""

    def pause(self, attempts: int, end: End, exit_code: int, *, timed_out: bool) -> float | None:
        """Seconds before the next attempt, after so many; None when there is none."""
        if attempts > self.limit:
            return None
        if self.exit_codes:
            worth = end is End.FAILED and exit_code in self.exit_codes
        else:
            worth = end is End.FAILED or (end is End.STOPPED and timed_out)
        if not worth:
            return None
        try:
            pause = self.backoff * self.factor ** (attempts - 1)
        except OverflowError:
            pause = self.max_backoff
        return min(pause, self.max_backoff)


@dataclass(frozen=True, slots=True)
class Step:
    """One job of a workflow, as often as it is tried. Its arguments and environment may hold outputs of others."""

    name: str
    order: Order
    """what each attempt asks for; `${{ jobs.NAME.outputs.KEY }}` in it is filled in when it starts"""
    condition: Condition = NOTHING
    retry: Retry = Retry()
    continue_on_failure: bool = False
    uploads: tuple[str, ...] = ()
    """relative paths of the workflow's files that go into its work directory"""

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The steps that its condition speaks of, each once, in order."""
        return tuple(dict.fromkeys(names(self.condition)))


@dataclass(frozen=True, slots=True)
class Plan:
    """A workflow, ready to run: every name is known, nothing requires itself."""

    steps: tuple[Step, ...]
    """in the file's order"""
    name: str = ""
    timeout: float = 0.0
    """seconds that the whole may take; 0 is no bound"""
    max_parallel: int = 0
    """steps that run at a time; 0 is no bound"""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """their values as text, those of secret ones masked"""


@dataclass(frozen=True, slots=True)
class Start:
    """A step may start now; it counts as running until `ended`."""

    position: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """A step will not run, or not once more."""

    position: int
    reason: str


Decision = Start | Cancel


class Schedule:
    """The mutable state is how steps have ended, which run, which wait for another attempt, and which may start but for
    `max_parallel`.

    Of the steps that may start those of the highest priority go first, and of these the first of the plan. A step that
    waits for another attempt does not count as running.
    """

    def __init__(self, plan: Plan, ended: Mapping[str, Ended] | None = None, *, most: int = 0) -> None:
        """`ended` is what an earlier life of the workflow has come to.

        `most` steps run at a time, and not more than the plan says; 0 is no bound.
        """
        self.plan = plan
        self._most = min(filter(None, (most, plan.max_parallel)), default=len(plan.steps))
        self._positions = {step.name: position for position, step in enumerate(plan.steps)}
        self._ended: dict[str, Ended] = dict(ended or {})
        self._open: dict[int, list[Condition]] = {}
        """conjuncts that are not known to hold yet, of each step that has not been decided on"""
        self._waiting_for: dict[str, list[tuple[int, Condition]]] = {}
        self._ready: list[tuple[int, int]] = []
        """priority negated, and position"""
        self._running: set[int] = set()
        self._tried: dict[int, End] = {}
        """how the last attempt ended, of each step that waits for another one"""
        self._stopped = ""
        self._begun = False

    @property
    def over(self) -> bool:
        """Whether every step has ended."""
        return len(self._ended) == len(self.plan.steps)

    def begin(self, running: Sequence[int] = ()) -> list[Decision]:
        """What may be done first. `running` are steps that an earlier life started and that have not ended."""
        assert not self._begun
        self._begun = True
        self._running.update(running)
        cancelled: list[Cancel] = []
        for position, step in enumerate(self.plan.steps):
            if step.name not in self._ended and position not in self._running:
                self._consider(position, step, cancelled)
        return [*self._spread(cancelled), *self._admit()]

    def ended(self, position: int, end: End) -> list[Decision]:
        """A step that was running has ended, for good."""
        self._running.discard(position)
        self._settle(position, end)
        return [*self._spread(self._tell(position)), *self._admit()]

    def paused(self, position: int, end: End) -> list[Decision]:
        """A step that was running waits for its next attempt, for the last one has ended so."""
        self._running.remove(position)
        self._tried[position] = end
        return self._admit()

    def again(self, position: int) -> list[Decision]:
        """A step that was paused may start, when there is room."""
        if not self._stopped and self.plan.steps[position].name not in self._ended:
            self._may_start(position)
        return self._admit()

    def stop(self, reason: str) -> list[Cancel]:
        """Nothing starts any more. Those that run are to be stopped by the caller; all others are cancelled.

        A step that waits for another attempt, which there will not be, ends as the last one did.
        """
        self._stopped = reason
        self._ready.clear()
        self._open.clear()
        cancelled = []
        for position, step in enumerate(self.plan.steps):
            if step.name not in self._ended and position not in self._running:
                self._settle(position, self._tried.get(position, End.CANCELED))
                cancelled.append(Cancel(position, reason))
        return cancelled

    def outcome(self, *, started: bool) -> tuple[WorkflowState, str]:
        """The final state, of a schedule that is over, and why. `started`: any job of the workflow ever was."""
        if self._stopped:
            return (WorkflowState.STOPPED if started else WorkflowState.CANCELED), self._stopped
        failed = [
            f"{name} is {ended.end}"
            for name, ended in self._ended.items()
            if ended.end in (End.FAILED, End.STOPPED) and not ended.tolerated
        ]
        if failed:
            return WorkflowState.FAILED, failed[0] + (f", and {len(failed) - 1} more" if len(failed) > 1 else "")
        return WorkflowState.COMPLETED, ""

    def _consider(self, position: int, step: Step, cancelled: list[Cancel]) -> None:
        conjuncts = step.condition.parts if isinstance(step.condition, All) else (step.condition,)
        unknown: list[Condition] = []
        for conjunct in conjuncts:
            if isinstance(conjunct, Is) and conjunct.name not in self._ended:  # nearly all, at the start
                unknown.append(conjunct)
                continue
            value = evaluate(conjunct, self._ended)
            if value is False:
                self._cancel(position, conjunct, cancelled)
                return
            if value is None:
                unknown.append(conjunct)
        if not unknown:
            self._may_start(position)
            return
        self._open[position] = unknown
        for conjunct in unknown:
            for name in [conjunct.name] if isinstance(conjunct, Is) else dict.fromkeys(names(conjunct)):
                self._waiting_for.setdefault(name, []).append((position, conjunct))

    def _may_start(self, position: int) -> None:
        heappush(self._ready, (-self.plan.steps[position].order.priority, position))

    def _settle(self, position: int, end: End) -> None:
        step = self.plan.steps[position]
        self._ended[step.name] = Ended(end, tolerated=step.continue_on_failure)

    def _cancel(self, position: int, conjunct: Condition, cancelled: list[Cancel]) -> None:
        self._open.pop(position, None)
        self._settle(position, End.CANCELED)
        wanted = str(conjunct)
        if len(wanted) > _REASON_MOST:  # of all that a matrix has made of one job
            wanted = wanted[:_REASON_MOST] + "..."
        cancelled.append(Cancel(position, f"requires {wanted}, but {why_not(conjunct, self._ended)}"))

    def _tell(self, position: int) -> list[Cancel]:
        """Let those know that wait for a step which has ended; those that are cancelled for it."""
        cancelled: list[Cancel] = []
        for dependent, conjunct in self._waiting_for.pop(self.plan.steps[position].name, ()):
            still_open = self._open.get(dependent)
            if still_open is None:
                continue
            value = evaluate(conjunct, self._ended)
            if value is False:
                self._cancel(dependent, conjunct, cancelled)
            elif value and conjunct in still_open:
                still_open.remove(conjunct)
                if not still_open:
                    del self._open[dependent]
                    self._may_start(dependent)
        return cancelled

    def _spread(self, cancelled: list[Cancel]) -> Iterator[Cancel]:
        """What is cancelled, and what is cancelled for that, and so on down."""
        waves = list(cancelled)
        for cancel in waves:
            waves += self._tell(cancel.position)
        yield from waves

    def _admit(self) -> list[Decision]:
        starts: list[Decision] = []
        while self._ready and len(self._running) < self._most:
            _, position = heappop(self._ready)
            self._running.add(position)
            self._tried.pop(position, None)
            starts.append(Start(position))
        return starts
