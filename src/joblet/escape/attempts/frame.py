"""What every attempt stands on. Sent into a job as source, so: the standard library only, for Python 3.8 and newer.

An attempt returns what it has gained, or raises: the OSError by which the kernel refused it, or Absent. Each runs in a
process of its own, so that a signal or a hang is an outcome and not the end. What an outcome means is judged outside.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Dict  # noqa: UP035 (evaluated, and Python 3.8 cannot subscript its own)

Context = Dict[str, Any]  # noqa: UP006
"""names, pids and paths of the victims: joblet.escape.victims"""


class Absent(Exception):
    """There is nothing to be had: an empty file, a directory without entries."""


class NotTried(Exception):
    """The attempt cannot be made: what it would be made on is not there."""


@dataclass(frozen=True)
class Gap:
    """A hole that a host without `feature` leaves, and that joblet cannot close there."""

    feature: str
    advice: str
    missing: Callable[[], bool] | None = None
    """asked in the job: whether this kernel lacks it; None: the observer outside knows"""


@dataclass(frozen=True)
class Attempt:
    """One way to break out, and the refusals that are right."""

    name: str
    category: str
    act: Callable[[Context], str]
    expect: frozenset[str]
    """errno names, `absent`, `signal SIGSYS`, or the reason that a job of its own ends with"""
    gap: Gap | None
    harmful: bool
    """without isolation it harms the host that it runs on"""
    machine: str
    """the one architecture that it is about; empty: all"""
    limits: dict[str, int]
    """not empty: it runs in a job of its own with these limits"""
    observed: bool
    """it is judged from outside while it runs: joblet.escape.observed"""
    seconds: int


@dataclass
class Registry:
    """The attempts of the modules loaded so far, by name."""

    attempts: dict[str, Attempt] = field(default_factory=dict)


ALL = Registry()


def attempt(
    name: str,
    *expect: str,
    gap: Gap | None = None,
    harmful: bool = False,
    machine: str = "",
    limits: dict[str, int] | None = None,
    observed: bool = False,
    seconds: int = 120,
) -> Callable[[Callable[[Context], str]], Callable[[Context], str]]:
    """Make a function an attempt that is refused by one of `expect`."""

    def register(act: Callable[[Context], str]) -> Callable[[Context], str]:
        if name in ALL.attempts:
            raise ValueError("two attempts are named " + name)
        category = act.__module__.rpartition(".")[2]
        ALL.attempts[name] = Attempt(
            name, category, act, frozenset(expect), gap, harmful, machine, limits or {}, observed, seconds
        )
        return act

    return register


@contextlib.contextmanager
def preparing(what: str) -> Iterator[None]:
    """What must succeed before the attempt itself; its failure is no refusal."""
    try:
        yield
    except OSError as error:
        raise RuntimeError(f"cannot {what}: {error}") from error


def leave_session() -> None:
    """setsid(2), which the leader of a process group may not call: each attempt is one."""
    with preparing("make a session"):
        os.setpgid(0, os.getpgid(os.getppid()))
        os.setsid()


def read_some(path: str, size: int = 4096) -> str:
    """Read from a file. Evidence tells how much, never what."""
    with open(path, "rb") as file:
        content = file.read(size)
    if not content:
        raise Absent(f"{path} is empty")
    return f"read {len(content)} bytes of {path}"


def try_each(paths: list[str], act: Callable[[str], str] = read_some) -> str:
    """The first success; where there is none, the one refusal that all share. What does not exist is Absent."""
    refusals: dict[str, str] = {}
    for path in paths:
        try:
            return act(path)
        except OSError as error:
            refusals.setdefault(error_name(error), path)
        except Absent:
            refusals.setdefault("absent", path)
    if set(refusals) <= {"absent", "ENOENT", "ENOTDIR"}:
        raise Absent("nothing of " + ", ".join(paths))
    if len(refusals) > 1:
        raise RuntimeError(f"refused in different ways: {refusals}")
    name, path = refusals.popitem()
    raise OSError(getattr(errno, name), path)


def reached(errors: list[int], call: Callable[[], object]) -> str:
    """Make a call that is harmless because of its arguments: with one of `errors` it got past all permission."""
    try:
        call()
    except OSError as error:
        if error.errno not in errors:
            raise
        return f"the kernel went as far as {error_name(error)}"
    return "the call succeeded"


def error_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, f"errno {error.errno}")


def tell(**news: Any) -> None:
    """A line for the observer outside."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, (json.dumps(news) + "\n").encode())


def outcome_of(act: Callable[[Context], str], context: Context) -> tuple[str, str]:
    """Outcome and detail of an attempt that ends by itself."""
    try:
        return "done", act(context)
    except Absent as nothing:
        return "absent", str(nothing)
    except NotTried as reason:
        return "not tried", str(reason)
    except OSError as error:
        return error_name(error), str(error)
    except MemoryError:
        return "ENOMEM", "MemoryError"
    except BaseException as error:  # a fault of the attempt's own must not look like a refusal
        return "error", f"{type(error).__name__}: {error}"


def run_apart(one: Attempt, context: Context) -> tuple[str, str]:
    """Run it in a child with a time limit, and end whatever it leaves in its process group."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.close(read)
        signal.alarm(one.seconds)
        result = outcome_of(one.act, context)
        os.write(write, json.dumps([part[:1000] for part in result]).encode())
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    os.set_blocking(read, False)
    try:
        answer = os.read(read, 65536)
    except BlockingIOError:
        answer = b""
    os.close(read)
    if answer:
        outcome, detail = json.loads(answer)
        return outcome, detail
    if os.WIFSIGNALED(status):
        return "signal " + signal.Signals(os.WTERMSIG(status)).name, ""
    return "error", f"the attempt ended with status {os.WEXITSTATUS(status)} and said nothing"


def run(names: list[str], context: Context) -> None:
    """Run the attempts and tell of each in a line."""
    for name in names:
        one = ALL.attempts[name]
        if one.machine not in ("", platform.machine()):
            outcome, detail = "not tried", f"only for {one.machine}"
        elif one.observed:
            signal.alarm(one.seconds)  # the observer must not wait for ever
            outcome, detail = outcome_of(one.act, context)
        else:
            outcome, detail = run_apart(one, context)
        lacks = bool(outcome == "done" and one.gap and one.gap.missing and one.gap.missing())
        tell(attempt=name, outcome=outcome, detail=detail, lacks=lacks)


def main(arguments: list[str]) -> None:
    """`NAMES CONTEXT` as JSON, after the modules have been loaded."""
    names, context = (json.loads(argument) for argument in arguments)
    run(names, context)
