"""Reading stdin: no more than is asked for, and nothing once that is over."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from rnx.input import Input


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "input"]


def test_what_comes_and_the_end() -> None:
    reader, writer = os.pipe()

    async def read() -> list[bytes]:
        with closing(Input(reader)) as source:
            os.write(writer, b"one")
            found = [await source.read()]
            os.write(writer, b"two")
            os.close(writer)
            return [*found, await source.read(), await source.read(), await source.read()]

    assert asyncio.run(read()) == [b"one", b"two", b"", b""]
    os.close(reader)


def test_nothing_is_taken_from_the_next_reader(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    async def leave() -> None:
        with closing(Input(reader)) as source, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await source.read()

    asyncio.run(leave())
    for thread in threads():
        thread.join(10)
    assert not threads()
    os.write(writer, b"for the next")
    assert os.read(reader, 100) == b"for the next"


def test_what_does_not_wait_is_waited_for(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(reader, False)

    async def read() -> bytes:
        with closing(Input(reader)) as source:
            reading = asyncio.create_task(source.read())
            await asyncio.sleep(0)
            os.write(writer, b"late")
            return await reading

    assert asyncio.run(read()) == b"late"


def test_a_closed_one_that_was_never_read(pipe: tuple[int, int]) -> None:
    source = Input(pipe[0])
    made = {pipe_of(source._closed), pipe_of(source._closing)}
    assert len(made) == 1
    source.close()
    assert not made & {pipe_of(int(name)) for name in os.listdir("/proc/self/fd")}


def pipe_of(descriptor: int) -> str:
    """Names the pipe of a descriptor; empty when that is closed."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
