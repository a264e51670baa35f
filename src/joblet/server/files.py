"""FileService: files that are too large for one message, on their way in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator

from joblet.errors import InvalidArgument, ShuttingDown
from joblet.proto import joblet as pb
from joblet.server.auth import caller
from joblet.upload_record import Piece
from joblet.upload_sessions import Progress, UploadSessions


class FileService(pb.FileServiceBase):
    """The mutable state is that the server is closing."""

    def __init__(self, sessions: UploadSessions) -> None:
        self._sessions = sessions
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
