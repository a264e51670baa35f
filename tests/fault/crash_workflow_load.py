"""What the clients of the crash loops that run workflows do, and in which order."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from crash_clients import until_away
from crash_jobs import Violated
from crash_workflow_clients import Watch, WorkflowClients
from crash_workflows import WorkflowOrder
from harness import PATIENCE

_MOST = 8
"""workflows under way at once"""
_MOST_ENDLESS = 2
"""of these, that never end by themselves; the others need slots too"""
_ACTIONS = {"submit": 36, "stop": 8, "retry": 20, "delete": 8, "status": 20, "again": 6, "list": 6}


class WorkflowLoad:
    """What they do in the life of one server: drawn from `rng`, as far as what they are told allows it."""

    def __init__(
        self,
        clients: WorkflowClients,
        rng: random.Random,
        order: Callable[[], WorkflowOrder],
        kill_monitor: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`kill_monitor` is given the job."""
        self._clients = clients
        self._rng = rng
        self._order = order
        self._kill_monitor = kill_monitor
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, at_once: int, actions: int) -> None:
        """Come back to the server as its old clients, then be so many with at most so many actions each.

        Returns when these are done; followers go on. Raises Violated.
        """
        self._start(self._clients.resume(self._clients.all, self._on_event))
        for watch in self._clients.watches:
            if not watch.ended:
                self._start(self._clients.resume(watch))
        await until_away(self._come_back())
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(until_away(self._be_client(self._rng.randint(1, actions))))

    async def end(self) -> None:
        """Wait for the followers: the server has gone. Raises Violated."""
        async with asyncio.timeout(PATIENCE):
            for task in self._tasks:
                await task

    async def settle(self) -> None:
        """Of a server that stays: let every workflow come to its end. Raises Violated or Away."""
        await self.run(at_once=0, actions=1)
        newest, since = 0, time.monotonic()
        while left := self._clients.under_way():
            if self._clients.all.after > newest:
                newest, since = self._clients.all.after, time.monotonic()
            if time.monotonic() > since + PATIENCE:
                raise Violated(f"stuck: {left}")
            for entry in left:
                if entry.order.endless and not entry.stop_answered:
                    await self._clients.stop(entry)
            await asyncio.sleep(0.1)
            await self._clients.look()

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
        present, under_way = clients.present(), clients.under_way()
        ended = [entry for entry in present if entry.final and not entry.retrying]
        endless = [entry for entry in under_way if entry.order.endless and not entry.stop_answered]
        action = rng.choices(list(_ACTIONS), list(_ACTIONS.values()))[0]
        if len(endless) > _MOST_ENDLESS:
            action = "stop"
        elif action == "submit" and len(under_way) >= _MOST:
            action = "status"
        bad = [entry for entry in ended if entry.final and entry.final[0] != "COMPLETED" and entry.retries < 3]
        if action == "stop" and under_way:
            await clients.stop(rng.choice(endless or under_way))
        elif action == "retry" and bad:
            await clients.retry(rng.choice(bad))
        elif action == "delete" and len(ended) > 3:
            await clients.delete(rng.choice(ended))
        elif action == "status" and present:
            await clients.status(rng.choice(present))
        elif action == "again" and present:
            await clients.repeat_answered(rng.choice(present))
        elif action == "list":
            await clients.look()
        elif len(under_way) < _MOST:
            await self._submit()

    async def _submit(self) -> None:
        watched = self._rng.random() < 0.3
        entry = await self._clients.submit(self._order())
        if watched:
            self._clients.watches.append(Watch(entry))
            self._start(self._clients.resume(self._clients.watches[-1]))

    def _on_event(self, event: Any) -> None:
        if event.workflowId and event.status == "INITIALIZING" and self._kill_monitor and self._rng.random() < 0.03:
            self._clients.victims.add(event.jobId)
            self._tasks.add(asyncio.ensure_future(self._kill_monitor(event.jobId)))
