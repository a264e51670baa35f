"""Cases of HTTP/2, inside TLS with and without a certificate: frames of every type that are wrong in every way."""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import Callable, Iterator
from random import Random

import raw_http2 as raw
from attacked import Attacked
from bytes_of_tls import hear, send
from hpack import Encoder
from hyperframe.frame import (
    AltSvcFrame,
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from mutation import EDGES, mutate

HEALTH = "/grpc.health.v1.Health/Check"
_MOST = 400_000
"""bytes of a case"""
_FLAGS = ("END_STREAM", "END_HEADERS", "PADDED", "PRIORITY", "ACK")
_HEADERS = {
    ":method": ("POST", "GET", "post", "", "P\0ST"),
    ":scheme": ("https", "http", "ftp", ""),
    ":path": (HEALTH, raw.STATUS, raw.LOGS, "", "*", "/", "/joblet.JobletService/", "//x", "/\u00e9", "x" * 5000),
    ":authority": ("localhost", "", "a" * 300, "[::1]:99999", "\0"),
    "content-type": ("application/grpc", "application/grpc+proto", "application/grpc+json", "text/html", ""),
    "te": ("trailers", "gzip", ""),
}
_MORE = (
    (":method", "POST"), (":status", "200"), (":protocol", "websocket"), (":", "x"), ("", ""), ("Upper", "x"),
    ("connection", "keep-alive"), ("transfer-encoding", "chunked"), ("content-length", "5"), ("content-length", "-1"),
    ("grpc-timeout", "1n"), ("grpc-timeout", "99999999H"), ("grpc-timeout", "9" * 500 + "S"), ("grpc-timeout", "x"),
    ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "zstd"), ("x-bin", "a"), ("x-bin", "YQ"), ("a-bin", "====="),
    ("user-agent", "x" * 4000), ("cookie", "a=b"), ("x\0y", "z\r\nw"), ("grpc-status", "0"), ("host", "elsewhere"),
    ("traceparent", "00-" + "0" * 32), ("latin", "\u00ff"), ("snow", "\u2603"),
)  # fmt: skip


def _number(rng: Random) -> int:
    """A stream's: mostly one that there may be."""
    return rng.choice((1, 1, 3, 5, 7, 2, 99, 2**31 - 1, rng.randrange(1, 60)))


def block(rng: Random) -> bytes:
    """Headers of a call, compressed: in order, or with some left out, changed, out of order or added."""
    fields = [(name, values[0]) for name, values in _HEADERS.items()]
    if rng.random() < 0.6:
        fields = [(name, rng.choice(_HEADERS[name])) if rng.random() < 0.3 else (name, text) for name, text in fields]
        for _ in range(rng.choice((0, 1, 1, 3))):
            fields.insert(rng.randrange(len(fields) + 1), rng.choice(_MORE))
        if rng.random() < 0.3:
            del fields[rng.randrange(len(fields))]
        if rng.random() < 0.2:
            rng.shuffle(fields)
    encoder = Encoder()
    if rng.random() < 0.1:
        encoder.header_table_size = rng.choice(EDGES) & 0xFFFF
    return encoder.encode(
        [(name.encode(), value.encode(), rng.random() < 0.5) for name, value in fields], huffman=rng.random() < 0.7
    )


def bomb(rng: Random) -> bytes:
    """Few bytes that are many headers: one large entry of the table, over and over."""
    name, value = b"a" * rng.choice((1, 100)), b"b" * rng.choice((100, 3900))
    entry = b"\x40" + _length(len(name)) + name + _length(len(value)) + value
    return entry + b"\xbe" * rng.choice((100, 1000, 15_000))


def _length(size: int) -> bytes:
    """A length of HPACK, of text without Huffman's code (RFC 7541, 5.1)."""
    if size < 127:
        return bytes([size])
    size -= 127
    written = b"\x7f"
    while size >= 128:
        written += bytes([size % 128 + 128])
        size //= 128
    return written + bytes([size])


def _block(rng: Random) -> bytes:
    kind = rng.random()
    if kind < 0.6:
        return block(rng)
    if kind < 0.8:
        return mutate(rng, block(rng))
    if kind < 0.9:
        return bomb(rng)
    # a change of the table's size, an index that there is not, a number without an end
    return rng.choice(
        (b"\x3f\xff\xff\xff\xff\x7f", b"\xff\xff\xff\xff\xff\xff\xff\x7f", rng.randbytes(50), b"\x20" * 99)
    )


