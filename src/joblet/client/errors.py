"""Every error the client raises. `str(error)` is one sentence, fit to be shown to a user."""

from __future__ import annotations

from collections.abc import Iterable

from grpclib.const import Status


class JobletError(Exception):
    """Base of all errors of this library."""

    code = Status.UNKNOWN
    """the gRPC code: the server's own, or the one that fits what happened on this side"""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SettingsError(JobletError):
    """A setting, or a file that it names, cannot be used."""

    code = Status.INVALID_ARGUMENT


class ConnectionFailed(JobletError):
    """The server cannot be reached, or does not speak the protocol."""

    code = Status.UNAVAILABLE


class OutputTooLong(JobletError):
    """A command has written more than was to be kept of it."""

    code = Status.RESOURCE_EXHAUSTED


class CertificateRejected(ConnectionFailed):
    """One side does not accept the certificate of the other."""

    code = Status.UNAUTHENTICATED


class ConnectionLost(ConnectionFailed):
    """The connection broke during a call. Whether the server acted on the call is not known."""


class CallError(JobletError):
    """The server answered with an error; subclasses name the common codes, `code` tells all."""

    def __init__(self, message: str, code: Status | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Unauthenticated(CallError):
    """Invalid or missing client certificate."""

    code = Status.UNAUTHENTICATED


class PermissionDenied(CallError):
    """The role in the client's certificate does not allow the operation."""

    code = Status.PERMISSION_DENIED


class NotFound(CallError):
    """No such job or workflow."""

    code = Status.NOT_FOUND


class InvalidArgument(CallError):
    """The request is not valid."""

    code = Status.INVALID_ARGUMENT


class AlreadyExists(CallError):
    """The key belongs to another order."""

    code = Status.ALREADY_EXISTS


class Aborted(CallError):
    """Another call got in the way; tried again, it may do."""

    code = Status.ABORTED


class OutOfRange(CallError):
    """The events asked for are not kept any more."""

    code = Status.OUT_OF_RANGE


class FailedPrecondition(CallError):
    """The job or workflow is not in a state that allows the operation."""

    code = Status.FAILED_PRECONDITION


class ResourceExhausted(CallError):
    """A queue is full or a message too large."""

    code = Status.RESOURCE_EXHAUSTED


class Internal(CallError):
    """The server failed."""

    code = Status.INTERNAL


class Cancelled(CallError):
    """The call was cancelled."""

    code = Status.CANCELLED


class Unavailable(CallError):
    """The server cannot serve at present."""

    code = Status.UNAVAILABLE


class DeadlineExceeded(CallError):
    """No answer within the time allowed. Whether the server acted on the call is not known."""

    code = Status.DEADLINE_EXCEEDED


class Unimplemented(CallError):
    """The server does not know the operation."""

    code = Status.UNIMPLEMENTED


class InvalidWorkflow(InvalidArgument):
    """A workflow's file is wrong in one or more places; the message has a line for each."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        """`FILE:LINE: job "NAME": KEY: what is wrong`, each"""
        super().__init__("\n".join(self.faults))


_BY_CODE = {error.code: error for error in CallError.__subclasses__()}


def from_status(code: Status, message: str | None) -> CallError:
    """The error for what the server answered."""
    text = message or f"the server answered {code.name} and gave no reason"
    return _BY_CODE.get(code, CallError)(text, code)
