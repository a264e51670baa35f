"""Run and watch jobs on a joblet server from Python, on any platform.

Example::

    async with Client.from_env() as client:
        job = await client.run("python3", "train.py", max_memory=256)
        async for chunk in job.logs():
            sys.stdout.buffer.write(chunk)
        print((await job.status()).exit_code)
"""

from joblet.client.client import Client, Job
from joblet.client.config import ClientConfig
from joblet.client.errors import (
    CallError,
    Cancelled,
    CertificateRejected,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    JobletError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    SettingsError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from joblet.client.jobs import JobInfo, JobList, Receipt, StopResult

__all__ = [
    "CallError",
    "Cancelled",
    "CertificateRejected",
    "Client",
    "ClientConfig",
    "ConnectionFailed",
    "ConnectionLost",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "Job",
    "JobInfo",
    "JobList",
    "JobletError",
    "NotFound",
    "PermissionDenied",
    "Receipt",
    "ResourceExhausted",
    "SettingsError",
    "StopResult",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]
