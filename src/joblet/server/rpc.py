"""What happens to every call before and after its handler: authorise, bound, translate errors."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

import betterproto2
import grpclib.server
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.metadata import encode_grpc_message

from joblet.access import Role
from joblet.errors import InvalidArgument, JobletError, ShuttingDown, TooLarge, Unauthenticated
from joblet.log import fields
from joblet.measures import CallMeasures
from joblet.server import auth
from joblet.server.audit import Audit
from joblet.server.descriptors import Descriptors
from joblet.server.guards import Client
from joblet.server.measured import measured
from joblet.server.scope import Scope

if TYPE_CHECKING:
    from grpclib._typing import IServerMethodFunc

log = logging.getLogger(__name__)

_REQUEST_SECONDS = 30.0
"""from a call's headers to its message; what a slow client needs for a large one comes on top"""
_SLOWEST = 512
"""bytes a second"""
_MOST_SENTENCE = 7_000
"""bytes of an error's sentence in the form in which it travels: of all trailers a stock client takes 8 KiB"""


class Encoded:
    """A message in its wire form already, for one that goes to many clients."""

    __slots__ = ("wire",)

    def __init__(self, wire: bytes) -> None:
        self.wire = wire


class Codec(CodecBase):
    """Protobuf messages of both kinds (ours, and google's for health and reflection), bounded when sent."""

    __content_subtype__ = "proto"

    def __init__(self, descriptors: Descriptors, max_send: int) -> None:
        self._descriptors = descriptors
        self._max_send = max_send

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Raises TooLarge."""
        wire: bytes = message.wire if isinstance(message, Encoded) else message.SerializeToString()
        if len(wire) > self._max_send:
            raise TooLarge("response", len(wire), self._max_send, "maxSendMsgSize")
        return wire

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Raises InvalidArgument for bytes that are no such message."""
        try:
            if issubclass(message_type, betterproto2.Message):
                data = self._descriptors.known(message_type.__name__, data)
            return message_type.FromString(data)
        except Exception as error:  # the decoder raises whatever its innermost step does
            raise InvalidArgument(f"request is not a valid {message_type.__name__}: {error}") from error


class Gate:
    """Stands before every handler of a server. The mutable state is the calls under way."""

    def __init__(
        self,
        server: grpclib.server.Server,
        max_receive: int,
        roles: Mapping[str, Role],
        scope: Scope,
        audit: Audit,
        measures: CallMeasures,
    ) -> None:
        self._audit = audit
        self._max_receive = max_receive
        self._roles = roles
        self._scope = scope
        self._calls: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._measures = measures
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
            who = auth.identify(event.peer.cert(), self._roles)
            if refusal := cast(Client, event.peer).refusal:
                raise refusal.with_traceback(None)
            auth.authorise(who, event.method_name, self._roles)
        except JobletError as error:
            name, role = (who.name, who.role) if who else ("", "")
            log.warning(
                "call refused",
                extra=fields(method=event.method_name, client=name, role=role, peer=_peer(event), error=str(error)),
            )
            self._measures.ended[event.method_name, error.status.name] += 1
            if who is not None and (call := self._audit.call(who, _peer(event), event.method_name)) is not None:
                event.method_func = self._guard(call.denied(error), event.method_name, scoped=False)
                return
            if isinstance(error, Unauthenticated):
                self._audit.tell_sparingly("unidentified", allowed=False, peer=_peer(event), reason=str(error))
            raise GRPCError(error.status, fitting(str(error))) from None
        auth.caller.set(who)
        handler = self._guard(event.method_func, event.method_name)
        if (call := self._audit.call(who, _peer(event), event.method_name)) is not None:
            handler = call.around(handler)
        event.method_func = measured(handler, event.method_name, self._measures)

    def _guard(self, method: IServerMethodFunc, name: str, *, scoped: bool = True) -> IServerMethodFunc:
        async def guarded(stream: grpclib.server.Stream[Any, Any]) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._calls.add(task)
            _bound(stream, self._max_receive)
            if scoped:
                self._scope.bound(stream, auth.caller.get(), name)
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


def fitting(sentence: str) -> str:
    """A sentence that every client can be told: its beginning, where it is too long."""
    beginning = sentence[:_MOST_SENTENCE]
    sizes = accumulate(len(encode_grpc_message(character)) for character in beginning)
    length = sum(size <= _MOST_SENTENCE for size in sizes)
    return sentence if length == len(sentence) else sentence[:length] + "..."


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
