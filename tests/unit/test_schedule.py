"""The schedule against the reference: what starts, what is cancelled and when, whatever the steps come to."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import (
    COMPLETED,
    RESULTS,
    Result,
    attempts_of,
    ends_of,
    is_failed,
    is_tried_again,
    is_true_reason,
    random_plan,
    tolerated_of,
    truth,
)

from joblet.order import Order
from joblet.workflow.condition import Any, End, Ended, Is, Not, Wanted
from joblet.workflow.plan import Cancel, Decision, Plan, Schedule, Start, Step, WorkflowState


class Driver:
    """Runs a schedule, and looks at everything that it decides."""

    def __init__(self, plan: Plan, random: Random, most: int) -> None:
        self.plan = plan
        self.random = random
        self.most = most
        self.bound = min(bound for bound in (most, plan.max_parallel, len(plan.steps)) if bound)
        self.tolerated = tolerated_of(plan)
        self.planned = {step.name: [random.choice(RESULTS) for _ in range(5)] for step in plan.steps}
        self.results: dict[str, list[Result]] = {step.name: [] for step in plan.steps}
        self.ends: dict[str, End] = {}
        self.running: list[int] = []
        self.paused: list[int] = []
        self.woken: list[int] = []
        self.started = 0
        self.stopped = False
        self.schedule = Schedule(plan, most=most)
        self.take(self.schedule.begin())

    def take(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            step = self.plan.steps[decision.position]
            assert step.name not in self.ends, "what has ended has"
            assert decision.position not in self.running
            if isinstance(decision, Cancel):
                last = self.results[step.name][-1:]
                assert self.stopped or not last, "only what never began"
                self.ends[step.name] = last[0].end if last else End.CANCELED
                assert self.stopped or is_true_reason(step, decision.reason, self.ends, self.tolerated), decision
            else:
                assert not self.stopped, "nothing starts after a stop"
                assert truth(step.condition, self.ends, self.tolerated) == 1, "only when its requirements hold"
                assert not self.results[step.name] or decision.position in self.woken, "once for each attempt"
                if decision.position in self.woken:
                    self.woken.remove(decision.position)
                self.running.append(decision.position)
                self.started += 1
            assert len(self.running) <= self.bound
        self.look_at_those_that_wait(decisions)

    def look_at_those_that_wait(self, decisions: Sequence[Decision]) -> None:
        busy = {*self.running, *self.paused}
        ready = set(self.woken)
        for position, step in enumerate(self.plan.steps):
            if step.name not in self.ends and position not in busy and not self.stopped:
                value = truth(step.condition, self.ends, self.tolerated)
                assert value > 0, "what cannot run any more is cancelled at once"
                ready |= {position} if value == 1 else set()
        assert not ready or len(self.running) == self.bound, "what may run does"
        last = [self.place(decision.position) for decision in decisions if isinstance(decision, Start)]
        assert last == sorted(last)
        assert not last or not ready or last[-1] < min(map(self.place, ready)), "the highest priority first"

    def place(self, position: int) -> tuple[int, int]:
        return -self.plan.steps[position].order.priority, position

    def end_one(self) -> None:
        position = self.running.pop(self.random.randrange(len(self.running)))
        step = self.plan.steps[position]
        results = self.results[step.name]
        results.append(self.planned[step.name][len(results)])
        if is_tried_again(step.retry, results) and not self.stopped:
            self.paused.append(position)
            self.take(self.schedule.paused(position, results[-1].end))
        else:
            self.ends[step.name] = results[-1].end
            self.take(self.schedule.ended(position, results[-1].end))

    def wake_one(self) -> None:
        position = self.paused.pop(self.random.randrange(len(self.paused)))
        self.woken.append(position)
        self.take(self.schedule.again(position))

    def stop(self) -> None:
        self.stopped = True
        self.take(self.schedule.stop("stopped by bob"))
        self.paused.clear()
        self.woken.clear()

    def restart(self) -> None:
        """Another schedule takes over. It has yet to be told of some of the ends."""
        ran = [position for position, step in enumerate(self.plan.steps) if step.name in self.ends and self.ran(step)]
        untold = self.random.sample(ran, self.random.randint(0, len(ran)))
        unknown = {self.plan.steps[position].name for position in untold}
        ended = {name: Ended(end, name in self.tolerated) for name, end in self.ends.items() if name not in unknown}
        self.schedule = Schedule(self.plan, ended, most=self.most)
        self.paused += self.woken
        self.woken.clear()
        decisions = self.schedule.begin([*self.running, *untold, *self.paused])
        for position in self.paused:
            decisions += self.schedule.paused(position, self.results[self.plan.steps[position].name][-1].end)
        for position in untold:
            decisions += self.schedule.ended(position, self.ends[self.plan.steps[position].name])
        again = [decision for decision in decisions if self.plan.steps[decision.position].name in self.ends]
        assert all(isinstance(decision, Cancel) for decision in again), "what was cancelled is, again"
        self.take([decision for decision in decisions if decision not in again])

    def ran(self, step: Step) -> bool:
        return bool(self.results[step.name])

    def run(self, *, stops: bool, restarts: bool) -> None:
        moment = self.random.randint(0, 2 * len(self.plan.steps)) if stops else -1
        turn = 0
        while not self.schedule.over:
            if turn == moment:
                self.stop()
            elif restarts and not self.stopped and self.random.random() < 0.05:
                self.restart()
            elif self.paused and (not self.running or self.random.random() < 0.5):
                self.wake_one()
            else:
                self.end_one()
            turn += 1
        assert not self.running


@pytest.mark.load
@settings(max_examples=120, deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**32), st.sampled_from((0, 1, 5)), st.booleans(), st.booleans())
@example(200, 1, 0, False, True)
def test_every_step_ends_as_the_reference_says(count: int, seed: int, most: int, stops: bool, restarts: bool) -> None:
    random = Random(seed)
    plan = random_plan(random, count)
    driver = Driver(plan, random, most)
    driver.run(stops=stops, restarts=restarts)
    state, reason = driver.schedule.outcome(started=driver.started > 0)
    assert set(driver.ends) == {step.name for step in plan.steps}
    if driver.stopped:
        assert (state, reason) == (
            WorkflowState.STOPPED if driver.started else WorkflowState.CANCELED,
            "stopped by bob",
        )
        return
    assert driver.ends == ends_of(plan, driver.planned)
    assert state is (WorkflowState.FAILED if is_failed(plan, driver.ends) else WorkflowState.COMPLETED)
    for step in plan.steps:
        tries = 0 if driver.ends[step.name] is End.CANCELED else attempts_of(step, driver.planned[step.name])
        assert len(driver.results[step.name]) == tries


def test_of_what_keeps_a_condition_from_holding_the_reason_names_three() -> None:
    parts = tuple(Not(Is(f"s{number}", Wanted.FINISHED)) for number in range(5))
    steps = [Step(f"s{number}", Order("scripted")) for number in range(5)]
    schedule = Schedule(Plan((*steps, Step("last", Order("scripted"), Any(parts)))))
    schedule.begin()
    decisions = [decision for position in range(5) for decision in schedule.ended(position, COMPLETED.end)]
    told = "s0 is COMPLETED and s1 is COMPLETED and s2 is COMPLETED and 2 more"
    wanted = " || ".join(f"!(s{number}=FINISHED)" for number in range(5))
    assert decisions == [Cancel(5, f"requires {wanted}, but {told}")]
