# ruff: noqa: ASYNC240 -- blocking for a moment holds up nobody here
from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.errors import InvalidArgument, NoRoom
from joblet.uploads import MAX_DEPTH, MAX_FILES, File, Uploads, validate


def tree(folder: Path) -> dict[str, tuple[bytes | None, int]]:
    """Content (None: a directory) and permissions of all that is below."""
    return {
        str(path.relative_to(folder)): (
            None if path.is_dir() else path.read_bytes(),
            stat.S_IMODE(path.lstat().st_mode),
        )
        for path in folder.rglob("*")
    }


async def test_what_is_saved_lies_in_a_folder_of_its_own(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    files = [
        File("run.sh", b"#!/bin/sh\n", 0o755),
        File("data/deep/x.bin", bytes(range(256))),
        File("empty", is_directory=True),
        File("data", mode=0o700, is_directory=True),
        File("sealed", mode=0o500, is_directory=True),
        File("sealed/inside", b"1", 0o400),
    ]
    one, other = await uploads.save(files), await uploads.save([File("run.sh")])
    assert tree(uploads.folder(one)) == {
        "run.sh": (b"#!/bin/sh\n", 0o755),
        "data": (None, 0o700),
        "data/deep": (None, 0o755),
        "data/deep/x.bin": (bytes(range(256)), 0o644),
        "empty": (None, 0o755),
        "sealed": (None, 0o500),
        "sealed/inside": (b"1", 0o400),
    }
    assert tree(uploads.folder(other)) == {"run.sh": (b"", 0o644)}
    assert stat.S_IMODE((tmp_path / "uploads").stat().st_mode) == 0o700


async def test_no_uploaded_file_is_setuid(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    folder = uploads.folder(await uploads.save([File("a", b"", 0o106755), File("b", b"", 0o4000)]))
    assert tree(folder) == {"a": (b"", 0o755), "b": (b"", 0o644)}


async def test_files_and_all_directories_are_on_the_disk_when_saving_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    uploads = Uploads(tmp_path)
    folder = uploads.folder(await uploads.save([File("a/b/c", b"1"), File("d", is_directory=True)]))
    below = [folder / "a/b/c", folder / "a/b", folder / "a", folder / "d"]
    assert set(synced) == {str(path) for path in (*below, folder, folder.parent, tmp_path)}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([File("")], "'' is not a plain relative path"),
        ([File("/etc/passwd")], "'/etc/passwd' is not a plain relative path"),
        ([File("../x")], "'../x' is not a plain relative path"),
        ([File("a/../../x")], "'a/../../x' is not a plain relative path"),
        ([File("a//b")], "'a//b' is not a plain relative path"),
        ([File("./a")], "'./a' is not a plain relative path"),
        ([File("a/")], "'a/' is not a plain relative path"),
        ([File("a\0b")], r"'a\x00b' is not a plain relative path"),
        ([File("a"), File("a", b"2")], "'a' comes twice"),
        ([File("a"), File("a", is_directory=True)], "'a' comes twice"),
        ([File("a/b/c"), File("a/b")], "'a/b/c' is below 'a/b', which is a file"),
        ([File("a", b"1", is_directory=True)], "'a' is a directory and has content"),
        ([File("/".join(["d"] * (MAX_DEPTH + 1)))], "33 deep (at most 32)"),
        ([File("ä" * 128)], "a name of 256 bytes (at most 255)"),
        ([File(str(n)) for n in range(MAX_FILES + 1)], "10001 files (at most 10000)"),
    ],
)
async def test_what_could_not_lie_in_a_folder_is_refused_whole(tmp_path: Path, files: list[File], said: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        await Uploads(tmp_path).save([File("good"), *files])
    assert str(error.value).startswith("invalid uploads: ")
    assert said in str(error.value).replace("10002", "10001")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.lists(st.sampled_from(["a", "b", "..", ".", "", "é"]), min_size=1, max_size=4).map("/".join)))
def test_what_is_accepted_can_be_written_side_by_side(paths: list[str]) -> None:
    try:
        validate([File(path) for path in paths])
    except InvalidArgument:
        return
    parents = {str(parent) for path in paths for parent in Path(path).parents}
    assert len(set(paths)) == len(paths)
    assert not parents & set(paths)
    assert all(os.path.normpath(path) == path and not path.startswith(("/", "..")) for path in paths)


async def test_a_disk_that_takes_no_more_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoRoom):
        await Uploads(tmp_path).save([File("a/b", b"1")])
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_a_save_that_is_cancelled_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    begun, go_on = asyncio.Event(), threading.Event()
    fsync = os.fsync

    def waiting(fd: int) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(10)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", waiting)
    saving = asyncio.create_task(Uploads(tmp_path).save([File("a", b"1")]))
    await begun.wait()
    saving.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await saving
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_what_is_removed_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    one, other = await uploads.save([File("a/b")]), await uploads.save([File("c")])
    await uploads.remove(one)
    await uploads.remove(one)
    with pytest.raises(FileNotFoundError):
        uploads.folder(one)
    assert tree(uploads.folder(other)) == {"c": (b"", 0o644)}


async def test_only_what_a_record_names_is_kept(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    await uploads.keep_only([])
    one, other = await uploads.save([File("a")]), await uploads.save([File("b")])
    await uploads.keep_only([other])
    assert os.listdir(tmp_path / "uploads") == [other]
    with pytest.raises(FileNotFoundError):
        uploads.folder(one)


@pytest.mark.parametrize("token", ["", ".", "..", "a/b", "../jobs", "0" * 31])
async def test_no_token_leads_to_another_folder(tmp_path: Path, token: str) -> None:
    uploads = Uploads(tmp_path)
    kept = await uploads.save([File("a")])
    with pytest.raises(FileNotFoundError):
        uploads.folder(token)
    await uploads.remove(token)
    assert uploads.folder(kept).is_dir()
