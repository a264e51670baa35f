"""Writes the audit log. Belongs to one thread, but for what waits for the disk.

A line is in the file, and its number in the head, when `append` returns: a server that is killed then loses neither.
The disk has them within a second (`FLUSH_SECONDS`); what a power failure takes until then, recovery tells.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from joblet import clock, durable
from joblet.audit import files
from joblet.audit.chain import MOST, START, link, members
from joblet.audit.head import Seal
from joblet.audit.recovery import recover
from joblet.log import fields
from joblet.threads import finish

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.8
"""from the first line that the disk does not have until it is waited for"""
RESERVE = 256 << 10
"""bytes of the disk that are kept for lines to come: a full disk leaves room for some hundred"""

_AHEAD = 2 * RESERVE
_UNABLE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class TrailError(Exception):
    """The log cannot be begun or written; the message says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the earlier server has left."""

    torn: int
    """bytes of an unfinished line"""
    lost: int
    """lines that a power failure has taken"""
    fault: str
    """what neither of these explains"""


class Trail:
    """The mutable state is the last line's number and hash, the file, how far the disk has room and what it has.

    The head tells of no line that is not in the file.
    """

    def __init__(self, path: Path, state_dir: Path, max_bytes: int, keep: int) -> None:
        """The log in the file at `path`. When it has `max_bytes` another one takes its place; so many former ones are
        kept, or all for 0.

        Raises TrailError, but not for a full disk: then it is begun when there is room.
        """
        self._path = path
        self._state_dir = state_dir
        self._max_bytes = max_bytes
        self._keep = keep
        self._boot = ""
        self._fd = -1
        self._seal: Seal | None = None
        self._number = self._first = 0
        self._hash = START
        self._flushed = (0, START)
        self._size = 0
        self._room = 0
        self._torn = 0
        self._written: list[int] = []
        self._gone: list[Path] = []
        self._flushing: asyncio.Task[None] | None = None
        self._second, self._time = -1, ""
        self._told = ""
        self._closed = False
        self.found: Found | None = None
        """set when the log has been begun"""
        try:
            self._boot = clock.boot_id()
            self._begin()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise TrailError(f"{error.filename or path}: {error.strerror}") from None

    @property
    def number(self) -> int:
        """Of the last line."""
        return self._number

    @property
    def hash(self) -> str:
        """Of the last line."""
        return self._hash

    def append(self, rest: str, spare: int = 0) -> int:
        """Write a line whose members after number and time are `rest`; its number.

        `spare` bytes of the room that is kept on a full disk are to be left for others. Raises OSError, and then there
        is no line.
        """
        if self._fd < 0:
            self._begin()
        if self._torn:
            self._cut()
        number = self._number + 1
        line, digest = link(self._hash, f'{{"n":{number},"time":"{self._now()}",{rest}')
        if self._size + len(line) + RESERVE > self._room:
            self._make_room(len(line), spare)
        self._put(line, number, digest)
        if self._size >= self._max_bytes:
            self._rotate_if_possible()
        return number

    async def close(self) -> None:
        """Wait until the disk has all of it, and write no more. Raises OSError."""
        self._closed = True
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
            self._flushing = None
        try:
            if self._fd >= 0:
                await self._sync(closed=True)
        finally:
            for fd in (*self._written, self._fd):
                if fd >= 0:
                    os.close(fd)
            self._fd = -1
            if self._seal is not None:
                self._seal.close()

    def _begin(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the audit log is closed", str(self._path))
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._seal is None:
            self._seal = Seal(self._state_dir)
        fd = self._open() if self._path.exists() else -1
        try:
            begun = recover(self._path, self._seal.head, self._seal.fault, self._boot)
            self._number, self._hash, self._first = begun.number, begun.hash, begun.first
            if self._seal.head is not None:
                self._flushed = (self._seal.head.flushed, self._seal.head.flushed_hash)
            self._seal.settle(self._flushed, self._boot)
            if begun.first and not begun.fault:
                self._fd = fd if fd >= 0 else self._open()
                self._lock(self._fd)  # to close a file, as recovery has, drops its record locks (fcntl(2))
                found = os.fstat(self._fd)
                self._size = found.st_size
                self._room = max(self._size, found.st_blocks * 512 - MOST)
            else:
                self._rotate(begun.fault)
        finally:
            if fd not in (-1, self._fd):
                os.close(fd)
        self.found = Found(begun.torn, begun.lost, begun.fault)

    def _open(self) -> int:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._lock(fd)
        return fd

    def _lock(self, fd: int) -> None:
        """Keep other servers from the file, which would each break the other's chain. Closes it when it is not ours."""
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise OSError(errno.EBUSY, "in use by another joblet server", str(self._path)) from None

    def _rotate_if_possible(self) -> None:
        """A file that is too large is better than none."""
        try:
            self._rotate("")
        except OSError as error:
            self._tell("no new file for the audit log", error)
        else:
            self._told = ""

    def _rotate(self, fault: str) -> None:
        """Begin a new file with a line that leads on from the former one. Raises OSError, and then there is none."""
        former = files.formers(self._path)
        if self._first and self._path.exists():
            former.append((self._first, files.former(self._path, self._first)))
        kept = former[-self._keep :] if self._keep else former
        number = self._number + 1
        opening = {
            "event": "opened",
            "previous": self._hash,
            "oldest": kept[0][0] if kept else number,
            "fault": fault or None,
        }
        line, digest = link(self._hash, f'{{"n":{number},"time":"{self._now()}",{members(opening)}')
        new = files.fresh(self._path)
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._lock(fd)
        try:
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(new))
            if self._path.exists():
                aside = files.former(self._path, self._first) if self._first else files.damaged(self._path, number)
                self._path.rename(aside)
            new.rename(self._path)
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.ftruncate(self._fd, self._size)  # gives the room back that it had for more
            self._written.append(self._fd)
        self._gone += [path for first, path in former if first < int(str(opening["oldest"]))]
        self._fd, self._first, self._size, self._room = fd, number, len(line), len(line)
        self._number, self._hash = number, digest
        self._mark()

    def _put(self, line: bytes, number: int, digest: str) -> None:
        """All of a line and the head, or nothing."""
        written = 0
        try:
            written = os.write(self._fd, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            before = self._number, self._hash
            self._number, self._hash = number, digest
            try:
                self._mark()
            except OSError:
                self._number, self._hash = before
                raise
        except OSError:
            self._torn = written
            if written:
                self._cut()
            raise
        self._size += written

    def _cut(self) -> None:
        """Take away what there is of a line that could not be written. Raises OSError."""
        os.ftruncate(self._fd, os.fstat(self._fd).st_size - self._torn)
        self._torn = 0

    def _make_room(self, size: int, spare: int) -> None:
        """Keep the room for more lines; on a full disk, take no more of it than may be. Raises OSError."""
        end = self._size + size
        length = end + _AHEAD - self._room
        try:
            durable.keep_room(self._fd, self._room, length)
        except OSError as error:
            if error.errno not in _UNABLE and end + spare > self._room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path)) from None
        else:
            self._room += length

    def _mark(self) -> None:
        assert self._seal is not None
        self._seal.write(self._number, self._hash)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush(), name="audit-flush")

    async def _flush(self) -> None:
        while self._flushed[0] != self._number:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self._sync()
            except OSError as error:  # the head goes on telling what the disk has for certain
                self._tell("audit log cannot be brought to the disk", error)
        self._flushing = None

    async def _sync(self, *, closed: bool = False) -> None:
        assert self._seal is not None
        last, written, gone = (self._number, self._hash), self._written, self._gone
        self._written, self._gone = [], []
        try:
            await finish(_sync, self._fd, written, gone, self._path.parent)
        except OSError:
            self._written, self._gone = written + self._written, gone + self._gone
            raise
        self._flushed = last
        self._seal.settle(last, self._boot, closed=closed)
        self._seal.write(self._number, self._hash)
        await finish(self._seal.sync)

    def _tell(self, what: str, error: OSError) -> None:
        """Once, until something else is wrong."""
        if what != self._told:
            log.error(what, extra=fields(path=str(self._path), error=error.strerror))
        self._told = what

    def _now(self) -> str:
        now = clock.now_ns()
        second = now // 1_000_000_000
        if second != self._second:
            self._second, self._time = second, clock.rfc3339(now)[:-1]
        return f"{self._time}.{now // 1000 % 1_000_000:06d}Z"


def _sync(fd: int, written: Sequence[int], gone: Sequence[Path], folder: Path) -> None:
    """Wait until the disk has all; close the files that are written no more, and remove those that are not kept."""
    for each in (*written, fd):
        os.fdatasync(each)
    if written or gone:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    for path in gone:
        path.unlink(missing_ok=True)
    for each in written:
        os.close(each)
