"""System calls that reach deep into the kernel. Their arguments are such that with all privileges they do no harm."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import struct
import time

from joblet.escape.attempts.calls import call
from joblet.escape.attempts.frame import Context, attempt, reached

BPF_MAP_CREATE, BPF_MAP_TYPE_ARRAY = 0, 2
PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK = 1, 1
KEY_SPEC_SESSION_KEYRING = -3
KEYCTL_GET_KEYRING_ID, KEYCTL_JOIN_SESSION_KEYRING = 0, 1
SYSLOG_ACTION_SIZE_BUFFER = 10
ADJ_FREQUENCY = 2
NOWHERE = b"/nonexistent/joblet-escape"


def run_code(code: bytes) -> int:
    """Run machine code that returns a number."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


@attempt("load a program into the kernel (bpf)", "EPERM")
def bpf(context: Context) -> str:
    call("bpf", BPF_MAP_CREATE, ctypes.create_string_buffer(struct.pack("5I", BPF_MAP_TYPE_ARRAY, 4, 4, 1, 0), 64), 64)
    return "made a map"


@attempt("count what the kernel does (perf_event_open)", "EPERM")
def perf(context: Context) -> str:
    attributes = struct.pack("IIQ", PERF_TYPE_SOFTWARE, 112, PERF_COUNT_SW_TASK_CLOCK)
    call("perf_event_open", ctypes.create_string_buffer(attributes, 112), 0, -1, -1, 0)
    return "have a counter"


@attempt("handle the kernel's page faults (userfaultfd)", "EPERM")
def userfaultfd(context: Context) -> str:
    call("userfaultfd", 0)
    return "have a descriptor"


@attempt("make system calls past the filter (io_uring)", "EPERM")
def io_uring(context: Context) -> str:
    call("io_uring_setup", 1, ctypes.create_string_buffer(120))
    return "have a ring"


@attempt("watch the host's files (fanotify)", "EPERM")
def fanotify(context: Context) -> str:
    call("fanotify_init", 0, 0)
    return "have a group"


@attempt("put a key into a keyring (add_key)", "EPERM")
def add_key(context: Context) -> str:
    with contextlib.suppress(PermissionError):  # a keyring that goes with this process
        call("keyctl", KEYCTL_JOIN_SESSION_KEYRING, None)
    call("add_key", b"user", context["marker"].encode(), b"x", 1, KEY_SPEC_SESSION_KEYRING)
    return "added it to the session's keyring"


@attempt("have the kernel ask for a key (request_key)", "EPERM")
def request_key(context: Context) -> str:
    return reached([errno.ENOKEY], lambda: call("request_key", b"user", context["marker"].encode(), None, 0))


@attempt("find keyrings that others left (keyctl)", "EPERM")
def keyctl(context: Context) -> str:
    return f"keyring {call('keyctl', KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0):x}"


@attempt("start another kernel (kexec_load)", "EPERM")
def kexec(context: Context) -> str:
    return reached([errno.EINVAL], lambda: call("kexec_load", 0, 0, None, 0x8000))


@attempt("start another kernel from a file (kexec_file_load)", "EPERM")
def kexec_file(context: Context) -> str:
    return reached([errno.EINVAL, errno.EBADF], lambda: call("kexec_file_load", -1, -1, 0, None, 0x8000))


@attempt("load a module (init_module)", "EPERM")
def init_module(context: Context) -> str:
    return reached([errno.ENOEXEC, errno.EFAULT], lambda: call("init_module", None, 0, b""))


@attempt("load a module from a file (finit_module)", "EPERM")
def finit_module(context: Context) -> str:
    return reached([errno.EBADF], lambda: call("finit_module", -1, b"", 0))


@attempt("remove a module (delete_module)", "EPERM")
def delete_module(context: Context) -> str:
    return reached([errno.ENOENT], lambda: call("delete_module", b"joblet_escape", 0))


@attempt("set the clock (clock_settime)", "EPERM", harmful=True)
def set_clock(context: Context) -> str:
    time.clock_settime(time.CLOCK_REALTIME, time.time())
    return "set it to what it was"


@attempt("steer the clock (clock_adjtime)", "EPERM")
def adjust_clock(context: Context) -> str:
    """Its own rate, read and set again: struct timex holds the mode first and the rate third."""
    timex = ctypes.create_string_buffer(208)
    call("clock_adjtime", time.CLOCK_REALTIME, timex)
    struct.pack_into("I", timex, 0, ADJ_FREQUENCY)
    call("clock_adjtime", time.CLOCK_REALTIME, timex)
    return "set the rate that it had"


@attempt("swap to a file (swapon)", "EPERM")
def swapon(context: Context) -> str:
    return reached([errno.ENOENT], lambda: call("swapon", NOWHERE, 0))


@attempt("take swap space away (swapoff)", "EPERM")
def swapoff(context: Context) -> str:
    return reached([errno.ENOENT], lambda: call("swapoff", NOWHERE))


@attempt("change quotas (quotactl)", "EPERM")
def quotactl(context: Context) -> str:
    return reached([errno.ENOENT], lambda: call("quotactl", 0x800003 << 8, NOWHERE, 0, None))


@attempt("change quotas by descriptor (quotactl_fd)", "EPERM")
def quotactl_fd(context: Context) -> str:
    return reached([errno.EBADF], lambda: call("quotactl_fd", -1, 0x800003 << 8, 0, None))


@attempt("have every process recorded (acct)", "EPERM")
def acct(context: Context) -> str:
    return reached([errno.ENOENT], lambda: call("acct", NOWHERE))


@attempt("read the kernel's log (syslog)", "EPERM")
def syslog(context: Context) -> str:
    return f"its buffer has {call('syslog', SYSLOG_ACTION_SIZE_BUFFER, None, 0)} bytes"


@attempt("reboot the machine (reboot)", "EPERM")
def reboot(context: Context) -> str:
    """With numbers that are none of its own."""
    return reached([errno.EINVAL], lambda: call("reboot", 0, 0, 0, None))


@attempt("open the processor's ports (iopl)", "EPERM", machine="x86_64")
def iopl(context: Context) -> str:
    call("iopl", 3)
    return "may use every port"


@attempt("open one port of the processor (ioperm)", "EPERM", machine="x86_64")
def ioperm(context: Context) -> str:
    call("ioperm", 0x80, 1, 1)
    return "may use port 0x80"


@attempt("make segments of one's own (modify_ldt)", "EPERM", machine="x86_64")
def modify_ldt(context: Context) -> str:
    return f"read {call('modify_ldt', 0, ctypes.create_string_buffer(64), 64)} bytes of the table"


@attempt("make a 32-bit system call (int 0x80)", "signal SIGSYS", machine="x86_64")
def int_80(context: Context) -> str:
    """mov eax, 20 (getpid); int 0x80; ret"""
    pid = run_code(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    if pid < 0:
        raise OSError(-pid, "int 0x80")
    return f"the kernel answered with pid {pid}"


@attempt("make an x32 system call", "ENOSYS", machine="x86_64")
def x32(context: Context) -> str:
    """mov eax, 0x40000027 (getpid); syscall; ret"""
    pid = run_code(b"\xb8\x27\x00\x00\x40\x0f\x05\xc3")
    if pid < 0:
        raise OSError(-pid, "x32")
    return f"the kernel answered with pid {pid}"
