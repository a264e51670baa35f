"""Uploads in pieces, without a server around them: what is refused, and what is left when one is interrupted."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import poll_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joblet.errors import InvalidArgument, NoRoom, TooManyUploads, UploadBusy, UploadIncomplete, UploadNotFound
from joblet.upload_record import Piece, Record
from joblet.upload_sessions import MOST_OPEN, Handed, Progress, UploadSessions
from joblet.uploads import Uploads

KEY = "0123456789abcdef"


def file(index: int, path: str, content: bytes, *, offset: int = 0, size: int | None = None, mode: int = 0) -> Piece:
    return Piece(index, path, mode, False, len(content) if size is None else size, offset, content)


def directory(index: int, path: str, mode: int = 0) -> Piece:
    return Piece(index, path, mode, True, 0, 0, b"")


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    (tmp_path / "state").mkdir()
    opened = make(tmp_path / "state")
    opened.open()
    yield opened
    opened.close()


def make(state: Path) -> Record:
    return Record(state / "incoming/t", state / "uploads/t", "alice", KEY, "boot")


def load(state: Path, boot: str = "boot") -> Record:
    found = Record.load(state / "incoming/t", state / "uploads/t", boot)
    assert found is not None
    return found


def tree(folder: Path) -> dict[str, tuple[bytes | None, int]]:
    return {
        str(path.relative_to(folder)): (
            None if path.is_dir() else path.read_bytes(),
            stat.S_IMODE(path.lstat().st_mode),
        )
        for path in folder.rglob("*")
    }


def test_what_comes_in_pieces_lies_in_the_folder(record: Record) -> None:
    for piece in (
        file(0, "run.sh", b"#!", size=4, mode=0o106755),
        file(0, "", b"/b", offset=2),
        directory(1, "sealed", 0o500),
        file(2, "sealed/inside", b"", mode=0o400),
        file(3, "data/deep/x", b"x"),
        directory(4, "data", 0o700),
        file(4, "", b""),  # the last one may be empty
    ):
        record.add(piece)
    record.finish()
    assert tree(record.folder) == {
        "run.sh": (b"#!/b", 0o755),
        "sealed": (None, 0o500),
        "sealed/inside": (b"", 0o400),
        "data": (None, 0o700),
        "data/deep": (None, 0o755),
        "data/deep/x": (b"x", 0o644),
    }
    assert (record.files, record.total, record.complete) == (5, 5, True)
    assert [entry.path for entry in record.entries()] == ["run.sh", "sealed", "sealed/inside", "data/deep/x", "data"]


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        (file(2, "b", b""), "index 2 (the next one is 1)"),
        (file(0, "b", b"b"), "index 0 (the next one is 1)"),
        (file(1, "b", b"b", offset=1, size=2), "offset 1 (the next byte is 0)"),
        (file(1, "b", b"bb", size=1), "'b' is larger than its size, 1 bytes"),
        (file(1, "a", b""), "'a' comes twice"),
        (file(1, "a/b", b""), "'a/b' is below 'a', which is a file"),
        (file(1, "../b", b""), "'../b' is not a plain relative path"),
        (file(1, "/b", b""), "'/b' is not a plain relative path"),
        (file(1, "", b"b"), "'' is not a plain relative path"),
        (file(1, "b\0", b""), "'b\\x00' is not a plain relative path"),
        (file(1, "/".join("d" * 33), b""), "is 33 deep (at most 32)"),
        (file(1, "n" * 256, b""), "a name of 256 bytes (at most 255)"),
        (Piece(1, "b", 0, True, 1, 0, b""), "'b' is a directory and has content"),
        (Piece(1, "b", 0, True, 0, 0, b"b"), "'b' is a directory and has content"),
    ],
)
def test_a_piece_that_is_not_the_next_one_changes_nothing(record: Record, piece: Piece, said: str) -> None:
    record.add(file(0, "a", b"a"))
    before = tree(record.folder), record.path.read_bytes()
    with pytest.raises(InvalidArgument) as error:
        record.add(piece)
    assert said in str(error.value)
    assert (tree(record.folder), record.path.read_bytes()) == before
    assert (record.files, record.total) == (1, 1)


def test_a_file_is_what_its_first_piece_said(record: Record) -> None:
    record.add(file(0, "a", b"1", size=3))
    for piece in (file(0, "b", b"2", offset=1, size=3), file(0, "a", b"2", offset=1, size=2)):
        with pytest.raises(InvalidArgument, match="index 0 is 'a'"):
            record.add(piece)
    with pytest.raises(InvalidArgument, match="larger than its size, 3 bytes"):
        record.add(file(0, "", b"234", offset=1))
    with pytest.raises(InvalidArgument, match="of 'a' something is missing"):
        record.finish()
    record.add(file(0, "a", b"23", offset=1, size=3))
    assert (record.folder / "a").read_bytes() == b"123"


def test_an_upload_of_nothing_is_never_complete(record: Record) -> None:
    with pytest.raises(InvalidArgument, match="it is empty"):
        record.finish()


def test_there_are_bounds(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblet.upload_record.MAX_FILES", 2)
    record.add(file(0, "a", b""))
    monkeypatch.setattr("joblet.upload_record._MOST_NAMES", 3)
    with pytest.raises(InvalidArgument, match="paths of more than 3 bytes together"):
        record.add(file(1, "bcd", b""))
    record.add(file(1, "b", b""))
    with pytest.raises(InvalidArgument, match="more than 2 files"):
        record.add(file(2, "c", b""))


PIECES = [
    directory(0, "d", 0o750),
    file(1, "d/a", b"0123", size=10),
    file(1, "", b"4567", offset=4),
    file(1, "", b"89", offset=8),
    file(2, "d/b/c", b"c" * 5),
    file(3, "e", b""),
    file(4, "f", b"f" * 3, size=4),
    file(4, "", b"f", offset=3),
]


def remaining(pieces: list[Piece], record: Record) -> Iterator[Piece]:
    """As a client goes on, which knows how far the server is."""
    contents: dict[int, bytes] = {}
    heads: dict[int, Piece] = {}
    for piece in pieces:
        contents[piece.index] = contents.get(piece.index, b"") + piece.content
        heads.setdefault(piece.index, piece)
    for index in range(record.files, len(heads)):
        head, start = heads[index], record.offset if index == record.files else 0
        yield Piece(index, head.path, head.mode, head.is_directory, head.size, start, contents[index][start:])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    taken=st.integers(0, len(PIECES)),
    torn=st.integers(0, 400),
    lost=st.sampled_from(["", "d/a", "d/b/c", "e", "f"]),
    boot=st.sampled_from(["boot", "next"]),
)
def test_whatever_is_left_is_gone_on_with(tmp_path: Path, taken: int, torn: int, lost: str, boot: str) -> None:
    """The server is killed, or the power fails: then the end of the record may be missing, and a file."""
    state = tmp_path / "state"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    record = make(state)
    record.open()
    for piece in PIECES[:taken]:
        record.add(piece)
    record.close()
    reached = record.files, record.offset
    head = record.path.read_bytes().split(b"\n")[0]
    if boot == "next":
        os.truncate(record.path, max(len(head) + 1, record.path.stat().st_size - torn))
        if lost:
            (record.folder / lost).unlink(missing_ok=True)
    again = load(state, boot)
    if boot == "boot":
        assert (again.files, again.offset) == reached
    assert again.files <= reached[0]
    again.open()
    for piece in remaining(PIECES, again):
        again.add(piece)
    again.finish()
    again.close()
    whole = load(state, "later")
    assert whole.complete
    assert (whole.files, whole.total) == (5, 19)
    assert {path: content for path, (content, _) in tree(whole.folder).items()} == {
        "d": None,
        "d/a": b"0123456789",
        "d/b": None,
        "d/b/c": b"ccccc",
        "e": b"",
        "f": b"ffff",
    }
    assert [entry.digest for entry in whole.entries()] == [entry.digest for entry in again.entries()]


def test_a_complete_upload_that_lacks_a_file_is_not_complete(record: Record, tmp_path: Path) -> None:
    record.add(file(0, "a", b"a"))
    record.add(file(1, "b", b"b"))
    record.finish()
    (record.folder / "a").unlink()
    assert (load(tmp_path / "state").complete, load(tmp_path / "state").files) == (False, 0)


def sessions(state: Path, *, timeout: float = 60, most_bytes: int = 100) -> UploadSessions:
    return UploadSessions(
        state, Uploads(state), "boot", most_bytes=most_bytes, timeout=timeout, check_room=lambda: None
    )


async def send(
    uploads: UploadSessions, *pieces: Piece, owner: str = "alice", key: str = KEY, last: bool = True
) -> None:
    async with uploads.writing(owner, key) as writer:
        for piece in pieces:
            await writer.add(piece, last=last and piece is pieces[-1])


async def test_an_upload_is_of_one_client(tmp_path: Path) -> None:
    uploads = sessions(tmp_path)
    assert await uploads.load(()) == set()
    await send(uploads, file(0, "a", b"alice"))
    await send(uploads, file(0, "a", b"bob"), owner="bob")

    async def give(upload: Handed) -> tuple[bytes, str]:
        return (tmp_path / "uploads" / upload.token / "a").read_bytes(), upload.token

    assert await uploads.hand_over("bob", KEY, give) == b"bob"
    with pytest.raises(UploadNotFound, match=f"upload not found: {KEY}"):
        await uploads.hand_over("bob", KEY, give)
    assert uploads.progress("bob", KEY) == Progress()
    assert uploads.progress("alice", KEY) == Progress(1, 0, 5, complete=True)
    await uploads.close()


async def test_an_upload_stays_when_nothing_could_be_made_of_it(tmp_path: Path) -> None:
    uploads = sessions(tmp_path)
    await uploads.load(())
    await send(uploads, file(0, "a", b"a"), last=False)

    async def refuse(upload: Handed) -> tuple[None, str]:
        raise NoRoom(tmp_path)

    async def give_other(upload: Handed) -> tuple[str, str]:
        return upload.token, "another"

    with pytest.raises(UploadIncomplete, match=r"\(1 files have come so far\)"):
        await uploads.hand_over("alice", KEY, refuse)
    await send(uploads, file(0, "", b""))
    with pytest.raises(NoRoom):
        await uploads.hand_over("alice", KEY, refuse)
    token = await uploads.hand_over("alice", KEY, give_other)
    assert not (tmp_path / "uploads" / token).exists(), "nobody has it"
    await uploads.close()


async def test_a_caller_who_leaves_does_not_undo_what_is_made(tmp_path: Path) -> None:
    uploads = sessions(tmp_path)
    await uploads.load(())
    await send(uploads, file(0, "a", b"a"))
    begun, go = asyncio.Event(), asyncio.Event()

    async def give(upload: Handed) -> tuple[None, str]:
        begun.set()
        await go.wait()
        return None, upload.token

    calling = asyncio.create_task(uploads.hand_over("alice", KEY, give))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    go.set()
    await uploads.close()
    assert uploads.progress("alice", KEY) == Progress()
    assert len(list((tmp_path / "uploads").iterdir())) == 1


async def test_one_writer_at_a_time(tmp_path: Path) -> None:
    uploads = sessions(tmp_path)
    await uploads.load(())
    async with uploads.writing("alice", KEY):
        with pytest.raises(UploadBusy, match=f"upload is in use by another call: {KEY}"):
            await send(uploads, file(0, "a", b""))
    await send(uploads, file(0, "a", b""))
    await uploads.close()


async def test_bounds_of_one_client(tmp_path: Path) -> None:
    uploads = sessions(tmp_path)
    await uploads.load(())
    for number in range(MOST_OPEN):
        await send(uploads, file(0, "a", b"a"), key=f"{number:016}", last=False)
    with pytest.raises(TooManyUploads, match=r"16 uploads have not been used \(at most 16 of one client\)"):
        await send(uploads, file(0, "a", b"a"))
    await send(uploads, file(0, "a", b"a"), owner="bob")
    for key in ("short", "k" * 129, "0123456789abcde\n"):
        with pytest.raises(InvalidArgument, match=r"\(16 to 128 printable characters\)"):
            await send(uploads, file(0, "a", b"a"), key=key)
        with pytest.raises(InvalidArgument):
            uploads.progress("alice", key)
    with pytest.raises(InvalidArgument, match=r"101 bytes, with 'b' \(at most 100, joblet\.maxUploadSize\)"):
        await send(uploads, file(1, "b", b"", size=100), key=f"{0:016}")
    await uploads.close()


async def test_a_full_disk_keeps_what_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads = sessions(tmp_path)
    await uploads.load(())
    pwrite = os.pwrite

    def full(fd: int, content: bytes, offset: int) -> int:
        if offset:
            raise OSError(errno.ENOSPC, "no space left on device")
        return pwrite(fd, content[:2], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoRoom):
        await send(uploads, file(0, "a", b"1234"))
    monkeypatch.undo()
    assert uploads.progress("alice", KEY) == Progress(0, 2, 2)
    await send(uploads, file(0, "a", b"34", offset=2, size=4))
    assert uploads.progress("alice", KEY).complete
    await uploads.close()


async def test_what_nobody_wants_goes(tmp_path: Path) -> None:
    uploads = sessions(tmp_path, timeout=0.2)
    await uploads.load(())
    await send(uploads, file(0, "a", b"a"))
    await send(uploads, file(0, "a", b"a"), owner="bob", last=False)
    await uploads.close()
    again = sessions(tmp_path, timeout=0.2)  # their time goes on over a restart
    await again.load(())
    async with again.writing("bob", KEY):
        await asyncio.to_thread(poll_until, lambda: again.progress("alice", KEY) == Progress())
        assert again.progress("bob", KEY) == Progress(1, 0, 1), "it is being written"
    left = (tmp_path / "uploads", tmp_path / "incoming")
    await asyncio.to_thread(poll_until, lambda: not any(name for folder in left for name in folder.iterdir()))
    await again.close()


async def test_of_two_uploads_of_one_key_the_younger_is_left(tmp_path: Path) -> None:
    uploads = sessions(tmp_path)
    await uploads.load(())
    await send(uploads, file(0, "a", b"old"))
    await uploads.close()
    (old,) = (tmp_path / "incoming").iterdir()  # its removal has begun when the server was killed
    record = old.read_bytes()
    old.unlink()
    uploads = sessions(tmp_path)
    await uploads.load(())
    await send(uploads, file(0, "a", b"new one"))
    await uploads.close()
    old.write_bytes(record)
    os.utime(old, (1, 1))
    again = sessions(tmp_path)
    tokens = await again.load(())
    assert tokens == {path.name for path in (tmp_path / "incoming").iterdir()}
    assert again.progress("alice", KEY) == Progress(1, 0, 7, complete=True)
    await again.close()


async def test_what_a_job_has_taken_is_no_upload_any_more(tmp_path: Path) -> None:
    uploads = sessions(tmp_path)
    await uploads.load(())
    await send(uploads, file(0, "a", b"a"))
    await send(uploads, file(0, "a", b"a"), owner="bob")
    await uploads.close()
    tokens = {path.name for path in (tmp_path / "uploads").iterdir()}
    taken = tokens.pop()  # the server was killed after the job was on disk
    again = sessions(tmp_path)
    assert await again.load({taken}) == tokens
    assert {path.name for path in (tmp_path / "incoming").iterdir()} == tokens
    await again.close()
