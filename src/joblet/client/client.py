"""The asynchronous client of a joblet server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from joblet.client._calls import check_text
from joblet.client._exec_calls import MOST_OUTPUT, ExecCalls, ExecOutput, ExecSession
from joblet.client._file_calls import FileCalls
from joblet.client._files import uploads as find_uploads
from joblet.client._log_calls import LogCalls
from joblet.client._patience import Patience
from joblet.client._system_calls import SystemCalls
from joblet.client._upload_calls import OnProgress
from joblet.client._usage_calls import UsageCalls
from joblet.client._waiting import attempts, statuses, wait_for_any, wait_for_last
from joblet.client._workflow_calls import WorkflowCalls
from joblet.client.errors import InvalidArgument
from joblet.client.jobs import (
    JobInfo,
    JobList,
    Schedule,
    StopResult,
    Terminal,
    info_of,
    schedule_message,
    terminal_message,
)
from joblet.client.session import Session
from joblet.proto import joblet as pb

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)


class Client(WorkflowCalls, LogCalls, ExecCalls, FileCalls, UsageCalls, SystemCalls):
    """One connection to one server, to be used in `async with`. Calls may run side by side.

    Every method may raise a ConnectionFailed, or the CallError of what the server answered (joblet.client.errors).
    """

    async def run(
        self,
        command: str,
        *args: str,
        max_cpu: int = 0,
        max_memory: int = 0,
        max_iobps: int = 0,
        cpu_cores: str = "",
        max_processes: int = 0,
        max_open_files: int = 0,
        max_disk: int = 0,
        run_timeout: float = 0,
        priority: int = 0,
        key: str = "",
        retry: bool = False,
        wait_for_start: bool = False,
        wait_for_end: bool = False,
        name: str = "",
        environment: Mapping[str, str] | None = None,
        secret_environment: Mapping[str, str] | None = None,
        workdir: str = "",
        uploads: Iterable[str | Path] = (),
        labels: Mapping[str, str] | None = None,
        schedule: str | Schedule = "",
        retries: int = 0,
        retry_delay: float = 0,
        stdin: bool = False,
        terminal: Terminal | None = None,
        separate_streams: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Create a job and return it as soon as the server has it safe, or with `wait_for_start` has exec'd it.

        With `wait_for_end` it has ended then, and `info` is how: one call for all of it, which is sent again for
        `config.patience` seconds when the server is restarted meanwhile.

        Limits are percent of one core, MB of memory, bytes per second of disk I/O, cores such as `0-3,5`, processes,
        open files of each, and MB in the work directory; 0 or empty means the server's default. The command may run for
        `run_timeout` seconds. Who waits for a slot goes before those of a lower `priority`.

        With a `key` the same order gives the same job, however often it is sent, so that the call is repeated for
        `config.patience` seconds when the connection is lost; `retry` is the same with a key that nobody else has.
        Without a key, whether there is a job after a ConnectionLost is not known.

        The job is called `name`, for people to know it by. Its command gets the variables of `environment`, and those
        of `secret_environment`, whose values no answer shows. It starts in `workdir`: below the work directory, or an
        absolute path. `uploads` are files and directories of this machine: in the work directory a file lies by its
        name, a directory as what is in it. Large ones go in pieces before the order; the server keeps for a while what
        it has of them, so that the same call goes on where an earlier one broke off. `on_progress` is told of bytes
        sent and of how many there are. Raises InvalidArgument when one cannot be read, or changes meanwhile.

        `labels` are for finding it. With a `schedule` it runs later, or again and again. When it fails, it is run again
        `retries` times, as a new job each time, the first after `retry_delay` seconds (0: 1), then after twice as long
        each time. With `stdin` or a `terminal` it takes input. With `separate_streams` its log tells stdout and stderr
        apart, and their order is only nearly kept.
        """
        keyed = bool(key)
        key = key or (secrets.token_hex(16) if retry or wait_for_end else "")
        for field, limit in (
            ("maxCPU", max_cpu),
            ("maxMemory", max_memory),
            ("maxIOBPS", max_iobps),
            ("maxProcesses", max_processes),
            ("maxOpenFiles", max_open_files),
            ("maxDisk", max_disk),
            ("priority", priority),
            ("retries", retries),
        ):
            if limit not in _INT32:
                raise InvalidArgument(f"invalid {field}: {limit} is not a 32-bit number")
        labels = dict(labels or {})
        schedule = Schedule(schedule) if isinstance(schedule, str) else schedule
        environment, secret_environment = dict(environment or {}), dict(secret_environment or {})
        check_text("command", command, *args, cpu_cores, key)
        check_text("name", name)
        check_text("workdir", workdir)
        check_text("labels", *labels, *labels.values())
        check_text("schedule", schedule.when, schedule.timezone, schedule.overlap, schedule.catch_up)
        check_text("environment", *environment, *environment.values())
        check_text("secret_environment", *secret_environment, *secret_environment.values(), secret=True)
        request = pb.RunJobReq(
            command=command,
            args=list(args),
            max_cpu=max_cpu,
            max_memory=max_memory,
            max_iobps=max_iobps,
            cpu_cores=cpu_cores,
            max_processes=max_processes,
            max_open_files=max_open_files,
            max_disk=max_disk,
            timeout_ms=_milliseconds(run_timeout),
            priority=priority,
            key=key,
            wait_for_start=wait_for_start,
            wait_for_end=wait_for_end,
            name=name,
            environment=environment,
            secret_environment=secret_environment,
            workdir=workdir,
            labels=labels,
            schedule=schedule_message(schedule) if schedule.when else None,
            retries=retries,
            retry_delay_ms=_milliseconds(retry_delay, "retry_delay"),
            stdin=stdin,
            terminal=None if terminal is None else terminal_message(terminal),
            separate_streams=separate_streams,
        )
        timeout = None if wait_for_start or wait_for_end else self.config.timeout
        patience = Patience(self.config.patience if key else 0)

        async def send(files: Sequence[pb.FileUpload], upload_key: str) -> Job:
            request.uploads, request.upload_key = [*files], upload_key
            answer = await self._repeat(patience, lambda: self._stub.run_job(request, timeout=timeout))
            return Job(self, info_of(answer))

        sources = await asyncio.to_thread(find_uploads, uploads)
        return await self._send_with(sources, send, keyed=keyed, on_progress=on_progress)

    async def status(self, job_id: str, *, wait_for_end: bool = False, reconnect: bool = False) -> JobInfo:
        """What the server knows of a job; with `wait_for_end` as soon as it has ended.

        With `reconnect` a server that is being restarted is waited for, for `config.patience` seconds.
        """
        request = pb.GetJobStatusReq(id=job_id, wait_for_end=wait_for_end)
        timeout = None if wait_for_end else self.config.timeout
        patience = Patience(self.config.patience if reconnect else 0)
        patience.renew()  # whoever asks for patience has reached it before
        return info_of(await self._repeat(patience, lambda: self._stub.get_job_status(request, timeout=timeout)))

    async def wait(self, job_ids: str | Iterable[str], *, any: bool = False) -> Sequence[JobInfo]:
        """How jobs have ended, in the order of their ids, as soon as all have; with `any` those that have when one has.

        A job that is run again when it fails has ended when its last attempt has, which is in its place then. Nothing
        is asked again and again: the server tells. Its restarts are waited for, for `config.patience` seconds each.
        Raises NotFound at once when it does not know one of them, or when one is deleted meanwhile.
        """
        ids = [job_ids] if isinstance(job_ids, str) else list(dict.fromkeys(job_ids))
        jobs = await statuses(self, ids)
        if not any:
            return [job if _is_over(job) else await wait_for_last(self, job.id) for job in jobs]
        if ended := [job for job in jobs if _is_over(job)]:
            return ended
        if len(ids) == 1:
            return [await wait_for_last(self, ids[0])]
        return await wait_for_any(self, ids) if ids else []

    def attempts(self, job_id: str) -> AsyncGenerator[JobInfo]:
        """How a job has ended, then each attempt that follows it (`retried_by`), as soon as they have; see `wait`."""
        return attempts(self, job_id)

    async def list(self, *, limit: int = 0, before: str = "") -> JobList:
        """The newest jobs, by id: as many as fit into one answer, or at most `limit`; with `before` only older ones."""
        request = pb.EmptyRequest(page_size=limit, before=before)
        answer = await self._call(self._stub.list_jobs(request, timeout=self.config.timeout))
        return JobList([info_of(job) for job in answer.jobs], more=answer.more)

    async def list_all(self, *, before: str = "") -> AsyncGenerator[JobInfo]:
        """Every job, newest first, in as many calls as it takes; with `before` only older ones."""
        more = True
        while more:
            page = await self.list(before=before)
            for job in reversed(page):
                yield job
            more = page.more
            before = page[0].id if page else before

    async def set_timeout(self, job_id: str, seconds: float) -> JobInfo:
        """Change how many seconds a job may run, counted from the start of its command.

        Raises FailedPrecondition when it has ended.
        """
        request = pb.SetJobTimeoutReq(id=job_id, timeout_ms=_milliseconds(seconds))
        return info_of(await self._call(self._stub.set_job_timeout(request, timeout=self.config.timeout)))

    async def delete(self, job_id: str) -> None:
        """Remove an ended job and its log, which takes as long as its files do.

        Raises FailedPrecondition when it has not ended.
        """
        await self._call(self._jobs_stub.delete_job(pb.DeleteJobReq(id=job_id)))

    async def delete_all(self) -> tuple[int, int]:
        """Remove all ended jobs and their logs: how many are gone, and how many have not ended."""
        answer = await self._call(self._jobs_stub.delete_all_jobs(pb.DeleteAllJobsReq()))
        return answer.deleted_count, answer.skipped_count

    async def stop(self, job_id: str, signal: str = "", grace: float | None = None) -> StopResult:
        """Stop a job: SIGTERM, or a `signal` such as INT, then SIGKILL. Returns when it has ended.

        That can take `grace` seconds (0: it is killed at once), or else what the server grants. To ask once more
        meanwhile, with less grace, hastens it. Raises FailedPrecondition when it has ended before.
        """
        check_text("signal", signal)
        grace_ms = None if grace is None else _milliseconds(grace, "grace")
        answer = await self._call(self._stub.stop_job(pb.StopJobReq(id=job_id, signal=signal, grace_ms=grace_ms)))
        return StopResult(answer.id, answer.status, answer.end_time, answer.exit_code)

    async def pause(self, job_id: str) -> JobInfo:
        """Keep all processes of a running job from running, until `resume`. It stays RUNNING, and its timeout goes on.

        Returns when they stand still. Raises FailedPrecondition for one that does not run, or a host that cannot.
        """
        request = pb.PauseJobReq(id=job_id)
        return info_of(await self._call(self._stub.pause_job(request, timeout=self.config.timeout)))

    async def resume(self, job_id: str) -> JobInfo:
        """Let a paused job go on; one that is not paused does. Raises FailedPrecondition for one that does not run."""
        request = pb.ResumeJobReq(id=job_id)
        return info_of(await self._call(self._stub.resume_job(request, timeout=self.config.timeout)))

    def attach(
        self,
        job_id: str,
        *,
        stdin: bool = True,
        offset: int = 0,
        tail: int | None = None,
        tail_bytes: int | None = None,
        reconnect: bool = False,
    ) -> Session:
        """Be at a job's input and output: `async with client.attach(id) as session`.

        The output begins at byte `offset`, or with the last lines or bytes; with `reconnect` it goes on when the server
        is restarted, as in `logs`. Without `stdin` there is only that.
        """

        async def open_output() -> AsyncGenerator[bytes]:
            # Before anything is sent: what a job writes in answer to that is never before the place to begin at.
            begin = await self._log_start(job_id, offset, tail, tail_bytes)
            return self.logs(job_id, offset=begin, reconnect=reconnect)

        return Session(self, job_id, open_output, stdin=stdin)

    async def tail(self, job_id: str, size: int = 16384) -> bytes:
        """The last `size` bytes of the job's output as of now, however long it is."""
        return b"".join([chunk async for chunk in self.logs(job_id, follow=False, tail_bytes=size)])


