"""What is to happen at which time of the wall clock: one timer for the earliest of it."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort

from joblet import clock

_LOOK_SECONDS = 30.0
"""between two looks at the wall clock at most: a timer goes by a clock that nobody sets, and that stops while the host
sleeps"""


class Timetable:
    """Jobs that wait for their time, or to be called.

    The mutable state is their futures, the times in order, and the timer, which there is only while there are times.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._times: list[tuple[int, int]] = []
        """(time, id), in order; of `_waiting` those that have a time"""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def next_time(self) -> int | None:
        """The earliest time that somebody waits for, nanoseconds since the epoch."""
        return self._times[0][0] if self._times else None

    def overdue(self, now: int) -> int:
        """How many have a time that has passed and still wait: more than none is no good sign."""
        return bisect_left(self._times, (now, 0))

    def wait(self, job_id: int, time: int | None) -> asyncio.Future[None]:
        """A future that is done at `time`, nanoseconds since the epoch, or without one when the job is called.

        It is cancelled when the job is withdrawn. A job waits for one thing at a time.
        """
        turn = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        if time is not None:
            insort(self._times, (time, job_id))
            self._look()
        return turn

    def withdraw(self, job_id: int) -> bool:
        """Let a job wait no longer; False when it does not."""
        turn = self._take(job_id)
        return turn is not None and turn.cancel()

    def call(self, job_id: int) -> None:
        """A job's time has come, whatever it is."""
        turn = self._take(job_id)
        if turn is not None and not turn.done():
            turn.set_result(None)

    def is_held(self, job_id: int) -> bool:
        """Whether a job waits, and not for a time."""
        return job_id in self._waiting and all(other != job_id for _, other in self._times)

    def close(self) -> None:
        """Look no more. Who waits is left to wait."""
        self._times.clear()
        self._set_timer()

    def _take(self, job_id: int) -> asyncio.Future[None] | None:
        turn = self._waiting.pop(job_id, None)
        if turn is not None:
            self._times = [entry for entry in self._times if entry[1] != job_id]
            self._set_timer()
        return turn

    def _look(self) -> None:
        now = clock.now_ns()
        while self._times and self._times[0][0] <= now:
            _, job_id = self._times.pop(0)
            turn = self._waiting.pop(job_id)
            if not turn.done():  # who waited may have been cancelled
                turn.set_result(None)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._times:
            left = (self._times[0][0] - clock.now_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(min(max(left, 0), _LOOK_SECONDS), self._look)
