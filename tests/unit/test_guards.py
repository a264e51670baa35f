"""Guards of connections: the allowance, the bounds, and that grpclib and h2 are still what they rely on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

import grpclib.client
import grpclib.server
import pytest
from grpclib.config import Configuration
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, PingAckReceived, StreamReset
from h2.utilities import SizeLimitDict
from harness import PATIENCE
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from joblet.client._channel import _Protocol
from joblet.corked import CLOSED_STREAMS_MOST
from joblet.errors import CertificateRefused, JobletError
from joblet.server import guards
from joblet.server.guards import Allowance, Guarded, cost_of, fault_of
from joblet.server.listener import most_connections


def _admit(connection: Guarded, tls: object) -> None:
    return None


def _refuse(connection: Guarded, tls: object) -> CertificateRefused:
    return CertificateRefused("alice", "was revoked")


def _forget(connection: Guarded) -> None:
    pass


REQUEST = [(":method", "POST"), (":path", "/x/y"), (":scheme", "https"), (":authority", "localhost")]


def test_an_allowance_is_spent_and_comes_back_with_time() -> None:
    allowance = Allowance(0)
    assert allowance.spend(1000, 0, reading=True)
    assert not allowance.spend(1, 0, reading=True)
    assert allowance.spend(40, 1, reading=True)


def test_time_earns_nothing_while_the_client_does_not_read() -> None:
    allowance = Allowance(0)
    assert allowance.spend(1000, 0, reading=False)
    assert not allowance.spend(1, 1000, reading=False)


def test_what_a_client_is_sent_earns_it_frames_within_a_bound() -> None:
    allowance = Allowance(0)
    for _ in range(1000):
        allowance.earn()
    assert allowance.spend(4000, 0, reading=True)
    assert not allowance.spend(1, 0, reading=True)


@pytest.mark.parametrize(
    ("frame", "cost"),
    [
        (HeadersFrame(1), 0),
        (DataFrame(1, data=bytes(100)), 0),
        (DataFrame(1, data=b"abc", flags=["END_STREAM"]), 0),
        (DataFrame(1, data=b"abc"), 1),
        (PingFrame(0), 1),
        (PingFrame(0, flags=["ACK"]), 1),
        (RstStreamFrame(1), 2),
        (SettingsFrame(0, flags=["ACK"]), 1),
        (SettingsFrame(0), 5),
    ],
)
def test_what_frames_cost(frame: Frame, cost: int) -> None:
    assert cost_of(frame) == cost


@pytest.mark.parametrize(
    ("descriptors", "jobs", "most"),
    [(1_048_576, 100, 10_000), (20_000, 100, 10_000), (4096, 100, 3640), (256, 100, 64), (1, 1, 1)],
)
def test_connections_leave_descriptors_for_jobs(descriptors: int, jobs: int, most: int) -> None:
    assert most_connections(10_000, descriptors, jobs) == most


class _Wire(asyncio.Transport):
    """Takes what the server writes."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return self.aborted

    def close(self) -> None:
        self.aborted = True

    def abort(self) -> None:
        self.aborted = True


class _Client:
    """The server's connection, and h2 as its client."""

    def __init__(self, on_made: Callable[[Guarded, ssl.SSLObject], JobletError | None] = _admit) -> None:
        self.ended: list[str] = []
        self.over = asyncio.Event()
        self.wire = _Wire()
        server = grpclib.server.Server([])
        self.guarded = Guarded(server, self._on_guard, on_made, _forget)
        self.guarded.connection_made(self.wire)
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.initiate_connection()

    def _on_guard(self, peer: str, reason: str, details: str) -> None:
        self.ended.append(reason)
        self.over.set()

    def say(self, more: bytes = b"") -> None:
        self.guarded.data_received(self.h2.data_to_send() + more)


@pytest.fixture
async def client():
    made = _Client()
    yield made
    made.guarded.connection_lost(None)


async def test_calls_taken_back_at_once_leave_nothing(client: _Client) -> None:
    client.say()
    for _ in range(4):
        for _ in range(50):
            number = client.h2.get_next_available_stream_id()
            client.h2.send_headers(number, REQUEST)
            client.h2.reset_stream(number)
        client.say()
    await asyncio.sleep(0)
    assert client.guarded.processor.streams == {}
    assert client.ended == []


async def test_every_frame_of_one_read_is_judged(client: _Client) -> None:
    client.say(PingFrame(0).serialize() * 2000)
    assert client.ended == ["too many PingFrames and the like"]
    events = client.h2.receive_data(client.wire.data)
    (goaway,) = (event for event in events if isinstance(event, ConnectionTerminated))
    assert goaway.error_code == ErrorCodes.ENHANCE_YOUR_CALM


