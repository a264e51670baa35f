"""Kill the server at random instants under load, restart it, and check that nothing is lost.

    PYTHONPATH=tests python tests/fault/crash_loop.py [--cycles N] [--seed N] [--keep]

The load is jobs and workflows. Everything that is chosen is drawn from the seed: the load, and of each server's end
after how many events (answers, pieces of logs, lines of the server's log) it comes, and how long after the last of
them. Prints a summary; on a violation the seed, the cycle and what was violated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import monitors
from crash_clients import Clients, Load
from crash_jobs import OWNER, PROGRAM, Entry, Ledger, Order, Violated, draw
from crash_workflow_clients import WorkflowClients
from crash_workflow_load import WorkflowLoad
from crash_workflows import SECRET, STEP_PROGRAM, WorkflowOrder, draw_workflow
from harness import (
    PATIENCE,
    ROOT,
    Server,
    compile_stock_client,
    make_certificates,
    mounted_nosuid,
    own_ids,
    poll_until,
    processes_of,
)

from joblet.audit.query import Query, find
from joblet.audit.verify import Changed, verify_server

DISK = "/var/tmp"
"""where the state is; jobs have a /tmp of their own, so what they write for us to see is not there"""
SECTIONS: dict[str, dict[str, object]] = {
    "joblet": {"maxConcurrentJobs": 8, "maxQueuedJobs": 16, "cleanupTimeout": "1s"},
}
ALARMING = (
    "Traceback",
    "job runner failed",
    "call failed",
    "removal of ended jobs failed",
    "host cannot run jobs",
    "workflow engine failed",
    "step failed",
    "workflow cannot go on",
    "workflow has ended already",
    "without a record",
    "audit log was changed",
)
"""what the server's log never holds"""


class Fuse:
    """Does something once, after a number of events and a little later, in a thread of its own.

    It does so after `longest` seconds in any case: with every slot taken by jobs that do not end, nothing happens.
    """

    def __init__(self, events: int, delay: float, deed: Callable[[], object], longest: float = 10) -> None:
        self._left = events
        self._delay = delay
        self._deed = deed
        self._longest = longest
        self._lit = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._burn, daemon=True)
        self._thread.start()

    def hit(self) -> None:
        """One event."""
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self._lit.set()

    def light(self) -> None:
        """There are no more events."""
        self._lit.set()

    def wait(self) -> None:
        """Until it is done."""
        self._thread.join()

    def _burn(self) -> None:
        self._lit.wait(self._longest)
        time.sleep(self._delay)
        self._deed()


