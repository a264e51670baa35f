"""Which jobs may run now: `maxConcurrentJobs` slots and a bounded queue before them, by priority and then by age."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from dataclasses import dataclass

from joblet.errors import QueueFull

_Place = tuple[int, int]
"""how a job is ordered: its priority negated, then its id, which tells its age"""


@dataclass(frozen=True, slots=True)
class _Waiter:
    place: _Place
    turn: asyncio.Future[None]
    counted: bool


class Admission:
    """The mutable state is the number of slots taken and the jobs that wait.

    Only `counted` jobs take places in the queue from each other; what sends the others has bounds of its own.
    A slot belongs to a job until the job's shim has ended; `release` is called then and only then. Slots are taken only
    while nobody waits or, with a slot given to it, has yet to come for it: no job overtakes another of its priority.
    """

    def __init__(self, slots: int, queue_length: int) -> None:
        self._slots = slots
        self._queue_length = queue_length
        self._taken = 0
        self._reserved = 0
        self._counted = 0
        """places in the queue that count, those reserved included"""
        self._coming: set[int] = set()
        self._order: list[_Place] = []
        self._waiting: dict[int, _Waiter] = {}

    @property
    def slots(self) -> int:
        """Jobs that may run at a time."""
        return self._slots

    @property
    def taken(self) -> int:
        """Slots that have a job; more than there are when an earlier server had more."""
        return self._taken

    @property
    def places(self) -> int:
        """Of the queue, for jobs that count."""
        return self._queue_length

    @property
    def counted(self) -> int:
        """Places of the queue that are taken."""
        return self._counted

    @property
    def waiting(self) -> int:
        """Jobs that wait for a slot, counted or not."""
        return len(self._waiting)

    def reserve(self, *, counted: bool = True) -> bool:
        """Take a slot (True) or a place in the queue (False) for a job that has no id yet.

        Raises QueueFull. A place in the queue is used by `enqueue` or given up by `cancel_reservation`.
        """
        if self._taken < self._slots and not (self._waiting or self._reserved or self._coming):
            self._taken += 1
            return True
        if counted and self._counted >= self._queue_length:
            raise QueueFull(self._taken, self._counted)
        self._reserved += 1
        self._counted += counted
        return False

    def cancel_reservation(self, *, counted: bool = True) -> None:
        """Give up a place in the queue that `reserve` gave."""
        self._reserved -= 1
        self._counted -= counted
        self._admit()

    def occupy(self) -> None:
        """Take a slot for a job found running; it has one already, whatever the limit is now."""
        self._taken += 1

    def enqueue(self, job_id: int, priority: int, *, reserved: bool, counted: bool = True) -> asyncio.Future[None]:
        """Put a job into the queue, in a place that was `reserved` for it or (after a restart) was not.

        The future is done when the job has a slot, which `come` is to tell of, and cancelled when it is withdrawn.
        """
        if reserved:
            self._reserved -= 1
        else:
            self._counted += counted
        turn = asyncio.get_running_loop().create_future()
        place = (-priority, job_id)
        self._waiting[job_id] = _Waiter(place, turn, counted)
        insort(self._order, place)
        self._admit()
        return turn

    def withdraw(self, job_id: int) -> bool:
        """Take a job out of the queue; False when it has a slot already."""
        if job_id not in self._waiting:
            return False
        waiter = self._waiting.pop(job_id)
        self._counted -= waiter.counted
        del self._order[bisect_left(self._order, waiter.place)]
        waiter.turn.cancel()
        return True

    def place(self, job_id: int) -> int:
        """A waiting job's place in the queue, from 1; 0 when it does not wait."""
        if job_id not in self._waiting:
            return 0
        return bisect_left(self._order, self._waiting[job_id].place) + 1

    def come(self, job_id: int) -> None:
        """The job has begun with the slot that it was given; those after it may go on."""
        self._coming.discard(job_id)

    def release(self) -> None:
        """A job has ended and its shim is gone."""
        self._taken -= 1
        self._admit()

    def _admit(self) -> None:
        while self._order and self._taken < self._slots:
            _, job_id = self._order.pop(0)
            waiter = self._waiting.pop(job_id)
            self._counted -= waiter.counted
            if not waiter.turn.done():  # its waiter may have been cancelled
                self._taken += 1
                self._coming.add(job_id)
                waiter.turn.set_result(None)
