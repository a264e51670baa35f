# ruff: noqa: ASYNC222, ASYNC230 -- blocking for a moment holds up nobody here
from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import open_descriptors

from joblet.executor.local.spawn import Process, spawn

pytestmark = pytest.mark.timeout(20)

GLIBC_SIGNALS = 1 << 31 | 1 << 32
"""32 and 33, which no program may use: glibc's posix_spawn leaves them ignored"""

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_CLOEXEC)
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):  # a test has closed it
            os.close(end)


def start(path: str, *arguments: str, **descriptors: int) -> Process:
    targets = {int(target[1:]): source for target, source in descriptors.items()}
    return Process(*spawn(path, [path, *arguments], targets), child=True)


async def output(path: str, *arguments: str, null: int, pipe: tuple[int, int]) -> str:
    """What a program writes to descriptor 1 until it has ended."""
    process = start(path, *arguments, _0=null, _1=pipe[1], _2=null)
    os.close(pipe[1])
    with open(pipe[0], closefd=False, encoding="utf-8") as stream:
        text = await asyncio.to_thread(stream.read)
    await process.wait()
    return text


def is_open(fd: int) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


LIST = (
    "import os; print(sorted((int(fd), os.readlink(f'/proc/self/fd/{fd}'))"
    " for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')))"
)


async def test_a_process_has_exactly_its_descriptors(null: int, pipe: tuple[int, int], tmp_path: Path) -> None:
    inherited = {fd for fd in range(3, 1024) if is_open(fd) and os.get_inheritable(fd)}  # see the next test
    folder = os.open(tmp_path, os.O_RDONLY | os.O_CLOEXEC)
    others = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(100)]
    try:
        process = start(PYTHON, "-ISc", LIST, _0=null, _1=pipe[1], _2=null, _4=folder)
        os.close(pipe[1])
        with open(pipe[0], closefd=False, encoding="utf-8") as stream:
            text = await asyncio.to_thread(stream.read)
        await process.wait()
        shown = dict(ast.literal_eval(text))
        assert shown.keys() - inherited == {0, 1, 2, 4}
        assert (shown[0], shown[2], shown[4]) == (os.devnull, os.devnull, str(tmp_path))
    finally:
        for fd in (folder, *others):
            os.close(fd)


async def test_sources_and_targets_may_cross(null: int, pipe: tuple[int, int], tmp_path: Path) -> None:
    """Each source's number is the other's target."""
    (tmp_path / "a").write_text("A")
    (tmp_path / "b").write_text("B")
    one, other = (os.open(tmp_path / name, os.O_RDONLY | os.O_CLOEXEC) for name in ("a", "b"))
    try:
        script = f"import os; print(os.read({other}, 9) + os.read({one}, 9))"
        targets = {0: null, 1: pipe[1], 2: null, other: one, one: other}
        process = Process(*spawn(PYTHON, [PYTHON, "-ISc", script], targets), child=True)
        os.close(pipe[1])
        await process.wait()
        assert os.read(pipe[0], 100) == b"b'AB'\n"
    finally:
        os.close(one)
        os.close(other)


async def test_the_environment_is_empty(null: int, pipe: tuple[int, int]) -> None:
    assert await output("/usr/bin/env", null=null, pipe=pipe) == ""


async def test_the_session_is_its_own(null: int) -> None:
    process = start("/bin/sleep", "100", _0=null, _1=null, _2=null)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def test_signals_are_neither_blocked_nor_ignored(null: int, pipe: tuple[int, int]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    kept = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        status = await output("/bin/cat", "/proc/self/status", null=null, pipe=pipe)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGHUP, kept)
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) & ~GLIBC_SIGNALS == 0


async def test_a_program_that_is_absent_is_told_and_nothing_stays_open(null: int) -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        spawn("/absent/program", ["program"], {0: null})
    assert not open_descriptors() - before


async def test_a_process_that_has_ended_leaves_nothing(null: int) -> None:
    before = open_descriptors()
    process = start("/bin/true", _0=null, _1=null, _2=null)
    assert len(open_descriptors() - before) == 1
    await process.wait()
    await process.wait()
    assert not open_descriptors() - before
    assert not alive(process.pid), "it was reaped"
    os.fstat(null)  # the source stays open


async def test_a_signal_reaches_the_process_and_after_its_end_nobody(null: int) -> None:
    process = start("/bin/sleep", "100", _0=null, _1=null, _2=null)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    await process.wait()
    process.send_signal(signal.SIGKILL)
    process.close()


async def test_a_process_that_is_no_longer_followed_goes_on(null: int) -> None:
    before = open_descriptors()
    process = start("/bin/sleep", "100", _0=null, _1=null, _2=null)
    waiting = asyncio.create_task(process.wait())
    process.close()
    process.close()
    await waiting
    assert not open_descriptors() - before
    assert alive(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)


async def test_a_process_of_somebody_else_is_followed_and_not_reaped(null: int, pipe: tuple[int, int]) -> None:
    shell = start("/bin/sh", "-c", "sleep 100 >/dev/null & echo $!", _0=null, _1=pipe[1], _2=null)
    await shell.wait()
    pid = int(os.read(pipe[0], 100))
    orphan = Process(pid, os.pidfd_open(pid), child=False)
    orphan.send_signal(signal.SIGKILL)
    await orphan.wait()


async def test_many_processes_are_followed_at_once(null: int) -> None:
    before = open_descriptors()
    processes = [start("/bin/true", _0=null, _1=null, _2=null) for _ in range(40)]
    await asyncio.gather(*(process.wait() for process in processes))
    assert not open_descriptors() - before
