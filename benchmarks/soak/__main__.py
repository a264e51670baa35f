"""`python -m benchmarks.soak`: everyday load on a server of its own, and what grows meanwhile. Needs root.

100,000 short jobs an hour, 20 followers of a job that writes lines, a workflow a minute, and every 5 seconds a job that
is stopped, a stream that is left, or wrong requests. All results are checked: wrong ones give exit status 1. What has
grown is said, and is no failure.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import uvloop
from harness import Server, memory_kb, poll_until

from benchmarks.site import connected, proportional_set_size, serving
from benchmarks.soak.account import Account, Idle
from benchmarks.soak.load import Ends, Findings, Load, TooMuchWrong, followed
from benchmarks.soak.samples import Sample, Sampler, Times, children, groups, mounts
from joblet.client import JobletError

JOBS_A_MINUTE = 100_000 / 60
SLOTS = 256


async def soak(
    server: Server, options: argparse.Namespace, times: Times, samples: list[Sample], findings: Findings
) -> None:
    """Put the load on the server, and add samples meanwhile."""
    seconds = options.minutes * 60
    async with connected(server) as client, asyncio.TaskGroup() as besides:
        ends = Ends(client)
        load = Load(server, client, ends, times, findings)
        watching = [besides.create_task(ends.watch())]
        async with followed(server, client, ends, options.followers, findings):
            watching.append(besides.create_task(take_samples(server, times, samples, options.every)))
            async with asyncio.TaskGroup() as group:
                group.create_task(load.jobs(round(JOBS_A_MINUTE * options.minutes), seconds))
                group.create_task(load.workflows(max(1, round(options.minutes)), seconds))
                group.create_task(load.disturbances(max(3, round(seconds / 5)), seconds))
        for task in watching:
            task.cancel()


async def take_samples(server: Server, times: Times, samples: list[Sample], every: float) -> None:
    """Add a sample each so many seconds, until cancelled."""
    sampler = Sampler(server, times)
    while True:
        await asyncio.sleep(every)
        samples.append(await asyncio.to_thread(sampler.sample))
        server.lines.clear()  # what the server says is looked at as it comes


def idle(server: Server) -> Idle:
    """What a server holds that has nothing to do."""
    return Idle(
        memory_kb(server.pid) * 1024, proportional_set_size(server.pid), len(os.listdir(f"/proc/{server.pid}/fd"))
    )


def look_for_leftovers(server: Server, findings: Findings) -> None:
    """All jobs have ended, so there should be none."""

    def left() -> list[object]:
        return [*children(server.pid), *groups(server.state), *mounts(server.pid, server.state)]

    try:
        poll_until(lambda: not left())
    except AssertionError:
        findings.wrong.append(f"left over: {left()}")


def hold(options: argparse.Namespace) -> Account:
    """The whole soak: a server, its load, and the same state once more with another server. Publishes the account."""
    findings = Findings()
    times = Times()
    samples: list[Sample] = []
    keep_all = {"maxJobs": 0, "maxWorkflows": 0}  # so that what the history takes is seen
    with serving(options.scratch, slots=SLOTS, retention=keep_all, jobTimeout="24h") as server:
        server.on_line = findings.hear
        first = idle(server)
        began = time.monotonic()
        try:
            uvloop.run(soak(server, options, times, samples, findings))
        except* (TooMuchWrong, JobletError) as errors:
            findings.wrong.append(f"given up: {errors.exceptions!r}")
        took = time.monotonic() - began
        look_for_leftovers(server, findings)
        last = idle(server)
        server.stop()
        try:
            restarted = idle(server.start())
        except AssertionError as error:
            findings.wrong.append(f"did not start again: {error}")
            restarted = last
        account = Account(options.minutes, took, times.ended, samples, findings.wrong, first, last, restarted)
        publish(account, options.out)
        print("removing the server's state: some minutes for an hour's jobs", file=sys.stderr)
    return account


def publish(account: Account, out: Path | None) -> None:
    """Say what was found, and write it to a directory."""
    print(account.text(), flush=True)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "soak.json").write_text(account.json())
    if importlib.util.find_spec("matplotlib"):
        from benchmarks.soak import figure

        figure.draw(account, out / "soak.svg")
    else:
        print("no soak.svg: it needs matplotlib", file=sys.stderr)


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="of load (60)")
    parser.add_argument("--followers", type=int, default=20, help="clients that follow the job that writes (20)")
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples (10)")
    parser.add_argument("--out", type=Path, help="directory for soak.json and, with matplotlib, soak.svg")
    parser.add_argument("--scratch", type=Path, help="directory for the server's state, 3 GB for an hour (/tmp)")
    options = parser.parse_args(arguments)
    return 1 if hold(options).wrong else 0


if __name__ == "__main__":
    sys.exit(main())
