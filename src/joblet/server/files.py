"""FileService: files that are too large for one message, on their way in and out."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import ExitStack

from joblet import tree
from joblet.engine import Engine
from joblet.errors import FileNotThere, HostUnable, InvalidArgument, NoFiles, ShuttingDown
from joblet.executor.base import Executor
from joblet.logs import LogHub
from joblet.order import validate_path
from joblet.proto import joblet as pb
from joblet.runner import Runner
from joblet.server.auth import caller
from joblet.server.page import ClosedAtOnce
from joblet.store import Workflows
from joblet.threads import finish
from joblet.upload_record import Piece
from joblet.upload_sessions import Progress, UploadSessions

_PIECE = 256 << 10
"""bytes of content in a message, and in what a thread reads at a time"""
_BATCH = 64
"""entries that a thread reads at a time"""


class FileService(ClosedAtOnce, pb.FileServiceBase):
    """The mutable state is that the server is closing."""

    def __init__(
        self,
        runner: Runner,
        engine: Engine,
        workflows: Workflows,
        executor: Executor,
        sessions: UploadSessions,
        hub: LogHub,
        max_message: int,
    ) -> None:
        """`max_message` is the size in bytes that no answer may exceed."""
        self._runner = runner
        self._engine = engine
        self._workflows = workflows
        self._executor = executor
        self._sessions = sessions
        self._hub = hub
        self._piece = min(_PIECE, max_message // 2)
        self._closing = False

    def close(self) -> None:
        """End all transfers with ShuttingDown."""
        self._closing = True

    async def upload_files(self, messages: AsyncIterator[pb.UploadPiece]) -> pb.UploadState:
        first = await anext(messages, None)
        if first is None:
            raise InvalidArgument("invalid uploads: no piece has come")
        key = first.key
        async with self._sessions.writing(caller.get().name, key) as upload:
            await upload.add(_piece_of(first), last=first.last)
            async for message in messages:
                if self._closing:
                    raise ShuttingDown
                if upload.progress.complete:
                    raise InvalidArgument("invalid uploads: a piece after the last one")
                await upload.add(_piece_of(message), last=message.last)
            return _state(key, upload.progress)

    async def get_upload(self, message: pb.GetUploadReq) -> pb.UploadState:
        return _state(message.key, self._sessions.progress(caller.get().name, message.key))

    async def read_files(self, message: pb.ReadFilesReq) -> AsyncGenerator[pb.FilePiece]:
        if bool(message.id) == bool(message.workflow_id):
            raise InvalidArgument("invalid id: give either id or workflowId")
        if message.path:
            validate_path("path", message.path)
        with ExitStack() as stack:  # what is read is not removed for its age meanwhile
            root, what = await self._open(message, stack)
            parts = tree.walk(root, message.path, self._piece)
            try:
                while batch := await self._read(parts, message.path, what):
                    for part in batch:
                        yield _message(part)
                    if self._closing:
                        raise ShuttingDown
            finally:
                await finish(_close, parts, root)
        await self._check_there(message)  # or what was told is not all there was

    async def _open(self, message: pb.ReadFilesReq, stack: ExitStack) -> tuple[int, str]:
        """The directory that is asked for, and whose it is."""
        if message.workflow_id:
            workflow = await self._engine.get(message.workflow_id)
            for job_id in (await self._workflows.job_ids(workflow.id))[:1]:
                stack.enter_context(self._hub.reading(job_id))
            return await self._executor.open_shared(workflow.id), f"workflow {workflow.id}"
        job = await self._runner.get(message.id)
        live = self._runner.find(message.id)
        if live is not None and not live.launched.is_set():
            raise NoFiles(f"job {job.id}", f"it has not started (current status: {live.job.state})")
        stack.enter_context(self._hub.reading(job.id))
        return await self._executor.open_work(job.id), f"job {job.id}"

    async def _read(self, parts: Generator[tree.Part], path: str, what: str) -> list[tree.Part]:
        try:
            return await finish(_take, parts)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise FileNotThere(what, path) from None
            if error.errno in (errno.ELOOP, errno.EXDEV):
                raise InvalidArgument(f"invalid path: {path} leads over a link or out of the directory") from None
            if error.errno == errno.ENOSYS:
                raise HostUnable("files cannot be read safely: this kernel has no openat2 (Linux 5.6)") from None
            raise

    async def _check_there(self, message: pb.ReadFilesReq) -> None:
        if message.workflow_id:
            await self._engine.get(message.workflow_id)
        else:
            await self._runner.get(message.id)


def _take(parts: Generator[tree.Part]) -> list[tree.Part]:
    """The next ones, as many as are worth a thread's time."""
    batch: list[tree.Part] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += len(part.content)
        if size >= _PIECE or len(batch) >= _BATCH:
            break
    return batch


def _close(parts: Generator[tree.Part], root: int) -> None:
    parts.close()
    os.close(root)


def _message(part: tree.Part) -> pb.FilePiece:
    return pb.FilePiece(
        path=part.path,
        mode=part.mode,
        is_directory=part.is_directory,
        target=part.target,
        modified=part.modified,
        size=part.size,
        content=part.content,
        skipped=part.skipped,
    )


def _piece_of(message: pb.UploadPiece) -> Piece:
    return Piece(
        message.index,
        message.path,
        message.mode,
        message.is_directory,
        message.size,
        message.offset,
        message.content,
    )


def _state(key: str, progress: Progress) -> pb.UploadState:
    return pb.UploadState(
        key=key,
        files=progress.files,
        offset=progress.offset,
        bytes=progress.bytes,
        complete=progress.complete,
    )
