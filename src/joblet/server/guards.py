"""Bounds for what a client may cost, in the places where grpclib and h2 have none.

This is the one module that knows the inside of grpclib 0.4.9 (`H2Protocol`, `Connection`, `EventsProcessor`,
`DeadlineWrapper`, `Server._protocol_factory`) and of h2 4.4 (`H2Connection._receive_frame`, `FrameBuffer._data`,
`_headers_buffer`); a unit test says when they change. What each guard is for stands beside it. An honest client,
however slow, meets none.
"""

from __future__ import annotations

import asyncio
import binascii
import fcntl
import ssl
import struct
import termios
import time
from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import grpclib.server
from grpclib.exceptions import GRPCError
from grpclib.metadata import Deadline, decode_bin_value
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Peer
from grpclib.protocol import Stream as H2Stream
from grpclib.server import Server
from grpclib.utils import DeadlineWrapper
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, RequestReceived, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame

from joblet.corked import CLOSED_STREAMS_MOST, Corked
from joblet.errors import JobletError

FIRST_WORD_SECONDS = 10.0
"""from the TLS handshake to the client's first frame; and all the time there is for one that shows no certificate"""
_FAREWELL_SECONDS = 0.5
"""for what is still to be sent to a client whose connection is ended"""
_PING_SECONDS = 20.0
"""in which a client with nothing else to read answers a ping"""
_SLOWEST = 512
"""bytes a second that a client reads at least; what was sent before a ping is read before it is answered"""
_UNREAD_MOST = 256 << 10
"""bytes that count for a client's slowness"""
_HEADERS_MOST = 64 << 10
"""bytes of headers that have not ended: those of a call are a few hundred"""
_REFUSED = "client certificate refused"
_SMALL = 16
"""bytes; a request is not sent in pieces smaller than that"""
_MALFORMED = 2
"""what a call with malformed headers takes from the allowance: it is answered with a reset"""
_TIMEOUT_MOST = 9
"""characters of a call's time-out: eight digits and a unit (gRPC over HTTP/2)"""


class Allowance:
    """How many frames a client may send that are no call: pings, settings, resets, window updates and the like.

    They cost us and bring nobody anything, so that floods of them are attacks (CVE-2019-9512, 9514, 9515 and 9518,
    CVE-2023-44487). What the client is sent earns it more, for honest frames come of that, and so does time, while it
    reads.
    """

    _FIRST = 1000
    _MOST = 4000
    _EACH_SECOND = 50
    _FOR_FRAME_SENT = 4

    def __init__(self, now: float) -> None:
        self._left = float(self._FIRST)
        self._at = now

    def earn(self) -> None:
        """A frame of an answer has been sent."""
        self._left = min(self._left + self._FOR_FRAME_SENT, self._MOST)

    def spend(self, cost: int, now: float, *, reading: bool) -> bool:
        """Take `cost`; False when there is not so much left."""
        if reading:
            self._left = min(self._left + (now - self._at) * self._EACH_SECOND, self._MOST)
        self._at = now
        self._left -= cost
        return self._left >= 0


def cost_of(frame: Frame) -> int:
    """What a frame takes from the allowance."""
    match frame:
        case HeadersFrame():  # a call: there are at most 100 at a time, and each has an answer or a reset
            return 0
        case DataFrame():
            return int(len(frame.data) < _SMALL and "END_STREAM" not in frame.flags)
        case RstStreamFrame():
            return 2
        case SettingsFrame() if "ACK" not in frame.flags:
            return 5
    return 1


def fault_of(headers: Iterable[tuple[str, str]]) -> str:
    """What makes a call's headers none that gRPC has, empty for nothing: grpclib fails on them, and answers nobody."""
    names = set()
    for name, value in headers:
        names.add(name)
        if name == "grpc-timeout" and len(value) > _TIMEOUT_MOST:
            return "grpc-timeout is too long"
        if name.endswith("-bin"):
            try:
                decode_bin_value(value.encode("ascii"))
            except binascii.Error:
                return "binary metadata is not base64"
    return next((f"no {name}" for name in (":method", ":path") if name not in names), "")


class _TooMuch(ProtocolError):
    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class _H2(H2Connection):
    """Judges every frame before it is acted upon, also of those that come in one read."""

    MAX_CLOSED_STREAMS = CLOSED_STREAMS_MOST
    judge: Callable[[Frame], None]

    def _receive_frame(self, frame: Frame) -> list[Event]:
        self.judge(frame)
        return super()._receive_frame(frame)


class Client(Peer):
    """Who is at the other end, as the calls of a connection see it."""

    refusal: JobletError | None = None
    """why its calls are not served"""

    def cert(self) -> dict[str, Any] | None:
        """As grpclib's. To read it takes a twentieth of a small call, and it is the same as long as the connection."""
        return self._certificate

    @cached_property
    def _certificate(self) -> dict[str, Any] | None:
        return super().cert()


