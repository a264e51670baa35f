# ruff: noqa: ASYNC240 -- blocking for a moment holds up nobody here
"""What the client makes of a server's files, honest or not: nothing outside of the target."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joblet.client import Downloaded, FileEntry, Internal, InvalidArgument
from joblet.client._download import MAX_SKIPPED, Download

TOP = FileEntry("", 0o755, is_directory=True)


async def download(target: Path, *entries: FileEntry, name: str = "") -> Downloaded:
    async def sent() -> AsyncIterator[FileEntry]:
        for entry in entries:
            yield entry

    return await Download(target, name, None).run(sent())


def file(path: str, content: bytes = b"", mode: int = 0o644) -> FileEntry:
    return FileEntry(path, mode, size=len(content), content=content, modified=1_000_000_000)


async def test_pieces_make_a_file(tmp_path: Path) -> None:
    target = tmp_path / "new"
    entries = [TOP, file("a", b"1", 0o4750), FileEntry("", content=b"2"), file("b", b"3", 0o600)]
    copied = await download(target, *entries)
    assert (copied.files, copied.bytes, copied.skipped) == (2, 3, ())
    assert ((target / "a").read_bytes(), (target / "b").read_bytes()) == (b"12", b"3")
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o750
    assert (target / "a").stat().st_mtime == 1


async def test_what_is_in_a_read_only_directory_is_written(tmp_path: Path) -> None:
    entries = [TOP, FileEntry("d", 0o500, is_directory=True), file("d/a"), FileEntry("d/e", 0o555, is_directory=True)]
    await download(tmp_path / "new", *entries, file("d/e/b"))
    assert [stat.S_IMODE((tmp_path / "new" / name).stat().st_mode) for name in ("d", "d/e")] == [0o500, 0o555]


@pytest.mark.parametrize("path", ["../a", "/a", "a/../../b", "./a", "a//b", "a/", "..", ".", "a\0b"])
async def test_names_that_are_none(tmp_path: Path, path: str) -> None:
    target = tmp_path / "in/target"
    target.mkdir(parents=True)
    copied = await download(target, TOP, FileEntry("a", 0o755, is_directory=True), file(path, b"x"))
    assert copied.skipped == ((path, "its name means something else here"),)
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["a", "in", "target"]


async def test_no_link_is_written_through(tmp_path: Path) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    outside.mkdir()
    for place in (target / "d", tmp_path / "other"):
        target.mkdir(exist_ok=True)
        place.symlink_to(outside)
    with pytest.raises(InvalidArgument, match=r"cannot write .*target/d: not a directory"):
        await download(target, TOP, file("d/x", b"x"))
    with pytest.raises(InvalidArgument, match=r"cannot write .*target/d: it exists, and is no directory"):
        await download(target, TOP, FileEntry("d", 0o755, is_directory=True))
    with pytest.raises(InvalidArgument, match=r"cannot write .*other: it exists, and is no directory"):
        await download(tmp_path, TOP, name="other")
    # one that the server has sent itself
    with pytest.raises(InvalidArgument, match=r"cannot write .*new/l: not a directory"):
        await download(tmp_path / "new", TOP, file("a"), FileEntry("l", target="a"), file("l/x"))
    await download(target, TOP, FileEntry("d", target="elsewhere"))
    assert os.readlink(target / "d") == "elsewhere"
    assert not list(outside.iterdir())


async def test_a_server_that_sends_what_was_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(Internal, match="not asked for"):
        await download(tmp_path, file("", b"1"), file("more", b"2"), name="a")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".rnx-")]


async def test_what_is_left_out_is_bounded(tmp_path: Path) -> None:
    entries = [FileEntry(f"{number}", skipped="because") for number in range(MAX_SKIPPED + 1)]
    copied = await download(tmp_path / "new", TOP, *entries)
    assert (len(copied.skipped), copied.left_out) == (MAX_SKIPPED, MAX_SKIPPED + 1)


async def test_names_of_the_copy(tmp_path: Path) -> None:
    assert (await download(tmp_path, file("", b"1"), name="out.csv")).path == tmp_path / "out.csv"
    assert (await download(tmp_path / "x", file("", b"1"), name="out.csv")).path == tmp_path / "x"
    (tmp_path / "dir").mkdir()
    with pytest.raises(InvalidArgument, match="it exists, and is no file"):
        await download(tmp_path / "dir", FileEntry("", skipped=""), name="")
    copied = await download(tmp_path, FileEntry("", target="/etc"), name="link")
    assert copied.skipped == (("link", "a link to /etc"),)


NAMES = st.sampled_from(["a", "b", "..", "."])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ENTRIES = st.one_of(
    st.builds(FileEntry, PATHS, st.just(0o755), st.just(True)),
    st.builds(lambda path, target: FileEntry(path, target=target), PATHS, PATHS | st.just("/")),
    st.builds(lambda path: FileEntry(path, 0o644, content=b"x"), PATHS),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(ENTRIES, max_size=8))
async def test_no_order_of_entries_leads_outside(
    tmp_path_factory: pytest.TempPathFactory, entries: list[FileEntry]
) -> None:
    base = tmp_path_factory.mktemp("base")
    root = base / "target"
    with contextlib.suppress(InvalidArgument):
        await download(root, TOP, *entries)
    assert [path.name for path in base.iterdir()] == ["target"]
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(folder, name)
            assert Path(os.path.realpath(path)).is_relative_to(root) or _is_loop(path), path


def _is_loop(path: Path) -> bool:
    """A link that leads to itself leads nowhere."""
    try:
        path.stat()
    except OSError:
        return True
    return False
