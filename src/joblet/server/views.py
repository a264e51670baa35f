"""Workflows, their jobs and events as clients see them.

What there is much of is encoded by google's protobuf library: betterproto2 takes twenty times as long.
"""

from __future__ import annotations

from typing import Any

from joblet.proto import joblet as pb
from joblet.server.descriptors import Descriptors
from joblet.server.rpc import Encoded
from joblet.workflow.record import Event, Status, StepStatus, Workflow


def info(workflow: Workflow) -> pb.WorkflowInfo:
    """A workflow without its jobs."""
    return pb.WorkflowInfo(
        id=str(workflow.id),
        workflow=workflow.file,
        status=workflow.state,
        total_jobs=workflow.total,
        completed_jobs=workflow.completed,
        failed_jobs=workflow.failed,
        canceled_jobs=workflow.canceled,
        stopped_jobs=workflow.stopped,
        created_at=_time(workflow.created_at),
        started_at=_time(workflow.started_at),
        completed_at=_time(workflow.ended_at),
        yaml_content=workflow.yaml,
        reason=workflow.reason,
        name=workflow.name,
        parameters=dict(workflow.parameters),
        key=workflow.key,
    )


class Views:
    """Answers in their wire form. A large one takes a while: `status` and `jobs` are for a thread of their own."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._status: Any = descriptors.message("GetWorkflowStatusResponse")
        self._jobs: Any = descriptors.message("GetWorkflowJobsResponse")
        self._event: Any = descriptors.message("Event")

    def status(self, status: Status) -> Encoded:
        """A GetWorkflowStatusResponse."""
        answer = self._status(sequence=status.sequence)
        answer.workflow.ParseFromString(bytes(info(status.workflow)))
        for step in status.steps:
            answer.jobs.add(**_job(step))
        return Encoded(answer.SerializeToString())

    def jobs(self, status: Status) -> Encoded:
        """A GetWorkflowJobsResponse."""
        answer = self._jobs()
        for step in status.steps:
            answer.jobs.add(**_job(step))
        return Encoded(answer.SerializeToString())

    def event(self, event: Event) -> Encoded:
        """An Event."""
        message = self._event(
            sequence=event.sequence,
            time=_pair(event.at),
            workflowId=str(event.workflow_id or ""),
            jobName=event.name,
            jobId=str(event.job_id or ""),
            status=event.status,
            exitCode=event.exit_code,
            reason=event.reason,
            attempt=event.attempt,
        )
        return Encoded(message.SerializeToString())


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
        "startTime": _pair(last.started_at),
        "endTime": _pair(last.ended_at),
        "exitCode": last.exit_code,
        "reason": last.reason,
        "outputs": dict(last.outputs),
    }


def _pair(instant_ns: int | None) -> dict[str, int] | None:
    """The fields of a Timestamp."""
    if instant_ns is None:
        return None
    seconds, nanos = divmod(instant_ns, 1_000_000_000)
    return {"seconds": seconds, "nanos": nanos}


def _time(instant_ns: int | None) -> pb.Timestamp | None:
    pair = _pair(instant_ns)
    return None if pair is None else pb.Timestamp(**pair)
