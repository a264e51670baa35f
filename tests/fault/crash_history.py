"""What has become of the workflows of the crash loops, worked out again from the events and from the traces of steps.

Nothing of joblet is used: each event must be one that the workflow's file, what came before, and what was done to it
allow, and each trace must be that of an attempt that the events tell of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from crash_jobs import FINAL, LOST, MOVES, Ending, Violated, duration
from crash_workflows import Step, WorkflowOrder, holds, meets, names_in

ENDED = FINAL | {"CANCELED"}
_STOPPED_BY = "stopped by admin"


@dataclass
class Attempt:
    """One attempt of a step: a job."""

    value: str
    """what it gives out"""
    job_id: str
    given: dict[str, Attempt]
    """of the steps that it requires those that had ended when it was made, and how"""
    status: str = ""
    code: int = 0
    reason: str = ""

    @property
    def ended_by_itself(self) -> bool:
        return self.status in FINAL and self.code >= 0


@dataclass
class StepHistory:
    """What has become of one step so far."""

    step: Step
    attempts: list[Attempt] = field(default_factory=list)
    base: int = 0
    """attempts before the workflow was last tried again"""
    end: str = ""
    told: bool = False
    """an event has told of its end; that of a job tells at once, that it is canceled is known before"""

    @property
    def last(self) -> Attempt | None:
        """The last attempt since then."""
        return self.attempts[-1] if len(self.attempts) > self.base else None

    @property
    def waits(self) -> bool:
        """Whether it is to be tried once more."""
        last = self.last
        return not self.end and last is not None and last.status in FINAL

    @property
    def shown(self) -> set[str]:
        """What may be shown as its status."""
        if self.last is None:
            return {self.end if self.told else "PENDING", self.end or "PENDING"}
        if self.end:
            return {self.end}
        return {self.last.status, "PENDING"} if self.waits else {self.last.status}

    def is_over(self) -> bool:
        """Whether the attempt that has just ended is to be the last."""
        last = self.attempts[-1]
        worth = self.step.is_worth_another(last.status, last.code, last.reason)
        return not worth or len(self.attempts) - self.base > self.step.limit


class WorkflowHistory:
    """What has become of one workflow. `take` is told of its events in order, and raises Violated."""

    def __init__(self, order: WorkflowOrder, workflow_id: str, *, stop_asked: bool, victims: Set[str]) -> None:
        """`victims` are the jobs whose monitors were killed, or nearly."""
        self.order = order
        self.steps = {step.name: StepHistory(step) for step in order.steps}
        self.status = ""
        self.rounds = 0
        """how often it has ended"""
        self._id = workflow_id
        self._victims = victims
        self._stops = {_STOPPED_BY} if stop_asked else set()
        if order.timeout_ms:
            self._stops.add(f"timeout after {duration(order.timeout_ms)}")

    def take(self, event: Any) -> None:
        if not event.jobName:
            self._move(event)
            return
        if self.status in ("", *ENDED):
            self._refuse(event, f"the workflow is {self.status or 'not there yet'}")
        history = self.steps[event.jobName]
        if event.jobId:
            self._take_job(event, history)
        elif event.status == "PENDING":
            waits = history.waits or not (history.last or history.told)
            if not waits or event.attempt != len(history.attempts) + 1:
                self._refuse(event, "it does not wait for that attempt")
        elif event.status == "CANCELED":
            self._cancel(event, history)
        else:
            self._refuse(event, "a step cannot end so without a job")

    def _move(self, event: Any) -> None:
        again = {"RUNNING" if any(history.attempts for history in self.steps.values()) else "PENDING"}
        allowed = {"": {"PENDING"}, "PENDING": {"RUNNING", *ENDED}, "RUNNING": ENDED}.get(self.status, again)
        if event.status not in allowed:
            self._refuse(event, f"the workflow is {self.status}")
        if self.status in ENDED:
            self._reopen()
        if event.status in ENDED:
            self._check_end(event)
            self.rounds += 1
        self.status = event.status

    def _reopen(self) -> None:
        again = {name for name, history in self.steps.items() if history.end != "COMPLETED"}
        for step in self.order.steps:  # those that it requires come before it
            if again.intersection(step.required):
                again.add(step.name)
        for name in again:
            history = self.steps[name]
            history.end, history.told, history.base = "", False, len(history.attempts)
        self._spread()

    def _spread(self) -> None:
        """Cancel what cannot start any more. Those that a step requires come before it."""
        ended = self._ended()
        for name, history in self.steps.items():
            if not history.end and history.last is None and self._requirement(history, ended) is False:
                history.end = "CANCELED"
                ended[name] = meets(history.end, tolerated=False)

    def _ended(self) -> dict[str, frozenset[str]]:
        return {name: meets(h.end, tolerated=h.step.tolerated) for name, h in self.steps.items() if h.end}

    def _requirement(self, history: StepHistory, ended: dict[str, frozenset[str]]) -> bool | None:
        return holds(("and", *history.step.requires), ended)

    def _check_end(self, event: Any) -> None:
        stopped = event.reason in self._stops
        for history in self.steps.values():
            if history.waits and stopped:
                assert history.last is not None
                history.end = history.last.status
            if not history.end or not (history.told or history.last):
                self._refuse(event, f"step {history.step.name} has not ended: {history}")
        reasons = [h.last.reason for h in self.steps.values() if h.last is not None]
        if not stopped and any(reason.startswith(f"workflow {self._id}: ") for reason in reasons):
            self._refuse(event, f"its steps were stopped with it: {reasons}")
        if stopped:
            expected = "STOPPED" if any(history.attempts for history in self.steps.values()) else "CANCELED"
        else:
            bad = [h for h in self.steps.values() if h.end in ("FAILED", "STOPPED") and not h.step.tolerated]
            expected = "FAILED" if bad else "COMPLETED"
        if event.status != expected:
            self._refuse(event, f"it should have ended {expected}: {self.ends()}")

    def _take_job(self, event: Any, history: StepHistory) -> None:
        if event.attempt == len(history.attempts) + 1:
            self._begin(event, history)
        if event.attempt != len(history.attempts) or history.attempts[-1].job_id != event.jobId:
            self._refuse(event, f"a job that is not that of its last attempt, {history}")
        attempt = history.attempts[-1]
        if attempt.status in FINAL:
            if not (history.waits and self._stops and event.status == attempt.status):
                self._refuse(event, f"the job has ended: {history}")
            history.end = event.status
            self._spread()
            return
        if event.status not in MOVES[attempt.status]:
            self._refuse(event, f"the job is {attempt.status}")
        attempt.status = event.status
        if event.status in FINAL:
            attempt.code, attempt.reason = event.exitCode, event.reason
            possible = self._possible(history.step, attempt, event.attempt)
            if (event.status, event.exitCode, event.reason) not in possible:
                self._refuse(event, f"possible was {possible}")
            if history.is_over():
                history.end = event.status
                self._spread()

    def _begin(self, event: Any, history: StepHistory) -> None:
        """An attempt that is new: was it its turn?"""
        if history.end or (history.last is not None and not history.waits):
            self._refuse(event, f"another attempt of {history}")
        if not self._requirement(history, self._ended()):
            self._refuse(event, f"it requires {history.step.requires}, and there is {self.ends()}")
        running = sum(h.last is not None and h.last.status not in FINAL for h in self.steps.values())
        if self.order.max_parallel and running >= self.order.max_parallel:
            self._refuse(event, f"{running} others run")
        given = {name: self.steps[name].last for name in history.step.required if self.steps[name].end}
        value = f"{self.order.token}.{event.jobName}.{event.attempt}"
        history.attempts.append(
            Attempt(value, event.jobId, {name: last for name, last in given.items() if last is not None})
        )

    def _cancel(self, event: Any, history: StepHistory) -> None:
        if history.told or history.last is not None:
            self._refuse(event, f"it has begun, or ended: {history}")
        if event.reason in self._stops:
            history.end = "CANCELED"
            self._spread()
        elif history.end != "CANCELED":
            self._refuse(event, f"it requires {history.step.requires}, and there is {self.ends()}")
        history.told = True

    def _possible(self, step: Step, attempt: Attempt, number: int) -> set[Ending]:
        """How an attempt may have ended, after all that has been done to it."""
        ends: set[Ending] = {("STOPPED", -1, f"workflow {self._id}: {reason}") for reason in self._stops}
        if not step.linger:
            code = step.code(number)
            ends.add(("FAILED" if code else "COMPLETED", code, f"exit code {code}"))
        if step.timeout_ms:
            ends.add(("STOPPED", -1, f"timeout after {duration(step.timeout_ms)}"))
        if attempt.job_id in self._victims:
            ends.add(("FAILED", -1, LOST))
        return ends

    def ends(self) -> dict[str, str]:
        return {name: history.end for name, history in self.steps.items()}

    def check_snapshot(self, answer: Any) -> None:
        """What was said of it when all events up to here had happened."""
        if answer.workflow.status != self.status:
            raise Violated(f"workflow {self._id} is {self.status} by its events up to {answer.sequence}: {answer}")
        for job in answer.jobs:
            history = self.steps[job.jobName]
            if job.status not in history.shown:
                raise Violated(f"step {job.jobName} of workflow {self._id} is shown so: {job}, and is: {history}")

    def check_final(self, answer: Any) -> None:
        """What is said of it in the end."""
        info = answer.workflow
        ends = list(self.ends().values())
        counts = [ends.count(end) for end in ("COMPLETED", "FAILED", "STOPPED", "CANCELED")]
        shown = [info.completedJobs, info.failedJobs, info.stoppedJobs, info.canceledJobs]
        if (info.status, info.totalJobs, shown) != (self.status, len(ends), counts):
            raise Violated(f"workflow {self._id} is {self.status} with {counts}: {info}")
        if [job.jobName for job in answer.jobs] != list(self.steps):
            raise Violated(f"workflow {self._id} has other steps: {answer.jobs}")
        for job, history in zip(answer.jobs, self.steps.values(), strict=True):
            last = history.last
            expected = (history.end, len(history.attempts), last.job_id if last else "0", last.code if last else 0)
            outputs = {"value": last.value} if last and last.ended_by_itself else None
            if (job.status, job.attempt, job.jobId, job.exitCode) != expected:
                raise Violated(f"step {job.jobName} of workflow {self._id} should be {expected}: {job}")
            if outputs is not None and dict(job.outputs) != outputs:
                raise Violated(f"step {job.jobName} of workflow {self._id} has other outputs: {job}")

    def _refuse(self, event: Any, why: str) -> None:
        raise Violated(f"workflow {self._id}: it is told {event}yet {why}. It is {self.order}")


@dataclass(frozen=True)
class Trace:
    """What an attempt has left."""

    begun: int
    """at which line"""
    job_id: str
    got: dict[str, str]
    ended: int | None


def read_traces(text: str) -> dict[tuple[str, str, int], Trace]:
    """By workflow, step and attempt. Raises Violated when one ran twice."""
    traces: dict[tuple[str, str, int], Trace] = {}
    for number, line in enumerate(text.splitlines()):
        kind, workflow, step, attempt, job_id, *rest = line.split(" ")
        key = workflow, step, int(attempt)
        known = traces.get(key)
        if kind == "begin":
            if known is not None:
                raise Violated(f"attempt {attempt} of {step} of workflow {workflow} ran twice: {known}, and {line}")
            traces[key] = Trace(number, job_id, dict(re.fullmatch(r"([^=]*)=(.*)", got).groups() for got in rest), None)
        elif known is None or known.ended is not None or known.job_id != job_id:
            raise Violated(f"an end without a beginning, or a second one: {known}, and {line}")
        else:
            traces[key] = Trace(known.begun, job_id, known.got, number)
    return traces


def check_traces(histories: dict[str, WorkflowHistory], traces: dict[tuple[str, str, int], Trace]) -> None:
    """What the steps themselves have left: nothing ran that nobody knows, all ran in order and got what they should."""
    left = dict(traces)
    for workflow_id, workflow in histories.items():
        for name, history in workflow.steps.items():
            for number, attempt in enumerate(history.attempts, 1):
                trace = left.pop((workflow_id, name, number), None)
                if trace is None:
                    if attempt.ended_by_itself:
                        raise Violated(f"step {name} of workflow {workflow_id} has ended and never ran: {attempt}")
                    continue
                where = f"step {name} of workflow {workflow_id}, {attempt}, {trace}"
                if trace.job_id != attempt.job_id or (attempt.ended_by_itself and trace.ended is None):
                    raise Violated(f"{where}: it ran otherwise")
                for required, given in attempt.given.items():
                    other = traces.get((workflow_id, required, _number_of(given)))
                    if given.ended_by_itself and (other is None or other.ended is None or other.ended > trace.begun):
                        raise Violated(f"{where}: it began before {required} had ended, {other}")
                for what, expected in _expected(workflow.order, history.step, attempt):
                    if trace.got.get(what) not in expected:
                        raise Violated(f"{where}: it should have got {what} from {expected}")
    if left:
        raise Violated(f"ran, and nobody knows it: {left}")


def _number_of(attempt: Attempt) -> int:
    return int(attempt.value.rpartition(".")[2])


def _expected(order: WorkflowOrder, step: Step, attempt: Attempt) -> Iterable[tuple[str, set[str]]]:
    yield "secret", {order.secret}
    yield "upload", {order.token if step.uploads else ""}
    for name in step.told:
        yield f"told:{name}", {attempt.given[name].value}
    strictly = {name for condition in step.requires if condition[0] == "is" for name in names_in(condition)}
    for name in strictly & attempt.given.keys():
        if attempt.given[name].status == "COMPLETED":
            yield f"variable:{name}", {attempt.given[name].value}
            yield f"file:{name}", {attempt.given[name].value}
