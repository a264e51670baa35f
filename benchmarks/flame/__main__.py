"""`python -m benchmarks.flame`: flame graphs of the server under launches and under a hundred readers of a log.

As root, with py-spy. Writes launches.svg and streaming.svg, and prints where the time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from harness import ROOT, Server

from benchmarks.cases.launch import DO_NOTHING
from benchmarks.cases.logs import write
from benchmarks.flame import drawing, stacks
from benchmarks.flame.parts import PARTS
from benchmarks.site import connected, cpu_seconds, run_clients, serving
from joblet.client import Client

OUT = ROOT / "docs/benchmarks"
IN_FLIGHT = 8
READERS = 100
LOG = 16 << 20
"""bytes that each of the readers reads, again and again"""
WARM_UP = 2.0
RATE = 250
"""samples a second"""
LEAST = 0.004
"""share of the samples below which a frame is not drawn"""


@asynccontextmanager
async def going_on(action: Callable[[], Awaitable[None]], tasks: int) -> AsyncIterator[list[int]]:
    """Have an action done again and again by so many tasks; yields how often it has been, as the only number."""
    done = [0]

    async def again() -> None:
        while True:
            await action()
            done[0] += 1

    working = [asyncio.create_task(again()) for _ in range(tasks)]
    try:
        await asyncio.sleep(WARM_UP)
        yield done
    finally:
        failed = [task for task in working if task.done()]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        for task in failed:
            task.result()


async def sample(server: Server, seconds: int) -> Counter[stacks.Stack]:
    """What the thread does that holds the interpreter. Others wait, or are in the kernel or in SQLite."""
    with tempfile.NamedTemporaryFile(prefix="joblet-stacks-") as file:
        spy = str(Path(sys.executable).with_name("py-spy"))
        options = ["--duration", str(seconds), "--rate", str(RATE), "--format", "raw", "--function", "--threads"]
        command = [spy, "record", "--pid", str(server.pid), "--gil", *options, "--output", file.name]
        before = cpu_seconds(server.pid)
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, errors = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"py-spy: {errors.decode()}")
        found = stacks.parse(await asyncio.to_thread(Path(file.name).read_text))
        used = cpu_seconds(server.pid) - before
        print(f"\nthe interpreter was held for {sum(found.values()) / RATE:.1f} s; processor time {used:.1f} s")
        return found


async def launches(server: Server, client: Client, seconds: int) -> Counter[stacks.Stack]:
    """Jobs that do nothing, some at a time."""

    async def run() -> None:
        job = await client.run(*DO_NOTHING)
        end = await job.wait()
        assert end.status == "COMPLETED", end

    async with going_on(run, IN_FLIGHT) as done:
        before = done[0]
        found = await sample(server, seconds)
        print(f"{(done[0] - before) / seconds:.0f} jobs a second while they were sampled")
    return found


async def streaming(server: Server, client: Client, seconds: int) -> Counter[stacks.Stack]:
    """A log, read by many."""
    job = await write(client, LOG)

    async def read() -> None:
        await run_clients("logs", server.port, server.certificates, job, READERS, LOG)

    async with going_on(read, 1):
        return await sample(server, seconds)


GRAPHS = {
    "launches": (launches, f"joblet serve: {IN_FLIGHT} jobs at a time, one after the other"),
    "streaming": (streaming, f"joblet serve: a log to {READERS} readers"),
}


async def run(names: Sequence[str], seconds: int, out: Path) -> None:
    for name in names:
        load, title = GRAPHS[name]
        with serving() as server:
            async with connected(server) as client:
                found = await load(server, client, seconds)
        drawing.draw(stacks.tree(found, LEAST), f"{title} ({sum(found.values())} samples)", out / f"{name}.svg")
        print(f"\n{name}: share of the interpreter's time")
        for part, share in stacks.shares(found, PARTS).items():
            print(f"{share:7.1%}  {part}")
        print("\nwith all that they call")
        for frame, share in list(stacks.inclusive(found).items())[:40]:
            print(f"{share:7.1%}  {frame}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.flame", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graphs", nargs="*", metavar="GRAPH", help=f"{', '.join(GRAPHS)}; none is both")
    parser.add_argument("--seconds", type=int, default=15, help="for which each is sampled (15)")
    parser.add_argument("--out", type=Path, default=OUT, help="directory for the graphs (docs/benchmarks)")
    options = parser.parse_args(arguments)
    if unknown := set(options.graphs) - set(GRAPHS):
        parser.error(f"no such graph: {', '.join(sorted(unknown))}")
    options.out.mkdir(parents=True, exist_ok=True)
    uvloop.run(run(options.graphs or list(GRAPHS), options.seconds, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
