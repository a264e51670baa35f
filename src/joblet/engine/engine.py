"""Which workflows there are: accept, stop, try again, and take up those of an earlier server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace

from joblet import clock
from joblet.engine.run import Run
from joblet.errors import (
    InvalidArgument,
    InvalidWorkflow,
    JobletError,
    NothingToRetry,
    QuotaExceeded,
    ShuttingDown,
    StoreFailed,
    TooManyWorkflows,
    WorkflowKeyReused,
    WorkflowNotEnded,
    WorkflowNotFound,
    WorkflowNotRunning,
)
from joblet.ids import parse_workflow_id
from joblet.job import Job
from joblet.log import fields
from joblet.order import MAX_KEY
from joblet.quotas import WORKFLOW, Room
from joblet.runner import Runner, first_of
from joblet.store import Workflows
from joblet.upload_record import Entry
from joblet.uploads import File, Uploads
from joblet.workflow.build import Parsed, parse
from joblet.workflow.condition import End
from joblet.workflow.plan import Plan, WorkflowState
from joblet.workflow.record import StepRecord, Workflow

log = logging.getLogger(__name__)

_MAX_FILE_NAME = 255


@dataclass(frozen=True, slots=True)
class WorkflowOrder:
    """What a client asks for."""

    file: str
    """the name of the file, for people to know it by"""
    text: str
    """what it says"""
    files: Sequence[File | Entry] = ()
    """those that its jobs upload"""
    folder: str = ""
    """in the store of uploads, where those lie already; empty when they are to be put there"""
    parameters: Mapping[str, str] = field(default_factory=dict)
    job: str = ""
    """run this job of the file only"""
    key: str = ""
    """the client's own name for the order"""