class CrashLoop:
    """So many lives of one server and its state directory."""

    def __init__(
        self, folder: Path, shared: Path, stock: tuple[ModuleType, ModuleType], seed: int, cycles: int
    ) -> None:
        self.ledger = Ledger()
        self._seed = seed
        self._cycles = cycles
        self._shared = shared
        (shared / "program").write_text(PROGRAM)
        (shared / "step").write_text(STEP_PROGRAM)
        self._ids = own_ids()
        isolation = {"writable": [str(shared)], "idBase": self._ids[0], "idRanges": self._ids[1]}
        self.server = Server(folder, make_certificates(folder / "certs"), isolation=isolation, **SECTIONS)
        self.server.on_line = lambda line: self._event()
        self._clients = Clients(self.ledger, stock, self._event)
        self._workflows = WorkflowClients(self._clients)
        self._fuse: Fuse | None = None
        self._orders = 0
        self._start_seconds = 1.0
        self.cycle = 0

    async def run(self) -> None:
        """Raises Violated."""
        while self.cycle < self._cycles:
            self.cycle += 1
            rng = random.Random(f"{self._seed}/{self.cycle}")
            async with asyncio.timeout(5 * PATIENCE):  # whatever hangs is a violation
                await (self._die_starting(rng) if rng.random() < 0.25 else self._live(rng))
        self.cycle += 1
        async with asyncio.timeout(5 * PATIENCE):
            await self._finish()

    async def _die_starting(self, rng: random.Random) -> None:
        """A server that is killed before it is ready, or just then."""
        if rng.random() < 0.5:
            fuse = Fuse(rng.randint(1, 12), rng.uniform(0, 0.03), self._kill)
        else:
            fuse = Fuse(0, rng.uniform(0.3, 1.1) * self._start_seconds, self._kill)
            fuse.light()
        self._fuse = fuse
        self.server.begin()
        ready = False
        with contextlib.suppress(AssertionError):
            await asyncio.to_thread(self.server.ready)
            ready = True
            fuse.light()
        await asyncio.to_thread(fuse.wait)
        self._fuse = None
        await asyncio.to_thread(self.server.kill)
        self.ledger.counts["killed just when ready" if ready else "killed while starting"] += 1

    async def _live(self, rng: random.Random) -> None:
        """A server that serves the load until it is ended."""
        begun = time.monotonic()
        await self._serve()
        self._start_seconds = time.monotonic() - begun
        gentle = rng.random() < 0.1
        end = self._terminate if gentle else self._kill
        self._fuse = fuse = Fuse(rng.randint(1, 160), rng.choice((0, rng.uniform(0, 0.004), rng.uniform(0, 0.04))), end)
        jobs = Load(self._clients, rng, lambda: self._order(rng), lambda entry: self._kill_victim(entry, rng))
        workflows = WorkflowLoad(
            self._workflows, rng, lambda: self._workflow(rng), lambda job_id: self._kill_monitor(job_id, rng)
        )
        acting = asyncio.gather(jobs.run(at_once=6, actions=8), workflows.run(at_once=3, actions=6))
        acting.add_done_callback(lambda task: fuse.light())
        await asyncio.to_thread(fuse.wait)
        self._fuse = None
        self.ledger.counts["ended with workflows under way"] += bool(self._workflows.under_way())
        if gentle:
            await asyncio.to_thread(self.server.stop)
        else:
            await asyncio.to_thread(self.server.kill)
        await acting
        await jobs.end()
        await workflows.end()
        self.ledger.counts["ended by SIGTERM" if gentle else "killed under load"] += 1

    async def _serve(self) -> None:
        self.server.begin()
        await asyncio.to_thread(self.server.ready)
        await self._clients.connect(f"localhost:{self.server.port}", self.server.credentials())

    async def _finish(self) -> None:
        """One more life, undisturbed: everything comes to its end, and then to account."""
        await self._serve()
        rng = random.Random(self._seed)
        jobs = Load(self._clients, rng, lambda: self._order(rng))
        workflows = WorkflowLoad(self._workflows, rng, lambda: self._workflow(rng))
        async with asyncio.TaskGroup() as group:
            group.create_task(jobs.settle())
            group.create_task(workflows.settle())
        self.ledger.check_tokens(_text_of(self._shared / "tokens"))
        await self._workflows.account(_text_of(self._shared / "traces"))
        await asyncio.to_thread(self._check_what_is_left)
        await asyncio.to_thread(self.server.stop)
        await workflows.end()
        await self._clients.close()
        self._check_database()
        self._check_audit_log()
        self._check_server_log()

    def _check_what_is_left(self) -> None:
        poll_until(lambda: not self.server.monitors())
        state = self.server.state
        ours = f"/joblet.slice/{(state / 'instance').read_text().strip()}"
        for folder, groups, _ in os.walk("/sys/fs/cgroup"):  # which minds no group of others that goes meanwhile
            if folder.endswith(ours) and groups:
                raise Violated(f"control groups are left in {folder}: {groups}")
        if processes := processes_of(*self._ids):
            raise Violated(f"processes of jobs are left: {processes}")
        devices = Path("/sys/block").glob("loop*/loop/backing_file")
        poll_until(lambda: not any(str(state) in _text_of(device) for device in devices))
        self._check_directory("jobs", *self._job_directories())
        kept = {entry.workflow_id for entry in self._workflows.by_id.values() if not entry.deleted}
        self._check_directory("workflows", set(), kept)
        self._check_uploads()
        if others := [entry.name for entry in state.iterdir() if entry.name.startswith("probe-")]:
            raise Violated(f"left in the state directory: {others}")

    def _check_directory(self, name: str, least: set[str], most: set[str]) -> None:
        folder = self.server.state / name
        there = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
        if not least <= there <= most:
            raise Violated(f"{folder}: {sorted(there - most)} are left, {sorted(least - there)} are missing")

    def _job_directories(self) -> tuple[set[str], set[str]]:
        """Those that must be there, and those that may."""
        ran = {entry.job_id for entry in self.ledger.jobs() if entry.ended_by_itself}
        kept = {entry.job_id for entry in self.ledger.by_id.values() if not entry.deleted}
        for entry in self._workflows.by_id.values():
            attempts = [
                a for step in self._workflows.histories[entry.workflow_id].steps.values() for a in step.attempts
            ]
            if not entry.deleted:
                kept |= {attempt.job_id for attempt in attempts}
            if not entry.delete_asked:
                ran |= {attempt.job_id for attempt in attempts if attempt.ended_by_itself}
        return ran, kept

    def _check_uploads(self) -> None:
        """A folder for each workflow that has files, and no other."""
        folder = self.server.state / "uploads"
        there = len(list(folder.iterdir())) if folder.exists() else 0
        with_files = [entry for entry in self._workflows.by_id.values() if entry.order.uploads]
        least = sum(not entry.delete_asked for entry in with_files)
        most = sum(not entry.deleted for entry in with_files)
        if not least <= there <= most:
            raise Violated(f"{there} folders of uploads are there, and {least} to {most} should be")

    def _check_database(self) -> None:
        with contextlib.closing(sqlite3.connect(self.server.state / "joblet.db")) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise Violated(f"database: {verdict}")
        for path in self.server.state.rglob("*"):
            if path.is_file() and SECRET.encode() in path.read_bytes():
                raise Violated(f"a secret is in {path}")

    def _check_audit_log(self) -> None:
        path = self.server.state / "audit.log"
        try:
            verify_server(path, self.server.state)
        except Changed as error:
            raise Violated(f"audit log: {error}") from error
        lines = [values for _, values in find([path], Query())]
        told = {line["job"] for line in lines if line.get("operation") == "run_job" and line.get("code") == "OK"}
        if missing := self.ledger.answered - told:
            raise Violated(f"audit log: nothing tells who ran {sorted(missing)}")

    def _check_server_log(self) -> None:
        for number, line in enumerate(self.server.lines):
            if any(word in line for word in (*ALARMING, SECRET)):
                raise Violated("the server's log holds\n" + "\n".join(self.server.lines[number : number + 20]))

    async def _kill_victim(self, entry: Entry, rng: random.Random) -> None:
        entry.victim = True
        await self._kill_monitor(entry.job_id, rng)

    async def _kill_monitor(self, job_id: str, rng: random.Random) -> None:
        delay = rng.choice((0, rng.uniform(0, 0.004), rng.uniform(0, 0.2)))
        killed = await asyncio.to_thread(monitors.kill, self.server.state / "jobs" / job_id, 1.0, delay)
        self.ledger.counts["monitors killed"] += killed

    def _order(self, rng: random.Random) -> Order:
        self._orders += 1
        return draw(rng, f"t{self._seed}.{self._orders}", self._shared)

    def _workflow(self, rng: random.Random) -> WorkflowOrder:
        self._orders += 1
        return draw_workflow(rng, f"w{self._seed}.{self._orders}", self._shared)

    def _event(self) -> None:
        if self._fuse is not None:
            self._fuse.hit()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server.pid, signal.SIGKILL)

    def _terminate(self) -> None:
        os.kill(self.server.pid, signal.SIGTERM)


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@contextlib.contextmanager
def shared_directory(path: Path) -> Iterator[Path]:
    """Where jobs may write: an unprivileged user's, mounted nosuid."""
    path.mkdir(mode=0o755)
    os.chown(path, OWNER, OWNER)
    with mounted_nosuid(path):
        yield path


