"""posix_spawn(3), during which the rest of this process goes on.

os.posix_spawn holds Python's interpreter until the new program has been loaded: a millisecond, and several times as
long on a busy machine, in which no call is answered.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_libc = ctypes.CDLL(None)
"""lets go of the interpreter during a call"""
_quick = ctypes.PyDLL(None)
"""does not: it would have to be waited for again after each of many short calls"""
_ROOM = 1024
"""bytes for a type of libc's; the largest, posix_spawnattr_t, has 336 in glibc and in musl"""
_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
"""spawn.h, the same in glibc and in musl"""


def posix_spawn(
    path: str, argv: Sequence[str], descriptors: Mapping[int, int], default_signals: Iterable[signal.Signals]
) -> int:
    """Start `path` with `descriptors` (target: source, no source is a target) and an empty environment; its pid.

    It has a session of its own, blocks no signal, and these have their default action. Raises OSError.
    """
    with (
        _made(_quick.posix_spawn_file_actions_init, _quick.posix_spawn_file_actions_destroy) as actions,
        _made(_quick.posix_spawnattr_init, _quick.posix_spawnattr_destroy) as attributes,
    ):
        for target, source in descriptors.items():
            _check(_quick.posix_spawn_file_actions_adddup2(actions, source, target))
        signals = ctypes.create_string_buffer(_ROOM)
        _quick.sigemptyset(signals)
        _check(_quick.posix_spawnattr_setsigmask(attributes, signals))
        for number in default_signals:
            _quick.sigaddset(signals, number)
        _check(_quick.posix_spawnattr_setsigdefault(attributes, signals))
        _check(_quick.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID)))
        words = (ctypes.c_char_p * (len(argv) + 1))(*map(os.fsencode, argv), None)
        nothing = (ctypes.c_char_p * 1)(None)
        pid = ctypes.c_int()  # pid_t of every Linux
        error = _libc.posix_spawn(ctypes.byref(pid), os.fsencode(path), actions, attributes, words, nothing)
        if error:
            raise OSError(error, os.strerror(error), path)
        return pid.value


@contextmanager
def _made(make: Callable[[Any], int], destroy: Callable[[Any], int]) -> Iterator[Any]:
    value = ctypes.create_string_buffer(_ROOM)
    _check(make(value))
    try:
        yield value
    finally:
        destroy(value)


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))
