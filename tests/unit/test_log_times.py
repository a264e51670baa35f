from __future__ import annotations

import os
import struct
from bisect import bisect_right
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joblet.logs import view
from joblet.logs.file import CHUNK, LogFile
from joblet.logs.times import Index, Mark, Stamps, first_at, index_of, place_of
from joblet.logs.view import View

pytestmark = pytest.mark.timeout(60)

here = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
offsets = st.integers(0, 300)
instants = st.integers(-5, 60)
increasing = st.lists(offsets, unique=True, max_size=30).map(sorted)


@st.composite
def marks(draw: st.DrawFn, *, steady: bool = False) -> list[Mark]:
    """As a monitor writes them; unless `steady` its clock may have been set back."""
    places = draw(increasing)
    times = draw(st.lists(instants, min_size=len(places), max_size=len(places)))
    return [Mark(at, place) for at, place in zip(sorted(times) if steady else times, places, strict=True)]


def write(folder: Path, index: list[Mark] | bytes, log: bytes = b"") -> Path:
    """A log and its index."""
    path = folder / "log"
    path.write_bytes(log)
    records = [] if isinstance(index, bytes) else [(mark.at, mark.offset | mark.errors << 63) for mark in index]
    content = index if isinstance(index, bytes) else b"".join(struct.pack("=qQ", *record) for record in records)
    index_of(path).write_bytes(content)
    return path


@given(marks(), offsets)
def test_the_time_of_a_byte_is_that_of_the_last_mark_before_it(index: list[Mark], offset: int) -> None:
    before = [place for place, mark in enumerate(index) if mark.offset <= offset]
    assert place_of(index, offset) == max(before, default=-1)


@given(marks(steady=True), instants)
def test_a_search_by_time_finds_the_first_byte_of_it(index: list[Mark], instant: int) -> None:
    expected = next((mark for mark in index if mark.at >= instant), None)
    if expected is None:
        assert first_at(index, instant) is None
    else:
        assert first_at(index, instant) == (0 if expected is index[0] else expected.offset)


@given(marks(), instants)
def test_where_the_clock_was_set_back_it_finds_one_of_the_places(index: list[Mark], instant: int) -> None:
    found = first_at(index, instant)
    if found is None:
        assert not index or index[-1].at < instant
    else:
        place = max(0, place_of(index, found))
        assert index[place].at >= instant
        assert place == 0 or index[place - 1].at < instant


@here
@given(marks(), st.binary(max_size=15))
def test_a_torn_record_does_not_count(tmp_path: Path, index: list[Mark], torn: bytes) -> None:
    path = index_of(write(tmp_path, index))
    path.write_bytes(path.read_bytes() + torn)
    with Index(path) as read:
        assert list(read) == index
        assert read[1:3] == index[1:3]
        with pytest.raises(IndexError):
            read[len(index)]


@here
@given(st.binary(max_size=9000), st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=50))
async def test_a_damaged_index_is_no_error(tmp_path: Path, damaged: bytes, offset: int, at: int, log: bytes) -> None:
    path = write(tmp_path, damaged, log)
    start, end = await View(since=at).find(path)
    assert 0 <= start <= end == len(log)
    start, end = await View(until=at).find(path)
    assert 0 == start <= end <= len(log)
    with Stamps(path, offset) as stamps:
        found = await stamps.within(offset, offset + 50)
        places = [mark.offset for mark in found]
        assert places == sorted(set(places))
        assert all(offset <= place < offset + 50 for place in places)


@here
@given(marks(), increasing)
async def test_whoever_reads_along_gets_the_time_of_every_byte(
    tmp_path: Path, index: list[Mark], cuts: list[int]
) -> None:
    path = write(tmp_path, index)
    ends = [*cuts, 301]
    start = first = 3
    times: list[int | None] = []
    with Stamps(path, start) as stamps:
        for end in ends:
            if end <= start:
                continue
            found = await stamps.within(start, end)
            assert all(start <= mark.offset < end for mark in found)
            for offset in range(start, end):
                place = bisect_right(found, offset, key=lambda mark: mark.offset)
                times.append(found[place - 1].at if place else None)
            start = end
    expected = [place_of(index, offset) for offset in range(first, start)]
    assert times == [index[place].at if place >= 0 else None for place in expected]


