"""JobService: workflows and events, and the removal of jobs; translates between messages and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TypeVar

from joblet.engine import Engine, WorkflowOrder
from joblet.errors import (
    EventsGone,
    InvalidArgument,
    JobNotFound,
    NoSuchEvent,
    ShuttingDown,
    UploadNotFound,
    WorkflowNotFound,
)
from joblet.ids import parse_workflow_id
from joblet.proto import joblet as pb
from joblet.retention import Janitor
from joblet.runner import Runner
from joblet.server.audit import note
from joblet.server.auth import Caller, caller
from joblet.server.descriptors import Descriptors
from joblet.server.feed import Feed, Told
from joblet.server.page import ClosedAtOnce, Page
from joblet.server.rpc import Encoded
from joblet.server.views import Views
from joblet.store import Events, Workflows
from joblet.upload_sessions import Handed, UploadSessions
from joblet.uploads import File
from joblet.workflow.plan import WorkflowState
from joblet.workflow.record import Event, Status, Workflow

T = TypeVar("T")

_BATCH = 200
"""workflows or events read at a time"""
_FINAL = frozenset(state for state in WorkflowState if state.final)
"""those of jobs are among them"""


class JobService(ClosedAtOnce, pb.JobServiceBase):
    """Workflows, events, deletion. The mutable state is the feed of events, and that the server is closing."""

    def __init__(
        self,
        engine: Engine,
        runner: Runner,
        workflows: Workflows,
        events: Events,
        janitor: Janitor,
        sessions: UploadSessions,
        max_message: int,
    ) -> None:
        """`max_message` is the size in bytes that no answer may exceed."""
        self._engine = engine
        self._runner = runner
        self._workflows = workflows
        self._events = events
        self._janitor = janitor
        self._sessions = sessions
        self._max_message = max_message
        self._feed = Feed(events)
        self._views = Views(Descriptors())
        self._closing = False

    def close(self) -> None:
        """End the streams of events with ShuttingDown."""
        self._closing = True
        self._feed.wake()

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
        if message.upload_key and order.files:
            raise InvalidArgument("invalid uploadKey: give either workflowFiles or uploadKey")
        if message.upload_key:
            workflow = await self._submit_uploaded(order, message.upload_key, client)
        else:
            workflow = await self._engine.submit(order, client.name, client.role)
        note("workflow", workflow.id)
        return pb.RunWorkflowResponse(workflow_id=str(workflow.id), status=workflow.state, total_jobs=workflow.total)

    async def _submit_uploaded(self, order: WorkflowOrder, key: str, client: Caller) -> Workflow:
        """A workflow that takes an upload; repeated, when the upload is gone, the workflow that has taken it."""

        async def give(upload: Handed) -> tuple[Workflow, str]:
            ordered = replace(order, files=upload.entries, folder=upload.token)
            workflow = await self._engine.submit(ordered, client.name, client.role)
            return workflow, workflow.uploads

        try:
            return await self._sessions.hand_over(client.name, key, give)
        except UploadNotFound:
            if (workflow := await self._engine.made(order, client.name)) is None:
                raise
            return workflow

    async def get_workflow_status(self, message: pb.GetWorkflowStatusRequest) -> pb.GetWorkflowStatusResponse:
        status = await self._status(message.workflow_id)
        return _encoded(await asyncio.to_thread(self._views.status, status), pb.GetWorkflowStatusResponse)

    async def get_workflow_jobs(self, message: pb.GetWorkflowJobsRequest) -> pb.GetWorkflowJobsResponse:
        status = await self._status(message.workflow_id)
        return _encoded(await asyncio.to_thread(self._views.jobs, status), pb.GetWorkflowJobsResponse)

    async def list_workflows(self, message: pb.ListWorkflowsRequest) -> pb.ListWorkflowsResponse:
        """The newest workflows that fit into a message, the oldest of them first."""
        if message.page_size < 0:
            raise InvalidArgument(f"invalid pageSize: {message.page_size} (allowed 0 and above)")
        before = parse_workflow_id(message.before) if message.before else 2**63 - 1
        wanted = message.page_size or 2**63 - 1
        page = Page(self._max_message)
        unfinished, owner = not message.include_completed, caller.get().sees
        while batch := await self._workflows.newest(
            min(wanted - len(page) + 1, _BATCH), before, unfinished=unfinished, owner=owner
        ):
            for workflow in batch:
                if len(page) == wanted or not page.add(self._views.info(workflow).wire):
                    return _encoded(page.message(more=True), pb.ListWorkflowsResponse)
            before = batch[-1].id
        return _encoded(page.message(more=False), pb.ListWorkflowsResponse)

    async def stop_workflow(self, message: pb.StopWorkflowRequest) -> pb.WorkflowInfo:
        workflow = await self._engine.stop(message.workflow_id, f"stopped by {caller.get().name}")
        return _encoded(self._views.info(workflow), pb.WorkflowInfo)

    async def retry_workflow(self, message: pb.RetryWorkflowRequest) -> pb.WorkflowInfo:
        return _encoded(self._views.info(await self._engine.retry(message.workflow_id)), pb.WorkflowInfo)

    async def delete_workflow(self, message: pb.DeleteWorkflowRequest) -> pb.DeleteWorkflowResponse:
        await self._janitor.delete_workflow(message.workflow_id)
        text = f"workflow deleted: {message.workflow_id}"
        return pb.DeleteWorkflowResponse(workflow_id=message.workflow_id, success=True, message=text)

    async def delete_job(self, message: pb.DeleteJobReq) -> pb.DeleteJobRes:
        await self._janitor.delete(message.id)
        return pb.DeleteJobRes(id=message.id, success=True, message=f"job deleted: {message.id}")

    async def delete_all_jobs(self, message: pb.DeleteAllJobsReq) -> pb.DeleteAllJobsRes:
        deleted, skipped = await self._janitor.delete_all(caller.get().sees)
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
        owner = caller.get().sees
        with self._feed.waiting() as news:
            oldest, newest = await self._events.bounds()
            after = newest if message.only_new else message.after
            if after > newest:  # as before an older copy of the database was put in its place
                raise NoSuchEvent(after, newest)
            if after and after + 1 < oldest:
                raise EventsGone(after, oldest)
            over, ask = message.no_follow, True
            while True:
                news.clear()
                if ask:  # before what follows is read: of what is over that is all
                    over, ask = message.no_follow or await self._is_over(workflow_id, job_id), False
                batch, after, whole = await self._next(after, workflow_id, job_id, owner)
                for told in batch:
                    if told.answer is None:
                        told.answer = self._views.event(told.event)
                    yield _encoded(told.answer, pb.Event)
                    ask = ask or _is_last(told.event, workflow_id, job_id)
                if ask or not whole:
                    continue
                if over:
                    return
                if self._closing:
                    raise ShuttingDown
                await news.wait()

    async def _next(
        self, after: int, workflow_id: int | None, job_id: int | None, owner: str | None
    ) -> tuple[list[Told], int, bool]:
        """The next events to tell, up to which number these are all, and whether that is the newest."""
        if (held := await self._feed.after(after, _BATCH)) is not None:
            found, reached, whole = held
            events = [told for told in found if _is_of(told.event, workflow_id, job_id, owner)]
            return events, reached, whole
        oldest, newest = await self._events.bounds()
        if after and after + 1 < oldest:  # by a client too slow for what is kept
            raise EventsGone(after, oldest)
        batch = await self._events.after(after, _BATCH, workflow_id=workflow_id, job_id=job_id, owner=owner)
        last = batch[-1].sequence if batch else after
        whole = len(batch) < _BATCH
        return list(map(Told, batch)), max(last, newest) if whole else last, whole

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
        status = await self._workflows.status(parse_workflow_id(workflow_id))
        if status is None:
            raise WorkflowNotFound(workflow_id)
        return status


def files_of(uploads: list[pb.FileUpload]) -> list[File]:
    """Files that a client has sent along."""
    return [File(upload.path, upload.content, upload.mode, upload.is_directory) for upload in uploads]


def _encoded(answer: Encoded, kind: type[T]) -> T:
    """An answer of that kind, in its wire form already: Codec."""
    return answer  # type: ignore[return-value]


def _is_of(event: Event, workflow_id: int | None, job_id: int | None, owner: str | None) -> bool:
    """Whether an event is of what is watched: all, if nothing is named."""
    watched = ((workflow_id, event.workflow_id), (job_id, event.job_id), (owner, event.owner))
    return all(wanted is None or wanted == found for wanted, found in watched)


def _is_last(event: Event, workflow_id: int | None, job_id: int | None) -> bool:
    """Whether there may be nothing more of what is watched after this event."""
    if job_id is not None:
        return event.status in _FINAL
    return workflow_id is not None and not event.name and event.job_id is None and event.status in _FINAL
