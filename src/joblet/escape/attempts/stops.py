"""Living on after the end of the job. The observer stops the job, or sees it end, and then connects to the port that
every process of the attempt holds open: none may answer. Whom it reaches after all ends by that."""

from __future__ import annotations

import os
import signal
import socket
import time

from joblet.escape.attempts.frame import Context, attempt, tell

PATIENCE = 100
"""seconds after which what has escaped ends by itself"""


def listen() -> socket.socket:
    """A socket on a port of the loopback interface, which the network namespaces of job and observer share."""
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    one.listen(16)
    return one


def serve(one: socket.socket) -> None:
    """Wait until somebody connects."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    tell(port=one.getsockname()[1])
    one.settimeout(PATIENCE)
    one.accept()


def daemon(one: socket.socket) -> None:
    """Fork twice, with a session of its own in between: daemon(7)."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            serve(one)
        os._exit(0)
    os.wait()


@attempt("outlive a stop as a daemon (double fork, setsid)", "ECONNREFUSED", observed=True)
def outlive_stop(context: Context) -> str:
    daemon(listen())
    signal.pause()
    return "nobody stopped it"


@attempt("outlive the command as a daemon", "ECONNREFUSED", observed=True)
def outlive_command(context: Context) -> str:
    """The observer connects to the first port so that the command ends."""
    door = listen()
    daemon(listen())
    tell(door=door.getsockname()[1])
    door.accept()
    return "the command ends"


@attempt("outlive a stop by ignoring it (SIGTERM)", "ECONNREFUSED", observed=True)
def ignore_stop(context: Context) -> str:
    serve(listen())
    return "somebody connected"


@attempt("outlive a stop as a halted process (SIGSTOP)", "ECONNREFUSED", observed=True)
def halted(context: Context) -> str:
    one = listen()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    tell(port=one.getsockname()[1])
    one.close()
    signal.pause()
    return "nobody stopped it"


@attempt("outlive a stop by forking faster than it kills", "ECONNREFUSED", observed=True)
def fork_on(context: Context) -> str:
    """A chain of processes, each in a session of its own, each gone when the next is there."""
    one = listen()
    one.setblocking(False)
    if os.fork() == 0:
        tell(port=one.getsockname()[1])
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                one.accept()
            except BlockingIOError:
                pass
            else:
                break
            if os.fork():
                os._exit(0)
            os.setsid()
        os._exit(0)
    one.close()
    signal.pause()
    return "nobody stopped it"


@attempt("signal everything that can be signalled (kill -1)", "absent", observed=True)
def signal_all(context: Context) -> str:
    """By one that processes ignore, if they do not wait for it. The observer asks the victim, which does."""
    if os.fork() == 0:  # one that it may signal, so that the call is not refused for want of any
        signal.pause()
    os.kill(-1, signal.SIGURG)
    tell(sent=True)
    return "sent SIGURG to all"


@attempt("have a stop hit another process by a pid that is used again", "absent", observed=True)
def reuse_pid(context: Context) -> str:
    """Ends; the observer gives its pid to a victim, and stops the job."""
    return "has ended"
