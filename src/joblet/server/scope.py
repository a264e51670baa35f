"""For whom there is which job and workflow: looked at once for every call, before its handler sees the request.

Whose a job is never changes, and no id is used twice: what was found at the beginning of a call holds to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grpclib.server import Stream

from joblet.access import UNKNOWN
from joblet.errors import JobNotFound, PermissionDenied, WorkflowNotFound
from joblet.ids import parse_id, parse_workflow_id
from joblet.server.auth import OPERATIONS, Caller
from joblet.server.reports import Reports
from joblet.store import Store, Workflows

_MOST_REFUSALS = 20
"""lines in a while on calls that name what is another's"""


@dataclass(frozen=True, slots=True)
class Names:
    """Which fields of a request name jobs or workflows, as betterproto2 calls them; the first of several requests."""

    job: str = ""
    """one id, or several"""
    workflow: str = ""


_NOTHING = Names()
"""it makes something, or tells of all that there is for the client: Caller.sees"""
_JOB = Names(job="id")
_WORKFLOW = Names(workflow="workflow_id")

NAMES: Mapping[str, Names | None] = {
    "/joblet.JobletService/RunJob": _NOTHING,
    "/joblet.JobletService/GetJobStatus": _JOB,
    "/joblet.JobletService/StopJob": _JOB,
    "/joblet.JobletService/SetJobTimeout": _JOB,
    "/joblet.JobletService/PauseJob": _JOB,
    "/joblet.JobletService/ResumeJob": _JOB,
    "/joblet.JobletService/ListJobs": _NOTHING,
    "/joblet.JobletService/GetJobLogs": _JOB,
    "/joblet.JobService/RunWorkflow": _NOTHING,
    "/joblet.JobService/GetWorkflowStatus": _WORKFLOW,
    "/joblet.JobService/ListWorkflows": _NOTHING,
    "/joblet.JobService/GetWorkflowJobs": _WORKFLOW,
    "/joblet.JobService/StopWorkflow": _WORKFLOW,
    "/joblet.JobService/RetryWorkflow": _WORKFLOW,
    "/joblet.JobService/DeleteWorkflow": _WORKFLOW,
    "/joblet.JobService/WatchEvents": Names(job="job_id", workflow="workflow_id"),
    "/joblet.JobService/DeleteJob": _JOB,
    "/joblet.JobService/DeleteAllJobs": _NOTHING,
    "/joblet.SessionService/SendJobInput": _JOB,
    "/joblet.SessionService/ExecInJob": _JOB,
    "/joblet.FileService/UploadFiles": _NOTHING,  # an upload is of its client's name
    "/joblet.FileService/GetUpload": _NOTHING,
    "/joblet.FileService/ReadFiles": Names(job="id", workflow="workflow_id"),
    "/joblet.MonitoringService/StreamJobUsage": Names(job="ids"),
    "/joblet.MonitoringService/GetSystemStatus": None,
    "/joblet.MonitoringService/StreamSystemMetrics": None,
    "/grpc.health.v1.Health/Check": _NOTHING,
    "/grpc.health.v1.Health/Watch": _NOTHING,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _NOTHING,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _NOTHING,
}
"""What each rpc names. None: it tells of the whole, and is refused to clients for whom there is not everything.

So is one that is not here.
"""


class Scope:
    """Keeps clients from what is not theirs, where their role says so."""

    def __init__(self, store: Store, workflows: Workflows) -> None:
        self._store = store
        self._workflows = workflows
        self._reports = Reports(_MOST_REFUSALS)

    def bound(self, stream: Stream[Any, Any], who: Caller, method: str) -> None:
        """Have a call end with the error of `check` as soon as its first message has come."""
        if not who.own:
            return
        receive = stream.recv_message
        first = True

        async def recv_message() -> Any:
            nonlocal first
            message = await receive()
            if first and message is not None:
                await self.check(who, method, message)
                first = False
            return message

        stream.recv_message = recv_message  # type: ignore[method-assign]

    async def check(self, who: Caller, method: str, message: Any) -> None:
        """Raise JobNotFound or WorkflowNotFound, as for one that is not, for what is not there for the client."""
        names = NAMES.get(method)
        if names is None:
            raise PermissionDenied(who.role, OPERATIONS.get(method, UNKNOWN))
        for job_id in _ids(message, names.job):
            owner = await self._store.owner(parse_id(job_id))
            if owner != who.name:
                self._tell(who, method, owner, jobId=job_id)
                raise JobNotFound(job_id)
        for workflow_id in _ids(message, names.workflow):
            owner = await self._workflows.owner(parse_workflow_id(workflow_id))
            if owner != who.name:
                self._tell(who, method, owner, workflowId=workflow_id)
                raise WorkflowNotFound(workflow_id)

    def _tell(self, who: Caller, method: str, owner: str | None, **what: str) -> None:
        """The operator is told what the client is not."""
        if owner is not None:
            self._reports.tell("call refused", method=method, client=who.name, role=who.role, owner=owner, **what)


def _ids(message: Any, field: str) -> list[str]:
    """Those that a request gives; what its handler makes of none is its own."""
    value = getattr(message, field) if field else []
    return [value] if isinstance(value, str) and value else list(value)
