"""openat2(2): files below a directory that somebody else may change meanwhile, and nothing outside of it."""

from __future__ import annotations

import ctypes
import os

_SYS_OPENAT2 = 437
"""on every architecture: system calls from 424 on have one number (syscalls(2))"""
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_TRIES = 16

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


def open_beneath(directory: int, path: str) -> int:
    """A descriptor (O_PATH) of what lies at a relative path below a directory's descriptor.

    On the way no link is followed, no mount is entered, and the directory is not left, whatever is renamed meanwhile;
    a link at its end is opened itself. Raises OSError: ELOOP for a link on the way, EXDEV for what is outside, ENOSYS
    on a kernel without it (before Linux 5.6), and as open(2).
    """
    how = _How(os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _BENEATH | _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS)
    for _ in range(_TRIES):
        fd = _libc.syscall(
            _SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        if number != 11:  # EAGAIN: the kernel could not tell, for something was renamed just then
            break
    raise OSError(number, os.strerror(number), path)
