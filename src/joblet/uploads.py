"""Files that clients have sent along, kept below the state directory until their jobs have had them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from joblet.errors import DiskUnusable, InvalidArgument, JobletError, NoRoom
from joblet.order import validate_path

MAX_FILES = 10_000
MAX_DEPTH = 32
"""directories above a file, and it"""
MAX_NAME_BYTES = 255
"""NAME_MAX (limits.h)"""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""errors of a disk that is full"""
_TOKEN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class File:
    """One file, or directory, as a client sends it."""

    path: str
    """relative, plain"""
    content: bytes = b""
    mode: int = 0
    """permissions; 0 is 0644, of a directory 0755"""
    is_directory: bool = False

    @property
    def permissions(self) -> int:
        """Nothing but who may read, write and execute: no setuid bits."""
        return permissions(self.mode, is_directory=self.is_directory)

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()


def permissions(mode: int, *, is_directory: bool) -> int:
    """What becomes of the mode that a client gives."""
    return mode & 0o777 or (0o755 if is_directory else 0o644)


class Uploads:
    """The store of uploaded files: a folder for each upload, named by a token that nobody guesses."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "uploads"

    async def save(self, files: Sequence[File]) -> str:
        """Keep the files; when this returns their token, they are on the disk.

        Raises InvalidArgument, NoRoom or DiskUnusable, and then nothing is kept; so it is when this is cancelled.
        """
        token = secrets.token_hex(16)
        writing = asyncio.create_task(asyncio.to_thread(self._write, self._root / token, files))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            with contextlib.suppress(JobletError):
                await writing  # a thread cannot be stopped
            await self.remove(token)
            raise
        return token

    @property
    def root(self) -> Path:
        """The directory of all folders. It may not exist yet."""
        return self._root

    def folder(self, token: str) -> Path:
        """Where an upload's files lie. Raises FileNotFoundError when there is no such upload."""
        folder = self._root / token
        if not _TOKEN.fullmatch(token) or not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such upload", token)
        return folder

    async def remove(self, token: str) -> None:
        """Remove an upload. What is gone already is no error; raises OSError for what stays."""
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, self.folder(token))

    async def keep_only(self, tokens: Collection[str]) -> None:
        """Remove what no record names: what a killed server was about to save, or to remove. Raises OSError."""
        await asyncio.to_thread(self._keep_only, frozenset(tokens))

    def _keep_only(self, tokens: frozenset[str]) -> None:
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._root):
                if name not in tokens:
                    shutil.rmtree(self._root / name)

    def _write(self, folder: Path, files: Sequence[File]) -> None:
        validate(files)  # which takes its time too, where there are thousands
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            folder.mkdir(mode=0o700)
            _write_files(folder, files)
            for directory in (folder, self._root, self._root.parent):
                sync(directory)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise NoRoom(self._root) if error.errno in FULL else DiskUnusable(self._root, error) from None


def validate(files: Sequence[File]) -> None:
    """Raise InvalidArgument unless the files can lie side by side in one folder."""
    if len(files) > MAX_FILES:
        raise InvalidArgument(f"invalid uploads: {len(files)} files (at most {MAX_FILES})")
    layout = Layout()
    for file in files:
        if file.is_directory and file.content:
            raise InvalidArgument(f"invalid uploads: {shown(file.path)} is a directory and has content")
        layout.add(file.path, is_directory=file.is_directory)


class Layout:
    """What lies side by side in one folder. The mutable state is that, and what is above of it."""

    def __init__(self) -> None:
        self._kinds: dict[str, bool] = {}
        self._below: dict[str, str] = {}
        """by each directory that something lies in, the first that does"""

    def add(self, path: str, *, is_directory: bool) -> None:
        """Raise InvalidArgument for a path that may not be there, or not beside the others."""
        validate_path("uploads", path)
        names = path.split("/")
        if len(names) > MAX_DEPTH:
            raise InvalidArgument(f"invalid uploads: {shown(path)} is {len(names)} deep (at most {MAX_DEPTH})")
        longest = max(len(name.encode()) for name in names)
        if longest > MAX_NAME_BYTES:
            raise InvalidArgument(
                f"invalid uploads: {shown(path)}: a name of {longest} bytes (at most {MAX_NAME_BYTES})"
            )
        if path in self._kinds:
            raise InvalidArgument(f"invalid uploads: {shown(path)} comes twice")
        if not is_directory and path in self._below:
            raise InvalidArgument(
                f"invalid uploads: {shown(self._below[path])} is below {shown(path)}, which is a file"
            )
        for parent in above(path):
            if not self._kinds.get(parent, True):
                raise InvalidArgument(f"invalid uploads: {shown(path)} is below {shown(parent)}, which is a file")
        for parent in above(path):
            self._below.setdefault(parent, path)
        self._kinds[path] = is_directory


def above(path: str) -> Iterator[str]:
    """The directories that a path lies in, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def shown(path: str) -> str:
    """A path of a client in a sentence."""
    return repr(path[:128])


def _write_files(folder: Path, files: Sequence[File]) -> None:
    """Each durable but for the folder's own entries. Modes come last, for a directory may be read-only."""
    directories: dict[str, int] = {}
    for file in files:
        for parent in above(file.path):
            directories.setdefault(parent, 0o755)
        if file.is_directory:
            directories[file.path] = file.permissions
    for directory in sorted(directories):
        (folder / directory).mkdir(mode=0o700)
    for file in files:
        if not file.is_directory:
            _write_file(folder / file.path, file)
    for directory in sorted(directories, reverse=True):
        (folder / directory).chmod(directories[directory])
        sync(folder / directory)


def _write_file(path: Path, file: File) -> None:
    with open(path, "xb") as written:
        written.write(file.content)
        os.fchmod(written.fileno(), file.permissions)
        written.flush()
        os.fsync(written.fileno())


def sync(directory: Path) -> None:
    """Bring a directory's entries to the disk. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
