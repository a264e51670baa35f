"""The disk of a job that has ended, to be read: its ext4 image, mounted where nobody else sees it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from pathlib import Path

_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
"""on every architecture (syscalls(2))"""
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_CLOEXEC = 1
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8

_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
"""LOOP_CTL_GET_FREE and LOOP_CONFIGURE of loop(4)"""
_READ_ONLY, _AUTOCLEAR = 1, 4
_ATTEMPTS = 100

_libc = ctypes.CDLL(None, use_errno=True)


class _Info(ctypes.Structure):
    """struct loop_info64"""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("device", "inode", "rdevice", "offset", "size_limit")),
        *((name, ctypes.c_uint32) for name in ("number", "encrypt_type", "encrypt_key_size", "flags")),
        ("names", ctypes.c_uint8 * 160),
        ("init", ctypes.c_uint64 * 2),
    ]


class _Config(ctypes.Structure):
    """struct loop_config"""

    _fields_ = [
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _Info),
        ("reserved", ctypes.c_uint64 * 8),
    ]


def is_written(path: Path) -> bool:
    """Whether a job still has the image mounted: what is in it is not all on it then."""
    for device in Path("/sys/block").glob("loop*"):
        with contextlib.suppress(OSError):
            backing = (device / "loop/backing_file").read_text(encoding="utf-8", errors="replace").rstrip("\n")
            if backing == str(path) and (device / "ro").read_text(encoding="ascii").strip() == "0":
                return True
    return False


def open_read_only(path: Path) -> int:
    """A descriptor of the image's root directory; mount and loop device go with it, and with what is opened below.

    The image was made and written by this host's kernel: jobs see the files in it only. Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        image = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, image)
        if not stat.S_ISREG(os.fstat(image).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
        name, device = _attach(image)
        stack.callback(os.close, device)
        fs = _call(_SYS_FSOPEN, b"ext4", _CLOEXEC)
        stack.callback(os.close, fs)
        _call(_SYS_FSCONFIG, fs, _SET_STRING, b"source", name.encode(), 0)
        _call(_SYS_FSCONFIG, fs, _SET_FLAG, b"ro", None, 0)
        _call(_SYS_FSCONFIG, fs, _CREATE, None, None, 0)
        mount = _call(_SYS_FSMOUNT, fs, _CLOEXEC, _RDONLY | _NOSUID | _NODEV | _NOEXEC)
        stack.callback(os.close, mount)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)


def _attach(image: int) -> tuple[str, int]:
    """A loop device over the image. The kernel names a free one, and whoever comes first gets it."""
    config = _Config(fd=image, info=_Info(flags=_READ_ONLY | _AUTOCLEAR))
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            name = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            device = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.ioctl(device, _CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return name, device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/dev/loop-control")


def _call(number: int, *arguments: int | bytes | None) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
