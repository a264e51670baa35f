"""What each client has under way, from its order to its end, waiting or not, and how much its role allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from joblet.access import NO_QUOTA, Quota
from joblet.errors import PermissionDenied, QuotaExceeded
from joblet.job import Limits, Schedule

_MEASURES = ("jobs", "cpu", "memory", "workflows")


@dataclass(frozen=True, slots=True)
class Need:
    """What jobs and workflows take of a client's quota."""

    jobs: int = 0
    cpu: int = 0
    """percent of one core"""
    memory: int = 0
    """MB"""
    workflows: int = 0

    def plus(self, other: Need) -> Need:
        """Both together."""
        return Need(*(getattr(self, name) + getattr(other, name) for name in _MEASURES))

    def minus(self, other: Need) -> Need:
        """Without a part of it."""
        return Need(*(getattr(self, name) - getattr(other, name) for name in _MEASURES))


_NOTHING = Need()
WORKFLOW = Need(workflows=1)
"""what a workflow takes, beside its jobs"""


def need_of(limits: Limits, schedule: Schedule | None) -> Need:
    """What a job takes. One that only makes others runs nothing itself."""
    if schedule is not None and schedule.recurring:
        return Need(1)
    return Need(1, limits.max_cpu, limits.max_memory)


class Room:
    """What has been taken, as for a job that is yet to be. The mutable state is whether it has been given back."""

    def __init__(self, quotas: Quotas, owner: str, need: Need) -> None:
        self._quotas = quotas
        self._owner = owner
        self._need = need
        self._held = True

    def leave(self) -> None:
        """Give it back, once: there is the job itself now, or there is none any more."""
        if self._held:
            self._held = False
            self._quotas.give_back(self._owner, self._need)


class Turns:
    """Waits for rooms on behalf of one workflow. The mutable state is what is waited for, and that it is no longer."""

    def __init__(self) -> None:
        self._turns: set[asyncio.Future[Room]] = set()
        self._over = False

    async def wait(self, turn: asyncio.Future[Room]) -> Room | None:
        """What the queue gives, or None when all has been withdrawn meanwhile."""
        if self._over:
            turn.cancel()
        self._turns.add(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not self._over:
                raise
            return None
        finally:
            self._turns.discard(turn)

    def withdraw(self) -> None:
        """Wait no longer."""
        self._over = True
        for turn in self._turns:
            turn.cancel()


@dataclass(frozen=True, slots=True)
class _Waiter:
    role: str
    need: Need
    turn: asyncio.Future[Room]


class Quotas:
    """The mutable state is what each client has, the rooms taken included, and who waits for some.

    A client is its name: what it has ordered in another role counts too. What is there already, as after a restart with
    a lower quota, stays. Of a role that is gone from the configuration nothing more comes.
    """

    def __init__(self, by_role: Mapping[str, Quota] | None = None) -> None:
        self._by_role = by_role or {}
        self._used: dict[str, Need] = {}
        self._waiting: dict[str, deque[_Waiter]] = {}

    def check(self, role: str, need: Need) -> None:
        """Raise QuotaExceeded for what a client of this role never has room for, PermissionDenied for a role that is
        gone.
        """
        if (error := self._excess(_NOTHING, role, need)) is not None:
            raise error

    def take(self, owner: str, role: str, need: Need) -> Room:
        """Room for what a client orders that has this role now. Raises QuotaExceeded or PermissionDenied."""
        if (error := self._excess(self._used.get(owner, _NOTHING), role, need)) is not None:
            raise error
        return self.enter(owner, need)

    def queue(self, owner: str, role: str, need: Need) -> asyncio.Future[Room]:
        """Room for a job as soon as there is some, for one after the other; cancelled, it is not waited for any more.

        Raises QuotaExceeded or PermissionDenied when there never is.
        """
        self.check(role, need)
        turn: asyncio.Future[Room] = asyncio.get_running_loop().create_future()
        turn.add_done_callback(lambda _: self._let_in(owner))  # whoever comes after one that is cancelled
        self._waiting.setdefault(owner, deque()).append(_Waiter(role, need, turn))
        self._let_in(owner)
        return turn

    def add(self, owner: str, need: Need) -> None:
        """There is such a job."""
        self._used[owner] = self._used.get(owner, _NOTHING).plus(need)

    def give_back(self, owner: str, need: Need) -> None:
        """There is one less."""
        left = self._used[owner].minus(need)
        if left == _NOTHING:
            del self._used[owner]
        else:
            self._used[owner] = left
        self._let_in(owner)

    def enter(self, owner: str, need: Need) -> Room:
        """Room for what is there already, however much that is."""
        self.add(owner, need)
        return Room(self, owner, need)

    def _let_in(self, owner: str) -> None:
        waiting = self._waiting.get(owner)
        while waiting:
            first = waiting[0]
            if not first.turn.done():
                if self._excess(self._used.get(owner, _NOTHING), first.role, first.need) is not None:
                    return
                first.turn.set_result(self.enter(owner, first.need))
            waiting.popleft()
        self._waiting.pop(owner, None)

    def _excess(self, used: Need, role: str, need: Need) -> QuotaExceeded | PermissionDenied | None:
        # Jobs of a joblet that kept no roles have none.
        if self._by_role and role and role not in self._by_role:
            return PermissionDenied(role, "run_job")
        quota = self._by_role.get(role, NO_QUOTA)
        for name in _MEASURES:
            bound, asked = getattr(quota, name), getattr(need, name)
            value = getattr(used, name) + asked
            if bound is not None and asked and value > bound:
                return QuotaExceeded(role, name, value, bound)
        return None
