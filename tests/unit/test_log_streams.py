from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joblet.logs import streams as streams_module
from joblet.logs.hub import Chunk
from joblet.logs.pattern import Pattern
from joblet.logs.streams import runs_of
from joblet.logs.times import Mark, index_of
from joblet.logs.view import View
from joblet.proto import joblet as pb
from joblet.server.descriptors import Descriptors
from joblet.server.log_stream import Teller

pytestmark = pytest.mark.timeout(60)

here = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
TELLER = Teller(Descriptors())

Writes = list[tuple[bool, bytes]]
writes = st.lists(st.tuples(st.booleans(), st.sampled_from([b"a", b"\n", b"b\n", b"ab", b"a\nb\n"])), max_size=25)
streams = st.sampled_from([pb.Stream.STDOUT, pb.Stream.STDERR])


def write(folder: Path, written: Writes) -> Path:
    """A log as a monitor writes it: with a record of each change, and of some writes in between."""
    log, index, last = b"", [], None
    for number, (errors, payload) in enumerate(written):
        if errors is not last or number % 3 == 0:
            index.append(struct.pack("=qQ", number, len(log) | errors << 63))
        log, last = log + payload, errors
    path = folder / "log"
    path.write_bytes(log)
    index_of(path).write_bytes(b"".join(index))
    return path


def of(written: Writes, stream: pb.Stream) -> bytes:
    return b"".join(payload for errors, payload in written if errors is (stream is pb.Stream.STDERR))


def cut_up(path: Path, start: int, cuts: list[int]) -> list[Chunk]:
    log = path.read_bytes()
    ends = sorted({cut for cut in cuts if start < cut < len(log)} | {len(log)})
    return [Chunk(begin, log[begin:end]) for begin, end in pairwise([start, *ends]) if begin < end]


async def each(chunks: list[Chunk]) -> AsyncGenerator[Chunk]:
    for chunk in chunks:
        yield chunk


async def tell(
    path: Path, start: int, cuts: list[int], stream: pb.Stream, grep: str = "", timestamps: bool = False
) -> AsyncIterator[pb.DataChunk]:
    source = each(cut_up(path, start, cuts))
    pattern = Pattern(grep) if grep else None
    async for encoded in TELLER.told(source, path, start, timestamps=timestamps, pattern=pattern, stream=stream):
        yield pb.DataChunk.parse(encoded.wire)


def lines_with_a(text: bytes) -> bytes:
    return b"".join(line for line in text.splitlines(keepends=True) if b"a" in line)


@here
@given(writes, st.lists(st.integers(0, 80), max_size=6))
async def test_of_any_writes_each_stream_gets_its_bytes_in_order(
    tmp_path: Path, written: Writes, cuts: list[int]
) -> None:
    path = write(tmp_path, written)
    for stream in (pb.Stream.STDOUT, pb.Stream.STDERR):
        told = [chunk async for chunk in tell(path, 0, cuts, stream)]
        assert b"".join(chunk.payload for chunk in told) == of(written, stream)
        both = [chunk async for chunk in tell(path, 0, cuts, pb.Stream.BOTH)]
        assert b"".join(chunk.payload for chunk in both if chunk.stream is stream) == of(written, stream)
        assert b"".join(chunk.payload for chunk in both) == path.read_bytes()


@here
@given(writes, st.lists(st.integers(0, 80), max_size=6), streams, st.sampled_from(["", "a"]), st.integers(0, 8))
async def test_whoever_breaks_off_goes_on_where_the_last_chunk_ends(
    tmp_path: Path, written: Writes, cuts: list[int], stream: pb.Stream, grep: str, taken: int
) -> None:
    path = write(tmp_path, written)
    payload, start = b"", 0
    async for chunk in tell(path, 0, cuts, stream, grep):
        payload += chunk.payload
        start = chunk.end if chunk.end is not None else chunk.offset or 0
        taken -= 1
        if taken < 0:
            break
    payload += b"".join([chunk.payload async for chunk in tell(path, start, cuts[::2], stream, grep)])
    expected = of(written, stream)
    assert payload == (lines_with_a(expected) if grep else expected)