class Engine:
    """Runs workflows. The mutable state is those that have not ended."""

    def __init__(self, store: Workflows, runner: Runner, uploads: Uploads, *, most: int, most_steps: int) -> None:
        """At most `most` workflows have not ended, and `most_steps` steps of each run at a time."""
        self._store = store
        self._runner = runner
        self._uploads = uploads
        self._most = most
        self._most_steps = most_steps
        self._runs: dict[int, Run] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._accepting: set[asyncio.Task[Workflow]] = set()
        self._closing = False
        self.ended: Counter[WorkflowState] = Counter({state: 0 for state in WorkflowState if state.final})
        """how many have, since this server was started"""

    def states(self) -> Counter[WorkflowState]:
        """Of those that have not ended."""
        return Counter(run.workflow.state for run in self._runs.values())

    async def submit(self, order: WorkflowOrder, owner: str, role: str) -> Workflow:
        """Accept a workflow of a client with that name and role. When this returns, it is on disk and will run.

        With a key that the client has used before, it is the one that it was used for, ended or not.
        Raises InvalidWorkflow with all faults of the file, InvalidArgument, WorkflowKeyReused, TooManyWorkflows,
        QuotaExceeded, NoRoom, DiskUnusable, StoreFailed or ShuttingDown, and then there is no workflow.
        """
        _check_names(order)
        parsed, fingerprint = await asyncio.to_thread(self._read, order, role)
        now = clock.now_ns()
        workflow = Workflow(
            id=0,
            file=order.file,
            owner=owner,
            role=role,
            state=WorkflowState.PENDING,
            created_at=now,
            name=parsed.plan.name,
            yaml=parsed.masked,
            parameters=parsed.plan.parameters,
            key=order.key,
            fingerprint=fingerprint,
            timeout=parsed.plan.timeout,
            max_parallel=parsed.plan.max_parallel,
            timer_from=now,
        )
        if order.key and (present := await self._store.find(owner, order.key)) is not None:
            return _same(present, workflow)
        self._runner.check_room()  # what the database keeps for itself is for what runs
        return await self._accept(workflow, self._create(workflow, parsed.plan, order))

    async def made(self, order: WorkflowOrder, owner: str) -> Workflow | None:
        """The workflow that the client's order with this key has made before, whatever its files were.

        Raises InvalidWorkflow, InvalidArgument or WorkflowKeyReused.
        """
        _check_names(order)
        present = await self._store.find(owner, order.key) if order.key else None
        if present is None:
            return None
        parsed = await asyncio.to_thread(parse, order.text, file=order.file, parameters=order.parameters, job=order.job)
        ordered = (order.file, parsed.masked, dict(parsed.plan.parameters))
        if (present.file, present.yaml, dict(present.parameters)) != ordered:
            raise WorkflowKeyReused(order.key, present.id)
        return present

    async def stop(self, workflow_id: str, reason: str) -> Workflow:
        """End a workflow; returns when all of its jobs have ended.

        Raises WorkflowNotFound, or WorkflowNotRunning when it has ended otherwise, before this or meanwhile.
        """
        run = self._runs.get(parse_workflow_id(workflow_id))
        if run is not None:
            await run.request_stop(reason)
            while not run.ended.is_set():
                await first_of(run.ended, run.unstored)
                if run.unstored.is_set():
                    raise StoreFailed(f"workflow {workflow_id} is being stopped, but its state cannot be stored now")
        workflow = await self.get(workflow_id)
        if run is None or workflow.state not in (WorkflowState.STOPPED, WorkflowState.CANCELED):
            raise WorkflowNotRunning(workflow.id, workflow.state)
        return workflow

    async def retry(self, workflow_id: str) -> Workflow:
        """Run again what failed, was stopped or canceled of an ended workflow, and all below it.

        Raises WorkflowNotFound, WorkflowNotEnded, NothingToRetry, TooManyWorkflows, QuotaExceeded, StoreFailed or
        ShuttingDown; PermissionDenied when the role in which it was ordered is gone.
        """
        workflow = await self.get(workflow_id)
        if not workflow.state.final:
            raise WorkflowNotEnded(workflow.id, workflow.state)
        if workflow.state is WorkflowState.COMPLETED:
            raise NothingToRetry(workflow.id)
        return await self._accept(workflow, self._reopen(workflow))

    async def get(self, workflow_id: str) -> Workflow:
        """A workflow as it is now. Raises WorkflowNotFound."""
        workflow = await self._store.get(parse_workflow_id(workflow_id))
        if workflow is None:
            raise WorkflowNotFound(workflow_id)
        return workflow

    async def recover(self) -> None:
        """Take up every unfinished workflow of an earlier server. Its jobs have been taken up before."""
        for workflow in await self._store.unfinished():
            try:
                plan = await self._store.plan(workflow.id)
                records, jobs = await self._store.steps(workflow.id), await self._store.jobs(workflow.id)
            except (StoreFailed, WorkflowNotFound) as error:
                await self._lose(workflow, f"lost: {error}")
                continue
            self._start(workflow, plan, records, jobs)
            log.info("workflow found again", extra=fields(workflowId=workflow.id, status=workflow.state))

    async def close(self) -> None:
        """Stop following workflows; the next server takes them up again."""
        self._closing = True
        await asyncio.gather(*self._accepting, return_exceptions=True)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, workflow: Workflow, work: Coroutine[None, None, Workflow]) -> Workflow:
        """What was begun is finished whether or not the client stays: no row without a run."""
        try:
            if self._closing:
                raise ShuttingDown
            if len(self._runs) + len(self._accepting) >= self._most:
                raise TooManyWorkflows(self._most)
            room = self._runner.quotas.take(workflow.owner, workflow.role, WORKFLOW)
        except JobletError:
            work.close()
            raise
        accepting = asyncio.create_task(_until_done(room, work))
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepting.discard)
        return await asyncio.shield(accepting)

    async def _create(self, workflow: Workflow, plan: Plan, order: WorkflowOrder) -> Workflow:
        saved = ""
        if order.files and not order.folder:
            saved = await self._uploads.save([file for file in order.files if isinstance(file, File)])
        new = False
        try:
            stored, new = await self._store.create(replace(workflow, uploads=saved or order.folder), plan)
        finally:
            if not new and saved:
                with contextlib.suppress(OSError):  # the next server looks for what nobody has
                    await self._uploads.remove(saved)
        if not new:
            return _same(stored, workflow)
        self._start(stored, plan, [StepRecord(position, step.name) for position, step in enumerate(plan.steps)], [])
        log.info(
            "workflow accepted",
            extra=fields(workflowId=stored.id, file=stored.file, jobs=len(plan.steps), owner=stored.owner),
        )
        return stored

    async def _reopen(self, workflow: Workflow) -> Workflow:
        plan, records = await self._store.plan(workflow.id), await self._store.steps(workflow.id)
        again = _to_run_again(plan, records)
        reopened = await self._store.reopen(workflow.id, again, clock.now_ns())
        if reopened is None:  # by somebody else, meanwhile
            raise WorkflowNotEnded(workflow.id, WorkflowState.RUNNING)
        fresh = [
            StepRecord(record.position, record.name, attempts=record.attempts, base_attempts=record.attempts)
            if record.position in again
            else record
            for record in records
        ]
        self._start(reopened, plan, fresh, [])
        log.info("workflow is tried again", extra=fields(workflowId=workflow.id, jobs=len(again)))
        return reopened

    def _start(self, workflow: Workflow, plan: Plan, records: Sequence[StepRecord], jobs: Sequence[Job]) -> None:
        run = Run(workflow, plan, records, jobs, self._store, self._runner, self._most_steps)
        self._runs[workflow.id] = run
        room = self._runner.quotas.enter(workflow.owner, WORKFLOW)
        self._tasks[workflow.id] = asyncio.create_task(self._follow(run, room), name=f"workflow-{workflow.id}")

    async def _follow(self, run: Run, room: Room) -> None:
        try:
            await run.live()
        except Exception:  # it is as a killed server leaves it, for the next one
            log.exception("workflow cannot be ended", extra=fields(workflowId=run.workflow.id))
            run.ended.set()
        finally:
            room.leave()
            if self._runs.get(run.workflow.id) is run:  # and it is not being tried again already
                del self._tasks[run.workflow.id]
                if run.ended.is_set():
                    del self._runs[run.workflow.id]
            if run.workflow.state.final:
                self.ended[run.workflow.state] += 1

    async def _lose(self, workflow: Workflow, reason: str) -> None:
        """End a workflow whose plan cannot be read any more, and what runs of it."""
        log.error("workflow cannot go on", extra=fields(workflowId=workflow.id, reason=reason))
        with contextlib.suppress(StoreFailed):
            for job_id in await self._store.job_ids(workflow.id):
                if (live := self._runner.find(str(job_id))) is not None:
                    await live.request_stop(f"workflow {workflow.id}: {reason}")
        now = clock.now_ns()
        with contextlib.suppress(StoreFailed):
            status = await self._store.status(workflow.id)
            without_job = [step.record for step in (status.steps if status else ()) if step.job is None]
            canceled = [
                replace(record, end=End.CANCELED, reason=reason, ended_at=now, retry_at=None)
                for record in without_job
                if record.end is None
            ]
            await self._store.conclude(workflow.id, canceled)
        with contextlib.suppress(StoreFailed):
            await self._store.transition(workflow.id, WorkflowState.FAILED, ended_at=now, reason=reason)

    def _read(self, order: WorkflowOrder, role: str) -> tuple[Parsed, str]:
        """What an order's file says, with the order's fingerprint. Takes seconds for a large one."""
        sent = [file.path for file in order.files]
        parsed = parse(order.text, file=order.file, parameters=order.parameters, sent=sent, job=order.job)
        self._check_limits(order.file, parsed.plan, role)
        return parsed, _fingerprint(order, parsed.masked, parsed.plan)

    def _check_limits(self, file: str, plan: Plan, role: str) -> None:
        """Raise InvalidWorkflow for jobs that ask for more than this server gives, before any of them runs."""
        faults = []
        for step in plan.steps:
            try:
                self._runner.check(step.order, role)
            except (InvalidArgument, QuotaExceeded) as error:
                faults.append(f'{file}: job "{step.name}": {error}')
        if faults:
            raise InvalidWorkflow(faults)


