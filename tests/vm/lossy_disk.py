"""A disk with a volatile cache, which can lose its power: an NBD server over a raw file.

It does what a disk may: what was written since the last flush is on it or not when the power goes, sector by sector and
in any order. What was flushed is on it. See the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md): fixed
newstyle handshake, simple replies, one connection.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

SECTOR = 4096
"""what is written whole or not at all"""

_MAGIC, _OPTION_MAGIC = 0x4E42444D41474943, 0x49484156454F5054
_OPTION_REPLY, _REQUEST, _REPLY = 0x3E889045565A9, 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_ABORT, _GO = 2, 7
_ACK, _INFO, _UNSUPPORTED = 1, 3, 2**31 + 1
_HAS_FLAGS, _SEND_FLUSH = 1, 4
_READ, _WRITE, _DISCONNECT, _FLUSH = range(4)
_EINVAL = 22


class PowerLost(Exception):
    """The disk does no more."""


class LossyDisk:
    """Serves the file at `path` on a socket. The mutable state is what was written since the last flush."""

    def __init__(self, path: Path, address: Path, on_write: Callable[[], None]) -> None:
        self.address = address
        self._on_write = on_write
        """called after each write, in the disk's thread, before the next request is taken"""
        self.writes = 0
        self.flushes = 0
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size
        self._unflushed: list[tuple[int, bytes, bytes]] = []
        """offset, what was there before, what has been written; a sector each, in the order of the writes"""
        self._lost: tuple[int, int] | None = None
        self._gone = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def cut(self, rng: random.Random, kept: float) -> tuple[int, int]:
        """Cut the power; of each unflushed sector it is chance whether it was written. How many were, of how many.

        Nothing is answered any more after this. `kept` is the share that was written: 1 is a machine that is reset, but
        not its disk. Only the first cut does anything.
        """
        with self._lock:
            if self._lost is not None:
                return self._lost
            unflushed = self._unflushed
            for offset, before, _ in reversed(unflushed):
                os.pwrite(self._file, before, offset)
            lucky = [sector for sector in unflushed if rng.random() < kept]
            for offset, _, after in lucky:
                os.pwrite(self._file, after, offset)
            self._lost = len(lucky), len(unflushed)
            return self._lost

    def close(self) -> None:
        """The machine is gone; end."""
        self._gone.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        os.close(self._file)

    def _serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            connection, _ = self._listener.accept()
            with connection:
                try:
                    self._greet(connection)
                    while True:
                        self._answer(connection)
                except PowerLost:
                    self._gone.wait()  # no word of an error, which somebody might pass on before his own power goes

    def _greet(self, connection: socket.socket) -> None:
        connection.sendall(struct.pack(">QQH", _MAGIC, _OPTION_MAGIC, _FIXED_NEWSTYLE | _NO_ZEROES))
        _receive(connection, 4)
        while True:
            _, option, length = struct.unpack(">QII", _receive(connection, 16))
            _receive(connection, length)
            if option == _GO:
                export = struct.pack(">HQH", 0, self._size, _HAS_FLAGS | _SEND_FLUSH)
                connection.sendall(_option_reply(option, _INFO, export) + _option_reply(option, _ACK))
                return
            connection.sendall(_option_reply(option, _ACK if option == _ABORT else _UNSUPPORTED))

    def _answer(self, connection: socket.socket) -> None:
        _, _, kind, cookie, offset, length = struct.unpack(">IHHQQI", _receive(connection, 28))
        data = _receive(connection, length) if kind == _WRITE else b""
        error = 0
        with self._lock:
            if self._lost is not None:
                raise PowerLost
            if kind == _DISCONNECT:
                raise EOFError
            if kind == _READ:
                data = os.pread(self._file, length, offset)
            elif kind == _WRITE:
                self._write(offset, data)
                data = b""
            elif kind == _FLUSH:
                self._unflushed.clear()
                self.flushes += 1
            else:
                error = _EINVAL
        connection.sendall(struct.pack(">IIQ", _REPLY, error, cookie) + data)
        if kind == _WRITE:
            self._on_write()

    def _write(self, offset: int, data: bytes) -> None:
        self.writes += 1
        position = 0
        while position < len(data):
            end = min(len(data), position + SECTOR - (offset + position) % SECTOR)
            piece = data[position:end]
            self._unflushed.append((offset + position, os.pread(self._file, len(piece), offset + position), piece))
            position = end
        os.pwrite(self._file, data, offset)


def _option_reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", _OPTION_REPLY, option, kind, len(data)) + data


def _receive(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = connection.recv(min(1 << 20, length - len(data)))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
