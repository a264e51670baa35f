"""Cases below and in TLS: records, handshakes that are cut or changed anywhere, renegotiation, noise."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import struct
import subprocess
import time
from random import Random

import raw_http2 as raw
from attacked import Attacked
from mutation import mutate

_READ_SECONDS = 0.05
"""for what the server has to say"""


def _hello(target: Attacked, rng: Random) -> bytes:
    """The first flight of a client."""
    return _client(target, rng)[1].read()


def _client(target: Attacked, rng: Random) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A client that has begun its handshake, and the bytes to and from the server."""
    context = raw.client_context(target.server, rng.choice(("admin", "viewer", None)))
    if rng.random() < 0.4:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return tls, outgoing, incoming


def hear(connection: socket.socket, seconds: float = _READ_SECONDS) -> bytes:
    """What the server sends within a moment, or until it ends the connection."""
    connection.settimeout(seconds)
    heard = b""
    with contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            heard += piece
    return heard


def _next(connection: socket.socket) -> bytes:
    """The next of what the server sends; nothing if it does not."""
    connection.settimeout(1.0)
    with contextlib.suppress(OSError):
        return connection.recv(65536)
    return b""


def send(connection: socket.socket, data: bytes) -> None:
    """As much as the server takes."""
    connection.settimeout(1.0)
    with contextlib.suppress(OSError):
        connection.sendall(data)


def records(rng: Random) -> bytes:
    """TLS records of every type and length, whatever is in them."""
    made = b""
    for _ in range(rng.randint(1, 20)):
        body = rng.randbytes(rng.choice((0, 1, 2, 5, 100, 16384, 18000)))
        kind = rng.choice((20, 21, 22, 23, 24, rng.randrange(256)))
        version = rng.choice((0x0301, 0x0303, 0x0304, 0x0200, rng.randrange(65536)))
        length = rng.choice((len(body), len(body), len(body) + 1, 0, 0xFFFF))
        made += struct.pack(">BHH", kind, version, length) + body
    return made


def noise(target: Attacked, rng: Random) -> None:
    """Bytes that are no handshake."""
    with raw.dial(target.server) as connection:
        send(connection, rng.choice((rng.randbytes(rng.choice((1, 5, 600, 40_000))), records(rng))))
        hear(connection)


def changed_hello(target: Attacked, rng: Random) -> None:
    """A first flight that was changed, cut, sent twice or in pieces."""
    hello = _hello(target, rng)
    data = rng.choice((mutate(rng, hello), hello[: rng.randrange(len(hello))], hello + hello, hello + records(rng)))
    with raw.dial(target.server) as connection:
        cut = rng.randrange(len(data) + 1)
        send(connection, data[:cut])
        send(connection, data[cut:])
        hear(connection)


def changed_flight(target: Attacked, rng: Random) -> None:
    """A handshake whose second flight was changed or cut, or is followed by what is none."""
    tls, outgoing, incoming = _client(target, rng)
    with raw.dial(target.server) as connection:
        send(connection, outgoing.read())
        for _ in range(4):  # the server's flight comes in one piece or in a few
            incoming.write(_next(connection))
            with contextlib.suppress(ssl.SSLError):
                tls.do_handshake()
            if flight := outgoing.read():
                break
        else:
            return
        send(connection, rng.choice((mutate(rng, flight), flight[: rng.randrange(len(flight))], flight + flight)))
        hear(connection)


def changed_records(target: Attacked, rng: Random) -> None:
    """A connection that is in order, and then records that were changed, cut, repeated, or not encrypted at all."""
    tls, outgoing, incoming = _client(target, rng)
    with raw.dial(target.server) as connection:
        for _ in range(6):
            send(connection, outgoing.read())
            incoming.write(_next(connection))
            with contextlib.suppress(ssl.SSLError):
                tls.do_handshake()
                break
        with contextlib.suppress(ssl.SSLError):
            tls.write(raw.greeting() + raw.headers(1) + raw.message(1, "1"))
        written = outgoing.read() or records(rng)
        ways = (mutate(rng, written), written + written, written[: rng.randrange(len(written))], written + records(rng))
        send(connection, rng.choice(ways))
        hear(connection)


def renegotiation(target: Attacked, rng: Random) -> None:
    """What OpenSSL's own client can ask for in the middle: new keys (TLS 1.3), or a new handshake (1.2)."""
    if shutil.which("openssl") is None:
        return
    folder = target.server.certificates
    version, letter = rng.choice((("-tls1_2", b"R\n"), ("-tls1_3", b"K\n"), ("-tls1_3", b"k\n")))
    command = [
        *("openssl", "s_client", "-connect", f"localhost:{target.server.port}", version, "-alpn", "h2"),
        *("-cert", folder / "admin-cert.pem", "-key", folder / "admin-key.pem"),
    ]
    how: dict[str, int] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, bufsize=0, **how) as client, contextlib.suppress(BrokenPipeError):
        assert client.stdin is not None
        for _ in range(rng.choice((1, 5, 20))):
            client.stdin.write(letter)
            time.sleep(0.01)  # pace: it takes one command with each read


def vanishing(target: Attacked, rng: Random) -> None:
    """Many connections at once that are reset or closed at some point of the handshake."""
    hello = _hello(target, rng)
    connections = [raw.dial(target.server) for _ in range(rng.randint(5, 40))]
    for connection in connections:
        send(connection, hello[: rng.randrange(len(hello) + 1)])
        if rng.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rng.shuffle(connections)
    for connection in connections:
        connection.close()


CASES = (noise, changed_hello, changed_flight, changed_records, renegotiation, vanishing)
