"""Who may do what: the role in the client's certificate and the operations of each role (API.md)."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joblet.errors import PermissionDenied, Unauthenticated

_READ = frozenset(
    {
        *("get_job", "list_jobs", "get_job_logs", "watch_usage"),
        *("get_system_status", "stream_system_metrics"),
        *("get_workflow", "list_workflows", "watch_events"),
        *("health", "reflection"),
    }
)
_WRITE = frozenset(
    {
        *("run_job", "stop_job", "set_job_timeout", "delete_job", "delete_all_jobs"),
        *("pause_job", "resume_job", "send_job_input", "exec_in_job", "upload_files", "read_files"),
        *("run_workflow", "stop_workflow", "retry_workflow", "delete_workflow"),
    }
)

ROLES: Mapping[str, frozenset[str]] = {"admin": _READ | _WRITE, "viewer": _READ}
"""The operations of each role. What is not here is denied."""

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
    """`admin`, `viewer` or `unknown`"""


caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("caller")
"""The client of the call that the current task handles."""


def identify(certificate: Mapping[str, Any] | None) -> Caller:
    """The client that a verified certificate (`ssl.SSLSocket.getpeercert`) names.

    Its role is the one OU, `admin` or `viewer` in any case; another, none or several OUs give the role `unknown`, which
    may do nothing. Raises Unauthenticated without a certificate.
    """
    if not certificate:
        raise Unauthenticated
    names: dict[str, list[str]] = {}
    for attributes in certificate.get("subject", ()):
        for key, value in attributes:
            names.setdefault(key, []).append(value)
    units = [unit.lower() for unit in names.get("organizationalUnitName", ())]
    role = units[0] if len(units) == 1 and units[0] in ROLES else "unknown"
    return Caller(names.get("commonName", [""])[0], role)


def authorise(who: Caller, method: str) -> None:
    """Raise PermissionDenied unless the client's role may call `method` (`/package.Service/Method`)."""
    operation = OPERATIONS.get(method, "unknown")
    if operation not in ROLES.get(who.role, frozenset()):
        raise PermissionDenied(who.role, operation)
