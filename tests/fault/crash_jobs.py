"""The jobs of the crash loops: what each does, and what may be said of it whatever happens to its server."""

from __future__ import annotations

import enum
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

PROGRAM = r"""
my ($tokens, $token, $lines, $width, $pause, $linger, $code) = @ARGV;
# O_WRONLY | O_CREAT | O_APPEND | O_SYNC: that it ran is on the disk before it does anything else
sysopen(my $file, $tokens, 0x101441, 0644) or die "$tokens: $!";
syswrite($file, "$token\n");
for my $n (1 .. $lines) {
    syswrite(STDOUT, "$token $n " . "x" x $width . "\n");
    select(undef, undef, undef, $pause) if $pause > 0;
}
sleep $linger if $linger;
kill(-$code, $$) if $code < 0;
exit $code;
"""
"""what jobs run: says in a file that it runs, writes lines and ends with a status or by a signal"""

OWNER = 12345
"""of the directory in which jobs leave their tokens"""
LOST = "lost: its monitor was killed"
REBOOTED = "lost: the host was rebooted"
FINAL = frozenset({"COMPLETED", "FAILED", "STOPPED"})
MOVES: dict[str, set[str]] = {
    "": {"PENDING", "INITIALIZING"},
    "PENDING": {"INITIALIZING", "STOPPED"},
    "INITIALIZING": {"RUNNING", "FAILED", "STOPPED"},
    "RUNNING": {"COMPLETED", "FAILED", "STOPPED"},
}
"""which status may come after which"""

Ending = tuple[str, int, str]
"""status, exit code and reason"""


class Kind(enum.Enum):
    """What a job does."""

    QUICK = enum.auto()
    BULK = enum.auto()
    SLOW = enum.auto()
    LONG = enum.auto()
    TIMED = enum.auto()
    DISK = enum.auto()
    MISSING = enum.auto()
    REFUSED = enum.auto()


_WEIGHTS = {
    Kind.QUICK: 40,
    Kind.BULK: 8,
    Kind.SLOW: 12,
    Kind.LONG: 18,
    Kind.TIMED: 6,
    Kind.DISK: 4,
    Kind.MISSING: 4,
    Kind.REFUSED: 2,
}
_SIGNALS = {9: "SIGKILL", 15: "SIGTERM", 6: "SIGABRT"}


@dataclass(frozen=True)
class Order:
    """One job that a client wants. Its token is in its arguments, so that it is known again without its id."""

    token: str
    kind: Kind
    folder: Path
    """where the program is and the tokens go"""
    lines: int = 0
    width: int = 0
    pause: float = 0
    linger: int = 0
    code: int = 0
    key: str = ""
    timeout_ms: int = 0
    max_disk: int = 0
    priority: int = 0
    wait: bool = False

    @property
    def command(self) -> str:
        return {Kind.MISSING: "no-such-command", Kind.REFUSED: "/etc/passwd"}.get(self.kind, "perl")

    def request(self, pb: Any, *, wait: bool) -> Any:
        """It may wait for its start, which can be after all that now runs."""
        numbers = (self.lines, self.width, self.pause, self.linger, self.code)
        return pb.RunJobReq(
            command=self.command,
            args=[str(self.folder / "program"), str(self.folder / "tokens"), self.token, *map(str, numbers)],
            key=self.key,
            timeoutMs=self.timeout_ms,
            maxDisk=self.max_disk,
            priority=self.priority,
            waitForStart=wait,
            maxProcesses=16,
            maxMemory=64,
        )

    @property
    def runs(self) -> bool:
        """Whether its command can be executed."""
        return self.kind not in (Kind.MISSING, Kind.REFUSED)

    @cached_property
    def output(self) -> bytes:
        """Its whole log, when nothing interferes."""
        if self.kind is Kind.MISSING:
            return b"joblet: command not found: no-such-command\n"
        if self.kind is Kind.REFUSED:
            return b"joblet: cannot execute /etc/passwd: permission denied\n"
        return "".join(f"{self.token} {n} {'x' * self.width}\n" for n in range(1, self.lines + 1)).encode()

    @property
    def ending(self) -> Ending | None:
        """How it ends by itself; None: never."""
        if self.linger:
            return None
        if self.kind is Kind.MISSING:
            return "FAILED", 127, "command not found: no-such-command"
        if self.kind is Kind.REFUSED:
            return "FAILED", 126, "cannot execute /etc/passwd: permission denied"
        if self.code < 0:
            return "FAILED", 128 - self.code, f"killed by signal {-self.code} ({_SIGNALS[-self.code]})"
        return ("FAILED" if self.code else "COMPLETED"), self.code, f"exit code {self.code}"


