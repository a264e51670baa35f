"""JobletService: translates between messages and the runner."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from joblet.clock import rfc3339
from joblet.errors import InvalidArgument, JobletError, LogMissing, StreamsMerged, UploadNotFound
from joblet.executor.base import Executor
from joblet.ids import parse_id
from joblet.job import Job, State
from joblet.job import Uploads as Uploaded
from joblet.life import Live
from joblet.logs import LogHub
from joblet.logs.file import FARTHEST
from joblet.logs.hub import Chunk
from joblet.order import Order, stop_of
from joblet.proto import joblet as pb
from joblet.runner import Runner
from joblet.server.audit import note
from joblet.server.auth import Caller, caller
from joblet.server.descriptors import Descriptors
from joblet.server.log_stream import Teller, pattern_of, view_of
from joblet.server.orders import fields_of, order_of, receipt_of
from joblet.server.page import ClosedAtOnce, JobEncoder, Page
from joblet.server.rpc import Encoded
from joblet.server.workflows import files_of
from joblet.upload_sessions import Handed, UploadSessions
from joblet.uploads import File, Uploads

_BATCH = 200
"""jobs of a list encoded in one turn of the loop"""


class JobletService(ClosedAtOnce, pb.JobletServiceBase):
    """The five rpcs of API.md."""

    def __init__(
        self,
        runner: Runner,
        executor: Executor,
        uploads: Uploads,
        sessions: UploadSessions,
        hub: LogHub,
        max_message: int,
    ) -> None:
        """`max_message` is the size in bytes that no answer may exceed."""
        self._runner = runner
        self._executor = executor
        self._uploads = uploads
        self._sessions = sessions
        self._hub = hub
        self._max_message = max_message
        descriptors = Descriptors()
        self._encoder = JobEncoder(descriptors, pb.Job)
        self._answers = JobEncoder(descriptors, pb.RunJobRes)
        self._statuses = JobEncoder(descriptors, pb.GetJobStatusRes)
        self._teller = Teller(descriptors)

    async def run_job(self, message: pb.RunJobReq) -> pb.RunJobRes:
        order, files = order_of(message), files_of(message.uploads)
        if message.wait_for_start and order.schedule is not None and order.schedule.recurring:
            raise InvalidArgument("invalid waitForStart: a job with a recurring schedule does not start itself")
        if message.wait_for_end and order.schedule is not None and order.schedule.recurring:
            raise InvalidArgument("invalid waitForEnd: a job with a recurring schedule does not end by itself")
        if message.upload_key and files:
            raise InvalidArgument("invalid uploadKey: give either uploads or uploadKey")
        if message.upload_key:
            live = await self._submit_uploaded(order, message.upload_key, caller.get())
        else:
            live = await self._submit(order, files, caller.get())
        note("job", live.job.id)
        if message.wait_for_end:
            await self._hub.until(live.ended)
            return cast(pb.RunJobRes, Encoded(self._answers.encode(self._whole(live.job))))
        if message.wait_for_start:
            await live.launched.wait()
        return cast(pb.RunJobRes, Encoded(self._answers.encode(self._fields(live.job))))

    async def _submit(self, order: Order, files: list[File], client: Caller) -> Live:
        if not files:
            return await self._runner.submit(order, client.name, client.role)
        self._runner.check(order, client.role)
        folder = await self._uploads.save(files)
        try:
            live = await self._runner.submit(replace(order, uploads=Uploaded(folder)), client.name, client.role)
        except JobletError:
            await self._forget(folder)
            raise
        # A client that has gone meanwhile leaves a job which needs them.
        if live.job.uploads != Uploaded(folder):  # the same key has given it before
            await self._forget(folder)
        return live

    async def _submit_uploaded(self, order: Order, key: str, client: Caller) -> Live:
        """A job that takes an upload; repeated, when the upload is gone, the job that has taken it."""
        self._runner.check(order, client.role)

        async def give(upload: Handed) -> tuple[Live, str]:
            live = await self._runner.submit(replace(order, uploads=Uploaded(upload.token)), client.name, client.role)
            return live, live.job.uploads.folder if live.job.uploads else ""

        try:
            return await self._sessions.hand_over(client.name, key, give)
        except UploadNotFound:
            if (live := await self._runner.made(order, client.name, client.role)) is None:
                raise
            return live

    async def _forget(self, folder: str) -> None:
        with suppress(OSError):  # the next server removes what nobody has
            await self._uploads.remove(folder)

    async def get_job_status(self, message: pb.GetJobStatusReq) -> pb.GetJobStatusRes:
        if message.wait_for_end and (live := self._runner.find(message.id)) is not None:
            await self._hub.until(live.ended)
            return self._status(live.job)
        return self._status(await self._runner.get(message.id))

    async def stop_job(self, message: pb.StopJobReq) -> pb.StopJobRes:
        stop = stop_of(message.signal, message.grace_ms)
        job = await self._runner.stop(message.id, f"stopped by {caller.get().name}", stop)
        return pb.StopJobRes(id=str(job.id), status=job.state, end_time=rfc3339(job.ended_at), exit_code=job.exit_code)

    async def pause_job(self, message: pb.PauseJobReq) -> pb.GetJobStatusRes:
        return self._status(await self._runner.pause(message.id, caller.get().name))

    async def resume_job(self, message: pb.ResumeJobReq) -> pb.GetJobStatusRes:
        return self._status(await self._runner.resume(message.id, caller.get().name))

    async def set_job_timeout(self, message: pb.SetJobTimeoutReq) -> pb.GetJobStatusRes:
        return self._status(await self._runner.set_timeout(message.id, message.timeout_ms, caller.get().name))

    async def list_jobs(self, message: pb.EmptyRequest) -> pb.Jobs:
        """The newest jobs that fit into a message, the oldest of them first as in API.md."""
        if message.page_size < 0:
            raise InvalidArgument(f"invalid pageSize: {message.page_size} (allowed 0 and above)")
        before = parse_id(message.before) if message.before else 2**63 - 1
        wanted = message.page_size or 2**63 - 1
        page = Page(self._max_message)
        owner = caller.get().sees
        while jobs := await self._runner.newest(min(wanted - len(page) + 1, _BATCH), before, owner):
            for job in jobs:
                if len(page) == wanted or not page.add(self._encoder.encode(self._fields(job))):
                    return cast(pb.Jobs, page.message(more=True))
            before = jobs[-1].id
        return cast(pb.Jobs, page.message(more=False))

    async def get_job_logs(self, message: pb.GetJobLogsReq) -> AsyncGenerator[pb.DataChunk]:
        view, pattern = view_of(message), await pattern_of(message)
        job = await self._runner.get(message.id)
        if message.stream and not job.separate_streams:
            raise StreamsMerged(job.id)
        live = None if message.no_follow or message.until is not None else self._runner.find(message.id)
        if live is not None:
            await self._hub.until(live.launched)
            job = live.job
        path = self._executor.log_path(job.id)
        if job.exec_at is not None and _is_missing(path):
            raise LogMissing(job.id)
        if view is None:
            messages = self._teller.shared(self._chunks(job.id, path, live, message.offset))
        else:
            try:
                start, end = await view.find(path)
            except FileNotFoundError:  # it has not begun
                start = end = message.offset
            end = end if message.no_follow or message.until is not None else FARTHEST
            chunks = self._chunks(job.id, path, live, start, end)
            messages = self._teller.told(
                chunks, path, start, timestamps=message.timestamps, pattern=pattern, stream=message.stream
            )
        async with aclosing(messages):
            async for encoded in messages:
                yield cast(pb.DataChunk, encoded)

    def _chunks(
        self, job_id: int, path: Path, live: Live | None, start: int, end: int = FARTHEST
    ) -> AsyncGenerator[Chunk]:
        if live is None:
            return self._hub.read(job_id, path, start, end)
        return self._hub.follow(job_id, path, start, live.ended)

    def _status(self, job: Job) -> pb.GetJobStatusRes:
        return cast(pb.GetJobStatusRes, Encoded(self._statuses.encode(self._whole(job))))

    def _whole(self, job: Job) -> dict[str, Any]:
        return self._fields(job) | {"receipt": receipt_of(job.receipt), "outputs": dict(job.outputs)}

    def _fields(self, job: Job) -> dict[str, Any]:
        return fields_of(job, self._reason(job))

    def _reason(self, job: Job) -> str:
        if job.state is State.PENDING:
            own = caller.get().own  # who is not to know of others' jobs
            return "waiting for a slot" if own else f"waiting for a slot, place {self._runner.place(job)} in the queue"
        if job.state is State.SCHEDULED and job.queued:
            return f"waiting for the end of the other jobs of schedule {job.schedule_id}"
        return f"paused by {job.paused_by}" if job.paused_by else job.reason


def _is_missing(path: Path) -> bool:
    return not path.exists()
