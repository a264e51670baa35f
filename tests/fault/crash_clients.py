"""The clients of the crash loops: stock grpcio, which submit, stop, follow, delete and ask, and keep a record of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import grpc
from crash_jobs import FINAL, Entry, Kind, Ledger, Order, Violated
from harness import PATIENCE

AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""the server has gone, or is going; CANCELLED is what a killed server's last calls are ended with at times"""
_MOST_LONG = 4
"""jobs that would run for ever at once; the others need slots too"""
_BURST = 24
_ACTIONS = {"submit": 56, "burst": 2, "stop": 14, "status": 8, "delete": 9, "again": 8, "list": 3}


class Away(Exception):
    """The server does not answer."""


async def until_away(work: Coroutine[Any, Any, None]) -> None:
    """Do what a client does while there is a server. Raises Violated."""
    try:
        await work
    except Away:
        pass
    except grpc.aio.AioRpcError as error:
        raise Violated(f"a call failed: {error.code()} {error.details()}") from error


@dataclass
class Follower:
    """Follows a job's log to its end, from where it was when the connection broke."""

    entry: Entry
    offset: int = 0
    resumed: int = -1
    ended: bool = False

    def take(self, payload: bytes) -> None:
        expected = self.entry.order.output[self.offset : self.offset + len(payload)]
        if payload != expected:
            raise Violated(f"bytes from {self.offset} on of job {self.entry.job_id} are not its own: {payload[:200]!r}")
        self.offset += len(payload)

    def finish(self) -> None:
        """The stream has ended: so has the job, and every byte has come."""
        entry = self.entry
        self.ended = True
        if entry.final is None:
            raise Violated(f"the log of job {entry.job_id} has ended, and the job has not: {entry}")
        if entry.ended_by_itself and self.offset != len(entry.order.output):
            raise Violated(f"a follower of {entry} has {self.offset} of {len(entry.order.output)} bytes at its end")


