"""The load: short jobs at a steady rate, followers of a long one, workflows, and users' mistakes. All is checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress

from harness import PATIENCE, Server

from benchmarks.site import connected
from benchmarks.soak.samples import Times
from joblet.client import Client, Event, InvalidArgument, Job, JobletError, NotFound
from joblet.client.jobs import ENDED

MOST_WRONG = 100
"""findings; more say nothing new"""
SAMPLE = 50
"""of so many jobs the output of one is read"""
FAILING = 10
"""of so many jobs one exits with CODE"""
CODE = 3
_IN_FLIGHT = 100
"""short jobs at a time: a server that is too slow is not buried"""

_WRITER = """
import signal, time
going = True
def end(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, end)
count = 0
while going:
    print(count, flush=True)
    count += 1
    time.sleep(0.2)
print("end", count, flush=True)
"""
_WORKFLOW = """
jobs:
  begin: {command: sh, args: ["-c", "echo n=20 >> $JOBLET_OUTPUT"]}
  left: {command: sh, args: ["-c", "echo n=$((${{ jobs.begin.outputs.n }} + 1)) >> $JOBLET_OUTPUT"], requires: [begin]}
  right: {command: sh, args: ["-c", "echo n=$((${{ jobs.begin.outputs.n }} + 1)) >> $JOBLET_OUTPUT"], requires: [begin]}
  end:
    command: sh
    args: ["-c", "echo n=$((${{ jobs.left.outputs.n }} + ${{ jobs.right.outputs.n }})) >> $JOBLET_OUTPUT"]
    requires: [left, right]
"""


class TooMuchWrong(Exception):
    """The load has been given up."""


class Findings:
    """What was not as it should be."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def say(self, text: str) -> None:
        """Note it. Raises TooMuchWrong."""
        self.wrong.append(text)
        if len(self.wrong) >= MOST_WRONG:
            raise TooMuchWrong

    def hear(self, line: str) -> None:
        """Note what the server warns of in its log, but for jobs that end as they should."""
        if ("] [WARN] " in line or "] [ERROR] " in line) and "] job ended | " not in line:
            self.wrong.append(line.rstrip())

    def compare(self, what: str, found: object, expected: object) -> None:
        """Note what is not equal."""
        if found != expected:
            self.say(f"{what}: {found!r}, not {expected!r}")


