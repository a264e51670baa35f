"""Workflows, their jobs and events as clients see them, in their wire form.

There may be much of them: google's protobuf library takes a twentieth of the time that betterproto2 takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from joblet.server.descriptors import Descriptors
from joblet.server.page import entry
from joblet.server.rpc import Encoded
from joblet.workflow.record import Event, Status, StepStatus, Workflow

_STATUS_JOBS = 2
_JOBS_JOBS = 1
"""numbers of the field `jobs` in GetWorkflowStatusResponse and GetWorkflowJobsResponse"""


class Views:
    """A large answer takes a while: `status` and `jobs` are for a thread of their own."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._status: Any = descriptors.message("GetWorkflowStatusResponse")
        self._info: Any = descriptors.message("WorkflowInfo")
        self._job: Any = descriptors.message("WorkflowJob")
        self._event: Any = descriptors.message("Event")

    def info(self, workflow: Workflow) -> Encoded:
        """A WorkflowInfo."""
        return Encoded(self._info(**_info(workflow)).SerializeToString())

    def status(self, status: Status) -> Encoded:
        """A GetWorkflowStatusResponse."""
        head = self._status(workflow=_info(status.workflow), sequence=status.sequence)
        return Encoded(b"".join([head.SerializeToString(), *self._entries(_STATUS_JOBS, status)]))

    def jobs(self, status: Status) -> Encoded:
        """A GetWorkflowJobsResponse."""
        return Encoded(b"".join(self._entries(_JOBS_JOBS, status)))

    def event(self, event: Event) -> Encoded:
        """An Event."""
        message = self._event(
            sequence=event.sequence,
            time=_time(event.at),
            workflowId=str(event.workflow_id or ""),
            jobName=event.name,
            jobId=str(event.job_id or ""),
            status=event.status,
            exitCode=event.exit_code,
            reason=event.reason,
            attempt=event.attempt,
        )
        return Encoded(message.SerializeToString())

    def _entries(self, field: int, status: Status) -> Iterator[bytes]:
        # One by one: a workflow's jobs may name each other a hundred thousand times.
        return (entry(field, self._job(**_job(step)).SerializeToString()) for step in status.steps)


def _info(workflow: Workflow) -> dict[str, Any]:
    """The fields of a WorkflowInfo."""
    return {
        "id": str(workflow.id),
        "workflow": workflow.file,
        "status": workflow.state,
        "totalJobs": workflow.total,
        "completedJobs": workflow.completed,
        "failedJobs": workflow.failed,
        "canceledJobs": workflow.canceled,
        "stoppedJobs": workflow.stopped,
        "createdAt": _time(workflow.created_at),
        "startedAt": _time(workflow.started_at),
        "completedAt": _time(workflow.ended_at),
        "yamlContent": workflow.yaml,
        "reason": workflow.reason,
        "name": workflow.name,
        "parameters": workflow.parameters,
        "key": workflow.key,
        "owner": workflow.owner,
    }


def _job(step: StepStatus) -> dict[str, Any]:
    """A step as its own record has it, or as the job of its attempt that is under way: the fields of a WorkflowJob."""
    record, job = step.record, step.job
    shown = {
        "jobName": record.name,
        "dependencies": step.dependencies,
        "maxAttempts": step.max_attempts,
        "condition": step.condition,
        "continueOnFailure": step.continue_on_failure,
    }
    if job is not None:
        assert job.part is not None
        shown |= {"jobId": str(job.id), "status": job.state, "attempt": job.part.attempt}
    else:
        shown |= {"jobId": str(record.job_id or 0), "status": record.end or "PENDING", "attempt": record.attempts}
    last = job or record
    return shown | {
        "startTime": _time(last.started_at),
        "endTime": _time(last.ended_at),
        "exitCode": last.exit_code,
        "reason": last.reason,
        "outputs": dict(last.outputs),
    }


def _time(instant_ns: int | None) -> dict[str, int] | None:
    """The fields of a Timestamp."""
    if instant_ns is None:
        return None
    seconds, nanos = divmod(instant_ns, 1_000_000_000)
    return {"seconds": seconds, "nanos": nanos}