def draw(rng: random.Random, token: str, folder: Path) -> Order:
    """A job as it comes."""
    kind = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    details: dict[str, Any] = {
        "key": f"key-{token}" if rng.random() < 0.4 else "",
        "priority": rng.choice((0, 0, 0, -5, 5)),
        "wait": rng.random() < 0.3,
        "code": rng.choice((0, 0, 0, 1, 7, 42, 255, *(-number for number in _SIGNALS))),
    }
    if kind in (Kind.QUICK, Kind.DISK):
        details |= {"lines": rng.randint(0, 20), "width": rng.randint(0, 80)}
    elif kind is Kind.BULK:
        details |= {"lines": rng.randint(100, 600), "width": rng.randint(200, 1000)}
    elif kind is Kind.SLOW:
        details |= {"lines": rng.randint(20, 120), "width": 20, "pause": round(rng.uniform(0.005, 0.03), 4)}
    elif kind in (Kind.LONG, Kind.TIMED):
        details |= {"lines": 3, "linger": 100_000}
    if kind is Kind.TIMED:
        details["timeout_ms"] = rng.randint(100, 1500)
    if kind is Kind.DISK:
        details["max_disk"] = 4
    return Order(token, kind, folder, **details)


@dataclass
class Entry:
    """What a client knows of one order."""

    order: Order
    job_id: str = ""
    lost_answers: int = 0
    """submissions that were not answered; there may be a job"""
    refused: bool = False
    absent: bool = False
    """there was none when it was looked for after its submission was lost"""
    stop_asked: bool = False
    stop_answered: bool = False
    """a stop that a server was killed before it heard of has to be asked for again"""
    stopped: bool = False
    """a StopJob was answered with success"""
    victim: bool = False
    """its monitor has been killed, or nearly"""
    rebooted: bool = False
    """its host went down when it had not ended"""
    delete_asked: bool = False
    deleted: bool = False
    deleted_at: float = 0.0
    final: tuple[Any, ...] | None = None
    final_at: float = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether it is known whether it has a job."""
        return bool(self.job_id) or self.absent or self.refused

    @property
    def status(self) -> str:
        return self.final[0] if self.final else ""

    @property
    def ended_by_itself(self) -> bool:
        return self.final is not None and self.final[:3] == self.order.ending

    @property
    def shown_end(self) -> str:
        status, _, reason = (self.final or ("", 0, ""))[:3]
        return f"{status}: {reason}" if reason.startswith("lost") else status

    def possible(self) -> set[Ending]:
        """How it may have ended, after all that has been done to it."""
        ends = {self.order.ending} if self.order.ending and not self.stopped else set()
        if self.stop_asked:
            ends.add(("STOPPED", -1, "stopped by admin"))
        if self.order.timeout_ms:  # of two stops at once the first gives the reason
            ends.add(("STOPPED", -1, f"timeout after {duration(self.order.timeout_ms)}"))
        if self.victim and not self.stopped:
            ends.add(("FAILED", -1, LOST))
        if self.rebooted and not self.stopped:
            ends.add(("FAILED", -1, REBOOTED))
        return ends


def duration(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return (f"{seconds}s" if seconds else "") + (f"{rest}ms" if rest else "")


class Violated(AssertionError):
    """Something that was promised is not so."""


@dataclass
class Ledger:
    """The clients' record: what they have asked for and what they were told."""

    entries: dict[str, Entry] = field(default_factory=dict)
    by_id: dict[str, Entry] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    """ids of the jobs that clients were told of in answer to their orders"""
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, order: Order) -> Entry:
        return self.entries.setdefault(order.token, Entry(order))

    def acknowledge(self, entry: Entry, job_id: str) -> None:
        """A client was told, or has found, that this is its job."""
        known = self.by_id.setdefault(job_id, entry)
        if known is not entry:
            raise Violated(f"job {job_id} is that of {known.order.token}, and now of {entry.order.token}")
        if entry.job_id not in ("", job_id):
            raise Violated(f"{entry.order.token} has two jobs, {entry.job_id} and {job_id}")
        if entry.refused or entry.absent:
            raise Violated(f"{entry.order.token} has job {job_id}, although it was refused or not there before")
        entry.job_id = job_id

    def see(self, job: Any, asked_at: float) -> None:
        """What a server says of a job, to a question asked at that time."""
        entry = self.entries.get(job.args[2])
        if entry is None:
            raise Violated(f"job {job.id} was ordered by nobody: {job}")
        self.acknowledge(entry, job.id)
        if entry.deleted:
            if asked_at > entry.deleted_at:
                raise Violated(f"job {job.id} has been deleted and is there: {job}")
            return
        if job.status not in FINAL:
            if entry.final and asked_at > entry.final_at:
                raise Violated(f"job {job.id} had ended, {entry.final}, and is {job.status}")
            return
        seen = (job.status, job.exitCode, job.reason, job.startTime, job.endTime)
        if entry.final is None:
            self._judge(entry, (job.status, job.exitCode, job.reason))
            entry.final, entry.final_at = seen, time.monotonic()
        elif entry.final != seen:
            raise Violated(f"job {job.id} had ended, {entry.final}, and has ended otherwise, {seen}")

    def _judge(self, entry: Entry, ending: Ending) -> None:
        possible = entry.possible()
        if ending not in possible:
            raise Violated(f"job {entry.job_id} ended {ending}; possible was {possible} for {entry}")

    def unanswered(self) -> list[Entry]:
        """Orders with a key of which it is not known whether there is a job."""
        return [
            entry for entry in self.entries.values() if entry.lost_answers and entry.order.key and not entry.is_settled
        ]

    def jobs(self) -> list[Entry]:
        """What is known to have a job that has not been deleted."""
        return [entry for entry in self.by_id.values() if not entry.delete_asked]

    def complete(self, listed: set[str], asked_at_count: int) -> None:
        """A full list holds every job acknowledged before it was asked for; of the first so many that is so."""
        for job_id in list(self.by_id)[:asked_at_count]:
            entry = self.by_id[job_id]
            if job_id not in listed and not entry.delete_asked:
                raise Violated(f"job {job_id} was acknowledged and is lost: {entry}")

    def check_event(self, before: Any, event: Any) -> None:
        """An event of a job that is of no workflow, after the one `before`."""
        entry = self.by_id.get(event.jobId)
        if entry is None or event.status not in MOVES[before.status if before else ""]:
            raise Violated(f"an event that cannot be: {event}, after {before}, of {entry}")
        if event.status in FINAL and entry.final and entry.final[:3] != (event.status, event.exitCode, event.reason):
            raise Violated(f"job {entry.job_id} has ended otherwise, {entry.final}, than its event tells: {event}")

    def check_tokens(self, text: str) -> None:
        """What the commands themselves have left: nothing ran twice, nothing ran that nobody knows."""
        ran = Counter(text.split())
        for token, times in ran.items():
            entry = self.entries.get(token)
            if times != 1:
                raise Violated(f"the command of {token} ran {times} times: {entry}")
            if entry is None or not entry.job_id:
                raise Violated(f"{token} ran and has no job: {entry}")
        for entry in self.by_id.values():
            if entry.ended_by_itself and entry.order.runs and not ran[entry.order.token]:
                raise Violated(f"job {entry.job_id} has ended and never ran: {entry}")

    def check_log(self, entry: Entry, log: bytes) -> None:
        """A log is what its command wrote, up to where it was ended from outside."""
        expected = entry.order.output
        if log != expected if entry.ended_by_itself else not expected.startswith(log):
            raise Violated(f"job {entry.job_id} has a log of {len(log)} bytes that is not its own: {entry}")
