"""The state directory: who holds it, and what in it is whose."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import pwd
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from joblet import __version__
from joblet.audit import Trail, TrailError
from joblet.audit.chain import members
from joblet.config import Config
from joblet.executor.local import LocalExecutor
from joblet.log import fields
from joblet.server.audit import Audit, clipped
from joblet.store import Store, Workflows
from joblet.upload_sessions import UploadSessions
from joblet.uploads import Uploads

T = TypeVar("T")

log = logging.getLogger(__name__)

_RESERVE = 8 << 20
"""bytes: the database's write-ahead log, what its connections share, and as much again"""
_LEAST = 1 << 20
"""bytes; a disk that has not so much left is full"""


class StartError(Exception):
    """The server cannot start; the message says why."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[Path]:
    """The state directory, made if absent, and held against a second server. Raises StartError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path.resolve()
        lock = os.open(lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"state directory {path}: {error.strerror}") from None
    try:
        # A record lock dies with this process. A flock(2) would live on in a shim that has been forked and has yet to
        # exec when the server is killed, and keep the next server out.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path
    except BlockingIOError:
        raise StartError(f"state directory {path} is in use by another joblet server") from None
    finally:
        os.close(lock)


def lock_file(state_dir: Path) -> Path:
    """What a server has locked while it lives."""
    return state_dir / "server.lock"


def database(state_dir: Path) -> Path:
    """Where the jobs are recorded."""
    return state_dir / "joblet.db"


def open_store(state_dir: Path) -> Store:
    """The database. On a full disk it is opened with the room that an earlier server kept for that. Raises StoreFailed.

    A server that starts is what makes room: it lists, tells and deletes what has ended.
    """
    reserve = state_dir / "reserve"
    full = _free(state_dir) < _LEAST
    if full:
        log.warning("the disk is full", extra=fields(path=str(state_dir)))
        with contextlib.suppress(OSError):
            reserve.unlink(missing_ok=True)
    store = Store.open(database(state_dir))
    # On a full disk jobs' output would take what is left of it at once, and leave nothing for the next start.
    size = min(_free(state_dir) - _LEAST // 4, _RESERVE) if full else _RESERVE
    if size > 0 and not reserve.exists() and (full or _free(state_dir) > 2 * _RESERVE):
        with contextlib.suppress(OSError), open(reserve, "wb", opener=_private) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    return store


def open_audit(settings: Config, state_dir: Path, config_path: Path) -> Audit:
    """The audit log, which begins with what this server is. Raises StartError."""
    trail = _trail(settings, state_dir)
    try:
        digest = hashlib.sha256(config_path.read_bytes()).hexdigest()
    except OSError as error:
        raise StartError(f"{config_path}: {error.strerror}") from None
    audit = Audit(trail, reads=settings.audit.reads)
    audit.tell("start", version=__version__, config=str(config_path), sha256=digest, **_left(trail))
    return audit


async def recorded(settings: Config, state_dir: Path, operation: str, change: Callable[[], T], **values: object) -> T:
    """What a local command changes, with a line of the audit log before it and one after it, as for a call.

    They tell of the user of this process, the operation, and `values`. The caller holds the state directory. Raises
    StartError when there can be no line, and then nothing is done; otherwise what the change raises.
    """
    trail = _trail(settings, state_dir)
    if trail is None:
        return change()
    who = members({"client": _user(), "role": "local", "uid": os.getuid(), "operation": operation})
    asked = members({"allowed": True, **values})
    try:
        found = members(_left(trail))
        try:
            number = trail.append(f'"event":"call",{who},{asked}{found and "," + found}')
        except OSError as error:
            raise StartError(f"audit log cannot be written: {error.strerror}, so nothing was changed") from None
        result = f'"event":"result","call":{number},{who},{asked}'
        code: dict[str, object] = {"code": "OK"}
        try:
            return change()
        except Exception as error:
            code = {"code": "INTERNAL", "reason": clipped(str(error))}
            raise
        finally:
            with contextlib.suppress(OSError):  # that it was begun is on record
                trail.append(f"{result},{members(code)}")
    finally:
        with contextlib.suppress(OSError):
            await trail.close()


def _trail(settings: Config, state_dir: Path) -> Trail | None:
    """The audit log, if there is to be one. Raises StartError."""
    section, path = settings.audit, settings.audit_file(state_dir)
    if path is None:
        return None
    try:
        trail = Trail(path, state_dir, section.maxSize << 20, section.keep)
    except TrailError as error:
        raise StartError(f"audit log cannot be written: {error}") from None
    if trail.found is not None and trail.found.fault:
        log.error("audit log was changed while no server ran", extra=fields(path=str(path), found=trail.found.fault))
    return trail


def _left(trail: Trail | None) -> dict[str, int | None]:
    """What a crash has left of the log, for the first line after it."""
    found = trail.found if trail is not None else None
    return {"torn": (found and found.torn) or None, "lost": (found and found.lost) or None}


def _user() -> str:
    """The name of this process's user, or its number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def instance(state_dir: Path) -> str:
    """The name that tells this state directory's control groups from another's; made once. Raises StartError."""
    path = state_dir / "instance"
    try:
        with contextlib.suppress(FileNotFoundError):
            if name := path.read_text(encoding="ascii").strip():
                return name
        name = secrets.token_hex(4)
        path.write_text(name + "\n", encoding="ascii")
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    return name


async def settle_strangers(store: Store, executor: LocalExecutor) -> None:
    """End what runs without a record, as after an older database was put in place, and never give its id out again.

    Its directory stays as it is, for whoever wants to look.
    """
    strangers = await store.unknown(executor.job_ids())
    for job_id in strangers:
        ended = await executor.end_stranger(job_id)
        log.error("job directory without a record", extra=fields(jobId=job_id, action="ended" if ended else "left"))
    if strangers:
        await store.skip_ids(max(strangers))


async def settle_strange_workflows(workflows: Workflows, executor: LocalExecutor) -> None:
    """Never give out the id of a directory again whose workflow has no record. It stays as it is."""
    strangers = await workflows.unknown(executor.workflow_ids())
    for workflow_id in strangers:
        log.error("workflow directory without a record", extra=fields(workflowId=workflow_id, action="left"))
    if strangers:
        await workflows.skip_ids(max(strangers))


async def settle_uploads(workflows: Workflows, uploads: Uploads, sessions: UploadSessions) -> None:
    """Remove the uploaded files of an earlier server that no job is to have any more, and nobody goes on sending."""
    try:
        taken = set(await workflows.upload_folders())
        await uploads.keep_only(taken | await sessions.load(taken))
    except OSError as error:
        log.error("uploaded files cannot be removed", extra=fields(error=str(error)))
