"""Writes what a server sends of a job's files, named and linked as the job likes: nothing outside of the target."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, BinaryIO

from joblet.client.errors import Internal, InvalidArgument

if TYPE_CHECKING:
    from joblet.client._file_calls import FileEntry

_OWN = stat.S_IRWXU


@dataclass(frozen=True)
class Downloaded:
    """What has been written."""

    path: Path
    """where it lies"""
    files: int
    """files and links"""
    bytes: int
    skipped: tuple[tuple[str, str], ...]
    """paths that were left out, and why: the first MAX_SKIPPED of them"""
    left_out: int
    """how many those are"""


MAX_SKIPPED = 1000


class Download:
    """One copy. The mutable state is the file that is being written, and what there is to tell in the end."""

    def __init__(self, target: Path, name: str, on_progress: Callable[[int, int], None] | None) -> None:
        """`name` is what the copy is called in a `target` that is a directory; empty: that directory itself."""
        self._target = target
        self._name = name
        self._on_progress = on_progress
        self._root = target
        self._is_tree = False
        self._temporary: Path | None = None
        self._file: BinaryIO | None = None
        self._entry: FileEntry | None = None
        self._directories: list[tuple[Path, int]] = []
        self._files = 0
        self._bytes = 0
        self._skipped: list[tuple[str, str]] = []
        self._left_out = 0

    async def run(self, entries: AsyncIterator[FileEntry]) -> Downloaded:
        """Write everything. Raises InvalidArgument for what cannot be written, and Internal for a server's nonsense."""
        first = True
        try:
            async for entry in entries:
                await asyncio.to_thread(self._take, entry, first)
                first = False
                if self._on_progress is not None:
                    self._on_progress(self._bytes, 0 if self._is_tree or self._entry is None else self._entry.size)
            await asyncio.to_thread(self._finish)
        finally:
            await asyncio.to_thread(self._drop)
        return Downloaded(self._root, self._files, self._bytes, tuple(self._skipped), self._left_out)

    def _take(self, entry: FileEntry, first: bool) -> None:
        try:
            if first:
                self._begin(entry)
            elif entry.path:
                self._end_file()
                self._take_below(entry)
            else:
                self._write(entry.content)
        except OSError as error:
            raise _unwritable(Path(error.filename or self._root), error) from None

    def _begin(self, entry: FileEntry) -> None:
        """The first entry is what was asked for itself."""
        if self._target.is_dir() and self._name:
            if not _is_plain(self._name):
                raise InvalidArgument(f"cannot write a file that is called {self._name!r}: give a new name")
            self._root = self._target / self._name
        if not self._root.parent.is_dir():
            raise InvalidArgument(f"cannot write {self._root}: {self._root.parent} is no directory")
        self._is_tree = entry.is_directory
        if entry.skipped or entry.target:
            self._skip(entry, entry.skipped or f"a link to {entry.target}")
        elif entry.is_directory:
            self._make_directory(self._root, entry.mode)
        else:
            self._place(entry, self._root)

    def _take_below(self, entry: FileEntry) -> None:
        """Write one of those that lie in a directory, below directories that are no links."""
        if not self._is_tree:
            raise Internal("the server sends files that were not asked for")
        place = self._root
        *parents, last = entry.path.split("/")
        if entry.skipped or not all(map(_is_plain, (*parents, last))):
            self._skip(entry, entry.skipped or "its name means something else here")
            return
        for name in parents:
            place /= name
            if not stat.S_ISDIR(place.lstat().st_mode):
                raise InvalidArgument(f"cannot write {place}: not a directory")
        self._place(entry, place / last)

    def _place(self, entry: FileEntry, place: Path) -> None:
        if entry.target:
            self._link(entry, place)
        elif entry.is_directory:
            self._make_directory(place, entry.mode)
        else:
            self._begin_file(entry, place)

    def _make_directory(self, place: Path, mode: int) -> None:
        try:
            place.mkdir(mode=_OWN)
        except FileExistsError:
            what = place.stat() if place == self._target else place.lstat()
            if not stat.S_ISDIR(what.st_mode):
                raise InvalidArgument(f"cannot write {place}: it exists, and is no directory") from None
            return
        if mode & _OWN == _OWN:
            place.chmod(mode & 0o777)
        else:  # something has still to be written there
            self._directories.append((place, mode))

    def _begin_file(self, entry: FileEntry, place: Path) -> None:
        self._check_replaceable(place)
        self._temporary = place.parent / f".rnx-{secrets.token_hex(8)}"
        self._file = open(self._temporary, "xb", opener=_private)  # noqa: SIM115 -- closed by _end_file or _drop
        self._entry, self._place_of_file = entry, place
        self._write(entry.content)

    def _write(self, content: bytes) -> None:
        if self._file is None:  # of what was left out
            return
        self._file.write(content)
        self._bytes += len(content)

    def _end_file(self) -> None:
        if self._file is None or self._temporary is None or self._entry is None:
            return
        self._file.close()
        self._temporary.chmod(self._entry.mode & 0o777)
        os.utime(self._temporary, ns=(self._entry.modified, self._entry.modified))
        self._temporary.replace(self._place_of_file)
        self._temporary = self._file = None
        self._files += 1

    def _link(self, entry: FileEntry, place: Path) -> None:
        """Make a link that stays inside: it goes up no further than the root, and nowhere up after that.

        So wherever the links are that it leads over, it is inside, as they are.
        """
        names = entry.target.split("/")
        up = next((index for index, name in enumerate(names) if name != ".."), len(names))
        below = place.relative_to(self._root).parts[:-1]
        if up > len(below) or any(not _is_plain(name) for name in names[up:]):
            self._skip(entry, f"a link to {entry.target}, which is elsewhere")
            return
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISLNK(place.lstat().st_mode):
                self._skip(entry, f"a link to {entry.target}, where there is something else")
                return
            place.unlink()
        try:
            place.symlink_to(entry.target)
        except (NotImplementedError, OSError) as error:  # Windows wants a privilege for it
            self._skip(entry, f"a link to {entry.target} ({error})")
        else:
            self._files += 1

    def _check_replaceable(self, place: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(place.lstat().st_mode):
                raise InvalidArgument(f"cannot write {place}: it exists, and is no file")

    def _skip(self, entry: FileEntry, why: str) -> None:
        self._left_out += 1
        if len(self._skipped) < MAX_SKIPPED:
            self._skipped.append((entry.path or self._name, why))

    def _finish(self) -> None:
        """Directories get their modes last: they may be read-only."""
        try:
            self._end_file()
            for place, mode in reversed(self._directories):
                place.chmod(mode & 0o777)
        except OSError as error:
            raise _unwritable(Path(error.filename or self._root), error) from None

    def _drop(self) -> None:
        """Nothing is left of a file that has not come whole."""
        if self._file is not None:
            self._file.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    """What has not come whole has not its mode yet."""
    return os.open(path, flags, 0o600)


def _is_plain(name: str) -> bool:
    """Whether a name is that of something in its directory, on this system."""
    if name in ("", ".", "..") or "\0" in name or "/" in name:
        return False
    if os.name != "nt":
        return True
    # There a dot or space at the end does not count, `C:` is a drive and `a:b` a stream, and CON is everywhere.
    return not any(part in name for part in "\\:") and name[-1] not in ". " and not PureWindowsPath(name).is_reserved()


def _unwritable(path: Path, error: OSError) -> InvalidArgument:
    reason = error.strerror or str(error)
    return InvalidArgument(f"cannot write {path}: {reason[:1].lower()}{reason[1:]}")