def _settings(rng: Random) -> Frame:
    chosen = {
        rng.choice((1, 2, 3, 4, 5, 6, 8, 9, 0xFFFF)): rng.choice(EDGES) & 0xFFFFFFFF for _ in range(rng.randint(0, 4))
    }
    return SettingsFrame(0, settings=chosen)


def _message(rng: Random) -> bytes:
    body = rng.randbytes(rng.choice((0, 3, 100)))
    length = rng.choice((len(body), len(body), len(body) + 5, 0xFFFFFFFF))
    return struct.pack(">BI", rng.choice((0, 0, 1, 255)), length) + body


_KINDS: tuple[Callable[[Random], Frame], ...] = (
    lambda rng: HeadersFrame(_number(rng), data=_block(rng)),
    lambda rng: HeadersFrame(_number(rng), data=_block(rng), flags=["END_HEADERS"]),
    lambda rng: HeadersFrame(_number(rng), data=_block(rng), flags=["END_HEADERS", "END_STREAM"]),
    lambda rng: ContinuationFrame(_number(rng), data=_block(rng), flags=rng.choice(([], ["END_HEADERS"]))),
    lambda rng: DataFrame(_number(rng), data=_message(rng), flags=rng.choice(([], ["END_STREAM"]))),
    lambda rng: DataFrame(_number(rng), data=rng.randbytes(rng.choice((0, 1, 16_384)))),
    lambda rng: RstStreamFrame(_number(rng), error_code=rng.choice(EDGES) & 0xFFFFFFFF),
    lambda rng: WindowUpdateFrame(_number(rng), window_increment=rng.choice((1, 2, 65535, 2**31 - 1))),
    lambda rng: PriorityFrame(_number(rng), depends_on=_number(rng), stream_weight=rng.randrange(256), exclusive=True),
    lambda rng: PingFrame(0, opaque_data=rng.randbytes(8), flags=rng.choice(([], ["ACK"]))),
    lambda rng: PushPromiseFrame(_number(rng), promised_stream_id=2, data=_block(rng), flags=["END_HEADERS"]),
    lambda rng: GoAwayFrame(0, last_stream_id=_number(rng), error_code=rng.randrange(20), additional_data=b"bye"),
    lambda rng: AltSvcFrame(0, origin=b"example", field=rng.randbytes(10)),
    _settings,
)  # fmt: skip


def _frame(rng: Random) -> bytes:
    """A frame; one of three has a header that is not true of it."""
    frame = rng.choice(_KINDS)(rng)
    written = bytearray(frame.serialize())
    if rng.random() < 0.33:
        what = rng.randrange(5)
        if what == 0:
            written[0:3] = (rng.choice(EDGES) & 0xFFFFFF).to_bytes(3, "big")
        elif what == 1:
            written[3] = rng.choice((*range(12), rng.randrange(256)))
        elif what == 2:
            written[4] = rng.randrange(256)
        elif what == 3:
            written[5:9] = (rng.choice(EDGES) & 0xFFFFFFFF).to_bytes(4, "big")  # 0 too, where a stream is wanted
        else:
            return mutate(rng, bytes(written))
    return bytes(written)


@contextlib.contextmanager
def _connected(target: Attacked, rng: Random) -> Iterator[ssl.SSLSocket]:
    with raw.connect(target.server, rng.choice(("admin", "admin", "viewer", None))) as connection:
        yield connection