class _Connection(Connection):
    """Tells a client that is slow from one that is gone.

    grpclib ends a connection 20 seconds after a ping without an answer. The answer to a ping comes after all that was
    sent before it has been read, which takes a slow reader longer; any frame of it shows that it lives, and so does
    what its host acknowledges (SIOCOUTQ, tcp(7)).
    """

    give_up: Callable[[str, str], None]
    _pending = 0
    _sent_before = 0

    def __init__(self, h2: _H2, transport: Transport, server: Server, allowance: Allowance) -> None:
        super().__init__(h2, transport, config=server._config)
        self._allowance = allowance
        self.client = Client(self._transport)

    def get_peer(self) -> Client:
        """Who all calls of this connection are told that they are of."""
        return self.client

    def headers_send_process(self) -> None:
        super().headers_send_process()
        self._allowance.earn()

    def data_send_process(self) -> None:
        super().data_send_process()
        self._allowance.earn()

    def heard(self) -> None:
        """A frame has come."""
        self._sent_before = self.data_sent
        self.ping_ack_process()

    def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        interval = cast(float, self._config._keepalive_time)
        if self._close_by_ping_handler is None:
            self._connection.ping(struct.pack("!Q", int(time.monotonic() * 1e6)))
            self.flush()
            self._await_answer(loop)
        self._ping_handle = loop.call_later(interval, self._ping)

    def _await_answer(self, loop: asyncio.AbstractEventLoop) -> None:
        unread = min(self.data_sent - self._sent_before, _UNREAD_MOST)
        patience = _PING_SECONDS + unread / _SLOWEST
        self._pending = self._unacknowledged()
        self._close_by_ping_handler = loop.call_later(patience, self._on_silence, patience)

    def _on_silence(self, patience: float) -> None:
        if self._unacknowledged() < self._pending:
            self._await_answer(asyncio.get_running_loop())
        else:
            self.give_up("no answer to a ping", f"within {patience:.0f}s")

    def _unacknowledged(self) -> int:
        """Bytes that have not arrived at the client's host."""
        waiting = bytearray(4)
        try:
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
        except OSError:
            return 0
        return int(struct.unpack("i", waiting)[0]) + self._transport.get_write_buffer_size()


class _Deadline(DeadlineWrapper):
    """Ends a call in the same way whether its time is over soon, or before it has begun.

    grpclib takes the latter for a fault of the program's: UNKNOWN to the client, and a traceback in the log for whoever
    can connect.
    """

    @contextmanager
    def start(self, deadline: Deadline) -> Iterator[None]:
        over = TimeoutError("Deadline exceeded")
        timer = asyncio.get_running_loop().call_later(deadline.time_remaining(), self.cancel, over)
        try:
            yield
        finally:
            timer.cancel()


grpclib.server.DeadlineWrapper = _Deadline  # type: ignore[attr-defined]


class _Processor(EventsProcessor):
    """Forgets a call that the client has taken back, even if its task has not begun.

    grpclib leaves that to the task, which is cancelled before its first step when call and reset come in one read: a
    leak as fast as the client can send. A call whose headers grpclib could not read is reset.
    """

    refuse: Callable[[int], None]
    """resets a call"""

    def register(self, stream: H2Stream) -> Callable[[], None]:
        assert stream.id is not None
        self.streams[stream.id] = stream
        return lambda: self._forget(cast(int, stream.id))

    def process(self, event: Event) -> None:
        if event.__class__ in getattr(self, "processors", ()):  # of frames unknown to grpclib HTTP/2 says: ignore
            super().process(event)

    def process_request_received(self, event: RequestReceived) -> None:
        if fault_of(cast(Iterable[tuple[str, str]], event.headers)):
            self.refuse(event.stream_id)
        else:
            super().process_request_received(event)

    def process_stream_reset(self, event: StreamReset) -> None:
        super().process_stream_reset(event)
        self._forget(event.stream_id)

    def _forget(self, number: int) -> None:
        stream = self.streams.pop(number, None)
        self.connection.stream_close_waiter.set()
        if stream is not None and not self.connection.is_closing():
            self.connection.ack(number, stream.buffer.unacked_size())


