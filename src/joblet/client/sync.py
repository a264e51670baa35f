"""The client for code that does not await: scripts, notebooks, threads. The same names; streams are generators.

Example::

    from joblet.client import sync

    with sync.Client.from_env() as client:
        job = client.run("python3", "train.py", max_memory=256)
        for chunk in job.logs():
            sys.stdout.buffer.write(chunk)
        print(job.wait().exit_code)
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from joblet.client import client as _async
from joblet.client._blocking import Blocking, blocking, making, streaming
from joblet.client._blocking_exec import ExecSession
from joblet.client._exec_calls import MOST_OUTPUT, ExecOutput
from joblet.client._workflow_calls import Workflow as AsyncWorkflow
from joblet.client.config import ClientConfig
from joblet.client.jobs import JobInfo, StopResult, Terminal
from joblet.client.session import Session as AsyncSession
from joblet.client.workflows import Event, WorkflowInfo, WorkflowStatus


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

    def status(self) -> JobInfo:
        """What the server knows of it now."""
        return self.client.status(self.id)

    def wait(self) -> JobInfo:
        """How it, or the last of its attempts, has ended, as soon as it has; restarts of the server are waited for."""
        return self.client._run(lambda client: _async.Job(client, self.info).wait())

    def attempts(self) -> Generator[JobInfo]:
        """How it has ended, then each attempt that follows it; see Client.attempts."""
        return self.client.attempts(self.id)

    def stop(self, signal: str = "", grace: float | None = None) -> StopResult:
        """Stop it; see Client.stop."""
        return self.client.stop(self.id, signal, grace)

    def pause(self) -> JobInfo:
        """Keep it from running; see Client.pause."""
        return self.client.pause(self.id)

    def resume(self) -> JobInfo:
        """Let it go on; see Client.resume."""
        return self.client.resume(self.id)

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

    def exec_output(
        self,
        command: str,
        *args: str,
        environment: Mapping[str, str] | None = None,
        workdir: str = "",
        input: bytes = b"",
        most: int = MOST_OUTPUT,
    ) -> ExecOutput:
        """Run another command in it to that one's end; see Client.exec_output."""
        return self.client.exec_output(
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
    ) -> Generator[bytes]:
        """Its output; see Client.logs."""
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


