"""Who calls, by the client's certificate, and the operation that each rpc is (API.md)."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joblet.access import ROLES, UNKNOWN, Role, is_client_name
from joblet.errors import PermissionDenied, Unauthenticated

OPERATIONS: Mapping[str, str] = {
    "/joblet.JobletService/RunJob": "run_job",
    "/joblet.JobletService/GetJobStatus": "get_job",
    "/joblet.JobletService/StopJob": "stop_job",
    "/joblet.JobletService/SetJobTimeout": "set_job_timeout",
    "/joblet.JobletService/PauseJob": "pause_job",
    "/joblet.JobletService/ResumeJob": "resume_job",
    "/joblet.JobletService/ListJobs": "list_jobs",
    "/joblet.JobletService/GetJobLogs": "get_job_logs",
    "/joblet.JobService/RunWorkflow": "run_workflow",
    "/joblet.JobService/GetWorkflowStatus": "get_workflow",
    "/joblet.JobService/ListWorkflows": "list_workflows",
    "/joblet.JobService/GetWorkflowJobs": "get_workflow",
    "/joblet.JobService/StopWorkflow": "stop_workflow",
    "/joblet.JobService/RetryWorkflow": "retry_workflow",
    "/joblet.JobService/DeleteWorkflow": "delete_workflow",
    "/joblet.JobService/WatchEvents": "watch_events",
    "/joblet.JobService/DeleteJob": "delete_job",
    "/joblet.JobService/DeleteAllJobs": "delete_all_jobs",
    "/joblet.SessionService/SendJobInput": "send_job_input",
    "/joblet.SessionService/ExecInJob": "exec_in_job",
    "/joblet.FileService/UploadFiles": "upload_files",
    "/joblet.FileService/GetUpload": "upload_files",
    "/joblet.FileService/ReadFiles": "read_files",
    "/joblet.MonitoringService/StreamJobUsage": "watch_usage",
    "/joblet.MonitoringService/GetSystemStatus": "get_system_status",
    "/joblet.MonitoringService/StreamSystemMetrics": "stream_system_metrics",
    "/grpc.health.v1.Health/Check": "health",
    "/grpc.health.v1.Health/Watch": "health",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": "reflection",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": "reflection",
}
"""The operation that each rpc is."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a call, by its verified certificate."""

    name: str
    """CN"""
    role: str
    """one of those that there are here, or `unknown`"""
    own: bool = False
    """for it there is nothing but what a client of its name has ordered"""
    serial: str = ""
    """of the certificate, in hexadecimal digits"""

    @property
    def sees(self) -> str | None:
        """The name of the client whose jobs and workflows there are for it; None for everybody's."""
        return self.name if self.own else None


caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")
"""The client of the call that the current task handles."""


def identify(certificate: Mapping[str, Any] | None, roles: Mapping[str, Role] = ROLES) -> Caller:
    """The client that a verified certificate (`ssl.SSLSocket.getpeercert`) names.

    Its role is the one OU, one of `roles` in any case of ASCII letters; another, none or several OUs give the role
    `unknown`, which may do nothing. So does a role for which it matters who the client is when the certificate does not
    have exactly one CN that can be a client's name. Raises Unauthenticated without a certificate.
    """
    if not certificate:
        raise Unauthenticated
    names: dict[str, list[str]] = {}
    for attributes in certificate.get("subject", ()):
        for key, value in attributes:
            names.setdefault(key, []).append(value)
    called = names.get("commonName", [])
    name = called[0] if called else ""
    serial = certificate.get("serialNumber", "")
    units = names.get("organizationalUnitName", ())
    # Some letters beyond ASCII have lower forms within it.
    word = units[0].lower() if len(units) == 1 and units[0].isascii() else UNKNOWN
    role = roles.get(word)
    if role is None or (role.by_name and not (len(called) == 1 and is_client_name(name))):
        return Caller(name, UNKNOWN, serial=serial)
    return Caller(name, word, role.own, serial)


def authorise(who: Caller, method: str, roles: Mapping[str, Role] = ROLES) -> None:
    """Raise PermissionDenied unless the client's role may call `method` (`/package.Service/Method`)."""
    operation = OPERATIONS.get(method, UNKNOWN)
    role = roles.get(who.role)
    if role is None or operation not in role.operations:
        raise PermissionDenied(who.role, operation)