class Clients:
    """All clients of one server, through its crashes. `connect` begins anew; what was learnt is in the ledger."""

    def __init__(self, ledger: Ledger, stock: tuple[ModuleType, ModuleType], on_event: Callable[[], None]) -> None:
        """`on_event` is told of each answer and of each piece of a log."""
        self.ledger = ledger
        self.followers: list[Follower] = []
        self.pb, self._stubs = stock
        self.on_event = on_event
        self._channel: grpc.aio.Channel | None = None

    async def connect(self, address: str, credentials: grpc.ChannelCredentials) -> None:
        await self.close()
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.secure_channel(address, credentials, options)
        self.stub = self._stubs.JobletServiceStub(self._channel)
        self.jobs_stub = self._stubs.JobServiceStub(self._channel)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def look(self) -> None:
        """List all jobs, as a client does that comes back to a restarted server; every acknowledged one is there."""
        acknowledged = len(self.ledger.by_id)
        lost = [entry for entry in self.ledger.entries.values() if entry.lost_answers and not entry.is_settled]
        asked_at = time.monotonic()
        jobs = await self.list_jobs()
        for job in jobs:
            if not job.workflowId:
                self.ledger.see(job, asked_at)
        self.ledger.complete({job.id for job in jobs}, acknowledged)
        for entry in lost:
            entry.absent = not entry.job_id and not entry.order.key
            self.ledger.counts["lost answers: job" if entry.job_id else "lost answers: no job"] += 1

    async def list_jobs(self) -> list[Any]:
        """All jobs there are."""
        jobs: list[Any] = []
        before, more = "", True
        while more:
            page = await self.call(self.stub.ListJobs, self.pb.EmptyRequest(before=before))
            jobs += page.jobs
            more, before = page.more, page.jobs[0].id if page.jobs else ""
        return jobs

    async def submit(self, order: Order, *, wait: bool = False) -> Entry:
        """Raises Away when there is no answer."""
        entry = self.ledger.add(order)
        self.ledger.counts["submissions"] += 1
        try:
            answer = await self.call(self.stub.RunJob, order.request(self.pb, wait=wait))
        except Away:
            entry.lost_answers += 1
            raise
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            if entry.job_id:
                raise Violated(f"{entry} was refused, but is there") from error
            entry.refused = True
            self.ledger.counts["refused, queue full"] += 1
            return entry
        if entry.lost_answers:
            self.ledger.counts["keyed submissions repeated"] += 1
        self.ledger.counts["acknowledged"] += 1
        self.ledger.answered.add(answer.id)
        self.ledger.acknowledge(entry, answer.id)
        return entry

    async def repeat(self) -> None:
        """Send again, with its key, what was not answered; and of what was answered too, nothing must come."""
        for entry in self.ledger.unanswered():
            await self.submit(entry.order)

    async def repeat_answered(self, entry: Entry) -> None:
        """The same key again: the same job."""
        if entry.order.key and not entry.delete_asked:
            await self.submit(entry.order)

    async def status(self, entry: Entry) -> None:
        asked_at = time.monotonic()
        try:
            answer = await self.call(self.stub.GetJobStatus, self.pb.GetJobStatusReq(id=entry.job_id))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND and entry.delete_asked:
                return
            raise
        if not entry.delete_asked:
            self.ledger.see(answer, asked_at)

    async def stop(self, entry: Entry) -> None:
        entry.stop_asked, entry.stop_answered = True, False
        self.ledger.counts["stops"] += 1
        try:
            answer = await self.call(self.stub.StopJob, self.pb.StopJobReq(id=entry.job_id))
            entry.stop_answered = True
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            await self.status(entry)
            if entry.final is None:
                raise Violated(f"{entry} cannot be stopped, and has not ended: {error.details()}") from error
            return
        if answer.status != "STOPPED" or (entry.final and entry.status != "STOPPED"):
            raise Violated(f"{entry} was stopped: {answer}")
        entry.stopped = True
        await self.status(entry)

    async def delete(self, entry: Entry) -> None:
        """An ended job that nobody follows."""
        entry.delete_asked = True
        try:
            await self.call(self.jobs_stub.DeleteJob, self.pb.DeleteJobReq(id=entry.job_id))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND or not entry.lost_answers:
                raise
        entry.deleted, entry.deleted_at = True, time.monotonic()
        self.ledger.counts["deleted"] += 1

    def follow(self, entry: Entry) -> Follower:
        self.followers.append(Follower(entry))
        return self.followers[-1]

    async def resume(self, follower: Follower) -> None:
        """Raises Away when the server goes before the log has ended."""
        follower.resumed += 1
        request = self.pb.GetJobLogsReq(id=follower.entry.job_id, offset=follower.offset)
        try:
            async for chunk in self.stub.GetJobLogs(request):
                follower.take(chunk.payload)
                self.ledger.counts["log bytes followed"] += len(chunk.payload)
                self.on_event()
        except grpc.aio.AioRpcError as error:
            if error.code() in AWAY:
                raise Away from error
            raise Violated(f"{follower}: {error.code()} {error.details()}") from error
        await self.status(follower.entry)
        follower.finish()
        self.ledger.counts["logs followed to the end"] += 1
        self.ledger.counts["resumptions by offset"] += follower.resumed

    async def log(self, job_id: str) -> bytes:
        """The whole log of an ended job."""
        request = self.pb.GetJobLogsReq(id=job_id)
        return b"".join([chunk.payload async for chunk in self.stub.GetJobLogs(request)])

    async def output_of(self, command: str, *args: str) -> str:
        """The output of a job that is in no ledger."""
        answer = await self.call(self.stub.RunJob, self.pb.RunJobReq(command=command, args=args))
        request = self.pb.GetJobLogsReq(id=answer.id)
        return b"".join([chunk.payload async for chunk in self.stub.GetJobLogs(request)]).decode()

    async def call(self, method: Any, request: Any) -> Any:
        """The answer to a call. Raises Away when there is none."""
        try:
            answer = await method(request)
        except grpc.aio.AioRpcError as error:
            if error.code() in AWAY:
                raise Away from error
            raise
        self.on_event()
        return answer