def sequences(target: Attacked, rng: Random) -> None:
    """Frames of every type, one after the other, in one read or in many."""
    frames = [_frame(rng) for _ in range(rng.choice((1, 5, 20, 100)))]
    data = (raw.greeting() if rng.random() < 0.9 else raw.PREFACE) + b"".join(frames)[:_MOST]
    with _connected(target, rng) as connection:
        size = rng.choice((len(data), len(data), 1000, 97))
        for start in range(0, len(data), max(size, len(data) // 50)):
            send(connection, data[start : start + max(size, len(data) // 50)])
        hear(connection)


def changed_sequences(target: Attacked, rng: Random) -> None:
    """A call that is in order, changed byte by byte from the greeting on."""
    whole = raw.greeting(INITIAL_WINDOW_SIZE=70_000) + raw.headers(1) + raw.message(1, "1") + PingFrame(0).serialize()
    with _connected(target, rng) as connection:
        send(connection, mutate(rng, whole * rng.choice((1, 1, 3)), 8))
        hear(connection)


def floods(target: Attacked, rng: Random) -> None:
    """One frame over and over: settings, pings, continuations, windows, priorities, calls that are taken back."""
    begin, again = rng.choice(
        (
            (b"", _settings(rng).serialize()),
            (b"", PingFrame(0).serialize()),
            (b"", WindowUpdateFrame(0, window_increment=1).serialize()),
            (b"", PriorityFrame(5, depends_on=3).serialize()),
            (HeadersFrame(1, data=block(rng)).serialize(), ContinuationFrame(1, data=_block(rng)[:9000]).serialize()),
            (raw.headers(1), DataFrame(1, data=b"").serialize()),
            (raw.headers(1), DataFrame(1, data=b"\0", pad_length=200, flags=["PADDED"]).serialize()),
            (b"", _frame(rng)[:16_000]),
        )
    )
    with _connected(target, rng) as connection:
        send(connection, raw.greeting() + begin + (again * 20_000)[:_MOST])
        hear(connection)


def rapid_resets(target: Attacked, rng: Random) -> None:
    """Calls, and in the same breath their end: by a reset, by malformed headers, by what is no message."""
    ends: tuple[Callable[[int], bytes], ...] = (
        lambda number: RstStreamFrame(number, error_code=8).serialize(),
        lambda number: WindowUpdateFrame(number, window_increment=2**31 - 1).serialize() * 2,
        lambda number: DataFrame(number, data=b"\1\0\0\0\1x", flags=["END_STREAM"]).serialize(),
        lambda number: HeadersFrame(number, data=block(rng), flags=["END_HEADERS"]).serialize(),
        lambda number: b"",
    )
    path, end = rng.choice((HEALTH, raw.STATUS, raw.LOGS)), rng.choice(ends)
    with _connected(target, rng) as connection:
        numbers = range(1, rng.choice((50, 500, 3000)), 2)
        send(connection, raw.greeting() + b"".join(raw.headers(number, path) + end(number) for number in numbers))
        hear(connection)


def bombs(target: Attacked, rng: Random) -> None:
    """Headers that are much larger than what was sent."""
    with _connected(target, rng) as connection:
        send(connection, raw.greeting())
        for number in range(1, 2 * rng.randint(1, 20), 2):
            data = bomb(rng)
            first = HeadersFrame(number, data=data[:16_000], flags=[] if data[16_000:] else ["END_HEADERS"])
            rest = ContinuationFrame(number, data=data[16_000:], flags=["END_HEADERS"]) if data[16_000:] else None
            send(connection, first.serialize() + (rest.serialize() if rest else b""))
        hear(connection)


def slow(target: Attacked, rng: Random) -> None:
    """Connections that stay behind at any point of a call, and go on by a byte now and then."""
    whole = raw.greeting() + raw.headers(1) + raw.message(1, "1")
    connection = raw.connect(target.server, rng.choice(("admin", "viewer", None)))
    send(connection, whole[: rng.randrange(len(whole))])
    target.linger(connection)
    target.linger(raw.dial(target.server))
    for other in rng.sample(target.lingering, min(len(target.lingering), 10)):
        send(other, rng.randbytes(1))


def windows(target: Attacked, rng: Random) -> None:
    """Windows that are empty, or that are changed while answers are under way."""
    with _connected(target, rng) as connection:
        send(connection, raw.greeting(INITIAL_WINDOW_SIZE=rng.choice((0, 1, 100))))
        for number in range(1, 2 * rng.randint(1, 60), 2):
            send(connection, raw.headers(number, rng.choice((raw.STATUS, raw.LOGS))) + raw.message(number, "1"))
            size = rng.choice((0, 1, 2**31 - 1))
            send(connection, SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: size}).serialize())
            grown = WindowUpdateFrame(rng.choice((0, number)), window_increment=rng.choice((1, 2**31 - 1)))
            send(connection, grown.serialize())
        hear(connection)


CASES = (sequences, sequences, changed_sequences, floods, rapid_resets, bombs, slow, windows)