async def _until_done(room: Room, work: Coroutine[None, None, Workflow]) -> Workflow:
    """Hold a room for a workflow until it is there itself, or not to be."""
    try:
        return await work
    finally:
        room.leave()


def _same(present: Workflow, ordered: Workflow) -> Workflow:
    """The workflow with the key that one is ordered with. Raises WorkflowKeyReused when it was ordered otherwise."""
    if present.fingerprint != ordered.fingerprint:
        raise WorkflowKeyReused(ordered.key, present.id)
    return present


def _to_run_again(plan: Plan, records: Sequence[StepRecord]) -> set[int]:
    """Positions of the steps that have not completed, and of all that require them, directly or not."""
    dependents: dict[str, list[int]] = {}
    for position, step in enumerate(plan.steps):
        for name in step.dependencies:
            dependents.setdefault(name, []).append(position)
    again: set[int] = set()
    left = [record.position for record in records if record.end is not End.COMPLETED]
    while left:
        position = left.pop()
        if position not in again:
            again.add(position)
            left += dependents.get(plan.steps[position].name, ())
    return again


def _check_names(order: WorkflowOrder) -> None:
    if not order.file or len(order.file) > _MAX_FILE_NAME or not order.file.isprintable():
        shown = order.file[:_MAX_FILE_NAME]
        raise InvalidArgument(f"invalid workflow: {shown!r} (a name of 1 to {_MAX_FILE_NAME} printable characters)")
    if len(order.key) > MAX_KEY or not order.key.isprintable():
        raise InvalidArgument(f"invalid key: {order.key[:MAX_KEY]!r} (at most {MAX_KEY} printable characters)")


def _fingerprint(order: WorkflowOrder, masked: str, plan: Plan) -> str:
    """Tells orders apart, but for their secrets: nothing that is stored leads back to those."""
    files = sorted((file.path, file.digest, file.permissions) for file in order.files)
    told = [order.file, masked, sorted(plan.parameters.items()), order.job, files]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
