"""What happens to files, without polling: inotify(7). Hosts allow few instances."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

_IN_MODIFY = 0x2
_IN_ENTRIES = 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
"""of a directory: an entry's mode or content is another, it has left or come, or the directory itself has"""
_IN_ONLYDIR = 0x1000000
_IN_Q_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Calls back when a watched file has been written to, or a directory's entries have changed."""

    def __init__(self) -> None:
        """Raises OSError when the host's limit of instances is reached (fs.inotify.max_user_instances)."""
        self._fd = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._directories: dict[int, Callable[[str], None]] = {}
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def watch(self, path: Path, callback: Callable[[], None]) -> int:
        """Call `callback` after writes to `path`; several writes may share a call. The result is for `unwatch`.

        A file may be watched once at a time. Raises OSError.
        """
        watch = _check(_libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_MODIFY))
        self._callbacks[watch] = callback
        return watch

    def watch_directory(self, path: Path, callback: Callable[[str], None]) -> int:
        """Call `callback` with the name of an entry of `path` that has changed, or with none when it is not known.

        A directory may be watched once at a time; a second watch takes the place of the first. Raises OSError.
        """
        watch = _check(_libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_ENTRIES | _IN_ONLYDIR))
        self._directories[watch] = callback
        return watch

    def unwatch(self, watch: int) -> None:
        """End a watch."""
        self._callbacks.pop(watch, None)
        self._directories.pop(watch, None)
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
        entries: set[tuple[int, str]] = set()
        while position < len(events):
            watch, mask, _, length = _EVENT.unpack_from(events, position)
            position += _EVENT.size + length
            if mask & _IN_Q_OVERFLOW:
                touched.update(self._callbacks)
                entries.update((directory, "") for directory in self._directories)
            elif watch in self._directories:
                name = events[position - length : position].rstrip(b"\0")
                entries.add((watch, os.fsdecode(name)))
            elif mask & _IN_MODIFY:
                touched.add(watch)
        for watch in touched:
            if callback := self._callbacks.get(watch):
                callback()
        for watch, entry in entries:
            if on_entry := self._directories.get(watch):
                on_entry(entry)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
