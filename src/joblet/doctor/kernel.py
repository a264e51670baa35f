"""System calls that Python 3.11 has no function for. All raise OSError."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# From 424 on a system call has the same number on every architecture.
PIDFD_SEND_SIGNAL = 424
OPEN_TREE = 428
MOVE_MOUNT = 429
FSOPEN = 430
FSCONFIG = 431
FSMOUNT = 432
PIDFD_OPEN = 434
CLONE3 = 435
CLOSE_RANGE = 436
OPENAT2 = 437
MOUNT_SETATTR = 442
LANDLOCK_CREATE_RULESET = 444

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ERRNO = 0x00050000
_SECCOMP_RET_ALLOW = 0x7FFF0000
_LANDLOCK_CREATE_RULESET_VERSION = 1

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOUNT_ATTR_IDMAP = 0x00100000

_STATX_MNT_ID = 0x1000

_TIME_ERROR = 5
_STA_UNSYNC = 0x0040

_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    """One instruction of a seccomp filter: struct sock_filter."""

    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Filter))]


class _MountAttributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _Timex(ctypes.Structure):
    """The beginning of struct timex, with room for the rest of it."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("maximum_error", ctypes.c_long),
        ("estimated_error", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    ]


class _Statx(ctypes.Structure):
    """struct statx, of which only one field is asked for."""

    _fields_ = [("before", ctypes.c_char * 144), ("mount", ctypes.c_uint64), ("after", ctypes.c_char * 104)]


def syscall(number: int, *arguments: int | bytes | ctypes.Structure | None) -> int:
    """Any system call. Structures go by reference."""
    return _checked(_libc.syscall(ctypes.c_long(number), *map(_as_word, arguments)))


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(ctypes.c_int(flags)))


def join_own_mount_namespace() -> None:
    """Enter the mount namespace that this process is in, which leads to its root, out of a chroot: setns(2)."""
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(CLONE_NEWNS)))
    finally:
        os.close(namespace)


def mount_id(path: str) -> int:
    """The number of the mount that `path` is on: statx(2)."""
    answer = _Statx()
    _checked(_libc.statx(ctypes.c_int(_AT_FDCWD), path.encode(), ctypes.c_int(0), _STATX_MNT_ID, ctypes.byref(answer)))
    return int(answer.mount)


def refuse_by_filter(number: int, error: int) -> None:
    """Install a seccomp filter that refuses system call `number` with errno `error`: seccomp(2)."""
    load, equal, end = 0x20, 0x15, 0x06
    code = (_Filter * 4)(
        _Filter(load, 0, 0, 0),
        _Filter(equal, 0, 1, number),
        _Filter(end, 0, 0, _SECCOMP_RET_ERRNO | error),
        _Filter(end, 0, 0, _SECCOMP_RET_ALLOW),
    )
    program = _Program(len(code), code)
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))
    _prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program))


def landlock_abi() -> int:
    """The version of Landlock's interface: landlock_create_ruleset(2)."""
    return syscall(LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)


def make_proc(options: dict[str, str]) -> None:
    """Make a procfs with these options and let it go again, mounted nowhere."""
    context = syscall(FSOPEN, b"proc", 1)
    try:
        for name, value in options.items():
            syscall(FSCONFIG, context, _FSCONFIG_SET_STRING, name.encode(), value.encode(), 0)
        syscall(FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        os.close(syscall(FSMOUNT, context, 1, 0))
    finally:
        os.close(context)


def map_ids_of_mount(directory: str, user_namespace: int) -> None:
    """Make a mount of `directory` with the ids of a user namespace and let it go again: mount_setattr(2)."""
    mount = syscall(OPEN_TREE, _AT_FDCWD, directory.encode(), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    try:
        attributes = _MountAttributes(attr_set=_MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
        size = ctypes.sizeof(attributes)
        syscall(MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, attributes, size)
    finally:
        os.close(mount)


def clock_is_synchronised() -> bool:
    """Whether something keeps the clock right: adjtimex(2), which asks only, with no mode set."""
    state = _Timex()
    answer = _checked(_libc.adjtimex(ctypes.byref(state)))
    return answer != _TIME_ERROR and not state.status & _STA_UNSYNC


def _prctl(option: int, *arguments: object) -> None:
    rest = [ctypes.c_ulong(0)] * (4 - len(arguments))
    _checked(_libc.prctl(ctypes.c_int(option), *arguments, *rest))


def _as_word(argument: int | bytes | ctypes.Structure | None) -> object:
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    if isinstance(argument, ctypes.Structure):
        return ctypes.byref(argument)
    return ctypes.c_char_p(argument)


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)
