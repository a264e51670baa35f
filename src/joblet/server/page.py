"""Answers in pieces: a list that ends where its message is full, and streams that end where their client does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import fields
from typing import Any

import betterproto2
from grpclib.server import Stream

from joblet.proto import joblet as pb
from joblet.server.descriptors import Descriptors
from joblet.server.rpc import Encoded

_LISTED = 1
"""number of the fields Jobs.jobs and ListWorkflowsResponse.workflows"""
_LENGTH_DELIMITED = 2
_MORE = b"\x40\x01"
"""`more` of both: field 8, true"""


class ClosedAtOnce:
    """As a service is, but a stream that its client leaves is closed at once, not by the garbage collector."""

    async def _call_rpc_handler_server_stream(
        self, handler: Callable[[Any], AsyncGenerator[Any]], stream: Stream[Any, Any], request: Any
    ) -> None:
        async with aclosing(handler(request)) as responses:
            async for response in responses:
                await stream.send_message(response)


class JobEncoder:
    """What is told of jobs in its wire form, by google's protobuf library: betterproto2 takes twenty times as long."""

    def __init__(
        self, descriptors: Descriptors, kind: type[pb.Job] | type[pb.RunJobRes] | type[pb.GetJobStatusRes]
    ) -> None:
        """For messages of this kind."""
        self._descriptors = descriptors
        self._message = descriptors.message(kind.__name__)
        names = {field.number: field.name for field in self._message.DESCRIPTOR.fields}
        self._names = {field.name: names[field.metadata["betterproto"].number] for field in fields(kind)}

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """A message with the fields that betterproto2 gives these names."""
        # Most fields of most jobs have nothing to tell.
        message = self._message(**{self._names[name]: self._plain(value) for name, value in values.items() if value})
        wire: bytes = message.SerializeToString(deterministic=True)  # maps in order of their keys
        return wire

    def _plain(self, value: Any) -> Any:
        if isinstance(value, betterproto2.Message):
            return self._descriptors.message(type(value).__name__).FromString(bytes(value))
        return value


class Page:
    """A Jobs or ListWorkflowsResponse of bounded size. The mutable state is what it holds: newest first, the other way
    round in the end.

    It holds one entry in any case.
    """

    def __init__(self, room: int) -> None:
        self._room = room - len(_MORE)
        self._pieces: list[bytes] = []

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, encoded: bytes) -> bool:
        """Put an encoded entry before the others; False when there is no room for it."""
        piece = entry(_LISTED, encoded)
        if len(piece) > self._room and self._pieces:
            return False
        self._room -= len(piece)
        self._pieces.append(piece)
        return True

    def message(self, *, more: bool) -> Encoded:
        """The whole."""
        return Encoded(b"".join([*reversed(self._pieces), _MORE if more else b""]))


def entry(field: int, encoded: bytes) -> bytes:
    """An encoded message as a field of another; the numbers are those below 16."""
    return bytes([field << 3 | _LENGTH_DELIMITED]) + _varint(len(encoded)) + encoded


def _varint(number: int) -> bytes:
    """Seven bits a byte, lowest first, the highest bit set in all but the last (protobuf's encoding)."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
