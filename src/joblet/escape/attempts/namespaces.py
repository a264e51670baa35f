"""Making namespaces, where a job would have capabilities again, and entering the host's."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct

from joblet.escape.attempts.calls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    call,
    clone,
)
from joblet.escape.attempts.frame import Context, attempt, preparing

NS_GET_USERNS = 0xB701


@attempt("make a user namespace (unshare)", "EPERM")
def unshare_user(context: Context) -> str:
    call("unshare", CLONE_NEWUSER)
    return "have one"


@attempt("make a mount namespace (unshare)", "EPERM")
def unshare_mounts(context: Context) -> str:
    call("unshare", CLONE_NEWNS)
    return "have one"


@attempt("make a network namespace (unshare)", "EPERM")
def unshare_network(context: Context) -> str:
    call("unshare", CLONE_NEWNET)
    return "have one"


@attempt("make the other namespaces (unshare)", "EPERM")
def unshare_others(context: Context) -> str:
    kinds = CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWTIME
    call("unshare", kinds)
    return "have them"


@attempt("make a user namespace (clone)", "EPERM")
def clone_user(context: Context) -> str:
    clone(CLONE_NEWUSER)
    return "had a process in one"


@attempt("make a pid and a mount namespace (clone)", "EPERM")
def clone_pid(context: Context) -> str:
    clone(CLONE_NEWPID | CLONE_NEWNS)
    return "had a process in them"


@attempt("make a user namespace (clone3)", "ENOSYS")
def clone3_user(context: Context) -> str:
    fields = [CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0]
    pid = call("clone3", ctypes.create_string_buffer(struct.pack("8Q", *fields)), 64)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "had a process in one"


@attempt("become the host's root in a user namespace (uid_map)", "EPERM")
def map_root(context: Context) -> str:
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            call("unshare", CLONE_NEWUSER)
            os.write(ready[1], b"made")
        finally:
            os.write(ready[1], b"none")
            os.read(done[0], 1)
            os._exit(0)
    try:
        os.read(ready[0], 4)
        with open(f"/proc/{child}/uid_map", "w") as file:
            file.write("0 0 1")
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
    return "mapped it"


@attempt("enter namespaces by process (setns)", "EPERM")
def enter_process(context: Context) -> str:
    with preparing("open process 1"):
        pidfd = call("pidfd_open", 1, 0)
    call("setns", pidfd, CLONE_NEWUTS | CLONE_NEWIPC)
    return "entered those of process 1"


@attempt("enter a namespace by file (setns)", "EPERM")
def enter_file(context: Context) -> str:
    with preparing("open the own namespace"):
        fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    call("setns", fd, 0)
    return "entered it"


@attempt("enter the namespaces of a process of the host (setns)", "ENOENT")
def enter_host(context: Context) -> str:
    fd = os.open(f"/proc/{context['host']['pid']}/ns/mnt", os.O_RDONLY)
    call("setns", fd, CLONE_NEWNS)
    return "entered its mount namespace"


@attempt("find the namespace that owns the job's (NS_GET_USERNS)", "EPERM")
def find_owner(context: Context) -> str:
    with preparing("open the own namespace"):
        fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    fcntl.ioctl(fd, NS_GET_USERNS)
    return "have a descriptor of it"
