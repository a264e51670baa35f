"""Cases of calls: what a client asks for, the code that it must be answered with, and that it is answered."""

from __future__ import annotations

import ssl
import struct
import time
from random import Random

import raw_http2 as raw
from attacked import Attacked, Finding
from grpc import StatusCode
from hpack import Decoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from mutation import mutate
from requests_of_grpc import Request, methods, request

from joblet.server.auth import OPERATIONS, ROLES

_ANSWER_SECONDS = 20.0
"""for what has to be answered at once"""
_LISTEN_SECONDS = 0.3
"""for what may go on for ever"""
_FRAME = 16_384
_METHODS = methods()
_CODES = {code.value[0]: code for code in StatusCode}
ALLOWED = {
    *(StatusCode.OK, StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.FAILED_PRECONDITION),
    *(StatusCode.RESOURCE_EXHAUSTED, StatusCode.ALREADY_EXISTS, StatusCode.OUT_OF_RANGE, StatusCode.ABORTED),
}
"""what a request that can be read may be answered with: never INTERNAL or UNKNOWN, which are of the server"""
_OF_FAULTS = {
    "no message": StatusCode.INVALID_ARGUMENT,
    "compressed": StatusCode.UNIMPLEMENTED,
    "too large": StatusCode.RESOURCE_EXHAUSTED,
    "cut off": StatusCode.INVALID_ARGUMENT,
    "not protobuf": StatusCode.INVALID_ARGUMENT,
}


def expected(asked: Request, name: str | None) -> set[StatusCode]:
    """The codes that the request of a client of this role, or without a certificate, may be answered with."""
    if name is None:
        return {StatusCode.UNAUTHENTICATED}
    if OPERATIONS[asked.method] not in ROLES[name].operations:
        return {StatusCode.PERMISSION_DENIED}
    if asked.fault and not (asked.streaming and asked.fault == "no message"):
        return {_OF_FAULTS[asked.fault]}
    # What comes behind the first message of a stream may be wrong in any way, or be more than the server takes.
    return ALLOWED | set(_OF_FAULTS.values()) if asked.streaming else ALLOWED


