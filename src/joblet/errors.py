"""Every error a request can end in, with its gRPC code and its sentence (API.md, "Error Handling")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grpclib.const import Status


class JobletError(Exception):
    """Base of all errors that reach a client. `str(error)` is the sentence the client sees."""

    status = Status.INTERNAL


class Unauthenticated(JobletError):
    """The connection carries no client certificate."""

    status = Status.UNAUTHENTICATED

    def __init__(self) -> None:
        super().__init__("failed to extract client role: no TLS information found")


class CertificateRefused(JobletError):
    """The client's certificate has been revoked or has expired since, or its authority is not trusted any more."""

    status = Status.UNAUTHENTICATED

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"client certificate of {name!r} {why}")


class PermissionDenied(JobletError):
    """The role in the certificate may not perform the operation."""

    status = Status.PERMISSION_DENIED

    def __init__(self, role: str, operation: str) -> None:
        super().__init__(f"role {role} is not allowed to perform operation {operation}")


class InvalidArgument(JobletError):
    """A field of the request is malformed or out of bounds."""

    status = Status.INVALID_ARGUMENT


class InvalidWorkflow(InvalidArgument):
    """A workflow file is wrong in one or more places; the message has one line for each."""

    MOST = 20
    """lines; what a client is told travels in a header, which must not be long"""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        """`FILE:LINE: job "NAME": KEY: what is wrong`, each"""
        shown = [fault if len(fault) <= 300 else fault[:300] + "..." for fault in self.faults[: self.MOST]]
        if len(self.faults) > self.MOST:
            shown.append(f"and {len(self.faults) - self.MOST} more faults")
        super().__init__("invalid workflow: " + "\n".join(shown))


class WorkflowNotFound(JobletError):
    """No workflow has this id."""

    status = Status.NOT_FOUND

    def __init__(self, workflow_id: str) -> None:
        super().__init__(f"workflow not found: {workflow_id}")


class WorkflowNotRunning(JobletError):
    """The workflow has ended, so it cannot be stopped."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, workflow_id: int, state: str) -> None:
        super().__init__(f"workflow is not running: {workflow_id} (current status: {state})")


class WorkflowNotEnded(JobletError):
    """The workflow has not ended, so it can be neither tried again nor deleted."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, workflow_id: int, state: str) -> None:
        super().__init__(f"workflow has not ended: {workflow_id} (current status: {state})")


class NothingToRetry(JobletError):
    """Every job of the workflow has completed."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, workflow_id: int) -> None:
        super().__init__(f"workflow {workflow_id} has nothing to run again: all its jobs have completed")


class JobOfWorkflow(JobletError):
    """The job belongs to a workflow that has not ended, which still has to learn how it ended."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, job_id: int, workflow_id: int) -> None:
        super().__init__(f"job {job_id} belongs to workflow {workflow_id}, which has not ended")


class EventsGone(JobletError):
    """The events asked for are older than those that are kept."""

    status = Status.OUT_OF_RANGE

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(f"events after {after} are not kept any more (the oldest is {oldest})")


class NoSuchEvent(JobletError):
    """The event to go on after has not been: the client knows it from a database that is not this one."""

    status = Status.OUT_OF_RANGE

    def __init__(self, after: int, newest: int) -> None:
        super().__init__(f"there has been no event {after} (the newest is {newest})")


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


class CannotExec(JobletError):
    """The job runs, but no other command can be started in it."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, job_id: int, why: str) -> None:
        super().__init__(f"cannot run another command in job {job_id}: {why}")


class TooManyCommands(JobletError):
    """As many commands run in a job, or in all jobs, as may be asked for beside the jobs' own."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(self, most: int, where: str) -> None:
        super().__init__(f"{most} other commands run in {where} (at most {most})")


class JobTakesNoInput(JobletError):
    """The job was made without `stdin`, so nothing can be sent to it."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, job_id: int) -> None:
        super().__init__(f"job takes no input: {job_id} (it was not run with stdin or a terminal)")


class InputEnded(JobletError):
    """The job runs, but its input has had its end, or it has closed it."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, job_id: int) -> None:
        super().__init__(f"the input of job {job_id} has ended")


class JobNotEnded(JobletError):
    """The job has not ended, so it cannot be deleted."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, job_id: int, state: str) -> None:
        super().__init__(f"job has not ended: {job_id} (current status: {state})")


class KeyReused(JobletError):
    """The client's key names another order of its own."""

    status = Status.ALREADY_EXISTS

    def __init__(self, key: str, job_id: int) -> None:
        super().__init__(f"key {key!r} belongs to job {job_id}, which was ordered otherwise")