async def test_a_mark_of_what_is_not_written_yet_may_change(tmp_path: Path) -> None:
    """As when the disk was full: nothing came to be of what was about to be written then."""
    path = write(tmp_path, [Mark(1, 0), Mark(2, 10)])
    with Stamps(path, 0) as stamps:
        assert await stamps.within(0, 10) == [Mark(1, 0)]
        write(tmp_path, [Mark(1, 0), Mark(9, 10), Mark(10, 15)])
        assert await stamps.within(10, 20) == [Mark(9, 10), Mark(10, 15)]
        assert await stamps.within(20, 30) == [Mark(10, 20)]


async def test_many_marks_in_one_chunk(tmp_path: Path) -> None:
    index = [Mark(at, at) for at in range(2000)]
    with Stamps(write(tmp_path, index), 0) as stamps:
        assert await stamps.within(0, 1500) == index[:1500]
        assert await stamps.within(1500, 9999) == index[1500:]


async def test_what_is_far_ahead_is_found_without_reading_up_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = [Mark(at, at * 10) for at in range(100_000)]
    with Stamps(write(tmp_path, index), 0) as stamps:
        assert await stamps.within(0, 10) == [Mark(0, 0)]
        read: list[int] = []
        plain = LogFile.read

        async def counted(log: LogFile, offset: int, most: int = CHUNK) -> bytes:
            read.append(most)
            return await plain(log, offset, most)

        monkeypatch.setattr(LogFile, "read", counted)
        assert await stamps.within(900_005, 900_015) == [Mark(90_000, 900_005), Mark(90_001, 900_010)]
        assert await stamps.within(999_995, 10**9) == [Mark(99_999, 999_995)]
    assert len(read) < 10


async def test_without_an_index_there_are_no_times_and_nothing_is_cut_off_by_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old\n")
    assert await View(since=10, until=20).find(path) == (0, 4)
    with Stamps(path, 0) as stamps:
        assert await stamps.within(0, 4) == []


async def test_without_a_log_there_is_no_view(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await View().find(tmp_path / "log")


def lines_of(log: bytes) -> list[bytes]:
    return log.splitlines(keepends=True)


@here
@given(
    st.lists(st.sampled_from([b"\n", b"a", b"bcd"])).map(b"".join),
    st.integers(0, 40),
    st.integers(0, 20),
    st.integers(1, 9),
)
async def test_the_last_lines(tmp_path: Path, log: bytes, count: int, offset: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "CHUNK", block)
        start, end = await View(offset=offset, tail_lines=count).find(write(tmp_path, [], log))
    last = b"".join(lines_of(log)[-count:]) if count else b""
    assert end == len(log)
    assert start == max(offset, len(log) - len(last))


@here
@given(marks(steady=True), st.binary(max_size=300), instants, instants, st.integers(0, 9) | st.none())
async def test_a_view_by_time(
    tmp_path: Path, index: list[Mark], log: bytes, since: int, until: int, tail: int | None
) -> None:
    """Bytes without a time are as old as the first that has one."""
    path = write(tmp_path, index, log)
    start, end = await View(since=since, until=until, tail_bytes=tail).find(path)
    times = [index[max(0, place_of(index, place))].at for place in range(len(log))] if index else []
    expected = bytes(log[place] for place, at in enumerate(times) if since <= at < until) if index else log
    assert log[start:end] == (expected if tail is None else expected[-tail:] if tail else b"")


async def test_the_end_of_a_large_log_is_found_without_reading_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 GB, of which the last lines and a few marks are read."""
    size = 10 * 10**9
    index = [Mark(at * 1000, at * 100_000) for at in range(100_000)]
    path = write(tmp_path, index)
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(size - 9)
        file.write(b"a\nbc\ndef\n")
    read: list[int] = []
    plain, plain_pread = LogFile.read, os.pread

    async def counted(log: LogFile, offset: int, most: int = CHUNK) -> bytes:
        read.append(most)
        return await plain(log, offset, most)

    def counted_pread(fd: int, length: int, offset: int) -> bytes:
        read.append(length)
        return plain_pread(fd, length, offset)

    monkeypatch.setattr(LogFile, "read", counted)
    monkeypatch.setattr(os, "pread", counted_pread)
    assert await View(tail_lines=2).find(path) == (size - 7, size)
    assert await View(since=50_000_500).find(path) == (50_001 * 100_000, size)
    assert sum(read) <= CHUNK + 20 * 16
