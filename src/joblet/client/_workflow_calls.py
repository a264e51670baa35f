"""The part of the client that is about workflows and events."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from joblet.client._calls import check_text
from joblet.client._patience import Patience
from joblet.client._upload_calls import OnProgress, UploadCalls
from joblet.client.errors import JobletError, OutOfRange
from joblet.client.workflow_file import WorkflowFile
from joblet.client.workflows import Event, WorkflowInfo, WorkflowList, WorkflowStatus, event_of, status_of, workflow_of
from joblet.proto import joblet as pb


class WorkflowCalls(UploadCalls):
    """Run workflows, watch them, and tell what happens."""

    async def run_workflow(
        self,
        file: str | Path | WorkflowFile,
        *,
        text: str | None = None,
        parameters: Mapping[str, str] | None = None,
        job: str = "",
        files: Mapping[str, bytes] | None = None,
        key: str = "",
        retry: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Workflow:
        """Start a workflow and return it as soon as the server has it safe.

        `file` is its YAML, or stands for `text`: then it is a name to know it by, and where the files are that its
        jobs want uploaded. `files` are such that need not lie there, by their names in the YAML. `parameters` are
        values for those that the file declares. With `job` only that one runs, whatever it requires.

        With a `key` the same order gives the same workflow, however often it is sent, so that the call is repeated for
        `config.patience` seconds when the connection is lost; `retry` is the same with a key that nobody else has.

        Large files go in pieces, as those of `run` do, and `on_progress` is told of them.

        Raises InvalidWorkflow with all faults of the file, before anything is sent; InvalidArgument when a file cannot
        be read.
        """
        if not isinstance(file, WorkflowFile):
            file = await asyncio.to_thread(WorkflowFile.read, file, text=text, parameters=parameters, job=job)
        keyed = bool(key)
        key = key or (secrets.token_hex(16) if retry else "")
        check_text("key", key)
        check_text("file name", file.path.name)
        check_text("parameters", *file.parameters, *file.parameters.values(), secret=True)
        request = pb.RunWorkflowRequest(
            workflow=file.path.name,
            total_jobs=len(file.plan.steps),
            job_order=[step.name for step in file.plan.steps],
            yaml_content=file.text,
            parameters=dict(file.parameters),
            job=file.job,
            key=key,
        )
        patience = Patience(self.config.patience if key else 0)

        async def send(uploads: Sequence[pb.FileUpload], upload_key: str) -> Workflow:
            request.workflow_files, request.upload_key = [*uploads], upload_key
            timeout = self.config.timeout
            answer = await self._repeat(patience, lambda: self._jobs_stub.run_workflow(request, timeout=timeout))
            info = workflow_of(pb.WorkflowInfo(id=answer.workflow_id, workflow=request.workflow))
            return Workflow(self, replace(info, status=answer.status, total_jobs=answer.total_jobs, key=key))

        sources = await asyncio.to_thread(file.uploads, files)
        return await self._send_with(sources, send, keyed=keyed, on_progress=on_progress)

    async def workflow(self, workflow_id: str, *, reconnect: bool = False) -> WorkflowStatus:
        """What the server knows of a workflow and its jobs.

        With `reconnect` a server that is being restarted is waited for, for `config.patience` seconds.
        """
        request = pb.GetWorkflowStatusRequest(workflow_id=workflow_id)
        patience = Patience(self.config.patience if reconnect else 0)
        patience.renew()  # whoever asks for patience has reached it before
        timeout = self.config.timeout
        call = self._jobs_stub.get_workflow_status
        return status_of(await self._repeat(patience, lambda: call(request, timeout=timeout)))

    async def list_workflows(self, *, limit: int = 0, before: str = "", ended: bool = True) -> WorkflowList:
        """The newest workflows, by id: as many as fit into one answer, or at most `limit`.

        With `before` only older ones; without `ended` only those that have not.
        """
        request = pb.ListWorkflowsRequest(include_completed=ended, page_size=limit, before=before)
        answer = await self._call(self._jobs_stub.list_workflows(request, timeout=self.config.timeout))
        return WorkflowList([workflow_of(workflow) for workflow in answer.workflows], more=answer.more)

    async def list_all_workflows(self, *, before: str = "", ended: bool = True) -> AsyncGenerator[WorkflowInfo]:
        """Every workflow, newest first, in as many calls as it takes; with `before` only older ones."""
        more = True
        while more:
            page = await self.list_workflows(before=before, ended=ended)
            for workflow in reversed(page):
                yield workflow
            more = page.more
            before = page[0].id if page else before

    async def stop_workflow(self, workflow_id: str) -> WorkflowInfo:
        """Start no more jobs of a workflow, stop those that run, and return when they have ended.

        Raises FailedPrecondition when it has ended before.
        """
        request = pb.StopWorkflowRequest(workflow_id=workflow_id)
        return workflow_of(await self._call(self._jobs_stub.stop_workflow(request)))

    async def retry_workflow(self, workflow_id: str) -> WorkflowInfo:
        """Run again what failed, was stopped or canceled of an ended workflow, and all below it.

        Raises FailedPrecondition when it has not ended, or has nothing to run again.
        """
        request = pb.RetryWorkflowRequest(workflow_id=workflow_id)
        return workflow_of(await self._call(self._jobs_stub.retry_workflow(request, timeout=self.config.timeout)))

    async def delete_workflow(self, workflow_id: str) -> None:
        """Remove an ended workflow, its jobs, their logs and its shared directory.

        Raises FailedPrecondition when it has not ended.
        """
        await self._call(self._jobs_stub.delete_workflow(pb.DeleteWorkflowRequest(workflow_id=workflow_id)))

    async def events(
        self,
        after: int = 0,
        *,
        only_new: bool = False,
        workflow: str = "",
        job: str = "",
        follow: bool = True,
        reconnect: bool = False,
    ) -> AsyncGenerator[Event]:
        """Every change of a job's or workflow's status, in order, that is later than the event `after`.

        With `only_new` only what happens from now on; of one `workflow` and its jobs, or one `job`, only, and then the
        stream ends with it. Without `follow` it ends after what has happened by now.

        With `reconnect` it goes on when the server is restarted meanwhile, each event once; raises ConnectionLost when
        the server stays away for `config.patience` seconds. (What is lost with `only_new` before there was any event is
        not made up for.) Raises OutOfRange when events after `after` are not kept any more, or that one has never been.
        Use contextlib.aclosing to leave early and at once.
        """
        patience = Patience(self.config.patience if reconnect else 0)
        lost = False
        while True:
            request = pb.WatchEventsRequest(
                after=after, only_new=only_new, workflow_id=workflow, job_id=job, no_follow=not follow
            )
            try:
                if lost:  # when nothing happens, the stream does not show whether the server is there again
                    await self.list_workflows(limit=1)
                    patience.renew()
                async with aclosing(self._events(request)) as events:
                    async for event in events:
                        patience.renew()
                        after, only_new = event.sequence, False
                        yield event
            except JobletError as error:
                await self._wait(patience, error)
                lost = True
            else:
                return

    async def _events(self, request: pb.WatchEventsRequest) -> AsyncGenerator[Event]:
        stub = self._jobs_stub
        with self._errors():
            async with aclosing(cast("AsyncGenerator[pb.Event]", stub.watch_events(request))) as events:
                async for event in events:
                    yield event_of(event)


@dataclass(frozen=True)
class Workflow:
    """A workflow that this client has run."""

    client: WorkflowCalls
    info: WorkflowInfo
    """the answer to `run_workflow`, as of then"""

    @property
    def id(self) -> str:
        """The server's name for it."""
        return self.info.id

    async def status(self) -> WorkflowStatus:
        """What the server knows of it and its jobs now."""
        return await self.client.workflow(self.id)

    async def stop(self) -> WorkflowInfo:
        """Stop it; see Client.stop_workflow."""
        return await self.client.stop_workflow(self.id)

    def events(self, after: int = 0, *, reconnect: bool = False) -> AsyncGenerator[Event]:
        """What happens to it and its jobs, to its end; see Client.events."""
        return self.client.events(after, workflow=self.id, reconnect=reconnect)

    async def wait(self) -> WorkflowStatus:
        """How it has ended, as soon as it has; restarts of the server are waited for."""
        while not (status := await self.client.workflow(self.id, reconnect=True)).workflow.ended:
            with suppress(OutOfRange):  # so much has happened meanwhile that it is not all kept
                async with aclosing(self.events(status.sequence, reconnect=True)) as events:
                    async for _ in events:
                        pass
        return status