class WorkflowKeyReused(JobletError):
    """The client's key names another workflow of its own."""

    status = Status.ALREADY_EXISTS

    def __init__(self, key: str, workflow_id: int) -> None:
        super().__init__(f"key {key!r} belongs to workflow {workflow_id}, which was ordered otherwise")


class TooManyWorkflows(JobletError):
    """As many workflows as may be have not ended."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} workflows have not ended (at most {most}, joblet.maxWorkflows)")


class TooManyScheduled(JobletError):
    """As many jobs as may be wait for their time, so that no more are taken that would."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} jobs are scheduled (at most {most}, joblet.maxScheduledJobs)")


class QuotaExceeded(JobletError):
    """With this job or workflow the client would have more under way than its role allows."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(self, role: str, name: str, value: int, bound: int) -> None:
        super().__init__(
            f"quota exceeded: {name} would be {value} with this one (at most {bound}, access.roles.{role}.quota.{name})"
        )


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


class StoreFull(StoreFailed):
    """There is no room to write the state; what is written already can be read."""

    status = Status.RESOURCE_EXHAUSTED


class LogMissing(JobletError):
    """The job has run, and its log has been taken away."""

    status = Status.DATA_LOSS

    def __init__(self, job_id: int) -> None:
        super().__init__(f"the log of job {job_id} is missing on the server")


class CannotPause(JobletError):
    """The job cannot be kept from running now, or on this host."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, why: str) -> None:
        super().__init__(f"job cannot be paused: {why}")


class StreamsMerged(JobletError):
    """The job's log does not tell stdout and stderr apart."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, job_id: int) -> None:
        super().__init__(
            f"the log of job {job_id} has stdout and stderr merged: only a job that was run with separateStreams "
            "(rnx run --separate) keeps them apart"
        )


class NoRoom(JobletError):
    """The disk that jobs would be on is full. The code is the one that gRPC has for that."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(self, path: Path) -> None:
        super().__init__(f"job creation failed: no space left on the disk of {path}")


class DiskUnusable(JobletError):
    """The disk that jobs would be on cannot be written, as one that is read-only."""

    def __init__(self, path: Path, error: OSError) -> None:
        text = error.strerror or str(error)
        super().__init__(f"job creation failed: {path}: {text[:1].lower()}{text[1:]}")


class StoreDamaged(StoreFailed):
    """The database does not hold what it should; it is left as it is."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(
            f"{path} is damaged ({detail}); put a backup in its place with `joblet restore FILE`, "
            "which keeps the damaged one beside it"
        )


class TransitionRefused(StoreFailed):
    """The state machine does not allow the change."""

    def __init__(self, number: int, target: str, what: str = "job") -> None:
        super().__init__(f"{what} {number} may not become {target}")


class NoFiles(JobletError):
    """A job or workflow has no directory whose files could be read now."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"files of {what} cannot be read: {reason}")


class FileNotThere(JobletError):
    """Nothing lies at this path, in the directory of a job or a workflow."""

    status = Status.NOT_FOUND

    def __init__(self, what: str, path: str) -> None:
        super().__init__(f"file not found: {path} ({what})")


class UploadNotFound(JobletError):
    """No upload of this client has this key: there was none, it has been used, or nobody wanted it for too long."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, key: str) -> None:
        super().__init__(f"upload not found: {key}")


class UploadIncomplete(JobletError):
    """Of the upload something has still to come."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, key: str, files: int) -> None:
        super().__init__(f"upload is not complete: {key} ({files} files have come so far)")


class UploadComplete(JobletError):
    """The upload takes nothing more."""

    status = Status.FAILED_PRECONDITION

    def __init__(self, key: str) -> None:
        super().__init__(f"upload is complete already: {key}")


class UploadBusy(JobletError):
    """Another call writes the upload, or makes a job of it."""

    status = Status.ABORTED

    def __init__(self, key: str) -> None:
        super().__init__(f"upload is in use by another call: {key}")


class TooManyUploads(JobletError):
    """As many uploads of the client as may be have not been used."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} uploads have not been used (at most {most} of one client)")


class ShuttingDown(JobletError):
    """The server is ending its connections; jobs go on."""

    status = Status.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("server is shutting down")


class AuditUnwritable(JobletError):
    """The audit log takes no line, so nothing is done that it would have to tell of. Jobs can be stopped."""

    status = Status.UNAVAILABLE

    def __init__(self, why: str) -> None:
        super().__init__(f"audit log cannot be written ({why}), so nothing was changed; stopping jobs is possible")


class TooLarge(JobletError):
    """A message is over the configured size."""

    status = Status.RESOURCE_EXHAUSTED

    def __init__(self, what: str, size: int, most: int, key: str) -> None:
        super().__init__(f"{what} message larger than max ({size} vs. {most} bytes, grpc.{key})")
