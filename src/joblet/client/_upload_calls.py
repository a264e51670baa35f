"""The part of the client that sends files along with an order: in its message, or in pieces before it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from grpclib.const import Cardinality

from joblet.client._calls import Calls, check_text
from joblet.client._files import Reader, Source, digest, message_size, read
from joblet.client._patience import Patience
from joblet.client.errors import Aborted, FailedPrecondition, JobletError, Unavailable, Unimplemented
from joblet.proto import joblet as pb

T = TypeVar("T")

OnProgress = Callable[[int, int], None]
"""told how many bytes have been sent, and how many there are"""

IN_MESSAGE = 256 << 10
"""bytes of files that go along in the order's own message"""
PIECE = 256 << 10
"""bytes"""


class UploadCalls(Calls):
    """Send files along."""

    async def _send_with(
        self,
        sources: Sequence[Source],
        send: Callable[[Sequence[pb.FileUpload], str], Awaitable[T]],
        *,
        keyed: bool,
        on_progress: OnProgress | None,
    ) -> T:
        """What `send` gives, which is handed the files, or the key under which the server has them.

        `keyed`: the order may have been given before, and then its files are not needed again.
        """
        check_text("uploads", *(source.path for source in sources))
        if message_size(sources) <= IN_MESSAGE:
            return await send(await asyncio.to_thread(read, sources), "")
        key = await asyncio.to_thread(digest, sources)
        state = await self._upload_state(key, Patience(self.config.patience))
        if keyed and not state.complete:
            try:
                return await send([], key)
            except FailedPrecondition as error:
                if key not in error.message:
                    raise
        key = await self._upload(sources, key, on_progress)
        try:
            return await send([], key)
        except FailedPrecondition as error:
            if key not in error.message:
                raise
        # Somebody else has sent the same files, and was faster to use them.
        return await send([], await self._upload(sources, secrets.token_hex(32), on_progress))

    async def _upload(self, sources: Sequence[Source], key: str, on_progress: OnProgress | None) -> str:
        """Send the files, from where an earlier try broke off; the key under which the server has them."""
        patience = Patience(self.config.patience)
        begun, reached = False, -1
        while True:
            try:
                state = await self._upload_state(key, patience)
                if state.bytes > reached or state.complete:
                    reached = state.bytes
                    patience.renew()
                if not state.complete:
                    await _Sending(self, sources, key, state, on_progress).run()
                return key
            except Aborted as error:
                if not begun:  # by somebody else, who may take long
                    key, begun = secrets.token_hex(32), True
                else:  # the server has not noticed yet that our last connection is gone
                    await self._wait(patience, Unavailable(error.message))
            except JobletError as error:
                begun = True
                await self._wait(patience, error)

    async def _upload_state(self, key: str, patience: Patience) -> pb.UploadState:
        request = pb.GetUploadReq(key=key)
        while True:
            try:
                return await self._call(self._files_stub.get_upload(request, timeout=self.config.timeout))
            except Unimplemented:
                size = f"{IN_MESSAGE >> 10} KiB"
                raise Unimplemented(f"the server is too old to take files of more than {size} together") from None
            except JobletError as error:
                await self._wait(patience, error)


class _Sending:
    """One call that sends what the server has not. The mutable state is how many bytes have been sent."""

    def __init__(
        self, calls: Calls, sources: Sequence[Source], key: str, state: pb.UploadState, on_progress: OnProgress | None
    ) -> None:
        self._calls = calls
        self._sources = sources
        self._key = key
        self._state = state
        self._on_progress = on_progress
        self._sent = state.bytes
        self._total = sum(source.size for source in sources)

    async def run(self) -> None:
        """Raises as every call does, and InvalidArgument for a file that cannot be read or changes meanwhile."""
        route = "/joblet.FileService/UploadFiles"
        with self._calls._errors():
            async with (
                self._calls._open_channel.request(
                    route, Cardinality.STREAM_UNARY, pb.UploadPiece, pb.UploadState
                ) as stream,
                aclosing(self._pieces()) as pieces,
            ):
                self._tell()
                await stream.send_request()
                async for piece in pieces:
                    await stream.send_message(piece, end=piece.last)
                    self._sent += len(piece.content)
                    self._tell()
                await stream.recv_message()

    async def _pieces(self) -> AsyncGenerator[pb.UploadPiece]:
        first, last = self._state.files, len(self._sources) - 1
        if first > last:  # all has come, but not that it is all
            yield self._piece(last, self._sources[last].size, b"")
        for index in range(first, last + 1):
            reader = Reader(self._sources[index])
            offset = self._state.offset if index == first else 0
            try:
                while True:
                    content = await asyncio.to_thread(reader.read, offset, PIECE)
                    yield self._piece(index, offset, content)
                    offset += len(content)
                    if offset >= self._sources[index].size:
                        break
            finally:
                await asyncio.to_thread(reader.close)

    def _piece(self, index: int, offset: int, content: bytes) -> pb.UploadPiece:
        source = self._sources[index]
        return pb.UploadPiece(
            key=self._key,
            index=index,
            path=source.path,
            mode=source.mode,
            is_directory=source.is_directory,
            size=source.size,
            offset=offset,
            content=content,
            last=index == len(self._sources) - 1 and offset + len(content) == source.size,
        )

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._sent, self._total)
