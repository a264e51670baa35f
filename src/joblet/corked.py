"""What server and client make different from grpclib and h2 on their connections, to cost less.

grpclib writes an answer's headers, message and trailers one by one, and TLS makes a record and a system call of each:
`Corked` is a transport that sends together what is written in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any

_ENOUGH = 16 << 10
"""bytes that are sent at once; joining more would cost more than it saves"""

CLOSED_STREAMS_MOST = 1024
"""calls of a connection of which it is remembered how they ended, so that frames of theirs that come late are told from
nonsense. That is some round trips' worth; h2 keeps 65,536, which take 13 MB."""


class Corked(asyncio.Transport):
    """Another transport in front of `transport`. The mutable state is what has been written in this turn."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._written: list[bytes | bytearray | memoryview[Any]] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send it with what else is written in this turn. It must not be changed any more."""
        self._written.append(data)
        self._size += len(data)
        if self._size >= _ENOUGH:
            self._send()
        elif len(self._written) == 1:
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        written, self._written, self._size = self._written, [], 0
        if written and not self._transport.is_closing():
            self._transport.write(written[0] if len(written) == 1 else b"".join(written))

    def close(self) -> None:
        """Close the transport once what was written has been sent."""
        self._send()
        self._transport.close()

    def abort(self) -> None:
        """Close the transport at once."""
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + self._size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
