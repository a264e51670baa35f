"""Using up what the kernel counts for a user or for the whole machine, not for a control group. While an attempt holds
all that it gets, the observer has the same attempt ask for one: on the host, and in another job."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Callable

from joblet.escape.attempts.calls import LIBC, call
from joblet.escape.attempts.frame import Context, attempt, error_name, tell

MOST = 200_000


def take_all(context: Context, take: Callable[[int], object]) -> str:
    """Take until the kernel refuses, tell of it, and wait to be stopped; or take one, for the observer."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    take(0)
    if context.get("one"):
        return "got one"
    refusal, taken = "", 1
    while taken < MOST and not refusal:
        try:
            take(taken)
            taken += 1
        except OSError as error:
            refusal = error_name(error)
    tell(taken=taken, refusal=refusal)
    signal.pause()
    return "nobody stopped it"


@attempt("use up the host's inotify instances", "absent", observed=True, harmful=True)
def inotify(context: Context) -> str:
    def take(count: int) -> None:
        if LIBC.inotify_init1(0) < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")

    return take_all(context, take)


@attempt("use up the host's queued signals", "absent", observed=True, harmful=True)
def signals(context: Context) -> str:
    number = int(signal.SIGRTMIN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    info = ctypes.create_string_buffer(struct.pack("iii", number, 0, -1), 128)
    return take_all(context, lambda count: call("rt_sigqueueinfo", os.getpid(), number, info))


@attempt("use up the host's message queues (mq_open)", "absent", observed=True, harmful=True)
def queues(context: Context) -> str:
    def take(count: int) -> None:
        name = f"{context['marker']}.{os.getpid()}.{count}".encode()
        call("mq_open", name, os.O_RDWR | os.O_CREAT, 0o600, None)
        call("mq_unlink", name)

    return take_all(context, take)


@attempt("use up the host's asynchronous I/O (io_setup)", "ENOSYS", observed=True, harmful=True)
def asynchronous(context: Context) -> str:
    return take_all(context, lambda count: call("io_setup", 1000, ctypes.create_string_buffer(8)))