async def test_a_frame_is_too_large_before_it_has_come(client: _Client) -> None:
    client.say(b"\xff\xff\xff\0\0\0\0\0\1" + bytes(20_000))
    assert client.ended == ["frame too large"]


async def test_headers_are_too_large_before_they_have_ended(client: _Client) -> None:
    client.say(HeadersFrame(1).serialize() + b"".join(b"\0\x40\0\x09\0\0\0\0\1" + bytes(0x4000) for _ in range(5)))
    assert client.ended == ["headers too large"]


async def test_unknown_frames_are_ignored(client: _Client) -> None:
    client.say(b"\0\0\0\xfa\0\0\0\0\0")
    assert client.ended == []
    client.h2.ping(b"12345678")
    client.say()
    client.h2.receive_data(client.wire.data)
    assert client.ended == []


async def test_a_client_that_is_refused_may_read_why_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "FIRST_WORD_SECONDS", 0.0)
    made = _Client(_refuse)
    made.wire._extra["peercert"] = {"subject": ()}
    made.h2.send_headers(1, REQUEST)
    made.say()
    (stream,) = made.guarded.processor.streams.values()
    assert str(stream.connection.get_peer().refusal) == "client certificate of 'alice' was revoked"
    async with asyncio.timeout(PATIENCE):
        await made.over.wait()
    assert made.ended == ["client certificate refused"]
    made.guarded.connection_lost(None)


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        (REQUEST, ""),
        (REQUEST[1:], "no :method"),
        (REQUEST[:1], "no :path"),
        ([*REQUEST, ("grpc-timeout", "99999999H"), ("x-bin", "YQ"), ("y-bin", "")], ""),
        ([*REQUEST, ("grpc-timeout", "9" * 400 + "S")], "grpc-timeout is too long"),
        ([*REQUEST, ("x-bin", "a")], "binary metadata is not base64"),
    ],
)
async def test_a_call_that_grpclib_could_not_read_is_reset_and_the_connection_goes_on(
    client: _Client, headers: list[tuple[str, str]], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert fault_of(headers) == fault
    client.say()
    client.h2.config.validate_outbound_headers = client.h2.config.normalize_outbound_headers = False
    client.h2.send_headers(1, headers)
    client.say()
    await asyncio.sleep(0)
    client.h2.ping(b"12345678")
    client.say()
    await asyncio.sleep(0)  # what is written in a turn is sent after it
    events = client.h2.receive_data(client.wire.data)
    resets = [event.error_code for event in events if isinstance(event, StreamReset)]
    assert (ErrorCodes.PROTOCOL_ERROR in resets) == bool(fault)
    assert any(isinstance(event, PingAckReceived) for event in events)
    assert client.ended == []
    assert not caplog.records


async def test_a_malformed_call_and_the_connections_end_may_come_in_one_read(client: _Client) -> None:
    client.say()
    client.h2.config.validate_outbound_headers = False
    client.h2.send_headers(1, REQUEST[1:])
    client.h2.close_connection()
    client.say()
    assert client.wire.aborted
    assert client.ended == []


async def test_calls_with_malformed_headers_have_an_allowance(client: _Client) -> None:
    client.say()
    client.h2.config.validate_outbound_headers = False
    for _ in range(12):
        for _ in range(50):
            number = client.h2.get_next_available_stream_id()
            client.h2.send_headers(number, REQUEST[1:])
            client.h2.streams[number].reset_stream()  # not sent
        client.say()
    assert client.ended == ["too many calls with malformed headers"]


async def test_a_header_that_is_not_ascii_ends_the_connection(client: _Client) -> None:
    client.say()
    client.h2.send_headers(1, [*REQUEST, ("latin", b"\xff")])
    client.say()
    assert client.ended == ["protocol error"]


async def test_a_connection_that_was_ended_is_not_kept_for_a_timer(client: _Client) -> None:
    first = client.guarded._timer
    client.say(b"\xff\xff\xff\0\0\0\0\0\1" + bytes(20_000))
    assert first is not None
    assert first.cancelled()


async def test_a_connection_without_a_handshake_leaves_nothing() -> None:
    server = grpclib.server.Server([])
    protocols = [Guarded(server, lambda *_: None, _admit, _forget) for _ in range(5)]
    assert not any(protocol.made for protocol in protocols)
    assert not server._handlers


async def test_of_few_ended_calls_it_is_kept_how_they_ended(client: _Client) -> None:
    assert cast(SizeLimitDict, client.guarded._h2._closed_streams)._size_limit == CLOSED_STREAMS_MOST
    channel = _Protocol(grpclib.client.Handler(), Configuration().__for_client__(), H2Configuration())
    channel.connection_made(_Wire())
    assert cast(SizeLimitDict, channel.connection._connection._closed_streams)._size_limit == CLOSED_STREAMS_MOST
    channel.connection_lost(None)
