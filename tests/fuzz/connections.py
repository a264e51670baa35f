"""A server's side of a connection without a network: what comes behind the TLS handshake, as bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

from grpclib.server import Server

from joblet.access import ROLES
from joblet.errors import JobNotFound
from joblet.measures import CallMeasures
from joblet.proto import joblet as pb
from joblet.server.audit import Audit
from joblet.server.descriptors import Descriptors
from joblet.server.gate import Checks, Gate
from joblet.server.guards import Guarded
from joblet.server.rpc import Codec
from joblet.server.scope import Scope

CERTIFICATE = {"subject": ((("organizationalUnitName", "viewer"),), (("commonName", "fuzz"),))}
MOST_REQUEST = 4096
"""bytes"""
_STEPS = 12
"""of the event loop, in which a call that waits for nothing has ended"""


class _Wire(asyncio.Transport):
    """Takes what the server writes."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "peercert": CERTIFICATE})
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class _Service(pb.JobletServiceBase):
    """Has one job, and that only to be followed."""

    async def get_job_status(self, message: pb.GetJobStatusReq) -> pb.GetJobStatusRes:
        raise JobNotFound(message.id)

    async def get_job_logs(self, message: pb.GetJobLogsReq) -> AsyncIterator[pb.DataChunk]:
        yield pb.DataChunk(payload=message.id.encode())
        await asyncio.Event().wait()


class _Alarms(logging.Handler):
    """Keeps what the server's code says is wrong with itself."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Connections:
    """One event loop and one server for any number of connections, one after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._alarms = _Alarms()
        self._loop.set_exception_handler(self._on_exception)
        self._loop.run_until_complete(self._make())
        self._standing = len(asyncio.all_tasks(self._loop))

    def take(self, data: bytes) -> None:
        """One connection on which these bytes come, the first of which says in pieces of which size.

        AssertionError for a task that goes on after the connection's end, or an error that the code has met.
        """
        self._alarms.records.clear()
        logging.getLogger().addHandler(self._alarms)
        try:
            self._loop.run_until_complete(self._take(data))
        finally:
            logging.getLogger().removeHandler(self._alarms)
        for record in self._alarms.records:
            raise AssertionError(record.getMessage()) from (record.exc_info or (None, None))[1]

    async def _make(self) -> None:
        self._server = Server([_Service()], codec=Codec(Descriptors(), 4 << 20))
        scope = Scope(cast(Any, None), cast(Any, None))  # asked only for roles that are bound by one
        Gate(self._server, Checks(ROLES, scope, Audit(None, reads=False), CallMeasures(), MOST_REQUEST))

    async def _take(self, data: bytes) -> None:
        wire = _Wire()
        connection = Guarded(self._server, on_guard=lambda *_: None, on_made=lambda *_: None, on_lost=lambda *_: None)
        connection.connection_made(wire)
        size = 1 + (data[0] if data else 0) * 16
        for start in range(1, len(data), size):
            connection.data_received(data[start : start + size])
            await asyncio.sleep(0)
            if wire.closed:
                break
        await self._settle(4)
        if not wire.closed:
            assert len(connection.processor.streams) <= 100, "streams that nobody counts"
        connection.connection_lost(None)
        await self._settle(_STEPS)
        left = len(asyncio.all_tasks()) - 1 - self._standing
        assert left == 0, f"{left} tasks go on after the connection's end"

    async def _settle(self, steps: int) -> None:
        for _ in range(steps):
            await asyncio.sleep(0)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        raise AssertionError(context["message"]) from context.get("exception")


_connections: list[Connections] = []


def frames(data: bytes) -> None:
    """Whatever comes on a connection, it ends with it, and no error is met."""
    if not _connections:
        _connections.append(Connections())
    _connections[0].take(data)
