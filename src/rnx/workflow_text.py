"""What rnx prints of workflows: the text of API.md, and JSON with its field names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from joblet.command_line import one_line
from rnx.render import lines

if TYPE_CHECKING:
    from joblet.client import Event, Workflow, WorkflowInfo, WorkflowJob, WorkflowList, WorkflowStatus

_RULE = "-" * 89 + "\n"
_ENDED = frozenset({"COMPLETED", "FAILED", "STOPPED"})
"""statuses that come with an exit code"""

WORKFLOW_FIELDS = {
    "id": "id",
    "workflow": "workflow",
    "status": "status",
    "totalJobs": "total_jobs",
    "completedJobs": "completed_jobs",
    "failedJobs": "failed_jobs",
    "canceledJobs": "canceled_jobs",
    "createdAt": "created_at",
    "startedAt": "started_at",
    "completedAt": "completed_at",
    "reason": "reason",
    "stoppedJobs": "stopped_jobs",
    "name": "name",
    "parameters": "parameters",
    "key": "key",
    "owner": "owner",
}
"""WorkflowInfo: the field's name, and its name in the client's"""

JOB_FIELDS = {
    "jobId": "job_id",
    "jobName": "job_name",
    "status": "status",
    "dependencies": "dependencies",
    "startTime": "start_time",
    "endTime": "end_time",
    "exitCode": "exit_code",
    "reason": "reason",
    "attempt": "attempt",
    "maxAttempts": "max_attempts",
    "condition": "condition",
    "outputs": "outputs",
    "continueOnFailure": "continue_on_failure",
}
"""WorkflowJob"""

EVENT_FIELDS = {
    "sequence": "sequence",
    "time": "time",
    "workflowId": "workflow_id",
    "jobName": "job_name",
    "jobId": "job_id",
    "status": "status",
    "exitCode": "exit_code",
    "reason": "reason",
    "attempt": "attempt",
}
"""Event"""


def started(workflow: Workflow) -> str:
    """What `rnx run --workflow` prints."""
    info = workflow.info
    return "Workflow started:\n" + lines(
        ("ID", info.id), ("Workflow", info.workflow), ("Status", info.status), ("Jobs", info.total_jobs)
    )


def status(status: WorkflowStatus, *, verbose: bool = False) -> str:
    """What `rnx status --workflow` prints; `verbose` adds what the table has no room for."""
    info = status.workflow
    text = lines(
        ("Workflow ID", info.id),
        ("Workflow", info.workflow),
        ("Status", info.status),
        ("Progress", f"{progress(info)} jobs completed"),
    )
    text += "\nJobs in Workflow:\nJOB ID JOB NAME STATUS EXIT CODE DEPENDENCIES\n" + _RULE
    text += "".join(_row(job) for job in status.jobs)
    return text + _details(status) if verbose else text


def _row(job: WorkflowJob) -> str:
    exit_code = str(job.exit_code) if job.status in _ENDED else "-"
    return one_line(f"{job.job_id} {job.job_name} {job.status} {exit_code} {', '.join(job.dependencies) or '-'}") + "\n"


def _details(status: WorkflowStatus) -> str:
    info = status.workflow
    text = "\nDetails:\n" + _known(
        ("Name", info.name),
        ("Key", info.key),
        ("Owner", info.owner),
        ("Created At", instant(info.created_at)),
        ("Started At", instant(info.started_at)),
        ("Ended At", instant(info.completed_at)),
        ("Reason", info.reason),
        *((f"Parameter {name}", value) for name, value in info.parameters.items()),
    )
    for job in status.jobs:
        text += f"\n{one_line(job.job_name)}:\n" + _known(
            ("Requires", job.condition),
            ("Attempt", f"{job.attempt}/{job.max_attempts}" if job.attempt else ""),
            ("Started At", instant(job.start_time)),
            ("Ended At", instant(job.end_time)),
            ("Reason", job.reason),
            ("Continue On Failure", "yes" if job.continue_on_failure else ""),
            *((f"Output {name}", value) for name, value in job.outputs.items()),
        )
    return text


def _known(*fields: tuple[str, str]) -> str:
    return lines(*(field for field in fields if field[1]))


def progress(info: WorkflowInfo) -> str:
    """`2/4`: completed of all."""
    return f"{info.completed_jobs}/{info.total_jobs}"


def state(done: str, info: WorkflowInfo) -> str:
    """What `rnx workflow stop` and `retry` print."""
    return f"Workflow {done}:\n" + lines(
        ("ID", info.id), ("Workflow", info.workflow), ("Status", info.status), ("Progress", f"{progress(info)} jobs")
    )


def deleted(workflow_id: str) -> str:
    """What `rnx workflow delete` prints of each."""
    return "Workflow deleted successfully:\n" + lines(("ID", workflow_id))


def listed(workflows: Iterable[WorkflowInfo]) -> str:
    """What `rnx list --workflow` prints."""
    table = Table()
    return table.piece(workflows) + table.end()


def more(workflows: WorkflowList) -> str:
    """What `rnx list --workflow` says on stderr when there are older ones than those it has listed."""
    return (
        f"{len(workflows)} newest workflows listed; for older ones: rnx list --workflow --before={workflows[0].id};"
        " for all: rnx list --workflow --all\n"
    )


class Table:
    """`listed`, in pieces. The mutable state is what is still to stand above them."""

    def __init__(self) -> None:
        self._head = "ID NAME STATUS PROGRESS\n" + _RULE

    def piece(self, workflows: Iterable[WorkflowInfo]) -> str:
        head, self._head = self._head, ""
        return head + "".join(
            one_line(f"{workflow.id} {workflow.workflow} {workflow.status} {progress(workflow)}") + "\n"
            for workflow in workflows
        )

    def end(self) -> str:
        return ""


def status_json(status: WorkflowStatus) -> str:
    """One object with the fields of GetWorkflowStatusResponse."""
    workflow = workflow_object(status.workflow) | {"yamlContent": status.workflow.yaml_content}
    jobs = [job_object(job) for job in status.jobs]
    return json.dumps({"workflow": workflow, "jobs": jobs, "sequence": status.sequence}, indent=2) + "\n"


def workflow_object(info: WorkflowInfo) -> dict[str, Any]:
    """The fields of WorkflowInfo, but the file, which lists do not have."""
    return _object(info, WORKFLOW_FIELDS)


def job_object(job: WorkflowJob) -> dict[str, Any]:
    """The fields of WorkflowJob."""
    return _object(job, JOB_FIELDS)


def event_json(event: Event) -> str:
    """One line: an object with the fields of Event."""
    return json.dumps(_object(event, EVENT_FIELDS)) + "\n"


def event_line(event: Event) -> str:
    """One line for people: `2024-01-15T10:30:00Z train FAILED (job 7, attempt 2): exit code 1`."""
    who = event.job_name or (f"job {event.job_id}" if event.job_id else f"workflow {event.workflow_id}")
    known = [
        f"job {event.job_id}" if event.job_id and event.job_name else "",
        f"attempt {event.attempt}" if event.attempt > 1 else "",
    ]
    details = ", ".join(part for part in known if part)
    line = f"{instant(event.time)} {who} {event.status}" + (f" ({details})" if details else "")
    return one_line(line + (f": {event.reason}" if event.reason else "")) + "\n"


def instant(time: datetime | None) -> str:
    """`2024-01-15T10:30:00Z`, or nothing for what is not yet known."""
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _object(thing: object, names: dict[str, str]) -> dict[str, Any]:
    values = {name: getattr(thing, attribute) for name, attribute in names.items()}
    return {name: _precise(value) if isinstance(value, datetime) else value for name, value in values.items()}


def _precise(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
