# ruff: noqa: ASYNC110, ASYNC230 -- turns of the loop are what is waited for; files here are small
"""A server without its wire, on a host whose jobs end when and as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joblet import clock
from joblet.access import Quota
from joblet.admission import Admission
from joblet.engine import Engine, WorkflowOrder
from joblet.errors import CannotPause, HostUnable, NoRoom
from joblet.executor.base import Exit, LaunchFailed, Lost
from joblet.job import Job, Limits, State, Stop
from joblet.life import Live
from joblet.logs import LogHub
from joblet.order import Order, Policy
from joblet.runner import Runner
from joblet.store import Store, Workflows
from joblet.uploads import File, Uploads
from joblet.workflow.plan import Plan
from joblet.workflow.record import StepRecord, Workflow

MEMORY = "/dev/shm" if os.path.ismount("/dev/shm") else None
"""where thousands of commits cost no disk"""

PATIENCE = 10.0


class Scripted:
    """A job under way whose end the test decides."""

    def __init__(self, host: Host, job_id: int, started_at: int | None = None) -> None:
        """`host` is told when it has ended, and remembers how."""
        self.pid = 4711
        self.started_at = started_at or clock.now_ns()
        self.signalled = asyncio.Event()
        self.stops: list[Stop] = []
        self._host = host
        self._job_id = job_id
        self._end: asyncio.Future[Exit | Lost] = asyncio.get_running_loop().create_future()

    def elapsed(self) -> float:
        return (clock.now_ns() - self.started_at) / 1e9

    async def wait(self) -> Exit | Lost:
        return await asyncio.shield(self._end)

    async def stop(self, stop: Stop) -> None:
        self.stops.append(stop)
        self.signalled.set()
        if self._host.obedient:
            self.end(signal=signal.SIGTERM, stopped=True)

    async def freeze(self) -> None:
        if self._host.cannot_freeze:
            raise CannotPause("a test")
        self._host.frozen.add(self._job_id)

    async def thaw(self) -> None:
        self._host.frozen.discard(self._job_id)

    async def is_frozen(self) -> bool:
        return self._job_id in self._host.frozen

    def end(self, **outcome: Any) -> None:
        if not self._end.done():
            self._be(Exit(ended_at=clock.now_ns(), started_at=self.started_at, **outcome))

    def lose(self, reason: str) -> None:
        self._be(Lost(reason))

    def _be(self, end: Exit | Lost) -> None:
        self._end.set_result(end)
        self._host.ends[self._job_id] = end
        del self._host.under_way[self._job_id]


class Plain:
    """A job that is a process like any other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self.started_at = clock.now_ns()
        self._process = process
        self._stopped = False

    def elapsed(self) -> float:
        return (clock.now_ns() - self.started_at) / 1e9

    async def wait(self) -> Exit | Lost:
        status = await self._process.wait()
        return Exit(
            ended_at=clock.now_ns(),
            started_at=self.started_at,
            code=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            stopped=self._stopped,
        )

    async def freeze(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    async def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    async def is_frozen(self) -> bool:
        return False

    async def stop(self, stop: Stop) -> None:
        if self._process.returncode is None:
            self._stopped = True
            os.killpg(self.pid, stop.signal)


async def everything(store: Store) -> list[Job]:
    """All jobs, by id."""
    return (await store.newest(1_000_000, 2**62))[::-1]


@dataclass
class Host:
    """The second implementation of the Executor seam: plain processes, or what the test has written down.

    It outlives the servers of a test, as the machine outlives the real one.
    """

    folder: Path
    epoch: str = "since this test began"
    full: bool = False
    obedient: bool = True
    """scripted jobs end when they are told to"""
    unable: HostUnable | None = None
    failures: dict[int, Exception] = field(default_factory=dict)
    """launches that fail"""
    on_launch: Callable[[Job], Exception | None] = lambda job: None
    """told of every launch; one for which it returns an error fails"""
    hold: asyncio.Event | None = None
    """launches wait for it"""
    launches: list[int] = field(default_factory=list)
    jobs: dict[int, Job] = field(default_factory=dict)
    """that were launched"""
    launching: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: dict[int, Scripted] = field(default_factory=dict)
    ends: dict[int, Exit | Lost] = field(default_factory=dict)
    """of jobs that ended here, or could not be launched"""
    frozen: set[int] = field(default_factory=set)
    cannot_freeze: bool = False
    most_at_once: int = 0
    found: dict[int, Scripted | Exit | Lost | None] = field(default_factory=dict)
    slow_to_find: set[int] = field(default_factory=set)
    recovering: int = 0
    launched_too_early: bool = False
    """before all was found that is there already"""

    def check_room(self) -> None:
        if self.full:
            raise NoRoom(Path("/jobs"))

    async def probe(self) -> None:
        if self.unable is not None:
            raise self.unable

    async def launch(self, job: Job, begun: object = None) -> Scripted | Plain:
        self.check_room()
        self.launches.append(job.id)
        self.jobs[job.id] = job
        self.launching.set()
        self.launched_too_early |= self.recovering > 0
        if self.hold is not None:
            await self.hold.wait()
        failure = self.failures.get(job.id) or self.on_launch(job)
        if failure is not None:
            if isinstance(failure, LaunchFailed):
                self.ends[job.id] = Exit(ended_at=clock.now_ns(), launch_error=failure)
            raise failure
        if job.command != "scripted":
            with open(self.log_path(job.id), "wb") as log:
                process = await asyncio.create_subprocess_exec(
                    job.command, *job.args, stdout=log, stderr=log, start_new_session=True
                )
            return Plain(process)
        self.log_path(job.id).touch()
        self.under_way[job.id] = Scripted(self, job.id)
        self.most_at_once = max(self.most_at_once, len(self.under_way))
        return self.under_way[job.id]

    async def recover(self, job: Job) -> Scripted | Exit | Lost | None:
        self.recovering += 1
        for _ in range(100 if job.id in self.slow_to_find else 0):
            await asyncio.sleep(0)
        self.recovering -= 1
        if job.id in self.found:
            return self.found[job.id]
        return self.under_way.get(job.id) or self.ends.get(job.id)

    def log_path(self, job_id: int) -> Path:
        return self.folder / f"{job_id}.log"

    async def disk_bytes(self, job_id: int) -> int:
        return self.log_path(job_id).stat().st_size

    async def remove(self, job_id: int) -> None:
        self.log_path(job_id).unlink(missing_ok=True)

    async def shared_bytes(self, workflow_id: int) -> int:
        return 0

    async def remove_shared(self, workflow_id: int) -> None:
        pass


class Site:
    """A server without its wire: real store, hub, admission and runner, on a host that stays."""

    def __init__(
        self, folder: Path, slots: int, queue: int, timeout: float, quotas: Mapping[str, Quota] | None = None
    ) -> None:
        self.folder = folder
        self.quotas = quotas or {}
        self.host = Host(folder)
        self._sizes = slots, queue
        self._timeout = timeout
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.folder / "joblet.db")
        self.hub = LogHub()
        ceiling = Limits(400, 4096, 2**31 - 1)
        policy = Policy(Limits(100, 512, 0), ceiling, self._timeout, quotas=self.quotas)
        self.runner = Runner(self.store, self.host, Admission(*self._sizes), self.hub, policy)

    async def close(self) -> None:
        await self.hub.close()
        await self.runner.close()
        await self.store.close()

    async def restart(self) -> None:
        await self.close()
        self.open()
        await self.runner.recover()

    def submit(self, *argv: str) -> Coroutine[Any, Any, Live]:
        command, *args = argv or ("scripted",)
        return self.runner.submit(Order(command, tuple(args)), "alice", "admin")

    async def running(self) -> tuple[Live, Scripted]:
        live = await self.submit()
        await live.launched.wait()
        return live, self.host.under_way[live.job.id]

    async def stored(self, live: Live | int) -> Job:
        job = await self.store.get(live if isinstance(live, int) else live.job.id)
        assert job is not None
        return job

    async def ended(self, live: Live) -> tuple[State, int, str]:
        async with asyncio.timeout(PATIENCE):
            await live.ended.wait()
        job = await self.stored(live)
        return job.state, job.exit_code, job.reason

    def live(self, job_id: int) -> Live:
        live = self.runner.find(str(job_id))
        assert live is not None
        return live

    def sql(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.folder / "joblet.db", isolation_level=None)) as connection:
            connection.execute(statement)

    @contextlib.contextmanager
    def disk_full(self, change: str = "UPDATE", when: str = "1") -> Iterator[None]:
        """The database refuses changes as it does on a full disk."""
        self.sql(
            f"CREATE TRIGGER full BEFORE {change} ON jobs WHEN {when} BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )
        yield
        self.sql("DROP TRIGGER full")


class Works(Site):
    """A site that runs workflows too."""

    def __init__(
        self,
        folder: Path,
        *,
        slots: int = 2,
        queue: int = 10,
        most: int = 10,
        most_steps: int = 1000,
        quotas: Mapping[str, Quota] | None = None,
    ) -> None:
        self.bounds = {"most": most, "most_steps": most_steps}
        super().__init__(folder, slots, queue, 3600, quotas)

    def open(self) -> None:
        super().open()
        self.workflows = Workflows(self.store.database, self.store.sealer)
        self.uploads = Uploads(self.folder)
        self.engine = Engine(self.workflows, self.runner, self.uploads, **self.bounds)

    async def close(self) -> None:
        await self.engine.close()
        await super().close()

    async def restart(self) -> None:
        await super().restart()
        await self.engine.recover()

    async def order(
        self, jobs: dict[str, Any], *, files: Sequence[File] = (), key: str = "", **header: Any
    ) -> Workflow:
        """Submit a workflow of these jobs, which are scripted where they do not say otherwise."""
        jobs = {name: {"command": "scripted", **job} for name, job in jobs.items()}
        text = json.dumps({"jobs": jobs, **header})  # which is YAML
        return await self.engine.submit(WorkflowOrder("test.yaml", text, files, key=key), "alice", "admin")

    async def over(self, workflow_id: int = 1) -> Workflow:
        """A workflow that ends by itself, once it has."""
        async with asyncio.timeout(PATIENCE):
            while (workflow := await self.engine.get(str(workflow_id))).ended_at is None:
                await asyncio.sleep(0)
        return workflow

    async def records(self, workflow_id: int = 1) -> dict[str, StepRecord]:
        """What each of its steps has come to."""
        return {record.name: record for record in await self.workflows.steps(workflow_id)}

    async def under_way(self, *names: str) -> list[Scripted]:
        """The jobs with these names, once all of them run."""
        async with asyncio.timeout(PATIENCE):
            while True:
                running = {self.host.jobs[job_id].name: job for job_id, job in self.host.under_way.items()}
                if running.keys() >= set(names):
                    return [running[name] for name in names]
                await asyncio.sleep(0)


def file_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """The jobs of a workflow's file that has this plan."""
    return {
        step.name: {
            "requires": [{"expression": str(step.condition)}] if step.dependencies else [],
            "priority": step.order.priority,
            "retries": {"limit": step.retry.limit, "exit_codes": sorted(step.retry.exit_codes)}
            if step.retry.exit_codes
            else step.retry.limit,
            "continue_on_failure": step.continue_on_failure,
        }
        for step in plan.steps
    }
