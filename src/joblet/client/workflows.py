"""What the server says of a workflow, its jobs, and what happens to them. Instants are in UTC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from joblet.proto import joblet as pb

ENDED_WORKFLOW = frozenset({"COMPLETED", "FAILED", "CANCELED", "STOPPED"})
NOT_STARTED = "0"
"""the id of a workflow's job that has not been started"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class WorkflowInfo:
    """A workflow as of one answer."""

    id: str
    workflow: str
    """the name of its file"""
    status: str
    """PENDING, RUNNING, COMPLETED, FAILED, CANCELED or STOPPED"""
    total_jobs: int
    completed_jobs: int
    failed_jobs: int
    canceled_jobs: int
    stopped_jobs: int
    created_at: datetime | None
    started_at: datetime | None
    """when its first job was"""
    completed_at: datetime | None
    """when it ended, however that was"""
    yaml_content: str = field(default="", repr=False)
    """its file, with the values of secrets masked; empty in lists"""
    reason: str = ""
    """why it is in its status, where there is more to say"""
    name: str = ""
    """the file's own name for it"""
    parameters: dict[str, str] = field(default_factory=dict)
    """values of secret ones are masked"""
    key: str = ""
    """the client's own name for the order"""
    owner: str = ""
    """the client that has ordered it, by the CN of its certificate"""

    @property
    def ended(self) -> bool:
        """Whether the status is final, until it is tried again."""
        return self.status in ENDED_WORKFLOW


@dataclass(frozen=True)
class WorkflowJob:
    """One job of a workflow as of one answer."""

    job_id: str
    """`0` while it has not been started"""
    job_name: str
    status: str
    """as a job's; PENDING before it is started, CANCELED when it will not be"""
    dependencies: tuple[str, ...]
    """names of the jobs that it depends on"""
    start_time: datetime | None
    end_time: datetime | None
    exit_code: int
    reason: str = ""
    attempt: int = 0
    """which one this is; 0 before the first"""
    max_attempts: int = 0
    condition: str = ""
    """what it requires, as an expression; empty for nothing"""
    outputs: dict[str, str] = field(default_factory=dict)
    """what it has written to $JOBLET_OUTPUT"""
    continue_on_failure: bool = False
    """its failure is none of the workflow's"""

    @property
    def started(self) -> bool:
        """Whether there is a job of the server's for it."""
        return self.job_id not in ("", NOT_STARTED)


@dataclass(frozen=True)
class WorkflowStatus:
    """A workflow and its jobs, in the file's order."""

    workflow: WorkflowInfo
    jobs: tuple[WorkflowJob, ...]
    sequence: int
    """of the last event that this reflects: what is later is in `events(after=sequence)`"""


class WorkflowList(list[WorkflowInfo]):
    """Workflows by id. `more`: there are older ones."""

    def __init__(self, workflows: Iterable[WorkflowInfo] = (), *, more: bool = False) -> None:
        super().__init__(workflows)
        self.more = more


@dataclass(frozen=True)
class Event:
    """A job or a workflow has come to a status."""

    sequence: int
    """ascending; numbers may be left out"""
    time: datetime | None
    workflow_id: str
    """empty: of an individual job"""
    job_name: str
    """empty: of the workflow itself, or of a job without a name"""
    job_id: str
    """empty: of the workflow itself, or of a job of it that was not started"""
    status: str
    exit_code: int
    reason: str
    attempt: int
    """of a workflow's job"""

    @property
    def of_workflow(self) -> bool:
        """Whether it is of the workflow itself."""
        return not self.job_name and not self.job_id


def workflow_of(message: pb.WorkflowInfo | None) -> WorkflowInfo:
    """Translate an answer; without one, of nothing."""
    message = message or pb.WorkflowInfo()
    return WorkflowInfo(
        id=message.id,
        workflow=message.workflow,
        status=message.status,
        total_jobs=message.total_jobs,
        completed_jobs=message.completed_jobs,
        failed_jobs=message.failed_jobs,
        canceled_jobs=message.canceled_jobs,
        stopped_jobs=message.stopped_jobs,
        created_at=_instant(message.created_at),
        started_at=_instant(message.started_at),
        completed_at=_instant(message.completed_at),
        yaml_content=message.yaml_content,
        reason=message.reason,
        name=message.name,
        parameters=dict(message.parameters),
        key=message.key,
        owner=message.owner,
    )


def status_of(message: pb.GetWorkflowStatusResponse) -> WorkflowStatus:
    """Translate an answer."""
    jobs = tuple(workflow_job_of(job) for job in message.jobs)
    return WorkflowStatus(workflow_of(message.workflow), jobs, message.sequence)


def workflow_job_of(message: pb.WorkflowJob) -> WorkflowJob:
    """Translate a part of an answer."""
    return WorkflowJob(
        job_id=message.job_id,
        job_name=message.job_name,
        status=message.status,
        dependencies=tuple(message.dependencies),
        start_time=_instant(message.start_time),
        end_time=_instant(message.end_time),
        exit_code=message.exit_code,
        reason=message.reason,
        attempt=message.attempt,
        max_attempts=message.max_attempts,
        condition=message.condition,
        outputs=dict(message.outputs),
        continue_on_failure=message.continue_on_failure,
    )


def event_of(message: pb.Event) -> Event:
    """Translate an event."""
    return Event(
        sequence=message.sequence,
        time=_instant(message.time),
        workflow_id=message.workflow_id,
        job_name=message.job_name,
        job_id=message.job_id,
        status=message.status,
        exit_code=message.exit_code,
        reason=message.reason,
        attempt=message.attempt,
    )


def _instant(message: pb.Timestamp | None) -> datetime | None:
    if message is None:
        return None
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
