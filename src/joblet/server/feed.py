"""The newest events, read and encoded once for all who watch them."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager

from joblet.server.rpc import Encoded
from joblet.store import Events
from joblet.workflow.record import Event

_KEPT = 2_000
"""events held at most, about a megabyte; who is further behind reads the store by himself"""


class Told:
    """An event, and its wire form when somebody has wanted it."""

    __slots__ = ("answer", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.answer: Encoded | None = None


class Feed:
    """The mutable state is who waits, how many commits there have been, and the events read: all of those with numbers
    above `_start`, up to `_end`.

    Nothing is read while nobody asks.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._waiting: set[asyncio.Event] = set()
        self._commits = 1
        self._read = 0
        """the commits by then are looked at"""
        self._start = self._end = 0
        self._numbers: list[int] = []
        self._told: list[Told] = []
        self._reading = asyncio.Lock()
        events.on_commit = self._on_commit

    @contextmanager
    def waiting(self) -> Iterator[asyncio.Event]:
        """Set whenever there may be more."""
        news = asyncio.Event()
        self._waiting.add(news)
        try:
            yield news
        finally:
            self._waiting.discard(news)

    def wake(self) -> None:
        """Set what all wait for."""
        for news in self._waiting:
            news.set()

    async def after(self, sequence: int, count: int) -> tuple[list[Told], int, bool] | None:
        """The first `count` events with higher numbers, up to which number these are all, and whether there is no more.

        None when some of them are not held any more. Raises StoreFailed.
        """
        await self._catch_up()
        if sequence < self._start:
            return None
        first = bisect_right(self._numbers, sequence)
        found = self._told[first : first + count]
        whole = first + count >= len(self._told)
        return found, max(sequence, self._end) if whole else found[-1].event.sequence, whole

    async def _catch_up(self) -> None:
        while self._read != self._commits:
            async with self._reading:  # the first to come reads for all
                if self._read == self._commits:
                    return
                commits = self._commits
                _, newest = await self._events.bounds()
                end = max(self._end, newest - _KEPT)
                events = await self._events.after(end, _KEPT)
                self._take(end, events, newest)
                self._read = commits

    def _take(self, end: int, events: list[Event], newest: int) -> None:
        if end != self._end:  # nobody has asked for long
            self._numbers, self._told, self._start = [], [], end
        self._numbers += [event.sequence for event in events]
        self._told += map(Told, events)
        self._end = max(newest, events[-1].sequence if events else 0)
        surplus = len(self._told) - _KEPT
        if surplus > 0:
            self._start = self._numbers[surplus - 1]
            del self._numbers[:surplus], self._told[:surplus]

    def _on_commit(self) -> None:
        self._commits += 1
        self.wake()
