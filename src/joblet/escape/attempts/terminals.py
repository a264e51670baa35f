"""Typing into terminals, the host's and those that a client may read."""

from __future__ import annotations

import errno
import fcntl
import os
import termios

from joblet.escape.attempts.calls import call
from joblet.escape.attempts.frame import Context, attempt, leave_session, preparing

TIOCSTI, TIOCLINUX, TIOCCONS = 0x5412, 0x541C, 0x541D
GET_SHIFT_STATE = b"\x06"


def own_terminal() -> int:
    """A new terminal that controls this process's session."""
    leave_session()
    with preparing("make a terminal"):
        _, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    return slave


@attempt("open the controlling terminal", "ENXIO")
def controlling(context: Context) -> str:
    os.close(os.open("/dev/tty", os.O_RDWR))
    return "opened /dev/tty"


@attempt("open a terminal of the host", "ENOENT")
def host_terminal(context: Context) -> str:
    os.close(os.open(context["host"]["terminal"], os.O_RDWR | os.O_NOCTTY))
    return "opened it"


@attempt("type into a terminal (TIOCSTI)", "EPERM")
def type_in(context: Context) -> str:
    fcntl.ioctl(own_terminal(), TIOCSTI, b"x")
    return "typed x"


@attempt("type into a terminal with high bits set (CVE-2019-10063)", "EPERM")
def type_in_high(context: Context) -> str:
    """The kernel takes the request as 32 bits; a filter that compares 64 lets this through."""
    call("ioctl", own_terminal(), 1 << 32 | TIOCSTI, b"x")
    return "typed x"


@attempt("paste into the console (TIOCLINUX)", "EPERM")
def paste(context: Context) -> str:
    """Where there is no console to be had the job's own terminal says that it is none."""
    try:
        place = os.open("/dev/tty0", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        place = own_terminal()
    try:
        fcntl.ioctl(place, TIOCLINUX, GET_SHIFT_STATE)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        return "the terminal was asked"
    return "the console has answered"


@attempt("take the console's output (TIOCCONS)", "EPERM")
def take_console(context: Context) -> str:
    fcntl.ioctl(own_terminal(), TIOCCONS)
    with open("/dev/console", "w") as console:
        fcntl.ioctl(console, TIOCCONS)
    return "took it, and gave it back"
