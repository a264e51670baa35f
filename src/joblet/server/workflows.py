"""JobService: workflows and events, and the removal of jobs; translates between messages and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from grpclib.server import Stream

from joblet.errors import EventsGone, InvalidArgument, JobNotFound, ShuttingDown, WorkflowNotFound
from joblet.proto import joblet as pb
from joblet.retention import Janitor
from joblet.runner import Runner, is_id, parse_id
from joblet.server.auth import caller
from joblet.server.page import Page, close_at_once
from joblet.server.rpc import Encoded
from joblet.store import Events, Workflows
from joblet.uploads import File
from joblet.workflow.engine import Engine, WorkflowOrder
from joblet.workflow.record import Event, Status, StepStatus, Workflow

_BATCH = 200
"""workflows or events read at a time"""


class JobService(pb.JobServiceBase):
    """Workflows, events, deletion. The mutable state is who waits for events."""

    def __init__(
        self, engine: Engine, runner: Runner, workflows: Workflows, events: Events, janitor: Janitor, max_message: int
    ) -> None:
        """`max_message` is the size in bytes that no answer may exceed."""
        self._engine = engine
        self._runner = runner
        self._workflows = workflows
        self._events = events
        self._janitor = janitor
        self._max_message = max_message
        self._watchers: set[asyncio.Event] = set()
        self._closing = False
        events.on_commit = self._wake

    def close(self) -> None:
        """End the streams of events with ShuttingDown."""
        self._closing = True
        self._wake()

    async def _call_rpc_handler_server_stream(
        self, handler: Callable[[Any], AsyncGenerator[Any]], stream: Stream[Any, Any], request: Any
    ) -> None:
        await close_at_once(handler, stream, request)

    async def run_workflow(self, message: pb.RunWorkflowRequest) -> pb.RunWorkflowResponse:
        client = caller.get()
        order = WorkflowOrder(
            file=message.workflow or "workflow.yaml",
            text=message.yaml_content,
            files=files_of(message.workflow_files),
            parameters=message.parameters,
            job=message.job,
            key=message.key,
        )
        workflow = await self._engine.submit(order, client.name, client.role)
        return pb.RunWorkflowResponse(workflow_id=str(workflow.id), status=workflow.state, total_jobs=workflow.total)

    async def get_workflow_status(self, message: pb.GetWorkflowStatusRequest) -> pb.GetWorkflowStatusResponse:
        status = await self._status(message.workflow_id)
        return pb.GetWorkflowStatusResponse(
            workflow=_info(status.workflow), jobs=list(map(_job, status.steps)), sequence=status.sequence
        )

    async def get_workflow_jobs(self, message: pb.GetWorkflowJobsRequest) -> pb.GetWorkflowJobsResponse:
        status = await self._status(message.workflow_id)
        return pb.GetWorkflowJobsResponse(jobs=list(map(_job, status.steps)))

    async def list_workflows(self, message: pb.ListWorkflowsRequest) -> pb.ListWorkflowsResponse:
        """The newest workflows that fit into a message, the oldest of them first."""
        if message.page_size < 0:
            raise InvalidArgument(f"invalid pageSize: {message.page_size} (allowed 0 and above)")
        before = _number(message.before) if message.before else 2**63 - 1
        wanted = message.page_size or 2**63 - 1
        page = Page(self._max_message)
        unfinished = not message.include_completed
        while batch := await self._workflows.newest(min(wanted - len(page) + 1, _BATCH), before, unfinished=unfinished):
            for workflow in batch:
                if len(page) == wanted or not page.add(bytes(_info(workflow))):
                    return _encoded(page.message(more=True))
            before = batch[-1].id
        return _encoded(page.message(more=False))

    async def stop_workflow(self, message: pb.StopWorkflowRequest) -> pb.WorkflowInfo:
        return _info(await self._engine.stop(message.workflow_id, f"stopped by {caller.get().name}"))

    async def retry_workflow(self, message: pb.RetryWorkflowRequest) -> pb.WorkflowInfo:
        return _info(await self._engine.retry(message.workflow_id))

    async def delete_workflow(self, message: pb.DeleteWorkflowRequest) -> pb.DeleteWorkflowResponse:
        await self._janitor.delete_workflow(message.workflow_id)
        text = f"workflow deleted: {message.workflow_id}"
        return pb.DeleteWorkflowResponse(workflow_id=message.workflow_id, success=True, message=text)

    async def delete_job(self, message: pb.DeleteJobReq) -> pb.DeleteJobRes:
        await self._janitor.delete(message.id)
        return pb.DeleteJobRes(id=message.id, success=True, message=f"job deleted: {message.id}")

    async def delete_all_jobs(self, message: pb.DeleteAllJobsReq) -> pb.DeleteAllJobsRes:
        deleted, skipped = await self._janitor.delete_all()
        text = f"{deleted} jobs deleted, {skipped} have not ended"
        return pb.DeleteAllJobsRes(success=True, message=text, deleted_count=deleted, skipped_count=skipped)

    async def watch_events(self, message: pb.WatchEventsRequest) -> AsyncGenerator[pb.Event]:
        """Events as they come, from the store: a client that is slow holds nothing here but its place."""
        if message.after < 0:
            raise InvalidArgument(f"invalid after: {message.after} (allowed 0 and above)")
        if message.workflow_id and message.job_id:
            raise InvalidArgument("invalid jobId: give either workflowId or jobId")
        workflow_id = (await self._engine.get(message.workflow_id)).id if message.workflow_id else None
        job_id = (await self._runner.get(message.job_id)).id if message.job_id else None
        news = asyncio.Event()
        self._watchers.add(news)
        try:
            oldest, newest = await self._events.bounds()
            after = newest if message.only_new else message.after
            if after > newest:  # of another life of this server, before its database was restored
                raise InvalidArgument(f"invalid after: {after} (allowed 0 to {newest}, the newest event)")
            if after and after + 1 < oldest:
                raise EventsGone(after, oldest)
            while True:
                news.clear()
                over = message.no_follow or await self._is_over(workflow_id, job_id)
                oldest, newest = await self._events.bounds()
                if after and after + 1 < oldest:  # by a client too slow for what is kept
                    raise EventsGone(after, oldest)
                batch = await self._events.after(after, _BATCH, workflow_id=workflow_id, job_id=job_id)
                for event in batch:
                    after = event.sequence
                    yield _event(event)
                if len(batch) == _BATCH:
                    continue
                after = max(after, newest)
                if over:
                    return
                if self._closing:
                    raise ShuttingDown
                await news.wait()
        finally:
            self._watchers.discard(news)

    async def _is_over(self, workflow_id: int | None, job_id: int | None) -> bool:
        """Whether there is nothing more to come."""
        if workflow_id is not None:
            return await self._workflows.is_over(workflow_id)
        if job_id is not None:
            try:  # what is stored, as events are: the runner may learn of an end after those who wait for its event
                return (await self._runner.get(str(job_id))).state.final
            except JobNotFound:
                return True
        return False

    async def _status(self, workflow_id: str) -> Status:
        status = await self._workflows.status(_number(workflow_id))
        if status is None:
            raise WorkflowNotFound(workflow_id)
        return status

    def _wake(self) -> None:
        for news in self._watchers:
            news.set()


def files_of(uploads: list[pb.FileUpload]) -> list[File]:
    """Files that a client has sent along."""
    return [File(upload.path, upload.content, upload.mode, upload.is_directory) for upload in uploads]


def _encoded(answer: Encoded) -> pb.ListWorkflowsResponse:
    return answer  # type: ignore[return-value]  # in its wire form already: Codec


def _number(text: str) -> int:
    if not is_id(text):
        raise WorkflowNotFound(text)
    return parse_id(text)


def _time(instant_ns: int | None) -> pb.Timestamp | None:
    if instant_ns is None:
        return None
    seconds, nanos = divmod(instant_ns, 1_000_000_000)
    return pb.Timestamp(seconds=seconds, nanos=nanos)


def _info(workflow: Workflow) -> pb.WorkflowInfo:
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


def _job(step: StepStatus) -> pb.WorkflowJob:
    """A step as its own record has it, or as the job of its attempt that is under way."""
    record, job = step.record, step.job
    shown = pb.WorkflowJob(
        job_name=record.name,
        dependencies=list(step.dependencies),
        max_attempts=step.max_attempts,
        condition=step.condition,
        continue_on_failure=step.continue_on_failure,
    )
    if job is not None:
        assert job.part is not None
        shown.job_id, shown.status, shown.attempt = str(job.id), job.state, job.part.attempt
        shown.start_time, shown.end_time = _time(job.started_at), _time(job.ended_at)
        shown.exit_code, shown.reason, shown.outputs = job.exit_code, job.reason, dict(job.outputs)
    else:
        shown.job_id, shown.status = str(record.job_id or 0), record.end or "PENDING"
        shown.attempt = record.attempts
        shown.start_time, shown.end_time = _time(record.started_at), _time(record.ended_at)
        shown.exit_code, shown.reason, shown.outputs = record.exit_code, record.reason, dict(record.outputs)
    return shown


def _event(event: Event) -> pb.Event:
    return pb.Event(
        sequence=event.sequence,
        time=_time(event.at),
        workflow_id=str(event.workflow_id or ""),
        job_name=event.name,
        job_id=str(event.job_id or ""),
        status=event.status,
        exit_code=event.exit_code,
        reason=event.reason,
        attempt=event.attempt,
    )
