"""SessionService: what passes between clients and the processes of jobs while they run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from grpclib.server import Stream

from joblet.proto import joblet as pb
from joblet.server.exec_session import Commands
from joblet.server.page import close_at_once


class SessionService(pb.SessionServiceBase):
    """The rpcs by which clients talk to processes of jobs."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def _call_rpc_handler_server_stream(
        self, handler: Callable[[Any], AsyncGenerator[Any]], stream: Stream[Any, Any], request: Any
    ) -> None:
        await close_at_once(handler, stream, request)

    async def exec_in_job(self, messages: AsyncIterator[pb.ExecInput]) -> AsyncGenerator[pb.ExecOutput]:
        async with aclosing(self._commands.run(messages)) as outputs:
            async for output in outputs:
                yield output

    def close(self) -> None:
        """End the calls that would not end by themselves."""
        self._commands.close()

    async def closed(self) -> None:
        """Wait for what they have left to be done."""
        await self._commands.closed()
