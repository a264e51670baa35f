"""Feeds the followers of logs.

A follower reads the file by itself until it has caught up, then takes chunks from a bounded queue that the job's one
tail task fills. A follower that falls behind loses its queue and goes back to reading the file: nothing is dropped,
nobody is slowed by another, and memory stays bounded. Jobs that nobody follows cost nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from joblet.errors import ShuttingDown
from joblet.logs.file import CHUNK, FARTHEST, LogFile
from joblet.logs.inotify import Inotify

_QUEUED_CHUNKS = 16
"""chunks a follower may be behind its tail; they are shared between followers, not copied"""


class Chunk:
    """A piece of a log. `wire` is room for its encoded form, so that followers share one encoding."""

    __slots__ = ("payload", "start", "wire")

    def __init__(self, start: int, payload: bytes) -> None:
        self.start = start
        self.payload = payload
        self.wire: bytes | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.payload)

    def after(self, offset: int) -> Chunk:
        """The part of this chunk from `offset` on."""
        return self if offset <= self.start else Chunk(offset, self.payload[offset - self.start :])


class LogHub:
    """The mutable state is the tails, one for each job with followers that have caught up, and the count of readers."""

    def __init__(self) -> None:
        self._inotify = Inotify()
        self._tails: dict[int, _Tail] = {}
        self._readers: Counter[int] = Counter()
        self._closed = asyncio.Event()
        self._following = 0
        self.sent = 0
        """bytes of logs that have been given to readers"""
        self.fallen_behind = 0
        """how often a follower was too slow for the tail, and went back to the file"""

    @property
    def followers(self) -> tuple[int, int]:
        """Those who follow a log: how many are at its end, and how many read what lies before it."""
        live = sum(len(tail.queues) for tail in self._tails.values())
        return live, max(0, self._following - live)

    async def follow(self, job_id: int, path: Path, offset: int, ended: asyncio.Event) -> AsyncGenerator[Chunk]:
        """The log at `path` from byte `offset` on, in order and complete, until `ended` is set and all is read.

        Whoever sets `ended` calls `wake` after it. Raises ShuttingDown when the hub is closed before that.
        """
        try:
            log = LogFile(path)
        except FileNotFoundError:  # it ended before it could write
            return
        with log, self.reading(job_id), self._counted():
            cursor = offset
            while True:
                self._check_open()
                complete = ended.is_set()
                if payload := await log.read(cursor):
                    chunk = Chunk(cursor, payload)
                    cursor = chunk.end
                    self.sent += len(payload)
                    yield chunk
                elif complete:
                    return
                elif (queue := self._attach(job_id, path, cursor, ended)) is not None:
                    try:
                        while (live := await queue.get()) is not None:
                            if live.end > cursor:
                                live = live.after(cursor)
                                cursor = live.end
                                self.sent += len(live.payload)
                                yield live
                    finally:
                        self._detach(job_id, queue)

    async def read(self, job_id: int, path: Path, offset: int, end: int = FARTHEST) -> AsyncGenerator[Chunk]:
        """What is in the log at `path` now, from byte `offset` to `end`."""
        try:
            log = LogFile(path)
        except FileNotFoundError:
            return
        with log, self.reading(job_id):
            while offset < end and (payload := await log.read(offset, min(CHUNK, end - offset))):
                self._check_open()
                chunk = Chunk(offset, payload)
                offset = chunk.end
                self.sent += len(payload)
                yield chunk

    def is_read(self, job_id: int) -> bool:
        """Whether somebody reads the job's files, or reads or follows its log, now."""
        return self._readers[job_id] > 0

    @contextmanager
    def reading(self, job_id: int) -> Iterator[None]:
        """Somebody reads what there is of a job, its log or files, in this block."""
        self._readers[job_id] += 1
        try:
            yield
        finally:
            self._readers[job_id] -= 1
            if not self._readers[job_id]:
                del self._readers[job_id]

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._following += 1
        try:
            yield
        finally:
            self._following -= 1

    async def until(self, event: asyncio.Event) -> None:
        """Wait for something that becomes of a job. Raises ShuttingDown when the hub is closed before it."""
        waiting = {asyncio.create_task(event.wait()), asyncio.create_task(self._closed.wait())}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        if not event.is_set():
            raise ShuttingDown

    def wake(self, job_id: int) -> None:
        """The job has ended: its followers may end after the last byte."""
        if tail := self._tails.get(job_id):
            tail.wake.set()

    async def close(self) -> None:
        """End all streams with ShuttingDown."""
        self._closed.set()
        tails = list(self._tails.values())
        self._tails.clear()
        for tail in tails:
            tail.stop()
        await asyncio.gather(*(tail.task for tail in tails), return_exceptions=True)
        self._inotify.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ShuttingDown

    def _attach(self, job_id: int, path: Path, cursor: int, ended: asyncio.Event) -> _Queue | None:
        """A queue that goes on at `cursor`, or None when the tail is past it already."""
        self._check_open()
        tail = self._tails.get(job_id)
        if tail is None:
            tail = self._tails[job_id] = _Tail(self._inotify, path, cursor, ended, self._on_behind)
        return tail.attach(cursor)

    def _on_behind(self) -> None:
        self.fallen_behind += 1

    def _detach(self, job_id: int, queue: _Queue) -> None:
        tail = self._tails.get(job_id)
        if tail is not None:
            tail.queues.discard(queue)
            if not tail.queues:
                tail.stop()
                del self._tails[job_id]


_Queue = asyncio.Queue[Chunk | None]


class _Tail:
    """Reads the growing end of one log for all who have caught up. None in a queue: go back to the file."""

    def __init__(
        self, inotify: Inotify, path: Path, offset: int, ended: asyncio.Event, on_behind: Callable[[], None]
    ) -> None:
        """`on_behind` is told of each follower that is too slow."""
        self._on_behind = on_behind
        self.queues: set[_Queue] = set()
        self.wake = asyncio.Event()
        self._inotify = inotify
        self._log = LogFile(path)
        self._offset = offset
        self._ended = ended
        self._watch = inotify.watch(path, self.wake.set)
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(self._on_end)

    def attach(self, cursor: int) -> _Queue | None:
        if not self.queues:
            # Never beyond the end: one sent back to the file must find there what the tail is past.
            self._offset = min(cursor, self._log.size())
        elif self._offset > cursor:
            return None
        queue: _Queue = asyncio.Queue(_QUEUED_CHUNKS + 1)  # one place is kept for the None that ends it
        self.queues.add(queue)
        self.wake.set()
        return queue

    def release(self) -> None:
        """Send every follower back to its file."""
        for queue in self.queues:
            queue.put_nowait(None)
        self.queues.clear()

    def stop(self) -> None:
        self.task.cancel()
        self._inotify.unwatch(self._watch)

    async def _run(self) -> None:
        while True:
            self.wake.clear()
            complete = self._ended.is_set()
            while self.queues and (payload := await self._log.read(self._offset)):
                self._broadcast(Chunk(self._offset, payload))
                await asyncio.sleep(0)
            if complete:
                self.release()
            await self.wake.wait()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        # Not in _run, which never begins when it is cancelled at once. On an error, followers meet it in their reading.
        self.release()
        self._log.close()

    def _broadcast(self, chunk: Chunk) -> None:
        self._offset = chunk.end
        for queue in tuple(self.queues):
            if queue.qsize() < _QUEUED_CHUNKS:
                queue.put_nowait(chunk)
            else:
                self.queues.discard(queue)
                queue.put_nowait(None)
                self._on_behind()
