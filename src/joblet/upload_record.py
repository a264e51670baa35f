"""One upload that comes in pieces: its files, and the record of them that outlives the server. Blocking file work."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joblet.errors import InvalidArgument
from joblet.uploads import MAX_FILES, Layout, above, permissions, shown, sync

_MOST_NAMES = 4 << 20
"""bytes of the paths of one upload: what is held of it in memory while it is written"""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """What a client sends at a time; `path` to `size` are of the first piece of a file or directory."""

    index: int
    """of the file or directory in the upload"""
    path: str
    mode: int
    is_directory: bool
    size: int
    """bytes of the whole file"""
    offset: int
    """of the content in the file"""
    content: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or directory of an upload."""

    path: str
    permissions: int
    is_directory: bool
    size: int
    digest: str = ""
    """SHA-256 of the content; empty until all of it has come"""


class Record:
    """The mutable state is how far the upload has come. One thread at a time.

    The record is a line for each entry and one for the upload's end, appended once the disk has what they tell of. So
    after a power failure the lines that are left are true, and the last file, of which there is no such line, is
    begun anew (`boot`). A server that is killed has lost nothing of that either.
    """

    def __init__(self, path: Path, folder: Path, owner: str, key: str, boot: str) -> None:
        """`path` is the record's file, `folder` where the files lie; `boot` names this time since the host's start."""
        self.path = path
        self.folder = folder
        self.owner = owner
        self.key = key
        self.files = 0
        """entries that have come whole"""
        self.complete = False
        self._whole_bytes = 0
        self._current: Entry | None = None
        self._offset = 0
        self._boot = boot
        self._layout: Layout | None = None
        self._names = 0
        self._hash = hashlib.sha256()
        self._fd = -1

    @property
    def offset(self) -> int:
        """Bytes that have come of the entry that has not come whole."""
        return self._offset

    @property
    def total(self) -> int:
        """Bytes that have come of all."""
        return self._whole_bytes + self._offset

    @property
    def declared(self) -> int:
        """Bytes of all files that have been begun."""
        return self._whole_bytes + (self._current.size if self._current else 0)

    @property
    def age(self) -> float:
        """Seconds since the last of it came, by the host's clock; never below 0. Raises OSError."""
        times = [self.path.stat().st_mtime]
        if self._current is not None:
            with contextlib.suppress(FileNotFoundError):
                times.append((self.folder / self._current.path).stat().st_mtime)
        return max(0.0, time.time() - max(times))

    @classmethod
    def load(cls, path: Path, folder: Path, boot: str) -> Record | None:
        """What an earlier server has left; None when nothing can be made of it. Raises OSError."""
        lines = _lines(path)
        try:
            _, head = next(lines)
            record = cls(path, folder, str(head["owner"]), str(head["key"]), boot)
        except (StopIteration, KeyError):
            return None
        good = record._replay(str(head.get("boot", "")), lines)
        if not record.complete:
            record._cut(good)
        return record

    def entries(self) -> list[Entry]:
        """What has come whole, in the order in which it came. Raises OSError."""
        return list(_entries(self.path))

    def open(self) -> None:
        """Make ready for pieces, and begin the upload on the disk if it is not there. Raises OSError."""
        for directory in (self.path.parent, self.folder.parent, self.folder):
            directory.mkdir(mode=0o700, exist_ok=True)
        if not self.path.exists():
            with open(self.path, "xb", opener=_private) as file:
                file.write(_line({"owner": self.owner, "key": self.key, "boot": self._boot}))
        layout, names = Layout(), 0
        for entry in _entries(self.path):
            layout.add(entry.path, is_directory=entry.is_directory)
            names += len(entry.path.encode())
        if self._current is not None:
            layout.add(self._current.path, is_directory=False)
            names += len(self._current.path.encode())
            self._open_current()
        self._layout, self._names = layout, names

    def close(self) -> None:
        """No piece comes for now."""
        self._layout = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def begins(self, piece: Piece) -> bool:
        """Whether a piece is the first of its entry."""
        return self._current is None and piece.index == self.files

    def add(self, piece: Piece) -> None:
        """Take the next piece. Raises InvalidArgument, and then nothing has changed, or OSError."""
        if not piece.content and self._current is None and piece.index + 1 == self.files:
            return  # after the last one, for what it says beside
        if piece.index != self.files:
            raise InvalidArgument(f"invalid uploads: index {piece.index} (the next one is {self.files})")
        if piece.offset != self._offset:
            raise InvalidArgument(f"invalid uploads: offset {piece.offset} (the next byte is {self._offset})")
        entry = self._current or self._begin(piece)
        if piece.path not in ("", entry.path) or (piece.path and piece.size != entry.size):
            raise InvalidArgument(f"invalid uploads: {shown(piece.path)} (index {piece.index} is {shown(entry.path)})")
        if piece.offset + len(piece.content) > entry.size:
            raise InvalidArgument(f"invalid uploads: {shown(entry.path)} is larger than its size, {entry.size} bytes")
        if entry.is_directory:
            (self.folder / entry.path).mkdir(mode=0o700, exist_ok=True)
        elif piece.content or not entry.size:
            self._write(entry, piece.content)
        if self._offset == entry.size:
            self._end(entry)

    def finish(self) -> None:
        """Nothing more comes: give directories their modes, and bring all to the disk.

        Raises InvalidArgument while a file lacks something, or OSError.
        """
        if self._current is not None or not self.files:
            missing = "it is empty" if self._current is None else f"of {shown(self._current.path)} something is missing"
            raise InvalidArgument(f"invalid uploads: last: {missing}")
        directories: dict[str, int] = {}
        for entry in _entries(self.path):
            for parent in above(entry.path):
                directories.setdefault(parent, 0o755)
            if entry.is_directory:
                directories[entry.path] = entry.permissions
        for directory in sorted(directories, reverse=True):
            (self.folder / directory).chmod(directories[directory])
            sync(self.folder / directory)
        for folder in (self.folder, self.folder.parent):
            sync(folder)
        self._append({"complete": True}, durable=True)
        for folder in (self.path.parent, self.path.parent.parent):
            sync(folder)
        self.complete = True

    def _begin(self, piece: Piece) -> Entry:
        assert self._layout is not None
        if self.files >= MAX_FILES:
            raise InvalidArgument(f"invalid uploads: more than {MAX_FILES} files")
        if piece.is_directory and (piece.size or piece.content):
            raise InvalidArgument(f"invalid uploads: {shown(piece.path)} is a directory and has content")
        if len(piece.content) > piece.size:
            raise InvalidArgument(f"invalid uploads: {shown(piece.path)} is larger than its size, {piece.size} bytes")
        length = len(piece.path.encode())
        if self._names + length > _MOST_NAMES:
            raise InvalidArgument(f"invalid uploads: paths of more than {_MOST_NAMES} bytes together")
        self._layout.add(piece.path, is_directory=piece.is_directory)
        self._names += length
        mode = permissions(piece.mode, is_directory=piece.is_directory)
        entry = Entry(piece.path, mode, piece.is_directory, piece.size)
        self._make_parents(entry.path)
        if len(piece.content) < entry.size:  # its own line comes with its end otherwise
            self._append(_told(entry))
        self._current = entry
        self._hash = hashlib.sha256()
        return entry

    def _make_parents(self, path: str) -> None:
        for directory in reversed(list(above(path))):
            (self.folder / directory).mkdir(mode=0o700, exist_ok=True)

    def _open_current(self) -> None:
        """Go on with a file where it is."""
        assert self._current is not None
        self._make_parents(self._current.path)
        self._hash = hashlib.sha256()
        self._fd = os.open(self.folder / self._current.path, _FILE, 0o600)
        os.ftruncate(self._fd, self._offset)
        read = 0
        while read < self._offset:
            block = os.pread(self._fd, min(_BLOCK, self._offset - read), read)
            self._hash.update(block)
            read += len(block)

    def _write(self, entry: Entry, content: bytes) -> None:
        if self._fd < 0:
            self._fd = os.open(self.folder / entry.path, _FILE | os.O_TRUNC, 0o600)
        rest = memoryview(content)
        while rest:  # what is written when this fails is written again
            written = os.pwrite(self._fd, rest, self._offset)
            self._hash.update(rest[:written])
            self._offset += written
            rest = rest[written:]

    def _end(self, entry: Entry) -> None:
        if not entry.is_directory:
            os.fchmod(self._fd, entry.permissions)
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._append(_told(replace(entry, digest=self._hash.hexdigest())))
        self.files += 1
        self._whole_bytes += entry.size
        self._current, self._offset = None, 0

    def _append(self, line: Mapping[str, object], *, durable: bool = False) -> None:
        with open(self.path, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            try:
                file.write(_line(line))
                file.flush()
            except OSError:
                file.truncate(size)
                raise
            if durable:
                os.fsync(file.fileno())

    def _replay(self, boot: str, lines: Iterator[tuple[int, dict[str, Any]]]) -> int:
        """Take over what the lines say, as far as it is true; where the last of those ends in the record."""
        good = len(_line({"owner": self.owner, "key": self.key, "boot": boot}))
        for end, line in lines:
            if "boot" in line:
                boot = line["boot"]
            elif line.get("complete"):
                self.complete = True
            elif (entry := _entry(line)) is None or (entry.digest and not self._has(entry)):
                break
            elif entry.digest:
                self.files += 1
                self._whole_bytes += entry.size
                self._current = None
            else:
                self._current = entry
            good = end
        if self._current is not None and boot == self._boot:
            with contextlib.suppress(FileNotFoundError):
                self._offset = min((self.folder / self._current.path).lstat().st_size, self._current.size)
        return good

    def _has(self, entry: Entry) -> bool:
        try:
            what = (self.folder / entry.path).lstat()
        except OSError:
            return False
        return stat.S_ISDIR(what.st_mode) if entry.is_directory else what.st_size == entry.size

    def _cut(self, good: int) -> None:
        """Forget what is torn or untrue at the end of the record, and let it be of this time."""
        times = self.path.stat()
        os.truncate(self.path, good)
        self._append({"boot": self._boot})
        os.utime(self.path, ns=(times.st_atime_ns, times.st_mtime_ns))


_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def _told(entry: Entry) -> dict[str, object]:
    digest = {"digest": entry.digest} if entry.digest else {}
    return {
        "path": entry.path,
        "permissions": entry.permissions,
        "directory": entry.is_directory,
        "size": entry.size,
        **digest,
    }


def _entry(line: Mapping[str, Any]) -> Entry | None:
    try:
        return Entry(line["path"], line["permissions"], line["directory"], line["size"], line.get("digest", ""))
    except KeyError:
        return None


def _entries(path: Path) -> Iterator[Entry]:
    for _, line in _lines(path):
        entry = _entry(line)
        if entry is not None and entry.digest:
            yield entry


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The record's lines and where each ends, up to the first that is torn."""
    end = 0
    with open(path, "rb") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                return
            if not text.endswith(b"\n") or not isinstance(line, dict):
                return
            end += len(text)
            yield end, line


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