class Session:
    """One job, to be used in `with`: iterating gives its output, to its end; see joblet.client.Session.

    Reading and writing may be done by threads of their own.
    """

    def __init__(self, client: Client, session: AsyncSession) -> None:
        self._client = client
        self._session = session
        self._output: Generator[bytes] | None = None

    @property
    def job(self) -> JobInfo:
        """The job as of the start of the session."""
        return self._session.job

    @property
    def stdin(self) -> bool:
        """Whether it can send."""
        return self._session.stdin

    @property
    def sent(self) -> int:
        """Bytes that were written."""
        return self._session.sent

    @property
    def taken(self) -> int:
        """Bytes that the job's input is known to have taken; exact after `flush` and `end`."""
        return self._session.taken

    def __enter__(self) -> Self:
        """Look at the job. Raises NotFound, or FailedPrecondition when it takes no input."""
        self._client._run(lambda _: self._session.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._output is not None:
            self._output.close()
        self._client._run(lambda _: self._session.__aexit__(kind, error, trace))

    def __iter__(self) -> Iterator[bytes]:
        """The job's output."""
        self._output = self._client._stream(lambda _: self._session.__aiter__())
        return self._output

    def write(self, data: bytes) -> None:
        """Send bytes; see joblet.client.Session.write."""
        self._client._run(lambda _: self._session.write(data))

    def resize(self, rows: int, columns: int) -> None:
        """Give the job's terminal another size."""
        self._client._run(lambda _: self._session.resize(rows, columns))

    def end(self) -> None:
        """Let the job meet the end of its input, and wait until it has taken all."""
        self._client._run(lambda _: self._session.end())

    def flush(self) -> None:
        """Wait until the job's input has taken what was written."""
        self._client._run(lambda _: self._session.flush())


@dataclass(frozen=True)
class Workflow:
    """A workflow that this client has run."""

    client: Client
    info: WorkflowInfo
    """the answer to `run_workflow`, as of then"""

    @property
    def id(self) -> str:
        """The server's name for it."""
        return self.info.id

    def status(self) -> WorkflowStatus:
        """What the server knows of it and its jobs now."""
        return self.client.workflow(self.id)

    def stop(self) -> WorkflowInfo:
        """Stop it; see Client.stop_workflow."""
        return self.client.stop_workflow(self.id)

    def events(self, after: int = 0, *, reconnect: bool = False) -> Generator[Event]:
        """What happens to it and its jobs, to its end; see Client.events."""
        return self.client.events(after, workflow=self.id, reconnect=reconnect)

    def wait(self) -> WorkflowStatus:
        """How it has ended, as soon as it has; restarts of the server are waited for."""
        return self.client._run(lambda client: AsyncWorkflow(client, self.info).wait())


class Client(Blocking):
    """One connection to one server, to be used in `with`; threads may share it. Each call blocks its thread only.

    Methods are those of joblet.client.Client, and raise what they raise. A generator holds one thing at a time: who is
    slow slows the stream. To leave one early and at once, close it (contextlib.closing).
    """

    @classmethod
    def from_env(
        cls,
        *,
        server: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        ca: str | None = None,
        config: str | Path | None = None,
        node: str | None = None,
    ) -> Self:
        """A client with the settings that `rnx` would use; arguments win over the environment and the file.

        Raises SettingsError.
        """
        return cls(ClientConfig.resolve(server=server, cert=cert, key=key, ca=ca, config=config, node=node))

    def __enter__(self) -> Self:
        """Read the certificates. The connection is made by the first call.

        Raises SettingsError when a certificate or the key cannot be used.
        """
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    run = making(_async.Client.run, lambda client, job: Job(client, job.info))
    status = blocking(_async.Client.status)
    wait = blocking(_async.Client.wait)
    attempts = streaming(_async.Client.attempts)
    list = blocking(_async.Client.list)
    list_all = streaming(_async.Client.list_all)
    set_timeout = blocking(_async.Client.set_timeout)
    delete = blocking(_async.Client.delete)
    delete_all = blocking(_async.Client.delete_all)
    stop = blocking(_async.Client.stop)
    logs = streaming(_async.Client.logs)

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
        """Be at a job's input and output: `with client.attach(id) as session`; see joblet.client.Client.attach."""
        session = self._client.attach(
            job_id, stdin=stdin, offset=offset, tail=tail, tail_bytes=tail_bytes, reconnect=reconnect
        )
        return Session(self, session)

    log_chunks = streaming(_async.Client.log_chunks)
    pause = blocking(_async.Client.pause)
    resume = blocking(_async.Client.resume)
    tail = blocking(_async.Client.tail)
    usage = streaming(_async.Client.usage)
    system_status = blocking(_async.Client.system_status)
    system_metrics = streaming(_async.Client.system_metrics)
    read_files = streaming(_async.Client.read_files)
    download = blocking(_async.Client.download)
    exec_output = blocking(_async.Client.exec_output)

    def exec(
        self,
        job_id: str,
        command: str,
        *args: str,
        environment: Mapping[str, str] | None = None,
        workdir: str = "",
        stdin: bool = False,
        terminal: Terminal | None = None,
    ) -> ExecSession:
        """Run another command in a running job; see joblet.client.Client.exec."""
        session = self._client.exec(
            job_id, command, *args, environment=environment, workdir=workdir, stdin=stdin, terminal=terminal
        )
        return ExecSession(self, session)

    run_workflow = making(_async.Client.run_workflow, lambda client, workflow: Workflow(client, workflow.info))
    workflow = blocking(_async.Client.workflow)
    list_workflows = blocking(_async.Client.list_workflows)
    list_all_workflows = streaming(_async.Client.list_all_workflows)
    stop_workflow = blocking(_async.Client.stop_workflow)
    retry_workflow = blocking(_async.Client.retry_workflow)
    delete_workflow = blocking(_async.Client.delete_workflow)
    events = streaming(_async.Client.events)