def _is_over(job: JobInfo) -> bool:
    return job.ended and not job.retried_by


def _milliseconds(seconds: float, field: str = "timeout") -> int:
    milliseconds = round(seconds * 1000)
    if milliseconds not in _INT64:
        raise InvalidArgument(f"invalid {field}: {seconds} s is beyond all bounds")
    return milliseconds


@dataclass(frozen=True)
class Job:
    """A job that this client has run."""

    client: Client
    info: JobInfo
    """the answer to `run`, as of then"""

    @property
    def id(self) -> str:
        """The server's name for it."""
        return self.info.id

    async def status(self) -> JobInfo:
        """What the server knows of it now."""
        return await self.client.status(self.id)

    async def wait(self) -> JobInfo:
        """How it, or the last of its attempts, has ended, as soon as it has; restarts of the server are waited for."""
        if _is_over(self.info):
            return self.info
        return await wait_for_last(self.client, self.id)

    def attempts(self) -> AsyncGenerator[JobInfo]:
        """How it has ended, then each attempt that follows it; see Client.attempts."""
        return self.client.attempts(self.id)

    async def stop(self, signal: str = "", grace: float | None = None) -> StopResult:
        """Stop it; see Client.stop."""
        return await self.client.stop(self.id, signal, grace)

    async def pause(self) -> JobInfo:
        """Keep it from running; see Client.pause."""
        return await self.client.pause(self.id)

    async def resume(self) -> JobInfo:
        """Let it go on; see Client.resume."""
        return await self.client.resume(self.id)

    def exec(
        self,
        command: str,
        *args: str,
        environment: Mapping[str, str] | None = None,
        workdir: str = "",
        stdin: bool = False,
        terminal: Terminal | None = None,
    ) -> ExecSession:
        """Run another command in it while it runs; see Client.exec."""
        return self.client.exec(
            self.id, command, *args, environment=environment, workdir=workdir, stdin=stdin, terminal=terminal
        )

    async def exec_output(
        self,
        command: str,
        *args: str,
        environment: Mapping[str, str] | None = None,
        workdir: str = "",
        input: bytes = b"",
        most: int = MOST_OUTPUT,
    ) -> ExecOutput:
        """Run another command in it to that one's end; see Client.exec_output."""
        return await self.client.exec_output(
            self.id, command, *args, environment=environment, workdir=workdir, input=input, most=most
        )

    def attach(
        self,
        *,
        stdin: bool = True,
        offset: int = 0,
        tail: int | None = None,
        tail_bytes: int | None = None,
        reconnect: bool = False,
    ) -> Session:
        """Be at its input and output; see Client.attach."""
        return self.client.attach(
            self.id, stdin=stdin, offset=offset, tail=tail, tail_bytes=tail_bytes, reconnect=reconnect
        )

    def logs(
        self,
        *,
        follow: bool = True,
        offset: int = 0,
        reconnect: bool = False,
        tail: int | None = None,
        tail_bytes: int | None = None,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        grep: str = "",
        stream: str = "",
    ) -> AsyncGenerator[bytes]:
        """Its output, or part of it; see Client.logs."""
        return self.client.logs(
            self.id,
            follow=follow,
            offset=offset,
            reconnect=reconnect,
            tail=tail,
            tail_bytes=tail_bytes,
            since=since,
            until=until,
            grep=grep,
            stream=stream,
        )