class Caller:
    """A connection with calls on it, all sent before any answer is read."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 1 << 20
        self._data = bytearray()
        self.codes: dict[int, tuple[int, str]] = {}
        """by the number of a call, how it was answered"""
        self.ended: set[int] = set()
        self._pongs = 0
        greeting = raw.greeting(INITIAL_WINDOW_SIZE=2**31 - 1, MAX_HEADER_LIST_SIZE=1 << 20)
        window = WindowUpdateFrame(0, window_increment=2**31 - 1 - 65_535).serialize()
        connection.sendall(greeting + window + SettingsFrame(0, flags=["ACK"]).serialize())

    def ask(self, number: int, asked: Request, *, end: bool = True) -> None:
        """Send a request, and mostly that there is no more of it."""
        pieces = [asked.data[start : start + _FRAME] for start in range(0, len(asked.data), _FRAME)] or [b""]
        sent = raw.headers(number, asked.method)
        for piece in pieces:
            sent += DataFrame(
                number, data=piece, flags=["END_STREAM"] if end and piece is pieces[-1] else []
            ).serialize()
        self._connection.sendall(sent)

    def listen(self, numbers: set[int], seconds: float) -> None:
        """Read until these calls are answered, or no longer than that. Finding if the connection ends."""
        deadline = time.monotonic() + seconds
        while numbers - self.ended and (left := deadline - time.monotonic()) > 0:
            self._connection.settimeout(left)
            try:
                self._read()
            except TimeoutError:
                return

    def leave(self) -> None:
        """Take back what has no answer yet; the connection itself must be in order."""
        open_calls = set(self.codes) - self.ended
        resets = b"".join(RstStreamFrame(number, error_code=8).serialize() for number in sorted(open_calls))
        self._connection.sendall(resets + PingFrame(0, opaque_data=b"still on").serialize())
        self._connection.settimeout(_ANSWER_SECONDS)
        while not self._pongs:
            self._read()

    def _read(self) -> None:
        received = self._connection.recv(65536)
        if not received:
            raise Finding("the server has ended a connection that was in order")
        self._data += received
        for frame in raw.frames(self._data):
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, HeadersFrame):
            answer = {str(name): str(value) for name, value in self._decoder.decode(frame.data)}
            if "grpc-status" in answer:
                self.codes[frame.stream_id] = int(answer["grpc-status"]), answer.get("grpc-message", "")
                self.ended.add(frame.stream_id)
        elif isinstance(frame, RstStreamFrame):
            self.ended.add(frame.stream_id)
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self._pongs += 1
            else:
                self._connection.sendall(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize())
        elif isinstance(frame, GoAwayFrame):
            raise Finding(f"the server has ended a connection that was in order: {frame}")


def calls(target: Attacked, rng: Random) -> None:
    """Calls side by side, of one client; each has the code that it must have."""
    name = rng.choice(("admin", "admin", "admin", "viewer", None))
    with raw.connect(target.server, name) as connection:
        caller = Caller(connection)
        asked = {number: request(rng, rng.choice(_METHODS)) for number in range(1, 2 * rng.randint(1, 12), 2)}
        allowed = {number: expected(each, name) for number, each in asked.items()}
        for number, each in asked.items():
            caller.ask(number, each)
        caller.listen({number for number in asked if StatusCode.OK not in allowed[number]}, _ANSWER_SECONDS)
        caller.listen(set(asked), _LISTEN_SECONDS)
        caller.leave()
    for number, each in asked.items():
        code, message = caller.codes.get(number, (None, ""))
        if code is None and StatusCode.OK not in allowed[number]:
            raise Finding(f"{each.method} with {each.fault or 'nothing'} wrong, of {name}: no answer")
        if code is not None and _CODES[code] not in allowed[number]:
            shown = each.data[:300].hex()
            raise Finding(
                f"{each.method} with {each.fault or 'nothing'} wrong, of {name}: {_CODES[code]} {message}: {shown}"
            )


def broken_off(target: Attacked, rng: Random) -> None:
    """Calls whose requests do not end, are changed under way, or are left with the connection."""
    with raw.connect(target.server, rng.choice(("admin", "admin", "viewer", None))) as connection:
        caller = Caller(connection)
        for number in range(1, 2 * rng.randint(1, 20), 2):
            asked = request(rng, rng.choice(_METHODS))
            data = rng.choice((asked.data, mutate(rng, asked.data), asked.data[: rng.randrange(len(asked.data) + 1)]))
            caller.ask(number, Request(asked.method, data, asked.fault, asked.streaming), end=rng.random() < 0.5)
        caller.listen(set(), 0)
        if rng.random() < 0.5:
            caller.leave()


def pieces(target: Attacked, rng: Random) -> None:
    """A request in frames of a byte or two, with others between; it is answered as if it had come whole."""
    asked = request(rng, rng.choice([method for method in _METHODS if not method.client_streaming]))
    data = asked.data[:400]
    # cut in two by us, a message that could be read cannot any more
    cut = len(data) < len(asked.data) or (len(data) >= 5 and struct.unpack(">I", data[1:5])[0] > len(data) - 5)
    with raw.connect(target.server) as connection:
        caller = Caller(connection)
        connection.sendall(raw.headers(1, asked.method))
        step = rng.choice((1, 2, 7))
        for start in range(0, len(data), step):
            connection.sendall(DataFrame(1, data=data[start : start + step]).serialize())
        connection.sendall(DataFrame(1, flags=["END_STREAM"]).serialize())
        refused = bool(asked.fault) or cut
        caller.listen({1}, _ANSWER_SECONDS if refused else _LISTEN_SECONDS)
        code, message = caller.codes.get(1, (None, ""))
    if refused and (code is None or _CODES[code] not in set(_OF_FAULTS.values())):
        raise Finding(f"{asked.method} with {asked.fault or 'its end'} missing in pieces: {code} {message}")


CASES = (calls, calls, calls, broken_off, pieces)
