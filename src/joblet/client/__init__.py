"""Run and watch jobs on a joblet server from Python, on any platform.

Example::

    async with Client.from_env() as client:
        job = await client.run("python3", "train.py", max_memory=256)
        async for chunk in job.logs():
            sys.stdout.buffer.write(chunk)
        print((await job.wait()).exit_code)

        workflow = await client.run_workflow("pipeline.yaml", parameters={"epochs": "10"})
        print((await workflow.wait()).workflow.status)
"""

from joblet.client._download import Downloaded
from joblet.client._exec_calls import ExecChunk, ExecOutput, ExecSession
from joblet.client._file_calls import FileEntry
from joblet.client._log_calls import LogChunk
from joblet.client._validity import Validity
from joblet.client._workflow_calls import Workflow
from joblet.client.client import Client, Job
from joblet.client.config import ClientConfig
from joblet.client.errors import (
    Aborted,
    AlreadyExists,
    CallError,
    Cancelled,
    CertificateRejected,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    InvalidWorkflow,
    JobletError,
    NotFound,
    OutOfRange,
    OutputTooLong,
    PermissionDenied,
    ResourceExhausted,
    SettingsError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from joblet.client.jobs import JobInfo, JobList, Receipt, Schedule, StopResult, Terminal
from joblet.client.session import Session
from joblet.client.system import (
    CpuMetrics,
    DiskMetrics,
    HostStatus,
    JobMetrics,
    MemoryMetrics,
    NetworkMetrics,
    ProcessMetrics,
    ServerStatus,
    StoreMetrics,
    StreamMetrics,
    SystemMetrics,
    SystemStatus,
)
from joblet.client.usage import JobUsage, Rates, UsageSample
from joblet.client.workflow_file import WorkflowFile
from joblet.client.workflows import Event, WorkflowInfo, WorkflowJob, WorkflowList, WorkflowStatus

__all__ = [
    "Aborted",
    "AlreadyExists",
    "CallError",
    "Cancelled",
    "CertificateRejected",
    "Client",
    "ClientConfig",
    "ConnectionFailed",
    "ConnectionLost",
    "CpuMetrics",
    "DeadlineExceeded",
    "DiskMetrics",
    "Downloaded",
    "Event",
    "ExecChunk",
    "ExecOutput",
    "ExecSession",
    "FailedPrecondition",
    "FileEntry",
    "HostStatus",
    "Internal",
    "InvalidArgument",
    "InvalidWorkflow",
    "Job",
    "JobInfo",
    "JobList",
    "JobMetrics",
    "JobUsage",
    "JobletError",
    "LogChunk",
    "MemoryMetrics",
    "NetworkMetrics",
    "NotFound",
    "OutOfRange",
    "OutputTooLong",
    "PermissionDenied",
    "ProcessMetrics",
    "Rates",
    "Receipt",
    "ResourceExhausted",
    "Schedule",
    "ServerStatus",
    "Session",
    "SettingsError",
    "StopResult",
    "StoreMetrics",
    "StreamMetrics",
    "SystemMetrics",
    "SystemStatus",
    "Terminal",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UsageSample",
    "Validity",
    "Workflow",
    "WorkflowFile",
    "WorkflowInfo",
    "WorkflowJob",
    "WorkflowList",
    "WorkflowStatus",
]
