"""Every error a request can end in, with its gRPC code and its sentence (API.md, "Error Handling")."""

from __future__ import annotations

from grpclib.const import Status


class JobletError(Exception):
    """Base of all errors that reach a client. `str(error)` is the sentence the client sees."""

    status = Status.INTERNAL


class Unauthenticated(JobletError):
    """The connection carries no client certificate."""

    status = Status.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("failed to extract client role: no TLS information found")


class PermissionDenied(JobletError):
    """The role in the certificate may not perform the operation."""

    status = Status.PERMISSION_DENIED

    def __init__(self, role: str, operation: str) -> None:
        super().__init__(f"role {role} is not allowed to perform operation {operation}")


class InvalidArgument(JobletError):
    """A field of the request is malformed or out of bounds."""

    status = Status.INVALID_ARGUMENT


class JobNotFound(JobletError):
    """No job has this id."""

    status = Status.NOT_FOUND

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job not found: {job_id}")


class JobNotRunning(JobletError):
    """The job has ended, so it cannot be stopped."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, job_id: int, state: str) -> None:
        super().__init__(f"job is not running: {job_id} (current status: {state})")


class QueueFull(JobletError):
    """All slots are taken and the queue of waiting jobs is full."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(self, running: int, waiting: int) -> None:
        super().__init__(f"job creation failed: {running} jobs are running and the queue of {waiting} is full")


class HostUnable(JobletError):
    """The host does not offer what isolation or limits need."""


class StoreFailed(JobletError):
    """The state could not be written or read; nothing was acknowledged."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"job store failed: {detail}")


class ShuttingDown(JobletError):
    """The server is ending its connections; jobs go on."""

    status = Status.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("server is shutting down")


class TooLarge(JobletError):
    """A message is over the configured size."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(self, what: str, size: int, most: int, key: str) -> None:
        super().__init__(f"{what} message larger than max ({size} vs. {most} bytes, grpc.{key})")
