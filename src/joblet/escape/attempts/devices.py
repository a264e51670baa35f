"""Devices: making their nodes, and opening the host's."""

from __future__ import annotations

import glob
import os
import stat

from joblet.escape.attempts.frame import Context, attempt, try_each


def make_node(name: str, kind: int, major: int, minor: int) -> str:
    os.mknod(name, kind | 0o600, os.makedev(major, minor))
    os.unlink(name)
    return "made its node, and removed it"


def open_any(*patterns: str, flags: int = os.O_RDONLY) -> str:
    """Open the first device that can be opened, to do nothing with it."""

    def probe(path: str) -> str:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
        return f"opened {path}"

    return try_each([path for pattern in patterns for path in sorted(glob.glob("/dev/" + pattern))], probe)


# Landlock refuses before the capability is asked for.
@attempt("make the node of a disk (mknod)", "EACCES", "EPERM")
def make_disk(context: Context) -> str:
    return make_node(context["marker"] + ".disk", stat.S_IFBLK, 7, 0)


@attempt("make the node of the kernel's memory (mknod)", "EACCES", "EPERM")
def make_memory(context: Context) -> str:
    return make_node("/dev/shm/" + context["marker"] + ".mem", stat.S_IFCHR, 1, 1)


@attempt("open a disk", "absent")
def disk(context: Context) -> str:
    return open_any("sd[a-z]", "vd[a-z]", "xvd[a-z]", "nvme[0-9]n[0-9]", "mmcblk[0-9]", "dm-[0-9]", "md[0-9]")


@attempt("open a loop device, or make one", "absent")
def loop(context: Context) -> str:
    return open_any("loop-control", "loop0")


@attempt("open the machine's memory and ports", "absent")
def memory(context: Context) -> str:
    return open_any("mem", "port", "kmem")


@attempt("open the kernel's log", "absent")
def log(context: Context) -> str:
    return open_any("kmsg")


@attempt("open the processors' registers", "absent")
def registers(context: Context) -> str:
    return open_any("cpu/0/msr", "cpu/0/cpuid")


@attempt("hold the processors awake", "absent")
def latency(context: Context) -> str:
    return open_any("cpu_dma_latency", flags=os.O_RDWR)


@attempt("open the hypervisor", "absent")
def hypervisor(context: Context) -> str:
    return open_any("kvm", "vhost-net", "vhost-vsock")


@attempt("open fuse", "absent")
def fuse(context: Context) -> str:
    return open_any("fuse", "cuse", flags=os.O_RDWR)


@attempt("open the network's tunnels", "absent")
def tunnel(context: Context) -> str:
    return open_any("net/tun")


@attempt("open the sockets to the hypervisor", "absent")
def vsock(context: Context) -> str:
    return open_any("vsock")


@attempt("handle page faults by the device (userfaultfd)", "absent")
def faults(context: Context) -> str:
    return open_any("userfaultfd", flags=os.O_RDWR)


@attempt("open consoles and what is on their screens", "absent")
def console(context: Context) -> str:
    return open_any("console", "tty[0-9]", "vcs", "vcs[0-9]", "ttyS[0-9]")


@attempt("open input devices and screens", "absent")
def input_devices(context: Context) -> str:
    return open_any("input/event[0-9]", "input/mice", "uinput", "fb0", "dri/*", "vga_arbiter", "snd/*")
