"""HTTP/2 by hand, for clients that no library would be: what they say is too much, too little or too late."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator

from harness import PATIENCE, Server
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LOGS = "/joblet.JobletService/GetJobLogs"
STATUS = "/joblet.JobletService/GetJobStatus"


def client_context(server: Server, name: str | None = "admin") -> ssl.SSLContext:
    """TLS as a client of the server, with the certificate of `name`, or none."""
    context = ssl.create_default_context(cafile=str(server.certificates / "ca-cert.pem"))
    context.set_alpn_protocols(["h2"])
    if name:
        folder = server.certificates
        context.load_cert_chain(folder / f"{name}-cert.pem", folder / f"{name}-key.pem")
    return context


def dial(server: Server) -> socket.socket:
    """A TCP connection on which nothing has been said."""
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)


def connect(server: Server, name: str | None = "admin", *, receive_buffer: int = 0) -> ssl.SSLSocket:
    """A connection on which the handshake is done and nothing else."""
    plain = socket.socket()
    plain.settimeout(PATIENCE)
    if receive_buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.connect(("127.0.0.1", server.port))
    return client_context(server, name).wrap_socket(plain, server_hostname="localhost")


def greeting(**settings: int) -> bytes:
    """What an HTTP/2 client says first."""
    return PREFACE + SettingsFrame(0, settings={getattr(SettingsFrame, k): v for k, v in settings.items()}).serialize()


def headers(stream: int, path: str = STATUS, *, end: bool = True, **more: str) -> bytes:
    """The headers of a call, whole or to be continued; in further ones `_` stands for `-`."""
    fields = {
        ":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost",
        "content-type": "application/grpc", "te": "trailers",
    }  # fmt: skip
    fields |= {key.replace("_", "-"): value for key, value in more.items()}
    # As sensitive fields they enter no table, so that any number of them can be sent in any order.
    block = Encoder().encode([(key, value, True) for key, value in fields.items()])
    return HeadersFrame(stream, data=block, flags=["END_HEADERS"] if end else []).serialize()


def message(stream: int, job_id: str) -> bytes:
    """A request with a job's id, and the end of the client's side."""
    body = b"\x0a" + bytes([len(job_id)]) + job_id.encode()
    return DataFrame(stream, data=struct.pack(">?I", False, len(body)) + body, flags=["END_STREAM"]).serialize()


def frames(data: bytearray) -> Iterator[Frame]:
    """The whole frames at the beginning of `data`, which loses them."""
    while len(data) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(bytes(data[:9])))
        if len(data) < 9 + length:
            return
        frame.parse_body(memoryview(bytes(data[9 : 9 + length])))
        del data[: 9 + length]
        yield frame


def answers_ping(connection: ssl.SSLSocket) -> bool:
    """Whether the server answers a ping; what comes before the answer is read."""
    connection.sendall(PingFrame(0, opaque_data=b"are you?").serialize())
    data = bytearray()
    while received := connection.recv(65536):
        data += received
        for frame in frames(data):
            if isinstance(frame, PingFrame) and "ACK" in frame.flags and frame.opaque_data == b"are you?":
                return True
    return False


def wait_until_ended(connection: socket.socket, patience: float = PATIENCE) -> bytes:
    """What still comes until the server has ended the connection; nothing is sent."""
    connection.settimeout(patience)
    received = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := connection.recv(65536):
            received += piece
    return received


def say_slowly(connection: socket.socket, data: bytes, pause: float) -> None:
    """Send a byte at a time until the server ends the connection, or nothing is left."""
    for byte in data:
        try:
            connection.sendall(bytes([byte]))
        except (ConnectionError, ssl.SSLError):
            return
        # Pace, not patience: it is what the server is to bear.
        if select.select([connection], [], [], pause)[0]:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                if not connection.recv(65536):
                    return


def flood(connection: ssl.SSLSocket, data: bytes, most: int) -> bool:
    """Send `data` over and over, reading nothing; False if that goes on for `most` bytes."""
    block = data * max(1, 60_000 // len(data))
    sent = 0
    deadline = time.monotonic() + PATIENCE
    while sent < most:
        assert time.monotonic() < deadline
        try:
            connection.sendall(block)
        except (ConnectionError, ssl.SSLError):
            return True
        sent += len(block)
    return False
