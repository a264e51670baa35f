"""Reads what is below a directory that belongs to a job, as root: nothing in it is trusted. Blocking file work.

The job may change everything meanwhile. So each thing is opened by its name below its directory's descriptor, without
following links (beneath.py), and first only to see what it is (O_PATH): a FIFO is not waited for, a device not touched.
What is read is the very thing that was looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from dataclasses import dataclass

from joblet.beneath import open_beneath

MAX_DEPTH = 64
"""directories below the first; as many descriptors are open at a time"""
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Part:
    """A file, directory or link, or a further piece of the file before, which has no path."""

    path: str = ""
    """relative to where the walk began; empty for that itself, which comes first"""
    mode: int = 0
    """permission bits"""
    is_directory: bool = False
    target: str = ""
    """of a symbolic link"""
    modified: int = 0
    """nanoseconds since the epoch"""
    size: int = 0
    """bytes, as it was when it was opened; of a file that is written to no more are read"""
    content: bytes = b""
    skipped: str = ""
    """why it is left out"""


def walk(root: int, path: str, piece: int) -> Generator[Part]:
    """What lies at `path` below the descriptor `root`, directories before what is in them, in no order.

    At most `piece` bytes of content come at a time. What vanishes meanwhile is not told of. Raises OSError, as
    open_beneath, when there is nothing at `path`.
    """
    fd = open_beneath(root, path or ".")
    try:
        what = os.fstat(fd)
        if not stat.S_ISDIR(what.st_mode):
            yield from _leaf(fd, "", what, piece)
            return
        yield _directory("", what)
        yield from _below(fd, piece)
    finally:
        os.close(fd)


def _below(top: int, piece: int) -> Generator[Part]:
    """All that is in a directory, with a stack of our own: a job can nest more than Python's holds."""
    levels = [_Level("", top)]
    try:
        while levels:
            level = levels[-1]
            try:
                name = level.next_name()
            except OSError as error:  # of the disk
                yield Part(level.path or ".", skipped=f"of what is in it something: {_text(error)}")
                name = None
            if name is None:
                levels.pop().close()
                continue
            path = f"{level.path}/{name}" if level.path else name
            if not _is_text(path):
                yield Part(path.encode(errors="replace").decode(), skipped="its name is not UTF-8 text")
                continue
            try:
                fd = open_beneath(level.fd, name)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield Part(path, skipped=_text(error))
                continue
            try:
                what = os.fstat(fd)
                if not stat.S_ISDIR(what.st_mode):
                    yield from _leaf(fd, path, what, piece)
                elif len(levels) > MAX_DEPTH:
                    yield Part(path, skipped=f"more than {MAX_DEPTH} directories deep")
                else:
                    level = _Level(path, fd)
                    levels.append(level)
                    yield _directory(path, what)
            except OSError as error:
                yield Part(path, skipped=_text(error))
            finally:
                os.close(fd)
    finally:
        for level in levels:
            level.close()


class _Level:
    """A directory whose entries are being told. The mutable state is which are left."""

    def __init__(self, path: str, fd: int) -> None:
        """Raises OSError."""
        self.path = path
        self.fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            self._entries = os.scandir(self.fd)
        except OSError:
            os.close(self.fd)
            raise

    def next_name(self) -> str | None:
        """None after the last one. Raises OSError."""
        entry = next(self._entries, None)
        return None if entry is None else entry.name

    def close(self) -> None:
        self._entries.close()
        os.close(self.fd)


def _leaf(fd: int, path: str, what: os.stat_result, piece: int) -> Generator[Part]:
    """What is not a directory, by its O_PATH descriptor."""
    if stat.S_ISLNK(what.st_mode):
        target = os.readlink("", dir_fd=fd)
        if _is_text(target):
            yield Part(path, target=target, modified=what.st_mtime_ns)
        else:
            yield Part(path, skipped="the target of the link is not UTF-8 text")
    elif stat.S_ISREG(what.st_mode):
        yield from _file(fd, path, piece)
    else:
        yield Part(path, skipped="neither a file, a directory nor a link")


def _file(fd: int, path: str, piece: int) -> Generator[Part]:
    try:
        file = os.open(f"/proc/self/fd/{fd}", _OPEN)  # what `fd` is, wherever it lies by now (proc_pid_fd(5))
    except OSError as error:
        yield Part(path, skipped=_text(error))
        return
    try:
        what = os.fstat(file)
        content = _read(file, min(piece, what.st_size), 0)
        yield Part(path, what.st_mode & 0o777, False, "", what.st_mtime_ns, what.st_size, content)
        offset = len(content)
        while content and offset < what.st_size:
            content = _read(file, min(piece, what.st_size - offset), offset)
            offset += len(content)
            if content:
                yield Part(content=content)
    finally:
        os.close(file)


def _read(file: int, size: int, offset: int) -> bytes:
    return os.pread(file, size, offset) if size else b""


def _directory(path: str, what: os.stat_result) -> Part:
    return Part(path, what.st_mode & 0o777, is_directory=True, modified=what.st_mtime_ns)


def _is_text(name: str) -> bool:
    """Whether a name has a UTF-8 form, as a message must."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _text(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