@here
@given(writes, st.lists(st.integers(0, 80), max_size=6), st.integers(0, 8))
async def test_lines_of_both_that_match_are_told_whole(
    tmp_path: Path, written: Writes, cuts: list[int], groups: int
) -> None:
    """Lines as they lie in the log; those that have come as one count when the last of them is there."""
    path = write(tmp_path, written)
    log = path.read_bytes()
    payload, held, start = b"", b"", 0
    async for chunk in tell(path, 0, cuts, pb.Stream.BOTH, "a"):
        held += chunk.payload
        assert not chunk.payload or log[chunk.offset or 0 :].startswith(chunk.payload)
        if chunk.end is not None:
            payload, held, start = payload + held, b"", chunk.end
            groups -= 1
            if groups < 0:
                break
    assert held == b""
    async for chunk in tell(path, start, cuts[::2], pb.Stream.BOTH, "a"):
        payload += chunk.payload
    assert payload == lines_with_a(log)


@here
@given(writes, streams, st.integers(0, 6) | st.none(), st.integers(0, 12) | st.none(), st.integers(1, 9))
async def test_the_last_lines_and_bytes_of_a_stream(
    tmp_path: Path, written: Writes, stream: pb.Stream, lines: int | None, size: int | None, block: int
) -> None:
    path = write(tmp_path, written)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams_module, "CHUNK", block)
        view = View(tail_lines=lines, tail_bytes=size, errors=stream is pb.Stream.STDERR)
        start, end = await view.find(path)
    assert end == path.stat().st_size
    told = b"".join([chunk.payload async for chunk in tell(path, start, [], stream)])
    whole = of(written, stream)
    last_lines = whole if lines is None else b"".join(whole.splitlines(keepends=True)[-lines:]) if lines else b""
    last_bytes = whole if size is None else whole[-size:] if size else b""
    assert told == min(last_lines, last_bytes, key=len)


@here
@given(writes, st.lists(st.integers(0, 80), max_size=6), streams)
async def test_each_byte_of_a_stream_has_its_time(
    tmp_path: Path, written: Writes, cuts: list[int], stream: pb.Stream
) -> None:
    path = write(tmp_path, written)
    told: list[int] = []
    async for chunk in tell(path, 0, cuts, stream, timestamps=True):
        places = [*chunk.starts, len(chunk.payload)]
        assert not chunk.payload or places[0] == 0
        for at, (begin, end) in zip(chunk.times, pairwise(places), strict=True):
            told += [at] * (end - begin)
    expected: list[int] = []
    at, last = 0, None
    for number, (errors, payload) in enumerate(written):
        at = number if errors is not last or number % 3 == 0 else at
        last = errors
        expected += [at] * len(payload) if errors is (stream is pb.Stream.STDERR) else []
    assert told == expected


def test_what_no_mark_tells_of_is_joblets_own() -> None:
    assert [run[1:] for run in runs_of(5, b"abc", [])] == [(b"abc", True)]
    assert [run[1:] for run in runs_of(5, b"abc", [Mark(1, 7, errors=False)])] == [(b"ab", True), (b"c", False)]
    assert runs_of(5, b"", []) == []


async def test_a_job_that_changes_with_every_byte_is_read_in_time_proportional_to_its_log(tmp_path: Path) -> None:
    written: Writes = [(bool(number % 2), b"a\n" if number % 4 < 2 else b"b\n") for number in range(30_000)]
    path = write(tmp_path, written)
    told = [chunk async for chunk in tell(path, 0, [], pb.Stream.STDOUT, "a")]
    assert b"".join(chunk.payload for chunk in told) == b"a\n" * 7500
