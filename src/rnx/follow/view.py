"""What is known of a workflow that is being watched: a status, and then each event. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from joblet.client import Event, WorkflowJob, WorkflowStatus

WAITING = frozenset({"PENDING", "SCHEDULED"})
BUSY = frozenset({"INITIALIZING", "RUNNING"})
ENDED = frozenset({"COMPLETED", "FAILED", "STOPPED", "CANCELED"})


@dataclass(frozen=True)
class JobView:
    """One job of the workflow."""

    name: str
    status: str = "PENDING"
    job_id: str = ""
    """empty while it has not been started"""
    attempt: int = 0
    max_attempts: int = 0
    started: datetime | None = None
    ended: datetime | None = None
    reason: str = ""

    @classmethod
    def of(cls, job: WorkflowJob) -> Self:
        """As of an answer."""
        job_id = job.job_id if job.started else ""
        return cls(
            job.job_name,
            job.status,
            job_id,
            job.attempt,
            job.max_attempts,
            job.start_time if job.status not in WAITING else None,
            job.end_time if job.status in ENDED else None,
            job.reason,
        )

    def seconds(self, now: datetime) -> float | None:
        """How long its latest attempt has run, or ran; None for one that has not begun."""
        if self.started is None:
            return None
        return max(0.0, ((self.ended or now) - self.started).total_seconds())


def advance(job: JobView, event: Event) -> JobView:
    """The job after an event of it."""
    started, ended = job.started, None
    if event.job_id != job.job_id or event.status in WAITING:
        started = None
    if event.status in BUSY and started is None:
        started = event.time
    if event.status in ENDED:
        ended = event.time
    return replace(
        job,
        status=event.status,
        job_id=event.job_id,
        attempt=event.attempt or job.attempt,
        started=started,
        ended=ended,
        reason=event.reason,
    )


class View:
    """The mutable state is each job as of the latest event, how many have each status, and how the workflow stands."""

    def __init__(self, status: WorkflowStatus) -> None:
        info = status.workflow
        self.workflow_id = info.id
        self.title = info.workflow
        self.status = info.status
        self.reason = info.reason
        self.started = info.started_at
        self.ended = info.completed_at if info.ended else None
        self.sequence = status.sequence
        self.jobs = {job.job_name: JobView.of(job) for job in status.jobs}
        self.counts = Counter(job.status for job in self.jobs.values())

    @property
    def total(self) -> int:
        return len(self.jobs)

    def apply(self, event: Event) -> None:
        """Take an event in. One that the status reflected already, or that came before, changes nothing."""
        if event.sequence <= self.sequence or event.workflow_id != self.workflow_id:
            return
        self.sequence = event.sequence
        if event.of_workflow:
            self._apply_to_workflow(event)
            return
        job = self.jobs.get(event.job_name)
        if job is None:
            return
        self.counts[job.status] -= 1
        job = self.jobs[event.job_name] = advance(job, event)
        self.counts[job.status] += 1

    def _apply_to_workflow(self, event: Event) -> None:
        self.status, self.reason = event.status, event.reason
        if event.status == "RUNNING" and self.started is None:
            self.started = event.time
        self.ended = event.time if event.status in ENDED else None

    def count(self, statuses: frozenset[str]) -> int:
        """How many jobs have one of these."""
        return sum(self.counts[status] for status in statuses)

    def seconds(self, now: datetime) -> float | None:
        """How long the workflow has run, or ran."""
        return None if self.started is None else max(0.0, ((self.ended or now) - self.started).total_seconds())


def selected(view: View, room: int) -> list[JobView]:
    """The jobs to show in so many lines, in the file's order: all, or what matters most.

    What runs goes first, then what did not end well, then what ended last, then what comes next.
    """
    jobs = list(view.jobs.values())
    if len(jobs) <= room:
        return jobs
    ranked = sorted(range(len(jobs)), key=lambda place: _rank(jobs[place]))  # stable
    return [jobs[place] for place in sorted(ranked[: max(0, room)])]


def _rank(job: JobView) -> tuple[int, float]:
    if job.status in BUSY:
        return 0, 0.0
    if job.status in ("FAILED", "STOPPED"):
        return 1, 0.0
    if job.status == "COMPLETED":
        return 2, -job.ended.timestamp() if job.ended is not None else 0.0
    return 3, 0.0


def summary(view: View) -> str:
    """`2 running, 1 failed, 4 waiting, 900 completed`; what there is none of is left out."""
    parts = (
        (view.count(BUSY), "running"),
        (view.counts["FAILED"], "failed"),
        (view.counts["STOPPED"], "stopped"),
        (view.counts["CANCELED"], "canceled"),
        (view.count(WAITING), "waiting"),
        (view.counts["COMPLETED"], "completed"),
    )
    return ", ".join(f"{count} {what}" for count, what in parts if count)
