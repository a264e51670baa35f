"""Attempts whose outcome shows outside of the job that makes them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from joblet.escape import program
from joblet.escape.attempts import bombs, quotas, stops
from joblet.escape.attempts.frame import Attempt
from joblet.escape.runner import News, Run, Runner, read_line
from joblet.escape.verdict import DONE, UNTRIED, Outcome
from joblet.escape.victims import Victims

MEGABYTE = 1 << 20
NOTICE = 4096
"""bytes that a log may have beyond its limit, for the line that says so"""
REUSE_TRIES = 200
REUSE_JOBS = 5
"""another process may have got the pid first, on a host that starts many"""


class Scene:
    """Where one attempt is made."""

    def __init__(self, runner: Runner, victims: Victims, log_megabytes: int) -> None:
        self.runner = runner
        self.victims = victims
        self.log_megabytes = log_megabytes

    async def start(self, attempt: Attempt, **changes: Any) -> Run:
        """Start a program that makes one attempt, with changes of the context."""
        return await self.runner.start(self.arguments(attempt, **changes), attempt.limits)

    def arguments(self, attempt: Attempt, **changes: Any) -> list[str]:
        return program.arguments(attempt.category, [attempt.name], {**self.victims.context, **changes})


Observer = Callable[[Scene, Attempt], Awaitable[Outcome]]


async def observe(scene: Scene, attempt: Attempt) -> Outcome:
    """Make an attempt and see what comes of it."""
    return await _OBSERVERS[attempt.act](scene, attempt)


def reported(news: News | None) -> Outcome:
    """What an attempt says of itself."""
    if news is None:
        return Outcome("error", "the attempt has said nothing")
    if "outcome" not in news:
        return Outcome("error", f"the attempt has said {news}")
    return Outcome(news["outcome"], news["detail"])


async def next_of(run: Run) -> News | None:
    """The first line that a program tells; None when it ends without."""
    async for news in run.news():
        return news
    return None


async def _stop_and_connect(scene: Scene, attempt: Attempt) -> Outcome:
    run = await scene.start(attempt)
    news = await next_of(run)
    if news is None or "port" not in news:
        return reported(news)
    await run.stop()
    return await _connect(news["port"])


async def _end_and_connect(scene: Scene, attempt: Attempt) -> Outcome:
    run = await scene.start(attempt)
    news: News = {}
    async for more in run.news():
        news |= more
        if "outcome" in news or news.keys() >= {"port", "door"}:
            break
    if "port" not in news:
        return reported(news)
    await _connect(news["door"])
    await run.reason()
    return await _connect(news["port"])


async def _connect(port: int) -> Outcome:
    """Whether something answers. What has escaped ends by that."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError as error:
        return Outcome("ECONNREFUSED", str(error))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Outcome(DONE, f"a process of the job answers on port {port}")


async def _ask_victim(scene: Scene, attempt: Attempt) -> Outcome:
    run = await scene.start(attempt)
    news = await next_of(run)
    if news is None or "sent" not in news:
        return reported(news)
    await run.stop()
    if await scene.victims.was_signalled():
        return Outcome(DONE, "a process of the host got the signal")
    return Outcome("absent", "the host's process got none")


async def _stop_after_reuse(scene: Scene, attempt: Attempt) -> Outcome:
    outcome = Outcome(UNTRIED)
    for _ in range(REUSE_JOBS):
        run = await scene.start(attempt)
        await run.reason()
        outcome = await _stop_reused(run)
        if outcome.name != UNTRIED:
            break
    return outcome


async def _stop_reused(run: Run) -> Outcome:
    """Give the pids of what has ended to processes of ours, and stop it: they must not notice."""
    pids = run.host_pids()
    if not pids:
        return Outcome(UNTRIED, "needs to read the server's state directory, as root on its host")
    for pid in pids:
        try:
            process = await _process_with(pid)
        except OSError as error:
            return Outcome(UNTRIED, f"cannot choose the pid of a process: {error}")
        try:
            await run.stop()
            # A signal would have come by now, before the end of the input that it ends by otherwise.
            process.stdin.close()  # type: ignore[union-attr]
            if await process.wait() != 0:
                return Outcome(DONE, f"the stop ended another process with pid {pid}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return Outcome("absent", f"the processes that got pid {' and '.join(map(str, pids))} live")


async def _process_with(pid: int) -> asyncio.subprocess.Process:
    """A process with that pid, which ends with status 0 when its input does."""
    for _ in range(REUSE_TRIES):
        _give_next(pid)
        process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
        if process.pid == pid:
            return process
        process.kill()
        await process.wait()
    raise OSError(f"pid {pid} was not given in {REUSE_TRIES} tries")


def _give_next(pid: int) -> None:
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1), encoding="ascii")


async def _ask_for_one(scene: Scene, attempt: Attempt) -> Outcome:
    run = await scene.start(attempt)
    try:
        news = await next_of(run)
        if news is None or "taken" not in news:
            return reported(news)
        losses = []
        other = await scene.start(attempt, one=True)
        if (outcome := reported(await next_of(other))).name != DONE:
            losses.append(f"another job gets none ({outcome.name})")
        if (outcome := await _ask_here(scene.arguments(attempt, one=True))).name != DONE:
            losses.append(f"the host gets none ({outcome.name})")
        taken = f"{news['taken']} taken, then {news['refusal'] or 'no more tried'}"
        return Outcome(DONE, f"{taken}: {', '.join(losses)}") if losses else Outcome("absent", taken)
    finally:
        await run.stop()


async def _ask_here(arguments: list[str]) -> Outcome:
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return reported(read_line(output.splitlines()[-1]) if output else None)


async def _count_output(scene: Scene, attempt: Attempt) -> Outcome:
    limit = scene.log_megabytes * MEGABYTE
    run = await scene.start(attempt)
    beyond = await run.output(limit)
    if len(beyond) <= NOTICE:
        return Outcome("cut off", beyond[-200:].decode(errors="replace").strip())
    detail = f"the log has {(limit + len(beyond)) // MEGABYTE} MB"
    return Outcome(DONE, detail, "" if limit or not attempt.gap else attempt.gap.feature)


_OBSERVERS: dict[Callable[[dict[str, Any]], str], Observer] = {
    stops.outlive_stop: _stop_and_connect,
    stops.outlive_command: _end_and_connect,
    stops.ignore_stop: _stop_and_connect,
    stops.halted: _stop_and_connect,
    stops.fork_on: _stop_and_connect,
    stops.signal_all: _ask_victim,
    stops.reuse_pid: _stop_after_reuse,
    quotas.inotify: _ask_for_one,
    quotas.signals: _ask_for_one,
    quotas.queues: _ask_for_one,
    quotas.asynchronous: _ask_for_one,
    bombs.log_flood: _count_output,
}
