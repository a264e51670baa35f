"""Which jobs may run now: `maxConcurrentJobs` slots and a bounded first-in, first-out queue before them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from joblet.errors import QueueFull


class Admission:
    """The mutable state is the number of slots taken and the jobs that wait.

    A slot belongs to a job until the job's shim has ended; `release` is called then and only then. Slots are taken only
    while nobody waits, so that no job overtakes another.
    """

    def __init__(self, slots: int, queue_length: int) -> None:
        self._slots = slots
        self._queue_length = queue_length
        self._taken = 0
        self._reserved = 0
        self._waiting: OrderedDict[int, asyncio.Future[None]] = OrderedDict()

    def reserve(self) -> bool:
        """Take a slot (True) or a place in the queue (False) for a job that has no id yet.

        Raises QueueFull. A place in the queue is used by `enqueue` or given up by `cancel_reservation`.
        """
        if self._taken < self._slots and not self._waiting and not self._reserved:
            self._taken += 1
            return True
        if len(self._waiting) + self._reserved >= self._queue_length:
            raise QueueFull(self._taken, len(self._waiting) + self._reserved)
        self._reserved += 1
        return False

    def cancel_reservation(self) -> None:
        """Give up a place in the queue that `reserve` gave."""
        self._reserved -= 1
        self._admit()

    def occupy(self) -> None:
        """Take a slot for a job found running; it has one already, whatever the limit is now."""
        self._taken += 1

    def enqueue(self, job_id: int, *, reserved: bool) -> asyncio.Future[None]:
        """Put a job at the end of the queue, in a place that was `reserved` for it or (after a restart) was not.

        The future is done when the job has a slot, and cancelled when it is withdrawn.
        """
        if reserved:
            self._reserved -= 1
        turn = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        self._admit()
        return turn

    def withdraw(self, job_id: int) -> bool:
        """Take a job out of the queue; False when it has a slot already."""
        turn = self._waiting.pop(job_id, None)
        if turn is None:
            return False
        turn.cancel()
        return True

    def place(self, job_id: int) -> int:
        """A waiting job's place in the queue, from 1; 0 when it does not wait."""
        for place, waiting in enumerate(self._waiting, start=1):
            if waiting == job_id:
                return place
        return 0

    def release(self) -> None:
        """A job has ended and its shim is gone."""
        self._taken -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._taken < self._slots:
            _, turn = self._waiting.popitem(last=False)
            if not turn.done():  # its waiter may have been cancelled
                self._taken += 1
                turn.set_result(None)
