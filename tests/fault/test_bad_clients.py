"""Clients that cost much and bring nothing: each is ended, with a line in the log; nobody else notices."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import raw_http2 as raw
from harness import PATIENCE, Server, Stock, memory_kb, poll_until
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

MIB = 1024
"""KiB"""


def silent(server: Server) -> None:
    with raw.dial(server) as connection:
        raw.wait_until_ended(connection)


def handshake_byte_by_byte(server: Server) -> None:
    outgoing = ssl.MemoryBIO()
    tls = raw.client_context(server).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    with raw.dial(server) as connection:
        raw.say_slowly(connection, outgoing.read(), 0.1)
        raw.wait_until_ended(connection)


def handshake_and_silence(server: Server) -> None:
    with raw.connect(server) as connection:
        raw.wait_until_ended(connection)


def preface_byte_by_byte(server: Server) -> None:
    with raw.connect(server) as connection:
        raw.say_slowly(connection, raw.greeting(), 1.0)
        raw.wait_until_ended(connection)


def greeting_and_silence(server: Server) -> None:
    with raw.connect(server) as connection:
        connection.sendall(raw.greeting())
        raw.wait_until_ended(connection)


def headers_that_never_end(server: Server) -> None:
    with raw.connect(server) as connection:
        connection.sendall(raw.greeting() + raw.headers(1, end=False))
        raw.say_slowly(connection, ContinuationFrame(1, data=bytes(16_000)).serialize(), 0.5)
        raw.wait_until_ended(connection)


def no_certificate(server: Server) -> None:
    with raw.connect(server, None) as connection:
        connection.sendall(raw.greeting())
        answer_pings(connection)


def no_request(server: Server) -> None:
    """A call without its message; it alone is ended."""
    with raw.connect(server) as connection:
        connection.sendall(raw.greeting() + raw.headers(1))
        answer_pings(connection, until=HeadersFrame)
        assert raw.answers_ping(connection)


def answer_pings(connection: ssl.SSLSocket, until: type[Frame] | None = None) -> None:
    """As an honest client that has nothing to ask; until the server ends the connection, or such a frame comes."""
    data = bytearray()
    with contextlib.suppress(OSError):
        while received := connection.recv(65536):
            data += received
            for frame in raw.frames(data):
                if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                    connection.sendall(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize())
                if until and isinstance(frame, until):
                    return


SLOW: dict[Callable[[Server], None], str] = {
    silent: "no TLS handshake within 10s",
    handshake_byte_by_byte: "no TLS handshake within 10s",
    handshake_and_silence: "connection ended: no request within 10s of the handshake",
    preface_byte_by_byte: "connection ended: no request within 10s of the handshake",
    greeting_and_silence: "connection ended: no answer to a ping .*within 20s",
    headers_that_never_end: "connection ended: no answer to a ping .*within 20s",
    no_certificate: "connection ended: no client certificate, for which there are 10s",
}


def read_slowly(server: Server, job_id: str, size: int) -> int:
    """Follow a log over a link of 2 KB a second until `size` bytes of it have come; how many came."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = raw.client_context(server).wrap_bio(incoming, outgoing, server_hostname="localhost")
    received, data = 0, bytearray()
    with raw.dial(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greeted = False
        while received < size:
            with contextlib.suppress(ssl.SSLWantReadError):
                if not greeted:
                    tls.do_handshake()
                    tls.write(raw.greeting() + raw.headers(1, raw.LOGS) + raw.message(1, job_id))
                    greeted = True
                while True:
                    data += tls.read(65536)
            for frame in raw.frames(data):
                if isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                    tls.write(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize())
                if isinstance(frame, DataFrame):
                    received += len(frame.data)
            if waiting := outgoing.read():
                connection.sendall(waiting)
            if not (piece := connection.recv(8192 if not greeted else 205)):
                return received
            incoming.write(piece)
            if greeted:
                time.sleep(0.1)  # the link's pace
    return received


@pytest.mark.timeout(180)
def test_who_holds_connections_for_nothing_is_ended_and_who_is_only_slow_is_not(make_server, stock) -> None:
    server = make_server(grpc={"keepAliveTime": "1s"}).start()
    with server.channel() as channel, raw.connect(server) as idle:
        client = Stock(channel, *stock)
        job = client.run("head", "-c", "1000000", "/dev/zero")
        client.output(job.id)
        slow_reader = in_background(read_slowly, server, job.id, 65_535)
        idle.sendall(raw.greeting())
        idling = in_background(answer_pings, idle)
        asking = in_background(no_request, server)
        for one in [in_background(one, server) for one in SLOW]:
            assert client.status(job.id).status == "COMPLETED"
            one.result(PATIENCE)
        for line in SLOW.values():
            server.wait_for_line(re.compile(line))
        # The window of 64 KB was sent at once, and the pings after it: it takes more than 30 s to read that far.
        assert slow_reader.result(PATIENCE) == 65_535
        asking.result(PATIENCE)
        assert not idling.done()
        idle.shutdown(socket.SHUT_RDWR)
        idling.result(PATIENCE)


def in_background(function: Callable[..., Any], *args: object) -> Future[Any]:
    """Run a function in a thread that keeps nobody from ending."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


FLOODS: dict[str, tuple[bytes, bytes, str]] = {
    "settings": (b"", SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 70_000}).serialize(), "too many"),
    "pings": (b"", PingFrame(0).serialize(), "too many"),
    "ping answers": (b"", PingFrame(0, flags=["ACK"]).serialize(), "too many"),
    "priorities": (b"", PriorityFrame(3, depends_on=1, stream_weight=3).serialize(), "too many"),
    "window updates": (b"", WindowUpdateFrame(0, window_increment=1).serialize(), "too many"),
    "empty data": (raw.headers(1), DataFrame(1).serialize(), "too many"),
    "unknown frames": (b"", b"\0\0\0\xfa\0\0\0\0\0", "too many"),
    "continuations": (
        HeadersFrame(1, data=b"").serialize(),
        ContinuationFrame(1, data=bytes(8000)).serialize(),
        "headers too large",
    ),
    "empty continuations": (
        HeadersFrame(1, data=b"").serialize(),
        ContinuationFrame(1, data=b"").serialize(),
        "protocol error .*Too many continuation frames",
    ),
    "a frame of 16 MB": (b"\xff\xff\xff\0\0\0\0\0\1", bytes(50_000), "frame too large"),
    "not HTTP": (b"", b"GET / HTTP/1.1\r\n", ""),
}


@pytest.fixture(scope="module")
def flooded(tmp_path_factory, certificates) -> Server:
    server = Server(tmp_path_factory.mktemp("flooded"), certificates).start()
    yield server
    server.close()


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_frames_ends_the_connection(flooded: Server, stock, name: str) -> None:
    first, again, reason = FLOODS[name]
    seen, before = len(flooded.lines), memory_kb(flooded.pid)
    with flooded.channel() as channel, raw.connect(flooded) as connection:
        connection.sendall(raw.greeting() + first)
        assert raw.flood(connection, again, 1 << 30)
        assert Stock(channel, *stock).list() is not None
    said = re.compile(f"connection ended: .*{reason}")
    assert any(said.search(line) for line in flooded.lines) or flooded.wait_for_line(said, seen)
    assert memory_kb(flooded.pid) - before < 16 * MIB


def resets(first: int, count: int) -> bytes:
    """Calls that are taken back as soon as made (CVE-2023-44487)."""
    return b"".join(
        raw.headers(number) + RstStreamFrame(number).serialize() for number in range(first, first + 2 * count, 2)
    )


def test_rapid_resets_end_the_connection(flooded: Server, stock) -> None:
    before = memory_kb(flooded.pid)
    taken_back = 0
    with flooded.channel() as channel, raw.connect(flooded) as connection:
        connection.sendall(raw.greeting())
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while taken_back < 100_000:
                connection.sendall(resets(1 + 2 * taken_back, 100))
                taken_back += 100
        assert Stock(channel, *stock).list() is not None
    assert 100 < taken_back < 100_000, "an honest client may take back some calls"
    flooded.wait_for_line(re.compile("connection ended: too many RstStreamFrame"))
    assert memory_kb(flooded.pid) - before < 16 * MIB


@pytest.mark.timeout(180)
def test_a_client_that_never_reads_costs_a_bounded_amount_of_memory_and_is_ended(make_server, stock) -> None:
    server = make_server(grpc={"keepAliveTime": "1s"}).start()
    size = 200_000_000
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job = client.started("head", "-c", str(size), "/dev/zero")
        client.output(job.id)
        before = memory_kb(server.pid)
        # One promises to take everything and reads nothing; the other has a small window, and reads nothing.
        with raw.connect(server) as greedy, raw.connect(server) as small:
            greedy.sendall(
                raw.greeting(INITIAL_WINDOW_SIZE=2**31 - 1)
                + WindowUpdateFrame(0, window_increment=2**31 - 1 - 65_535).serialize()
                + b"".join(raw.headers(n, raw.LOGS) + raw.message(n, job.id) for n in range(1, 101, 2))
            )
            small.sendall(raw.greeting(INITIAL_WINDOW_SIZE=4096) + raw.headers(1, raw.LOGS) + raw.message(1, job.id))
            assert sum(map(len, client.logs(job.id))) == size
            server.wait_for_line(re.compile(r"connection ended: no answer to a ping .*within 28s"))
            assert sum(map(len, client.logs(job.id))) == size
            assert memory_kb(server.pid) - before < 64 * MIB
            assert not raw.wait_until_ended(small)[100_000:]
        poll_until(lambda: not server.descriptors_of(server.state / "jobs" / job.id / "log"))
