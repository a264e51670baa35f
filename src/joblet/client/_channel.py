"""grpclib's channel, which forgets why a connection could not be made or ended, taught to remember."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from grpclib.client import Channel, Handler
from grpclib.config import Configuration
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import H2Protocol
from h2.events import StreamReset
from h2.utilities import SizeLimitDict

from joblet.client._diagnosis import explain_connect, explain_loss, explain_nonsense
from joblet.client._tls import client_context
from joblet.client._trace import tell_trace
from joblet.client.config import ClientConfig
from joblet.client.errors import ConnectionLost, JobletError, Unavailable
from joblet.corked import CLOSED_STREAMS_MOST, Corked

STREAM_WINDOW = 2 * 2**20
"""bytes that one call may hold for a reader that does not read"""
CONNECTION_WINDOW = 2**31 - 1
"""no bound for all calls together: readers that stall must not starve the others"""
LOCALHOST, LOOPBACK = "localhost", "127.0.0.1"
KEEPALIVE = 30.0
"""seconds between pings while a call is open, and as many until a silent peer counts as dead"""


class JobletChannel(Channel):
    """A channel to one server. It connects on first use, and again when a call finds it disconnected."""

    def __init__(self, config: ClientConfig) -> None:
        host, port = config.address
        super().__init__(
            host,
            port,
            # Without one grpclib looks for googleapis-common-protos, and loads google's protobuf where that is
            # installed: for details of errors, of which a joblet server sends none.
            codec=ProtoCodec(),
            ssl=client_context(config),
            config=Configuration(
                ssl_target_name_override=host,
                http2_stream_window_size=STREAM_WINDOW,
                http2_connection_window_size=CONNECTION_WINDOW,
                _keepalive_time=KEEPALIVE,
                _keepalive_timeout=KEEPALIVE,
                _http2_max_pings_without_data=0,
                _http2_min_sent_ping_interval_without_data=KEEPALIVE / 2,
            ),
        )
        self._settings = config
        tell_trace(self)

    @property
    def server_certificate(self) -> bytes:
        """What the server has shown on the latest connection, DER; empty before there was one."""
        return cast(_Protocol, self._protocol).certificate if self._protocol is not None else b""

    def explain(self, error: StreamTerminatedError | None = None) -> JobletError:
        """Why a call on the latest connection was broken off."""
        protocol = cast("_Protocol | None", self._protocol)
        if protocol is None:
            return ConnectionLost("the client was closed during the call")
        if not protocol.lost:
            return Unavailable(f"the server broke off the call ({error})")
        if str(error) == "Protocol error":
            return explain_nonsense(self._settings)
        return explain_loss(protocol.cause, self._settings, answered=protocol.answered)

    def _protocol_factory(self) -> H2Protocol:
        return _Protocol(Handler(), self._config, self._h2_config)

    async def _create_connection(self) -> H2Protocol:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                protocol = cast(_Protocol, await self._connect())
        except (OSError, UnicodeError) as error:
            raise explain_connect(error, self._settings) from error
        if not protocol.agreed:
            protocol.processor.close()
            raise explain_nonsense(self._settings)
        return protocol

    async def _connect(self) -> H2Protocol:
        try:
            return await super()._create_connection()
        except socket.gaierror:
            if self._host != LOCALHOST:
                raise
        # A machine without an entry for it still means itself by that name: RFC 6761, section 6.3.
        self._host = LOOPBACK
        return await super()._create_connection()

    async def __connect__(self) -> H2Protocol:
        protocol = await super().__connect__()
        if cast(_Protocol, protocol).lost:
            # Refused between the handshake and now; a call registered on it would wait for ever.
            raise self.explain()
        return protocol


class _Protocol(H2Protocol):
    cause: Exception | None = None
    """what ended the connection, if it was an error"""
    answered = False
    """whether the server has sent anything"""
    agreed = False
    """whether the server has agreed to HTTP/2"""
    certificate = b""
    """what the server has shown, DER"""

    @property
    def lost(self) -> bool:
        """Whether no further call can use the connection."""
        return cast(Handler, self.handler).connection_lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.agreed = tls.selected_alpn_protocol() == "h2"
            self.certificate = tls.getpeercert(binary_form=True)
        super().connection_made(Corked(cast(asyncio.Transport, transport)))
        cast(SizeLimitDict, self.connection._connection._closed_streams)._size_limit = CLOSED_STREAMS_MOST
        self.processor.processors[StreamReset] = self._on_reset

    def _on_reset(self, event: StreamReset) -> None:
        """What was answered whole is not lost by a reset that comes after it: RFC 9113, section 8.1."""
        stream = self.processor.streams.get(event.stream_id)
        if stream is None or stream.trailers is None:
            self.processor.process_stream_reset(event)
        else:
            stream.window_updated.set()  # whoever waits to send more finds the stream closed

    def data_received(self, data: bytes) -> None:
        self.answered = True
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.cause = exc if isinstance(exc, Exception) else None
        super().connection_lost(exc)
