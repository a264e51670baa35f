"""The clients of the crash loops that run workflows: submit, stop, try again, delete, ask, and follow every event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from crash_clients import AWAY, Away, Clients
from crash_history import ENDED, WorkflowHistory, check_traces, read_traces
from crash_jobs import Violated
from crash_workflows import WorkflowOrder
from harness import PATIENCE


@dataclass
class WorkflowEntry:
    """What a client knows of one workflow."""

    order: WorkflowOrder
    workflow_id: str = ""
    lost_answers: int = 0
    absent: bool = False
    stop_asked: bool = False
    stop_answered: bool = False
    """since it was last tried again; another stop is not needed"""
    retrying: int = 0
    """requests under way"""
    retried_at: float = 0.0
    """when the last answer came, or did not"""
    retries: int = 0
    """asked for, and of these answered: """
    retried: int = 0
    delete_asked: bool = False
    deleted: bool = False
    deleted_at: float = 0.0
    final: tuple[Any, ...] | None = None
    final_at: float = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether it is known whether it has a workflow."""
        return bool(self.workflow_id) or self.absent


@dataclass
class Watch:
    """Follows the events of one workflow, or of all, from where it was when the connection broke."""

    entry: WorkflowEntry | None = None
    events: list[Any] = field(default_factory=list)
    resumed: int = -1
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def after(self) -> int:
        return self.events[-1].sequence if self.events else 0

    def take(self, event: Any) -> None:
        if event.sequence <= self.after:
            raise Violated(f"event {event.sequence} came after event {self.after}: {event}")
        self.events.append(event)
        self.news.set()

    async def reach(self, sequence: int) -> None:
        """Wait for the event with this number."""
        while self.after < sequence:
            self.news.clear()
            await self.news.wait()


