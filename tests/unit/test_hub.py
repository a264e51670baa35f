# ruff: noqa: ASYNC110 -- turns of the loop are what these tests count
from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop
from harness import open_descriptors
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from joblet.errors import ShuttingDown
from joblet.logs import LogHub
from joblet.logs.file import CHUNK, LogFile
from joblet.logs.hub import Chunk

# A follower that is never fed, or that spins, is a failure and not a wait.
pytestmark = pytest.mark.timeout(20)

JOB = 1


class Log:
    """A job's log as its monitor writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ended = asyncio.Event()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        assert os.write(self._fd, data) == len(data)

    def end(self, hub: LogHub) -> None:
        self.ended.set()
        hub.wake(JOB)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """On a disk file system reads of what is cached do not wait; tmpfs of many kernels knows no such reads."""
    if request.param == "disk":
        yield tmp_path
        return
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no tmpfs")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
async def hub() -> AsyncIterator[LogHub]:
    hub = LogHub()
    yield hub
    if not hub._closed.is_set():
        await hub.close()


@pytest.fixture
async def log(folder: Path) -> AsyncIterator[Log]:
    with Log(folder / "log") as log:
        yield log


def following(hub: LogHub, log: Log, offset: int = 0) -> aclosing[AsyncGenerator[Chunk, None]]:
    return aclosing(hub.follow(JOB, log.path, offset, log.ended))


async def followed(hub: LogHub, log: Log, offset: int = 0) -> bytes:
    async with following(hub, log, offset) as chunks:
        return b"".join([chunk.payload async for chunk in chunks])


async def caught_up(hub: LogHub, count: int) -> None:
    """Wait until so many followers of the job wait for what is written next."""
    while JOB not in hub._tails or len(hub._tails[JOB].queues) < count:
        await asyncio.sleep(0)


async def settle() -> None:
    """Let followers go as far as they can; what is checked after it holds however far that is."""
    for _ in range(8):
        await asyncio.sleep(0.001)


async def test_a_follower_gets_history_then_what_is_written_then_the_end(hub: LogHub, log: Log) -> None:
    log.write(b"before ")
    async with following(hub, log) as chunks:
        assert (await anext(chunks)).payload == b"before "
        for piece in (b"one ", b"two "):
            log.write(piece)
            assert (await anext(chunks)).payload == piece
        waiting = asyncio.ensure_future(anext(chunks))
        await settle()
        assert not waiting.done()
        log.write(b"last")
        log.end(hub)
        assert (await waiting).payload == b"last"
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)


@pytest.mark.parametrize("offset", [0, 3, 6, 9])
async def test_the_log_of_an_ended_job_is_given_from_the_offset_and_ends(hub: LogHub, log: Log, offset: int) -> None:
    log.write(b"abcdef")
    log.end(hub)
    assert await followed(hub, log, offset) == b"abcdef"[offset:]


async def test_chunks_are_bounded_and_say_where_they_stand(hub: LogHub, log: Log) -> None:
    data = random.Random(1).randbytes(3 * CHUNK + 5)
    for start in range(0, len(data), 50_000):
        log.write(data[start : start + 50_000])
    log.end(hub)
    position = 0
    async with following(hub, log) as chunks:
        async for chunk in chunks:
            assert chunk.start == position
            assert 0 < len(chunk.payload) <= CHUNK
            assert chunk.payload == data[chunk.start : chunk.end]
            position = chunk.end
    assert position == len(data)


async def test_followers_that_have_caught_up_share_their_chunks(hub: LogHub, log: Log) -> None:
    async with following(hub, log) as one, following(hub, log) as other:
        first, second = asyncio.ensure_future(anext(one)), asyncio.ensure_future(anext(other))
        await caught_up(hub, 2)
        log.write(b"x")
        assert await first is await second


async def test_an_end_without_a_write_ends_a_waiting_follower(hub: LogHub, log: Log) -> None:
    waiting = asyncio.create_task(followed(hub, log))
    await settle()
    log.end(hub)
    assert await waiting == b""


async def test_a_follower_that_stands_beyond_the_end_gets_what_comes_to_lie_there(hub: LogHub, log: Log) -> None:
    log.write(b"abc")
    waiting = asyncio.create_task(followed(hub, log, 5))
    await settle()
    log.write(b"defg")
    await settle()
    log.write(b"hi")
    log.end(hub)
    assert await waiting == b"fghi"


async def test_a_follower_beyond_the_end_does_not_hold_up_the_others(hub: LogHub, log: Log) -> None:
    log.write(b"abc")
    beyond = asyncio.create_task(followed(hub, log, 1_000_000_000))
    await settle()
    normal = asyncio.create_task(followed(hub, log))
    await settle()
    log.write(b"def")
    await settle()
    log.end(hub)
    assert await normal == b"abcdef"
    assert await beyond == b""


async def test_who_joins_behind_a_follower_that_fell_behind_misses_nothing(hub: LogHub, log: Log) -> None:
    """The tail has lost its only follower and has read on; who comes then may stand before it."""
    slow = hub._attach(JOB, log.path, 0, log.ended)
    assert slow is not None
    expected = b""
    for number in range(40):  # more than a follower may be behind
        piece = b"%d " % number
        log.write(piece)
        expected += piece
        await settle()
    late = hub._attach(JOB, log.path, 2, log.ended)
    if late is None:
        return  # sent back to the file, where all is
    log.write(b"end")
    got = b""
    while not got.endswith(b"end"):
        chunk = await late.get()
        assert chunk is not None
        assert chunk.start <= 2 + len(got)
        got += chunk.after(2 + len(got)).payload
    assert got == expected[2:] + b"end"


async def test_a_slow_follower_misses_nothing_and_holds_up_nobody(hub: LogHub, log: Log) -> None:
    async with following(hub, log) as slow:
        log.write(b"0 ")
        got = (await anext(slow)).payload
        stalled = asyncio.ensure_future(anext(slow))
        quick = asyncio.create_task(followed(hub, log))
        expected = b"0 "
        for number in range(1, 60):
            log.write(b"%d " % number)
            expected += b"%d " % number
            await settle()
        log.end(hub)
        assert await quick == expected
        got += (await stalled).payload
        async for chunk in slow:
            got += chunk.payload
        assert got == expected


async def test_a_follower_that_leaves_lets_the_others_go_on(hub: LogHub, log: Log) -> None:
    staying = asyncio.create_task(followed(hub, log))
    leaving = asyncio.create_task(followed(hub, log))
    await settle()
    leaving.cancel()
    await asyncio.wait([leaving])
    log.write(b"x")
    log.end(hub)
    assert await staying == b"x"


async def test_a_log_that_nobody_follows_any_more_is_closed(hub: LogHub, log: Log) -> None:
    before = open_descriptors()
    for _ in range(3):
        leaving = [asyncio.create_task(followed(hub, log)) for _ in range(3)]
        await settle()
        assert open_descriptors() - before
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        await settle()
        assert not open_descriptors() - before


async def test_a_follower_that_leaves_as_soon_as_it_has_caught_up_leaves_nothing_open(hub: LogHub, log: Log) -> None:
    before = open_descriptors()
    for turns in range(8):
        leaving = asyncio.create_task(followed(hub, log))
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
    await settle()
    assert not open_descriptors() - before


@pytest.mark.parametrize("turns", range(8))
async def test_close_ends_followers_whatever_they_are_at(hub: LogHub, log: Log, turns: int) -> None:
    log.write(b"x")
    tasks = [asyncio.create_task(followed(hub, log, offset)) for offset in (0, 1, 2)]
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await hub.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ShuttingDown] * 3


async def test_close_bears_a_follower_that_leaves_meanwhile(hub: LogHub, log: Log) -> None:
    staying = asyncio.create_task(followed(hub, log))

    async def follow_another_job() -> bytes:
        async with aclosing(hub.follow(JOB + 1, log.path, 0, log.ended)) as chunks:
            return b"".join([chunk.payload async for chunk in chunks])

    leaving = asyncio.create_task(follow_another_job())
    await settle()
    closing = asyncio.create_task(hub.close())
    leaving.cancel()
    await closing
    results = await asyncio.gather(staying, leaving, return_exceptions=True)
    assert [type(result) for result in results] == [ShuttingDown, asyncio.CancelledError]


async def test_a_closed_hub_ends_who_comes_after(hub: LogHub, log: Log) -> None:
    log.write(b"x")
    await hub.close()
    with pytest.raises(ShuttingDown):
        await followed(hub, log)


async def test_a_job_that_ended_without_a_log_has_an_empty_one(hub: LogHub, folder: Path) -> None:
    """A job that is stopped in the queue never had one, and its followers have waited since before."""
    ended = asyncio.Event()
    ended.set()
    assert [chunk async for chunk in hub.follow(JOB, folder / "absent", 0, ended)] == []


async def test_what_is_there_now_is_read_and_ends(hub: LogHub, log: Log) -> None:
    assert [chunk async for chunk in hub.read(1, log.path, 0)] == []
    data = random.Random(2).randbytes(2 * CHUNK + 9)
    log.write(data)
    for offset in (0, 5, CHUNK, len(data), len(data) + 5):
        assert b"".join([chunk.payload async for chunk in hub.read(1, log.path, offset)]) == data[offset:]


async def test_a_log_that_does_not_exist_reads_as_empty(hub: LogHub, folder: Path) -> None:
    assert [chunk async for chunk in hub.read(1, folder / "absent", 0)] == []


@pytest.mark.parametrize("offset", [2**62, 2**63 - CHUNK, 2**63 - 1])
async def test_there_is_nothing_at_the_farthest_offset(hub: LogHub, log: Log, offset: int) -> None:
    log.write(b"x")
    assert [chunk async for chunk in hub.read(1, log.path, offset)] == []


async def test_a_log_is_never_followed_through_a_link(folder: Path) -> None:
    (folder / "secret").write_bytes(b"secret")
    (folder / "log").symlink_to(folder / "secret")
    with pytest.raises(OSError, match="symbolic link"):
        LogFile(folder / "log")


async def test_until_waits_for_its_event(hub: LogHub) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(hub.until(event))
    await settle()
    assert not waiting.done()
    event.set()
    await waiting


async def test_until_ends_when_the_hub_is_closed(hub: LogHub) -> None:
    waiting = asyncio.create_task(hub.until(asyncio.Event()))
    await asyncio.sleep(0)
    await hub.close()
    with pytest.raises(ShuttingDown):
        await waiting


@dataclass(frozen=True)
class Follower:
    offset: int
    joins_at: int
    """before which write"""
    pauses: int
    """turns of the event loop that it takes for each chunk"""
    stalls: bool
    """it takes nothing between its first chunk and the last write"""
    leaves_after: int | None
    """chunks after which it is closed"""


followers = st.builds(
    Follower,
    offset=st.one_of(st.just(0), st.integers(0, 400_000)),
    joins_at=st.integers(0, 40),
    pauses=st.integers(0, 6),
    stalls=st.booleans(),
    leaves_after=st.one_of(st.none(), st.integers(0, 3)),
)
sizes = st.one_of(st.integers(0, 5), st.integers(0, 3000), st.integers(0, 200_000))
writes = st.lists(st.tuples(sizes, st.integers(0, 4)), max_size=45)
"""each with the turns of the event loop that pass after it"""


class Play:
    """One random course of events; every follower ends and has exactly the bytes that it should have."""

    def __init__(self, folder: Path, steps: list[tuple[int, int]], cast: list[Follower], closes_at: int | None) -> None:
        self.folder = folder
        self.steps = steps
        self.cast = cast
        self.closes_at = closes_at
        self.data = random.Random(len(steps)).randbytes(sum(size for size, _ in steps))

    async def perform(self) -> None:
        before = open_descriptors()
        self.hub, self.written = LogHub(), asyncio.Event()
        with tempfile.TemporaryDirectory(dir=self.folder) as name, Log(Path(name, "log")) as log:
            async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
                position = 0
                for step, (size, turns) in enumerate([*self.steps, (0, 0)]):
                    if step == self.closes_at:
                        await self.hub.close()
                    last = step == len(self.steps)
                    for each in self.cast:
                        if each.joins_at == step or (last and each.joins_at > step):
                            tasks.create_task(self.follow(log, each))
                    log.write(self.data[position : position + size])
                    position += size
                    for _ in range(turns):
                        await asyncio.sleep(0)
                log.end(self.hub)
                self.written.set()
            await settle()
        if self.closes_at is None or self.closes_at > len(self.steps):
            await self.hub.close()
        assert not open_descriptors() - before

    async def follow(self, log: Log, who: Follower) -> None:
        got, count = b"", 0
        try:
            async with following(self.hub, log, who.offset) as chunks:
                async for chunk in chunks:
                    assert chunk.start == who.offset + len(got)
                    got += chunk.payload
                    count += 1
                    if who.leaves_after is not None and count > who.leaves_after:
                        assert self.data[who.offset :].startswith(got)
                        return
                    if who.stalls:
                        await self.written.wait()
                    for _ in range(who.pauses):
                        await asyncio.sleep(0)
        except ShuttingDown:
            assert self.closes_at is not None
            assert self.data[who.offset :].startswith(got)
        else:
            assert got == self.data[who.offset :]


hub_property = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
A_LAGGARD = [Follower(0, 0, 0, True, None), Follower(0, 3, 0, False, None), Follower(10, 30, 2, False, None)]


@hub_property
@given(writes, st.lists(followers, min_size=1, max_size=5))
@example([(7, 4)] * 45, A_LAGGARD)
@example([(70_000, 4)] * 30, A_LAGGARD)
@example([(3, 2)] * 10, [Follower(10_000, 0, 0, False, None), Follower(0, 2, 0, False, None)])
def test_every_follower_gets_exactly_the_bytes_from_its_offset(
    folder: Path, steps: list[tuple[int, int]], cast: list[Follower]
) -> None:
    uvloop.run(Play(folder, steps, cast, None).perform())


@hub_property
@given(writes, st.lists(followers, min_size=1, max_size=4), st.integers(0, 45))
@example([(7, 4)] * 45, A_LAGGARD, 40)
@example([(7, 1)], [Follower(0, 0, 0, False, None)], 1)
def test_when_the_hub_is_closed_every_follower_ends_with_no_byte_wrong(
    folder: Path, steps: list[tuple[int, int]], cast: list[Follower], closes_at: int
) -> None:
    uvloop.run(Play(folder, steps, cast, closes_at).perform())
