"""Uploads under way: files that come in pieces, until a job or a workflow takes them, or nobody wants them any more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from joblet.errors import (
    DiskUnusable,
    InvalidArgument,
    NoRoom,
    TooManyUploads,
    UploadBusy,
    UploadComplete,
    UploadIncomplete,
    UploadNotFound,
)
from joblet.log import fields
from joblet.threads import finish
from joblet.upload_record import Entry, Piece, Record
from joblet.uploads import FULL, Uploads, shown

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MOST_OPEN = 16
"""uploads of one client that no job has taken"""
KEY_LENGTH = range(16, 129)
"""characters"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upload has come."""

    files: int = 0
    """entries that have come whole"""
    offset: int = 0
    """bytes that have come of the next one"""
    bytes: int = 0
    """of all"""
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """A complete upload, for whoever makes something of it."""

    token: str
    """its folder in the store of uploads"""
    entries: tuple[Entry, ...]


class _Session:
    """An upload. The mutable state is its record, who has it, and when the last of it came."""

    def __init__(self, token: str, record: Record, touched: float) -> None:
        self.token = token
        self.record = record
        self.lock = asyncio.Lock()
        """held by the call that writes it, takes it or removes it"""
        self.touched = touched
        """by the loop's clock"""


class UploadSessions:
    """The uploads that no job has taken. The mutable state is those, by the client's name and its key.

    The record of an upload is removed after the job that took it is on disk. Until then the next server has both, and
    sees by the job that the upload is taken.
    """

    def __init__(
        self,
        state_dir: Path,
        uploads: Uploads,
        epoch: str,
        *,
        most_bytes: int,
        timeout: float,
        check_room: Callable[[], None],
    ) -> None:
        """`epoch` names this life of the host. At most `most_bytes` come with one upload, which is removed when it is
        not gone on with or used for `timeout` seconds. `check_room` raises NoRoom or DiskUnusable."""
        self._records = state_dir / "incoming"
        self._uploads = uploads
        self._epoch = epoch
        self._most_bytes = most_bytes
        self._timeout = timeout
        self._check_room = check_room
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._news = asyncio.Event()
        self._giving: set[asyncio.Task[object]] = set()
        self._sweeping: asyncio.Task[None] | None = None

    async def load(self, taken: Collection[str]) -> set[str]:
        """Take up what an earlier server has left, but for the folders that jobs have `taken`; the folders of the rest.

        Raises OSError.
        """
        now = asyncio.get_running_loop().time()
        for token, record, age in await asyncio.to_thread(self._load, frozenset(taken)):
            self._sessions[record.owner, record.key] = _Session(token, record, now - age)
        self._sweeping = asyncio.create_task(self._sweep(), name="uploads")
        return {session.token for session in self._sessions.values()}

    async def close(self) -> None:
        """Finish what is being made of uploads; the rest is for the next server."""
        await asyncio.gather(*self._giving, return_exceptions=True)
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    def progress(self, owner: str, key: str) -> Progress:
        """How far a client's upload has come; of an unknown one nothing has. Raises InvalidArgument for a bad key."""
        _check_key(key)
        session = self._sessions.get((owner, key))
        return Progress() if session is None else _progress(session.record)

    @asynccontextmanager
    async def writing(self, owner: str, key: str) -> AsyncGenerator[Writer]:
        """Begin an upload, or go on with it; nobody else does meanwhile.

        Raises InvalidArgument, UploadBusy, UploadComplete, TooManyUploads, NoRoom or DiskUnusable.
        """
        _check_key(key)
        session = self._sessions.get((owner, key))
        if session is not None and session.lock.locked():
            raise UploadBusy(key)
        if session is not None and session.record.complete:
            raise UploadComplete(key)
        fresh = session is None
        session = session or self._begin(owner, key)
        async with session.lock:
            try:
                await self._work(session.record.open)
            except BaseException:
                if fresh:
                    await self._forget(session, keep_files=False)
                raise
            try:
                yield Writer(session.record, self._work, self._most_bytes, self._check_room)
            finally:
                await self._work(session.record.close)
                session.touched = asyncio.get_running_loop().time()
                self._news.set()

    async def hand_over(self, owner: str, key: str, give: Callable[[Handed], Awaitable[tuple[T, str]]]) -> T:
        """Let `give` make something of a complete upload, whether or not the caller stays for it.

        It returns what it has made, and the folder that this has: when it is another, the upload is not needed. When it
        raises, the upload stays. Raises UploadNotFound or UploadIncomplete.
        """
        giving = asyncio.create_task(self._hand_over(owner, key, give))
        self._giving.add(giving)
        giving.add_done_callback(self._giving.discard)
        return await asyncio.shield(giving)

    async def _hand_over(self, owner: str, key: str, give: Callable[[Handed], Awaitable[tuple[T, str]]]) -> T:
        session = self._sessions.get((owner, key))
        if session is None:
            raise UploadNotFound(key)
        if not session.record.complete:
            raise UploadIncomplete(key, session.record.files)
        async with session.lock:
            if self._sessions.get((owner, key)) is not session:
                raise UploadNotFound(key)
            entries = await asyncio.to_thread(session.record.entries)
            made, folder = await give(Handed(session.token, tuple(entries)))
            await self._forget(session, keep_files=folder == session.token)
        return made

    def _begin(self, owner: str, key: str) -> _Session:
        if sum(name == owner for name, _ in self._sessions) >= MOST_OPEN:
            raise TooManyUploads(MOST_OPEN)
        self._check_room()
        token = secrets.token_hex(16)
        record = Record(self._records / token, self._uploads.root / token, owner, key, self._epoch)
        session = _Session(token, record, asyncio.get_running_loop().time())
        self._sessions[owner, key] = session
        return session

    async def _work(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call in a thread, which has the record to itself. Raises NoRoom or DiskUnusable for an OSError."""
        try:
            return await finish(call, *args, **kwargs)
        except OSError as error:
            root = self._uploads.root
            raise NoRoom(root) if error.errno in FULL else DiskUnusable(root, error) from None

    async def _forget(self, session: _Session, *, keep_files: bool) -> None:
        """Remove the record, and the files that nobody has."""
        record = session.record
        self._sessions.pop((record.owner, record.key), None)
        try:
            await asyncio.to_thread(record.path.unlink, missing_ok=True)
            if not keep_files:
                await self._uploads.remove(session.token)
        except OSError as error:  # the next server comes to it
            log.error("uploaded files cannot be removed", extra=fields(error=str(error)))

    async def _sweep(self) -> None:
        """Remove what nobody wants. Nothing is looked at before its time has come."""
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            idle = [session for session in self._sessions.values() if not session.lock.locked()]
            first = min((session.touched for session in idle), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if first is None else first + self._timeout):
                    await self._news.wait()
            for session in idle:
                if session.touched + self._timeout <= loop.time() and not session.lock.locked():
                    async with session.lock:
                        await self._forget(session, keep_files=False)
                    log.info("unused upload removed", extra=fields(owner=session.record.owner, key=session.record.key))

    def _load(self, taken: frozenset[str]) -> list[tuple[str, Record, float]]:
        """The uploads that can be gone on with or used, with their ages; the records of others are removed."""
        found: dict[tuple[str, str], tuple[str, Record, float]] = {}
        names = os.listdir(self._records) if self._records.exists() else []
        for token in names:
            path = self._records / token
            record = None
            if token not in taken:
                record = Record.load(path, self._uploads.root / token, self._epoch)
            if record is None:
                path.unlink()
                continue
            one, other = (token, record, record.age), found.get((record.owner, record.key))
            if other is not None:  # the server was killed while it removed one of the two
                one, other = sorted((one, other), key=lambda upload: upload[2])
                other[1].path.unlink()
            found[record.owner, record.key] = one
        return list(found.values())


class Writer:
    """An upload that one caller has to itself."""

    def __init__(
        self,
        record: Record,
        work: Callable[..., Awaitable[None]],
        most_bytes: int,
        check_room: Callable[[], None],
    ) -> None:
        self._record = record
        self._work = work
        self._most_bytes = most_bytes
        self._check_room = check_room

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        return _progress(self._record)

    async def add(self, piece: Piece, *, last: bool) -> None:
        """Take the next piece; after the `last` one the upload is complete, and on the disk.

        Raises InvalidArgument, NoRoom or DiskUnusable; then nothing of it counts.
        """
        if self._record.begins(piece):
            size = self._record.declared + piece.size
            if size > self._most_bytes:
                raise InvalidArgument(
                    f"invalid uploads: {size} bytes, with {shown(piece.path)} (at most {self._most_bytes},"
                    " joblet.maxUploadSize)"
                )
        await self._work(self._add, piece, last)

    def _add(self, piece: Piece, last: bool) -> None:
        self._check_room()
        if self._record.begins(piece):
            disk = os.statvfs(self._record.folder)
            if piece.size > disk.f_bavail * disk.f_frsize:  # better told now than an hour from now
                raise NoRoom(self._record.folder.parent)
        self._record.add(piece)
        if last:
            self._record.finish()


def _progress(record: Record) -> Progress:
    return Progress(record.files, record.offset, record.total, record.complete)


def _check_key(key: str) -> None:
    if len(key) not in KEY_LENGTH or not key.isprintable():
        least, most = KEY_LENGTH[0], KEY_LENGTH[-1]
        raise InvalidArgument(f"invalid key: {key[:most]!r} ({least} to {most} printable characters)")
