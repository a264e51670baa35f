"""Files that clients have sent along, kept below the state directory until their jobs have had them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
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

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
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
        return self.mode & 0o777 or (0o755 if self.is_directory else 0o644)


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
                _sync(directory)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise NoRoom(self._root) if error.errno in _FULL else DiskUnusable(self._root, error) from None


def validate(files: Sequence[File]) -> None:
    """Raise InvalidArgument unless the files can lie side by side in one folder."""
    if len(files) > MAX_FILES:
        raise InvalidArgument(f"invalid uploads: {len(files)} files (at most {MAX_FILES})")
    kinds: dict[str, bool] = {}
    for file in files:
        validate_path("uploads", file.path)
        path, names = file.path, file.path.split("/")
        if len(names) > MAX_DEPTH:
            raise InvalidArgument(f"invalid uploads: {_shown(path)} is {len(names)} deep (at most {MAX_DEPTH})")
        longest = max(len(name.encode()) for name in names)
        if longest > MAX_NAME_BYTES:
            raise InvalidArgument(
                f"invalid uploads: {_shown(path)}: a name of {longest} bytes (at most {MAX_NAME_BYTES})"
            )
        if path in kinds:
            raise InvalidArgument(f"invalid uploads: {_shown(path)} comes twice")
        if file.is_directory and file.content:
            raise InvalidArgument(f"invalid uploads: {_shown(path)} is a directory and has content")
        kinds[path] = file.is_directory
    for path in kinds:
        for parent in _above(path):
            if not kinds.get(parent, True):
                raise InvalidArgument(f"invalid uploads: {_shown(path)} is below {_shown(parent)}, which is a file")


def _above(path: str) -> Iterator[str]:
    """The directories that a path lies in, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _shown(path: str) -> str:
    return repr(path[:128])


def _write_files(folder: Path, files: Sequence[File]) -> None:
    """Each durable but for the folder's own entries. Modes come last, for a directory may be read-only."""
    directories: dict[str, int] = {}
    for file in files:
        for parent in _above(file.path):
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
        _sync(folder / directory)


def _write_file(path: Path, file: File) -> None:
    with open(path, "xb") as written:
        written.write(file.content)
        os.fchmod(written.fileno(), file.permissions)
        written.flush()
        os.fsync(written.fileno())


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