class WorkflowClients:
    """The clients of one server that run workflows, through its crashes, on the connection of `clients`."""

    def __init__(self, clients: Clients) -> None:
        self.entries: dict[str, WorkflowEntry] = {}
        self.by_id: dict[str, WorkflowEntry] = {}
        self.victims: set[str] = set()
        """jobs whose monitors were killed, or nearly"""
        self.histories: dict[str, WorkflowHistory] = {}
        """by workflow, once all have been brought to account"""
        self.all = Watch()
        self.watches: list[Watch] = []
        self.counts = clients.ledger.counts
        self._clients = clients
        self._jobs = clients.ledger
        self._snapshots: list[Any] = []

    def present(self) -> list[WorkflowEntry]:
        """What is known to have a workflow that has not been deleted."""
        return [entry for entry in self.by_id.values() if not entry.delete_asked]

    def under_way(self) -> list[WorkflowEntry]:
        return [entry for entry in self.present() if not entry.final]

    async def look(self) -> None:
        """List all workflows; every acknowledged one is there."""
        known = list(self.by_id.values())
        lost = [entry for entry in self.entries.values() if entry.lost_answers and not entry.is_settled]
        asked_at, before, more, listed = time.monotonic(), "", True, set[str]()
        while more:
            page = await self._call(
                "ListWorkflows", self._pb.ListWorkflowsRequest(includeCompleted=True, before=before)
            )
            for info in page.workflows:
                self._see(info, asked_at)
                listed.add(info.id)
            more, before = page.more, page.workflows[0].id if page.workflows else ""
        for entry in known:
            if entry.workflow_id not in listed and not entry.delete_asked:
                raise Violated(f"workflow {entry.workflow_id} was acknowledged and is lost: {entry}")
        for entry in lost:
            entry.absent = not entry.workflow_id and not entry.order.key
            self.counts["lost answers: workflow" if entry.workflow_id else "lost answers: no workflow"] += 1

    async def submit(self, order: WorkflowOrder) -> WorkflowEntry:
        """Raises Away when there is no answer."""
        entry = self.entries.setdefault(order.token, WorkflowEntry(order))
        try:
            answer = await self._call("RunWorkflow", order.request(self._pb))
        except Away:
            entry.lost_answers += 1
            raise
        self.counts["workflows: acknowledged"] += 1
        self._acknowledge(entry, answer.workflowId)
        return entry

    async def repeat(self) -> None:
        """Send again, with its key, what was not answered."""
        for entry in list(self.entries.values()):
            if entry.lost_answers and entry.order.key and not entry.is_settled:
                await self.submit(entry.order)

    async def repeat_answered(self, entry: WorkflowEntry) -> None:
        """The same key again: the same workflow."""
        if entry.order.key and not entry.delete_asked:
            await self.submit(entry.order)

    async def status(self, entry: WorkflowEntry) -> Any:
        asked_at = time.monotonic()
        request = self._pb.GetWorkflowStatusRequest(workflowId=entry.workflow_id)
        try:
            answer = await self._call("GetWorkflowStatus", request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND and entry.delete_asked:
                return None
            raise
        if entry.order.secret in str(answer):
            raise Violated(f"a secret is shown: {answer}")
        self._see(answer.workflow, asked_at)
        self._snapshots.append(answer)
        return answer

    async def stop(self, entry: WorkflowEntry) -> None:
        entry.stop_asked = True
        self.counts["workflows: stops"] += 1
        try:
            info = await self._call("StopWorkflow", self._pb.StopWorkflowRequest(workflowId=entry.workflow_id))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            await self.status(entry)
            if not entry.final and not entry.retries:
                raise Violated(f"{entry} cannot be stopped, and has not ended: {error.details()}") from error
            return
        if info.status not in ("STOPPED", "CANCELED"):
            raise Violated(f"{entry} was stopped: {info}")
        entry.stop_answered = True
        await self.status(entry)

    async def retry(self, entry: WorkflowEntry) -> None:
        """Try an ended workflow again."""
        entry.final, entry.stop_answered = None, False
        entry.retrying, entry.retries = entry.retrying + 1, entry.retries + 1
        try:
            info = await self._call("RetryWorkflow", self._pb.RetryWorkflowRequest(workflowId=entry.workflow_id))
        finally:
            entry.retrying, entry.retried_at = entry.retrying - 1, time.monotonic()
        if info.status in ENDED:
            raise Violated(f"{entry} is tried again: {info}")
        entry.retried += 1
        self.counts["workflows: tried again"] += 1

    async def delete(self, entry: WorkflowEntry) -> None:
        entry.delete_asked = True
        try:
            await self._call("DeleteWorkflow", self._pb.DeleteWorkflowRequest(workflowId=entry.workflow_id))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        entry.deleted, entry.deleted_at = True, time.monotonic()
        self.counts["workflows: deleted"] += 1

    async def resume(self, watch: Watch, on_event: Callable[[Any], None] = lambda event: None) -> None:
        """Raises Away when the server goes before the stream has ended."""
        watch.resumed += 1
        workflow_id = watch.entry.workflow_id if watch.entry else ""
        request = self._pb.WatchEventsRequest(after=watch.after, workflowId=workflow_id)
        try:
            async for event in self._clients.jobs_stub.WatchEvents(request):
                watch.take(event)
                on_event(event)
        except grpc.aio.AioRpcError as error:
            if error.code() in AWAY:
                raise Away from error
            gone = error.code() is grpc.StatusCode.NOT_FOUND and watch.entry and watch.entry.delete_asked
            if not gone:
                raise
        watch.ended = True
        self.counts["workflows: watched to the end"] += 1
        deleted = watch.entry is not None and watch.entry.delete_asked
        if not deleted and not any(not event.jobName and event.status in ENDED for event in watch.events):
            raise Violated(f"the stream of events of {watch.entry or 'all'} has ended before it: {watch.events[-1:]}")

    async def account(self, traces: str) -> None:
        """Everything has ended: see that all that was said hangs together. `traces` is what the steps have left."""
        request = self._pb.WatchEventsRequest(noFollow=True)
        events = [event async for event in self._clients.jobs_stub.WatchEvents(request)]
        async with asyncio.timeout(PATIENCE):
            await self.all.reach(events[-1].sequence)
        if self.all.events != events:
            odd = [
                event for event in (*events, *self.all.events) if event not in events or event not in self.all.events
            ]
            raise Violated(f"events, followed through the crashes, are not those of the record: {odd or 'other order'}")
        for watch in self.watches:
            assert watch.entry
            own = [event for event in events if event.workflowId == watch.entry.workflow_id]
            if watch.events != [event for event in own if event.sequence <= watch.after]:
                raise Violated(f"the events of {watch.entry} are others in the record")
        histories = self._replay(events)
        check_traces(histories, read_traces(traces))
        for entry in self.present():
            histories[entry.workflow_id].check_final(await self.status(entry))
            await self._check_logs(histories[entry.workflow_id])
        await self._check_jobs(histories)
        self.histories = histories
        for workflow_id, history in histories.items():
            entry = self.by_id[workflow_id]
            if not entry.retried < history.rounds <= entry.retries + 1:
                raise Violated(f"a workflow has ended {history.rounds} times: {entry}")
            self.counts[f"workflows: ended {history.status}"] += 1
            self.counts["workflows: attempts"] += sum(len(step.attempts) for step in history.steps.values())
        self.counts["events"] += len(events)
        self.counts["resumptions by sequence"] += sum(watch.resumed for watch in (self.all, *self.watches))

    def _replay(self, events: list[Any]) -> dict[str, WorkflowHistory]:
        """The history of each workflow, and of each job that is of none."""
        for entry in self.entries.values():
            if not entry.is_settled:
                raise Violated(f"{entry} is neither there nor not")
        snapshots = sorted(self._snapshots, key=lambda answer: answer.sequence)
        histories: dict[str, WorkflowHistory] = {}
        jobs: dict[str, Any] = {}
        for event in [*events, None]:
            while snapshots and (event is None or snapshots[0].sequence < event.sequence):
                answer = snapshots.pop(0)
                histories[answer.workflow.id].check_snapshot(answer)
            if event is not None and event.workflowId:
                if event.workflowId not in histories:
                    histories[event.workflowId] = self._history(event)
                histories[event.workflowId].take(event)
            elif event is not None:
                self._jobs.check_event(jobs.get(event.jobId), event)
                jobs[event.jobId] = event
        if missing := self.by_id.keys() - histories.keys():
            raise Violated(f"no event tells of workflows {missing}")
        if missing := self._jobs.by_id.keys() - jobs.keys():
            raise Violated(f"no event tells of jobs {missing}")
        return histories

    def _history(self, event: Any) -> WorkflowHistory:
        entry = self.by_id.get(event.workflowId)
        if entry is None:
            raise Violated(f"a workflow that was ordered by nobody: {event}")
        return WorkflowHistory(entry.order, entry.workflow_id, stop_asked=entry.stop_asked, victims=self.victims)

    async def _check_logs(self, history: WorkflowHistory) -> None:
        for step in history.steps.values():
            for attempt in step.attempts:
                log = (await self._clients.log(attempt.job_id)).decode()
                expected = f"{attempt.value}\n"
                if log != expected if attempt.ended_by_itself else not expected.startswith(log):
                    raise Violated(f"job {attempt.job_id} has a log that is not its own: {attempt}: {log!r}")

    async def _check_jobs(self, histories: dict[str, WorkflowHistory]) -> None:
        """The list of jobs has each attempt of those that are there, as its events tell, and no other."""
        unsure = {entry.workflow_id for entry in self.by_id.values() if entry.delete_asked and not entry.deleted}
        expected = {
            attempt.job_id: (entry.workflow_id, name, attempt.status, attempt.code, attempt.reason)
            for entry in self.present()
            for name, step in histories[entry.workflow_id].steps.items()
            for attempt in step.attempts
        }
        listed = {
            job.id: (job.workflowId, job.name, job.status, job.exitCode, job.reason)
            for job in await self._clients.list_jobs()
            if job.workflowId and job.workflowId not in unsure
        }
        if listed != expected:
            raise Violated(f"jobs of workflows are {set(listed.items()) ^ set(expected.items())}")

    def _see(self, info: Any, asked_at: float) -> None:
        """What a server says of a workflow, to a question asked at that time."""
        entry = self.entries.get(info.name)
        if entry is None:
            raise Violated(f"workflow {info.id} was ordered by nobody: {info}")
        self._acknowledge(entry, info.id)
        if entry.deleted and asked_at > entry.deleted_at:
            raise Violated(f"workflow {info.id} has been deleted and is there: {info}")
        if entry.retrying or asked_at <= entry.retried_at:
            return
        if info.status not in ENDED:
            if entry.final and asked_at > entry.final_at:
                raise Violated(f"workflow {info.id} had ended, {entry.final}, and is {info.status}")
            return
        seen = (info.status, info.reason, info.completedAt.seconds, info.completedAt.nanos)
        if entry.final is None:
            entry.final, entry.final_at = seen, time.monotonic()
        elif entry.final != seen:
            raise Violated(f"workflow {info.id} had ended, {entry.final}, and has ended otherwise, {seen}")

    def _acknowledge(self, entry: WorkflowEntry, workflow_id: str) -> None:
        known = self.by_id.setdefault(workflow_id, entry)
        if known is not entry or entry.workflow_id not in ("", workflow_id) or entry.absent:
            raise Violated(f"workflow {workflow_id} is that of {known.order.token}, and of {entry}")
        entry.workflow_id = workflow_id

    @property
    def _pb(self) -> Any:
        return self._clients.pb

    async def _call(self, method: str, request: Any) -> Any:
        return await self._clients.call(getattr(self._clients.jobs_stub, method), request)