class Ends:
    """How jobs have ended, by one stream of all events. Every end that is told of is asked for once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._told: dict[str, asyncio.Future[tuple[Event, float]]] = {}

    async def watch(self) -> None:
        """Take events until cancelled."""
        async with aclosing(self._client.events()) as events:
            async for event in events:
                if event.status in ENDED and not event.workflow_id:
                    self._of(event.job_id).set_result((event, time.perf_counter()))

    async def of(self, job: Job) -> tuple[Event, float]:
        """The end of a job, and when it was told. Raises TimeoutError."""
        try:
            return await asyncio.wait_for(self._of(job.id), PATIENCE)
        finally:
            del self._told[job.id]

    def _of(self, job_id: str) -> asyncio.Future[tuple[Event, float]]:
        if job_id not in self._told:
            self._told[job_id] = asyncio.get_running_loop().create_future()
        return self._told[job_id]


class Load:
    """The parts of the load, each a coroutine that ends after so many seconds."""

    def __init__(self, server: Server, client: Client, ends: Ends, times: Times, findings: Findings) -> None:
        self._server = server
        self._client = client
        self._ends = ends
        self._times = times
        self._findings = findings

    async def jobs(self, count: int, seconds: float) -> None:
        """Short jobs, evenly spread."""
        slots = asyncio.Semaphore(_IN_FLIGHT)

        async def one(number: int) -> None:
            async with slots:
                await self._job(number)

        await self._spread("job", count, seconds, one)

    async def workflows(self, count: int, seconds: float) -> None:
        """A diamond that passes numbers on."""
        await self._spread("workflow", count, seconds, self._workflow)

    async def disturbances(self, count: int, seconds: float) -> None:
        """In turn: a stopped job, a stream that is left, and wrong requests."""
        kinds = (self._stop, self._leave, self._ask_wrongly)
        await self._spread("disturbance", count, seconds, lambda number: kinds[number % len(kinds)]())

    async def _spread(self, name: str, count: int, seconds: float, action: Callable[[int], Awaitable[None]]) -> None:
        async def checked(number: int) -> None:
            try:
                await action(number)
            except (JobletError, TimeoutError) as error:
                self._findings.say(f"{name} {number}: {error!r}")

        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                if (early := began + number * seconds / count - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                group.create_task(checked(number))

    async def _job(self, number: int) -> None:
        code = CODE if number % FAILING == FAILING - 1 else 0
        began = time.perf_counter()
        job = await self._client.run("sh", "-c", 'echo "job $0"; exit "$1"', str(number), str(code))
        self._times.calls.append(time.perf_counter() - began)
        event, told = await self._ends.of(job)
        self._times.ends.append(told - began)
        self._times.ended += 1
        expected = ("FAILED", CODE) if code else ("COMPLETED", 0)
        self._findings.compare(f"end of job {job.id}", (event.status, event.exit_code), expected)
        if number % SAMPLE == 0:
            output = b"".join([chunk async for chunk in job.logs()])
            self._findings.compare(f"output of job {job.id}", output, f"job {number}\n".encode())

    async def _workflow(self, number: int) -> None:
        made = await self._client.run_workflow(f"soak-{number}.yaml", text=_WORKFLOW)
        end = await asyncio.wait_for(made.wait(), PATIENCE)
        self._findings.compare(f"end of workflow {made.id}", end.workflow.status, "COMPLETED")
        self._findings.compare(f"result of workflow {made.id}", end.jobs[-1].outputs, {"n": "42"})

    async def _stop(self) -> None:
        job = await self._client.run("sleep", "1000", wait_for_start=True)
        stopped = await job.stop()
        event, _ = await self._ends.of(job)
        self._findings.compare(f"stop of job {job.id}", (stopped.status, event.status), ("STOPPED", "STOPPED"))

    async def _leave(self) -> None:
        """Leave a stream, and then a connection with another one."""
        job = await self._client.run("sh", "-c", "head -c 1000000 /dev/zero; exec sleep 1000", wait_for_start=True)
        async with connected(self._server) as client:
            async with aclosing(client.logs(job.id)) as chunks:
                await anext(chunks)
            left = client.logs(job.id)
            await anext(left)
        with suppress(JobletError):  # the connection is closed
            await left.aclose()
        await job.stop(grace=0)
        await self._ends.of(job)

    async def _ask_wrongly(self) -> None:
        for name, call, error in (
            ("a job without a command", self._client.run(""), InvalidArgument),
            ("a job that never was", self._client.status("999999999"), NotFound),
        ):
            try:
                await call
            except error:
                continue
            self._findings.say(f"{name} was accepted")


@asynccontextmanager
async def followed(server: Server, client: Client, ends: Ends, count: int, findings: Findings) -> AsyncIterator[None]:
    """A job that writes numbered lines meanwhile, and so many clients that follow it; they must get all of it."""
    async with AsyncExitStack() as stack:
        job = await client.run("python3", "-c", _WRITER, wait_for_start=True)
        clients = [await stack.enter_async_context(connected(server)) for _ in range(count)]
        async with asyncio.TaskGroup() as group:
            followers = [group.create_task(follow(client, job.id)) for client in clients]
            yield
            await job.stop(grace=PATIENCE)
            await ends.of(job)
        for number, follower in enumerate(followers):
            if fault := follower.result():
                findings.say(f"follower {number}: {fault}")


async def follow(client: Client, job_id: str) -> str:
    """What was wrong with the lines of a job's log; empty when nothing was."""
    expected = 0
    rest = b""
    async for chunk in client.logs(job_id):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line == b"end %d" % expected:
                return ""
            if line != b"%d" % expected:
                return f"line {line!r} where {expected} should be"
            expected += 1
    return f"the log ended after {expected} lines"
