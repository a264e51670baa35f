"""File growth without polling: inotify(7), one instance for the whole server (hosts allow few)."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

_IN_MODIFY = 0x2
_IN_Q_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Calls back when a watched file has been written to."""

    def __init__(self) -> None:
        """Raises OSError when the host's limit of instances is reached (fs.inotify.max_user_instances)."""
        self._fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._callbacks: dict[int, Callable[[], None]] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def watch(self, path: Path, callback: Callable[[], None]) -> int:
        """Call `callback` after writes to `path`; several writes may share a call. The result is for `unwatch`.

        A file may be watched once at a time. Raises OSError.
        """
        watch = _check(_libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_MODIFY))
        self._callbacks[watch] = callback
        return watch

    def unwatch(self, watch: int) -> None:
        """End a watch."""
        self._callbacks.pop(watch, None)
        _libc.inotify_rm_watch(self._fd, watch)

    def close(self) -> None:
        """End all watches."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        try:
            events = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        position = 0
        touched: set[int] = set()
        while position < len(events):
            watch, mask, _, length = _EVENT.unpack_from(events, position)
            position += _EVENT.size + length
            if mask & _IN_Q_OVERFLOW:
                touched.update(self._callbacks)
            elif mask & _IN_MODIFY:
                touched.add(watch)
        for watch in touched:
            if callback := self._callbacks.get(watch):
                callback()


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