def run(stock: tuple[ModuleType, ModuleType], seed: int, cycles: int, *, keep: bool = False) -> Ledger:
    """The whole loop; what it has counted. Raises Violated, with the seed and the cycle; `keep` is the state, then."""
    folder = Path(tempfile.mkdtemp(prefix="joblet-crash.", dir=DISK))
    kept = ""
    try:
        with shared_directory(folder / "shared") as shared:
            loop = CrashLoop(folder, shared, stock, seed, cycles)
            try:
                asyncio.run(loop.run())
            except BaseException as error:
                if keep:
                    (folder / "server.log").write_text("\n".join(loop.server.lines))
                    kept = f", kept: {folder}"
                raise Violated(
                    f"seed {seed}, cycle {loop.cycle} of {cycles}{kept}: {first_violation(error)}"
                ) from error
            finally:
                loop.server.close()
    finally:
        if not kept:
            shutil.rmtree(folder)
    return loop.ledger


def first_violation(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, Violated) else repr(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--keep", action="store_true", help="after a violation keep the state and the server's log")
    options = parser.parse_args()
    begun = time.monotonic()
    print(f"seed {options.seed}, {options.cycles} cycles", flush=True)
    with tempfile.TemporaryDirectory() as compiled:
        stock = compile_stock_client(Path(compiled, "stock"), ROOT / "protos/joblet.proto")
        ledger = run(stock, options.seed, options.cycles, keep=options.keep)
    for name, count in sorted(ledger.counts.items()):
        print(f"{count:>12,}  {name}")
    print(f"nothing lost, nothing twice, nothing stuck; {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Violated as error:
        sys.exit(f"violated: {error}")
