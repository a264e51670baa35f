"""Changing what is mounted: every one a call that the filter refuses. Without isolation they run in a mount namespace
of their own, which takes all that they have done with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

from joblet.escape.attempts.calls import call
from joblet.escape.attempts.frame import Context, attempt

AT_FDCWD = -100
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_SHARED = 0x1, 0x20, 0x1000, 0x100000
MNT_DETACH = 2
OPEN_TREE_CLONE = 1
MOUNT_ATTR_RDONLY = 1


def place(context: Context) -> bytes:
    """A directory to mount over."""
    path = os.path.join(os.getcwd(), context["marker"] + ".place")
    os.makedirs(path, exist_ok=True)
    return path.encode()


@attempt("mount a file system (mount)", "EPERM")
def mount(context: Context) -> str:
    call("mount", b"none", place(context), b"tmpfs", 0, None)
    return "mounted a tmpfs"


@attempt("mount another /proc, without its masks", "EPERM")
def mount_proc(context: Context) -> str:
    call("mount", b"none", place(context), b"proc", 0, None)
    return "mounted it"


@attempt("show a directory elsewhere (bind mount)", "EPERM")
def bind(context: Context) -> str:
    call("mount", b"/etc", place(context), None, MS_BIND, None)
    return "mounted /etc again"


@attempt("make a read-only mount writable (remount)", "EPERM")
def remount(context: Context) -> str:
    """The own root's, by the flags that it has where it is writable."""
    call("mount", None, b"/", None, MS_REMOUNT | MS_BIND, None)
    return "remounted /"


@attempt("let mounts spread to the host (MS_SHARED)", "EPERM")
def share(context: Context) -> str:
    call("mount", None, b"/", None, MS_SHARED, None)
    return "made / shared"


@attempt("take a mask off (umount)", "EPERM")
def unmount(context: Context) -> str:
    call("umount2", b"/proc", MNT_DETACH)
    return "unmounted what covers /proc"


@attempt("make a file system by descriptor (fsopen)", "EPERM")
def open_file_system(context: Context) -> str:
    call("fsopen", b"tmpfs", 0)
    return "have one"


@attempt("take hold of a mount to change it (fspick)", "EPERM")
def pick(context: Context) -> str:
    call("fspick", AT_FDCWD, b"/", 0)
    return "have it"


@attempt("copy a tree of mounts (open_tree)", "EPERM")
def copy_tree(context: Context) -> str:
    call("open_tree", AT_FDCWD, b"/etc", OPEN_TREE_CLONE)
    return "have a copy of what is mounted at /etc"


@attempt("move a mount (move_mount)", "EPERM")
def move(context: Context) -> str:
    target = place(context)
    with contextlib.suppress(PermissionError):  # then there is none of our own to move: asked all the same
        call("mount", b"none", target, b"tmpfs", 0, None)
    os.makedirs(target + b".moved", exist_ok=True)
    call("move_mount", AT_FDCWD, target, AT_FDCWD, target + b".moved", 0)
    return "moved a tmpfs"


@attempt("change a mount's attributes (mount_setattr)", "EPERM")
def set_attributes(context: Context) -> str:
    change = ctypes.create_string_buffer(struct.pack("4Q", 0, MOUNT_ATTR_RDONLY, 0, 0))
    call("mount_setattr", AT_FDCWD, b"/", 0, change, 32)
    return "made / writable"


@attempt("change the root of all (pivot_root)", "EPERM")
def pivot(context: Context) -> str:
    target = place(context)
    with contextlib.suppress(PermissionError):
        call("mount", b"none", target, b"tmpfs", 0, None)
        os.mkdir(target + b"/old")
    call("pivot_root", target, target + b"/old")
    return "the root is a tmpfs"


@attempt("change the own root, to climb out of it (chroot)", "EPERM")
def change_root(context: Context) -> str:
    os.chroot(place(context))
    return "the root is a directory"