class Load:
    """What the clients do in the life of one server: drawn from `rng`, as far as what they are told allows it."""

    def __init__(
        self,
        clients: Clients,
        rng: random.Random,
        order: Callable[[], Order],
        kill_monitor: Callable[[Entry], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._clients = clients
        self._ledger = clients.ledger
        self._rng = rng
        self._order = order
        self._kill_monitor = kill_monitor
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, at_once: int, actions: int) -> None:
        """Come back to the server as its old clients, then be so many clients with at most so many actions each.

        Returns when these are done; followers go on. Raises Violated.
        """
        for follower in self._clients.followers:
            if not follower.ended:
                self._start(self._clients.resume(follower))
        await until_away(self._come_back())
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(until_away(self._be_client(self._rng.randint(1, actions))))

    async def end(self) -> None:
        """Wait for the followers: the server has gone, or every job has ended. Raises Violated."""
        async with asyncio.timeout(PATIENCE):
            for task in self._tasks:
                await task

    async def settle(self) -> None:
        """Of a server that stays: let every job come to its end, and bring it to account. Raises Violated or Away."""
        await self.run(at_once=0, actions=1)
        left, since = 0, time.monotonic()
        while unended := [entry for entry in self._ledger.jobs() if not entry.final]:
            if len(unended) != left:
                left, since = len(unended), time.monotonic()
            if time.monotonic() > since + PATIENCE:
                raise Violated(f"stuck: {unended}")
            for entry in unended:
                if entry.order.linger and not entry.stop_answered:
                    await self._clients.stop(entry)
            await asyncio.sleep(0.1)
            await self._clients.look()
        await self.end()
        for entry in self._ledger.jobs():
            log = await self._clients.log(entry.job_id)
            self._ledger.check_log(entry, log)
            self._ledger.counts["log bytes read at the end"] += len(log)
            self._ledger.counts[f"ended {entry.shown_end}"] += 1

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.create_task(until_away(work)))

    async def _come_back(self) -> None:
        await self._clients.look()
        await self._clients.repeat()

    async def _be_client(self, actions: int) -> None:
        for _ in range(actions):
            await self._act()

    async def _act(self) -> None:
        rng, clients = self._rng, self._clients
        jobs = self._ledger.jobs()
        unended = [entry for entry in jobs if not entry.final]
        long = [entry for entry in unended if entry.order.kind is Kind.LONG]
        action = rng.choices(list(_ACTIONS), list(_ACTIONS.values()))[0]
        if len([entry for entry in long if not entry.stop_answered]) > _MOST_LONG:
            action = "stop"
        if action == "burst":
            orders = [self._order() for _ in range(_BURST)]
            await asyncio.gather(*(until_away(self._submit(order)) for order in orders))
        elif action == "stop" and unended:
            await clients.stop(rng.choice(long or unended))
        elif action == "status" and jobs:
            await clients.status(rng.choice(jobs))
        elif action == "delete" and (ended := [entry for entry in jobs if self._may_go(entry)]):
            await clients.delete(rng.choice(ended))
        elif action == "again" and jobs:
            await clients.repeat_answered(rng.choice(jobs))
        elif action == "list":
            await clients.look()
        else:
            await self._submit(self._order())

    def _may_go(self, entry: Entry) -> bool:
        followed = any(f.entry is entry and not f.ended for f in self._clients.followers)
        return entry.status in FINAL and not followed

    async def _submit(self, order: Order) -> None:
        follows, kills = self._rng.random() < 0.5, self._rng.random() < 0.08
        entry = await self._clients.submit(order, wait=order.wait)
        if not entry.job_id:
            return
        if follows:
            self._start(self._clients.resume(self._clients.follow(entry)))
        if kills and order.runs and self._kill_monitor:
            self._start(self._kill_monitor(entry))
