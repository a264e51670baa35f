"""Attempts that change the process that makes them, or may end it: each in a forked child."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

_PATIENCE = 20
"""seconds until a child that hangs, as on a dead network file system, is ended by SIGALRM"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: well, with `value`; or with an errno, by a signal, or in another trouble."""

    value: str = ""
    errno: int = 0
    signal: int = 0
    trouble: str = ""

    @property
    def ok(self) -> bool:
        """Whether it worked."""
        return not (self.errno or self.signal or self.trouble)

    @property
    def why(self) -> str:
        """Why it did not."""
        if self.errno:
            text = os.strerror(self.errno)
            return text[:1].lower() + text[1:]
        if self.signal == signal.SIGALRM:
            return f"no answer within {_PATIENCE} seconds"
        if self.signal:
            return f"ended by {_signal_name(self.signal)}"
        return self.trouble


def attempt(action: Callable[[], str | None]) -> Outcome:
    """Run `action` in a child. What it returns is the outcome's value, an OSError its errno."""
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        return Outcome(errno=error.errno or 0, trouble=str(error))
    if pid == 0:
        _be_child(action, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return Outcome(signal=os.WTERMSIG(status))
    try:
        return Outcome(**json.loads(answer))
    except (ValueError, TypeError):
        return Outcome(trouble="it ended without an answer")


def _be_child(action: Callable[[], str | None], writing: int) -> None:
    """Never returns: what is buffered in this copy of the process must not be written twice."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_PATIENCE)
        answer = _answer(action)
        with contextlib.suppress(OSError):
            os.write(writing, json.dumps(answer).encode())
    finally:
        os._exit(0)


def _answer(action: Callable[[], str | None]) -> dict[str, str | int]:
    try:
        return {"value": action() or ""}
    except OSError as error:
        return {"errno": error.errno} if error.errno else {"trouble": str(error) or type(error).__name__}
    except BaseException as error:
        return {"trouble": f"{type(error).__name__}: {error}"}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
