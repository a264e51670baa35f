"""The one place that starts processes: posix_spawn with exact descriptors, followed by pidfd.

uvloop's own subprocess support forks the interpreter, which takes twice as long (docs/decisions).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping

from joblet.executor.local.posix_spawn import posix_spawn

_ABOVE = 64
"""Sources are moved to descriptors above every target, so that no dup2 overwrites another's source."""

_DEFAULT = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ)
"""signals that Python, or who started it, may have set to something else"""


class Unfollowed(OSError):
    """A process was started and had to be killed."""


class Process:
    """A process that is followed by pidfd; it may be our child or one that an earlier server started."""

    def __init__(self, pid: int, pidfd: int, *, child: bool) -> None:
        """Takes ownership of `pidfd`. Only a child is reaped."""
        self.pid = pid
        self.was_killed = False
        """a child that ended by a signal"""
        self.ended_by_itself = False
        """a child that did not"""
        self._pidfd = pidfd
        self._child = child
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(pidfd, self._on_end)

    async def wait(self) -> None:
        """Wait until the process has ended."""
        await self._ended.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process; one that has ended is left alone."""
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Stop following a process, which goes on."""
        if not self._ended.is_set():
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._ended.set()

    def _on_end(self) -> None:
        if self._child:
            end = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            self.was_killed = end is not None and end.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
            self.ended_by_itself = not self.was_killed
        self.close()


def spawn(path: str, argv: list[str], descriptors: Mapping[int, int]) -> tuple[int, int]:
    """Start `path` in a session of its own, with an empty environment and just `descriptors` (target: source).

    Others of this process are not handed on as long as they are close-on-exec, as all are that Python opens (PEP 446).
    Returns its pid and a pidfd. The sources stay open here. Blocks for about a millisecond. Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        moved = {}
        for target, source in descriptors.items():
            moved[target] = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
            stack.callback(os.close, moved[target])
        pid = posix_spawn(path, argv, moved, _DEFAULT)
    # The pid cannot be reused before it is reaped, and only its Process reaps it.
    try:
        return pid, os.pidfd_open(pid)
    except OSError as error:  # somebody took the descriptors that have just been closed; nobody could follow it
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise Unfollowed(error.errno, error.strerror) from error
