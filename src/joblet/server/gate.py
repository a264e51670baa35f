"""What every call passes, from its headers to its handler.

1. The server takes calls, and the client has a certificate that is in force still: `identify`, and `trust` for its
   connection.
2. Its role may do this: `authorise`, by `access`.
3. It is counted, and told to the audit log with its end: `measured`, `audit`.
4. Its messages are neither too large nor too slow: `_bound`.
5. What it names is there for this client: `scope`.

Quotas come after that, where it is known what an order takes: `Runner.submit` and the engine. On the way back every
error becomes a status and one sentence.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpclib.server
from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError, StreamTerminatedError

from joblet.access import Role
from joblet.errors import InvalidArgument, JobletError, ShuttingDown, TooLarge, Unauthenticated
from joblet.log import fields
from joblet.measures import CallMeasures
from joblet.server import auth
from joblet.server.audit import Audit
from joblet.server.auth import Caller
from joblet.server.guards import Client
from joblet.server.measured import measured
from joblet.server.reports import Reports
from joblet.server.rpc import fitting
from joblet.server.scope import Scope

if TYPE_CHECKING:
    from grpclib._typing import IServerMethodFunc

log = logging.getLogger(__name__)

_REQUEST_SECONDS = 30.0
"""from a call's headers to its message; what a slow client needs for a large one comes on top"""
_SLOWEST = 512
"""bytes a second"""
_MOST_REFUSALS = 20
"""lines in a while on calls that are refused; the audit log has each of a client with a certificate"""


@dataclass(frozen=True, slots=True)
class Checks:
    """By what calls are judged, and who is told of them."""

    roles: Mapping[str, Role]
    scope: Scope
    audit: Audit
    measures: CallMeasures
    max_receive: int
    """bytes of a message"""


class Gate:
    """Stands before every handler of a server. The mutable state is the calls under way."""

    def __init__(self, server: grpclib.server.Server, checks: Checks) -> None:
        self._checks = checks
        self._calls: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._reports = Reports(_MOST_REFUSALS)
        listen(server, RecvRequest, self._on_request)

    async def drain(self, patience: float) -> None:
        """Refuse new calls and wait at most `patience` seconds for those under way."""
        self._closing = True
        if self._calls:
            await asyncio.wait(self._calls, timeout=patience)

    async def _on_request(self, event: RecvRequest) -> None:
        who = None
        try:
            if self._closing:
                raise ShuttingDown
            who = auth.identify(event.peer.cert(), self._checks.roles)
            if refusal := cast(Client, event.peer).refusal:
                raise refusal.with_traceback(None)
            auth.authorise(who, event.method_name, self._checks.roles)
        except JobletError as error:
            self._refuse(event, who, error)
            return
        auth.caller.set(who)
        handler = self._guard(event.method_func, event.method_name)
        if (call := self._checks.audit.call(who, _peer(event), event.method_name)) is not None:
            handler = call.around(handler)
        event.method_func = measured(handler, event.method_name, self._checks.measures)

    def _refuse(self, event: RecvRequest, who: Caller | None, error: JobletError) -> None:
        """Tell of it; a known client may first say what it wanted, for the audit log. Raises GRPCError for others."""
        name, peer, audit = event.method_name, _peer(event), self._checks.audit
        client, role = (who.name, who.role) if who else ("", "")
        self._reports.tell("call refused", method=name, client=client, role=role, peer=peer, error=str(error))
        self._checks.measures.ended[name, error.status.name] += 1
        if who is not None and (call := audit.call(who, peer, name)) is not None:
            event.method_func = self._guard(call.denied(error), name, scoped=False)
            return
        if isinstance(error, Unauthenticated):
            audit.tell_sparingly("unidentified", allowed=False, peer=peer, reason=str(error))
        raise GRPCError(error.status, fitting(str(error))) from None

    def _guard(self, method: IServerMethodFunc, name: str, *, scoped: bool = True) -> IServerMethodFunc:
        """A handler whose messages are bounded, and name what is there for the client; it raises GRPCError."""

        async def guarded(stream: grpclib.server.Stream[Any, Any]) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._calls.add(task)
            _bound(stream, self._checks.max_receive)
            if scoped:
                self._checks.scope.bound(stream, auth.caller.get(), name)
            try:
                await method(stream)
            except JobletError as error:
                raise GRPCError(error.status, fitting(str(error))) from None
            except (GRPCError, StreamTerminatedError, TimeoutError):
                raise
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    log.exception("call failed", extra=fields(method=name))
                    raise GRPCError(Status.INTERNAL, "internal error") from None
                raise GRPCError(Status.RESOURCE_EXHAUSTED, "the server has no descriptor left for this call") from None
            except Exception:
                log.exception("call failed", extra=fields(method=name))
                raise GRPCError(Status.INTERNAL, "internal error") from None
            finally:
                self._calls.discard(task)

        return guarded


def _bound(stream: grpclib.server.Stream[Any, Any], most: int) -> None:
    """Refuse a message of this call by the length in its header, before it is received, and one that does not come.

    grpclib has no such bounds. Its `recv_message` reads header (compression flag and length) and body with two calls of
    `recv_data`, which is where they can be put.
    """
    inner = stream._stream.recv_data
    header_is_next = True
    endless = stream._cardinality.client_streaming

    async def recv_data(size: int) -> bytes:
        nonlocal header_is_next
        if size > most:
            raise TooLarge("request", size, most, "maxRecvMsgSize")
        patience = _REQUEST_SECONDS + size / _SLOWEST
        try:
            async with asyncio.timeout(None if endless else patience):
                data = await inner(size)
        except TimeoutError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, f"request did not come within {patience:.0f}s") from None
        except AssertionError:
            raise InvalidArgument("request message is incomplete") from None
        if header_is_next:
            if not data and not endless:
                raise InvalidArgument("request holds no message")
            if data and data[0]:
                raise GRPCError(Status.UNIMPLEMENTED, "request compression is not supported")
        elif len(data) < size:
            raise InvalidArgument("request message is incomplete")
        header_is_next = not header_is_next
        return data

    stream._stream.recv_data = recv_data  # type: ignore[method-assign]


def _peer(event: RecvRequest) -> str:
    address = event.peer.addr()
    return f"{address[0]}:{address[1]}" if address else ""
