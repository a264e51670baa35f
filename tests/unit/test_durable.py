from __future__ import annotations

import os
from pathlib import Path

import pytest

from joblet import durable


def test_a_file_is_replaced_whole_though_writes_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"former")
    write = os.write
    monkeypatch.setattr("os.write", lambda fd, content: write(fd, content[:3]))
    durable.replace(path, b"0123456789")
    assert path.read_bytes() == b"0123456789"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"former")
    full = os.open("/dev/full", os.O_WRONLY)
    write = os.write
    monkeypatch.setattr("os.write", lambda fd, content: write(full, content))
    with pytest.raises(OSError, match="No space left"):
        durable.replace(path, b"new")
    os.close(full)
    assert path.read_bytes() == b"former"


def test_room_is_kept_and_the_length_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        durable.keep_room(file.fileno(), 0, 1 << 20)
    assert path.stat().st_size == 0
    assert path.stat().st_blocks * 512 >= 1 << 20


def test_a_pipe_has_no_room_to_keep() -> None:
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Illegal seek"):
        durable.keep_room(writer, 0, 1)
    os.close(reader)
    os.close(writer)
