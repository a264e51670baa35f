"""The form of what goes over the wire: messages, and the sentences of errors."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import betterproto2
from grpclib.encoding.base import CodecBase
from grpclib.metadata import encode_grpc_message

from joblet.errors import InvalidArgument, TooLarge
from joblet.server.descriptors import Descriptors

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


def fitting(sentence: str) -> str:
    """A sentence that every client can be told: its beginning, where it is too long."""
    beginning = sentence[:_MOST_SENTENCE]
    sizes = accumulate(len(encode_grpc_message(character)) for character in beginning)
    length = sum(size <= _MOST_SENTENCE for size in sizes)
    return sentence if length == len(sentence) else sentence[:length] + "..."
