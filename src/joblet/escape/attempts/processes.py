"""Signalling, tracing and steering processes of the host and of other jobs."""

from __future__ import annotations

import array
import ctypes
import fcntl
import mmap
import os
import signal
import socket
import struct

from joblet.escape.attempts.calls import call
from joblet.escape.attempts.frame import Context, attempt, preparing, try_each

PTRACE_SEIZE = 0x4206
PRIO_PROCESS = 0
IOPRIO_REALTIME = 1 << 13
MADV_COLD = 20

PAGE = mmap.mmap(-1, mmap.PAGESIZE)
"""at one address in the attempt and in its parent, which it was forked from"""


def victims(context: Context) -> list[int]:
    """Host pids: of a process outside of all jobs, and of another job's where the client could learn it."""
    return [pid for pid in (context["host"]["pid"], context["job"]["pid"]) if pid]


def memory_of(context: Context) -> tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]:
    """Iovecs for process_vm_readv(2): 8 bytes here, and 8 where the victim keeps some."""
    here = ctypes.create_string_buffer(8)
    local = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(here), 8))
    return local, ctypes.create_string_buffer(struct.pack("PN", context["host"]["address"], 8))


@attempt("signal a process of the host (kill)", "ESRCH")
def kill_host(context: Context) -> str:
    os.kill(context["host"]["pid"], signal.SIGCONT)
    return "sent SIGCONT"


@attempt("signal another job's process (kill)", "ESRCH")
def kill_job(context: Context) -> str:
    for pid in victims(context):
        os.kill(pid, signal.SIGCONT)
    return "sent SIGCONT"


@attempt("signal a process with a value (rt_sigqueueinfo)", "ESRCH")
def queue_signal(context: Context) -> str:
    info = ctypes.create_string_buffer(struct.pack("iii", signal.SIGCONT, 0, -1), 128)
    call("rt_sigqueueinfo", context["host"]["pid"], int(signal.SIGCONT), info)
    return "sent SIGCONT"


@attempt("signal a process by a file's owner (F_SETOWN)", "ESRCH")
def set_owner(context: Context) -> str:
    read, _ = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETOWN, context["host"]["pid"])
    return "the victim would get SIGIO"


@attempt("hold a process by descriptor (pidfd_open)", "ESRCH")
def open_pidfd(context: Context) -> str:
    call("pidfd_open", context["host"]["pid"], 0)
    return "have a descriptor of it"


@attempt("take a descriptor out of process 1 (pidfd_getfd)", "EPERM")
def take_descriptor(context: Context) -> str:
    with preparing("open process 1"):
        pidfd = call("pidfd_open", 1, 0)
    call("pidfd_getfd", pidfd, 0, 0)
    return "have its descriptor 0"


@attempt("trace a process of the host (ptrace)", "EPERM")
def trace_host(context: Context) -> str:
    call("ptrace", PTRACE_SEIZE, context["host"]["pid"], 0, 0)
    return "traced it"


@attempt("trace another process of the job (ptrace)", "EPERM")
def trace_own(context: Context) -> str:
    call("ptrace", PTRACE_SEIZE, os.getppid(), 0, 0)
    return "traced it"


@attempt("read a process's memory (process_vm_readv)", "EPERM")
def read_memory(context: Context) -> str:
    local, remote = memory_of(context)
    return f"read {call('process_vm_readv', context['host']['pid'], local, 1, remote, 1, 0)} bytes"


@attempt("write a process's memory (process_vm_writev)", "EPERM")
def write_memory(context: Context) -> str:
    """What is written is what the victim has there: zeros."""
    local, remote = memory_of(context)
    return f"wrote {call('process_vm_writev', context['host']['pid'], local, 1, remote, 1, 0)} bytes"


@attempt("open a process's memory (/proc/PID/mem)", "absent")
def open_memory(context: Context) -> str:
    def probe(path: str) -> str:
        os.close(os.open(path, os.O_RDWR))
        return f"opened {path}"

    return try_each([f"/proc/{pid}/mem" for pid in victims(context)], probe)


@attempt("read a process's environment (/proc/PID/environ)", "absent")
def read_environment(context: Context) -> str:
    return try_each([f"/proc/{pid}/environ" for pid in reversed(victims(context))])


@attempt("read a process's arguments (/proc/PID/cmdline)", "absent")
def read_arguments(context: Context) -> str:
    return try_each([f"/proc/{pid}/cmdline" for pid in reversed(victims(context))])


@attempt("compare what processes share (kcmp)", "EPERM")
def compare(context: Context) -> str:
    return f"order {call('kcmp', os.getpid(), context['host']['pid'], 0, 0, 0)}"


@attempt("advise another process's memory away (process_madvise)", "EPERM")
def advise(context: Context) -> str:
    with preparing("open the parent"):
        pidfd = call("pidfd_open", os.getppid(), 0)
    address = ctypes.addressof(ctypes.c_char.from_buffer(PAGE))
    place = ctypes.create_string_buffer(struct.pack("PN", address, len(PAGE)))
    call("process_madvise", pidfd, place, 1, MADV_COLD, 0)
    return "advised its parent's memory"


@attempt("move a process's memory between nodes (migrate_pages)", "EPERM")
def migrate(context: Context) -> str:
    nodes = ctypes.create_string_buffer(struct.pack("Q", 1))
    call("migrate_pages", context["host"]["pid"], 2, nodes, nodes)
    return "moved it to where it is"


@attempt("slow a process of the host down (setpriority)", "ESRCH")
def slow_down(context: Context) -> str:
    pid = context["host"]["pid"]
    os.setpriority(PRIO_PROCESS, pid, os.getpriority(PRIO_PROCESS, pid))
    return "set the priority that it had"


@attempt("pin a process of the host to a cpu (sched_setaffinity)", "ESRCH")
def pin(context: Context) -> str:
    pid = context["host"]["pid"]
    os.sched_setaffinity(pid, os.sched_getaffinity(pid))
    return "set the cpus that it had"


@attempt("limit a process of the host (prlimit)", "ESRCH")
def limit(context: Context) -> str:
    old = ctypes.create_string_buffer(16)
    call("prlimit64", context["host"]["pid"], 7, None, old)
    call("prlimit64", context["host"]["pid"], 7, old, None)
    return "set the limit that it had"


@attempt("run before all others (SCHED_FIFO)", "EPERM")
def real_time(context: Context) -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "runs in real time"


@attempt("raise the own priority (nice)", "EACCES")
def raise_priority(context: Context) -> str:
    os.setpriority(PRIO_PROCESS, 0, -5)
    return "runs with nice -5"


@attempt("read and write before all others (ioprio_set)", "EPERM")
def io_priority(context: Context) -> str:
    call("ioprio_set", 1, 0, IOPRIO_REALTIME)
    return "has real-time I/O"


@attempt("choose the pid of a new process (clone3 set_tid)", "ENOSYS")
def choose_pid(context: Context) -> str:
    wanted = ctypes.create_string_buffer(struct.pack("i", context["free_pid"]))
    fields = [0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0]
    pid = call("clone3", ctypes.create_string_buffer(struct.pack("11Q", *fields)), 88)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return f"got pid {pid}"


@attempt("pretend to be another process (SCM_CREDENTIALS)", "EPERM")
def forge_credentials(context: Context) -> str:
    near, far = socket.socketpair()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    forged = array.array("i", [1, os.getuid(), os.getgid()])
    near.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, forged)])
    return "the receiver is told that process 1 sent it"