class Guarded(H2Protocol):
    """One client's connection, from its TLS handshake on."""

    connection: _Connection
    processor: _Processor

    def __init__(
        self,
        server: Server,
        on_guard: Callable[[str, str, str], None],
        on_made: Callable[[Guarded, ssl.SSLObject], JobletError | None],
        on_lost: Callable[[Guarded], None],
    ) -> None:
        """`on_guard` is told the peer, why the connection is ended and the details; `on_lost` that it is no more.

        `on_made` is told of the handshake's end, and gives the reason why the client is not to be served, or none.
        """
        self._server = server
        self._on_made = on_made
        self._on_guard = on_guard
        self._on_lost = on_lost
        self.made = False
        self._ended = False
        self._spoke = False
        self._timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """As grpclib's, which cannot be told of other classes; and its handler is made now, not on accept(2), since
        grpclib keeps for ever what never comes to be connected."""
        self.made = True
        self._transport = cast(Transport, transport)
        self.handler = self._server._protocol_factory().handler
        self._h2 = h2 = _H2(config=self._server._h2_config)
        h2.judge = self._judge
        h2.initiate_connection()
        config = self._server._config
        initial = h2.local_settings.initial_window_size
        if more := config.http2_connection_window_size - initial:
            h2.increment_flow_control_window(more)
        h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: config.http2_stream_window_size})
        self._allowance = Allowance(time.monotonic())
        self.connection = connection = _Connection(h2, Corked(self._transport), self._server, self._allowance)
        connection.give_up = self._end
        connection.flush()
        connection.initialize()
        self.processor = _Processor(self.handler, connection)
        self.processor.refuse = self._refuse
        self._timer = asyncio.get_running_loop().call_later(FIRST_WORD_SECONDS, self._on_first_seconds)
        connection.client.refusal = self._on_made(self, transport.get_extra_info("ssl_object"))

    def refuse(self, reason: JobletError) -> None:
        """Serve the client no more: its calls end with this reason, and the connection once that could be read."""
        if self._ended:
            return
        self.connection.client.refusal = reason
        for stream in self.processor.streams.values():
            if stream.wrapper is not None:  # else its task has not begun, and will meet the refusal
                stream.wrapper.cancel(GRPCError(reason.status, str(reason)))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_FAREWELL_SECONDS, self._end, _REFUSED, str(reason))

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            events = self.connection.feed(data)
        except _TooMuch as error:
            self._end(str(error))
            return
        except ProtocolError as error:
            self._end("protocol error", str(error))
            return
        except UnicodeDecodeError:  # h2 lets it through
            self._end("protocol error", "a header that is not ASCII")
            return
        if fault := self._unfinished():
            self._end(fault)
            return
        if events:
            self._spoke = True
            self.connection.heard()
        self.connection.flush()
        for event in events:
            self.processor.process(event)
        if not self.connection.is_closing():  # by the client's GOAWAY
            self.connection.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._ended = True
        self.processor.close(reason="Connection lost")
        # cycles, which would outlive the connection for a while
        del self._h2.judge, self.connection.give_up, self.processor.refuse
        self._on_lost(self)

    def _judge(self, frame: Frame) -> None:
        cost = cost_of(frame)
        reading = self.connection.write_ready.is_set()
        if cost and not self._allowance.spend(cost, time.monotonic(), reading=reading):
            raise _TooMuch(f"too many {type(frame).__name__}s and the like")

    def _refuse(self, number: int) -> None:
        """Reset a call that is none (RFC 9113, 8.1.1)."""
        if not self._allowance.spend(_MALFORMED, time.monotonic(), reading=self.connection.write_ready.is_set()):
            self._end("too many calls with malformed headers")
        elif not self.connection.is_closing():
            try:
                self._h2.reset_stream(number, ErrorCodes.PROTOCOL_ERROR)
            except ProtocolError:  # it was reset, or the connection ended, by what came with it
                return

    def _unfinished(self) -> str:
        """What is wrong with a frame that has not wholly come: h2 judges it when it has, and holds 16 MB until then."""
        buffer = self._h2.incoming_buffer
        if len(buffer._data) > self._h2.max_inbound_frame_size + 9:
            return "frame too large"
        if sum(len(frame.data) for frame in buffer._headers_buffer) > _HEADERS_MOST:  # CVE-2024-27316
            return "headers too large"
        return ""

    def _on_first_seconds(self) -> None:
        if not self._spoke:
            self._end(f"no request within {FIRST_WORD_SECONDS:.0f}s of the handshake")
        elif not self._transport.get_extra_info("peercert"):
            self._end(f"no client certificate, for which there are {FIRST_WORD_SECONDS:.0f}s")
        elif refusal := self.connection.client.refusal:
            self._end(_REFUSED, str(refusal))

    def _end(self, reason: str, details: str = "") -> None:
        """End the connection, with what h2 has to say to the client, if it reads."""
        if self._ended:
            return
        self._ended = True
        address = self._transport.get_extra_info("peername")
        self._on_guard(f"{address[0]}:{address[1]}" if address else "", reason, details)
        self.connection.flush()
        self.processor.close(reason)
        if self._timer is not None:
            self._timer.cancel()
        # What is still sent to us is read meanwhile, and thrown away.
        self._timer = asyncio.get_running_loop().call_later(_FAREWELL_SECONDS, self._transport.abort)
