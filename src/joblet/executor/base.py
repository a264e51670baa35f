"""What joblet asks of a machine: launch, follow, stop and find again. `local` is the shim on this host."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from joblet.command import Command
from joblet.job import Job, Receipt, Stop, Terminal

STDOUT, STDERR = 1, 2
"""a command's streams; a terminal has the first only"""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a job ended, by its monitor's own record. Instants are nanoseconds since the epoch."""

    ended_at: int
    started_at: int | None = None
    """when the command was exec'd; None when it never was"""
    code: int | None = None
    """exit status of the command"""
    signal: int | None = None
    """the signal that killed it"""
    stopped: bool = False
    """it was signalled on request"""
    launch_error: LaunchFailed | None = None
    log_bytes: int = 0
    log_lost: int = 0
    receipt: Receipt = field(default_factory=Receipt)
    outputs: Mapping[str, str] = field(default_factory=dict)
    """what it has given out by $JOBLET_OUTPUT"""
    outputs_error: str = ""
    """why nothing of that was taken, though there was something"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a running job uses, by the kernel's own count. None: this kernel does not count it."""

    cpu_usec: int | None = None
    """microseconds of CPU time so far, of all its processes"""
    throttled_usec: int | None = None
    """microseconds it was kept from running by its CPU limit so far, summed over cores"""
    memory: int | None = None
    """bytes now, page cache included"""
    memory_peak: int | None = None
    """bytes"""
    io_read: int | None = None
    """bytes from disks so far"""
    io_write: int | None = None
    """bytes to disks so far; on control groups v1 direct and synchronous writing only"""
    processes: int | None = None
    """processes and threads now, the job's init included"""


@dataclass(frozen=True, slots=True)
class Lost:
    """The job's monitor is gone and left no record."""

    reason: str


STOPPED = "stopped"
"""the stage of a launch that was stopped before the command was exec'd"""


class LaunchFailed(Exception):
    """The command never ran. `str(error)` is the reason for the user."""

    def __init__(self, stage: str, errno: int, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.errno = errno

    @property
    def exit_code(self) -> int:
        """127 for a command not found, 126 for one that cannot be executed, as shells have it; else -1.

        The same for the directory that it was to start in.
        """
        if self.stage != "exec":
            return -1
        return 127 if self.errno == 2 else 126


class InputOver(Exception):
    """Nobody reads the job's input any more, or it has had its end."""


class Input(Protocol):
    """A way into a job's standard input or terminal; there may be several at once, whose writes do not mix."""

    taken: int
    """bytes that the job's input has taken from here"""

    async def write(self, data: bytes) -> None:
        """Hand bytes over; waits as long as the job's input is full. Raises InputOver."""

    async def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size. Raises InputOver."""

    async def end(self) -> None:
        """Let it meet the end of its input, after what was written before. Raises InputOver."""

    def close(self) -> None:
        """Let go of it; the job's input goes on."""


class Running(Protocol):
    """A job under way."""

    pid: int
    """of its monitor"""
    started_at: int
    """when the command was exec'd, nanoseconds since the epoch"""

    def elapsed(self) -> float:
        """Seconds since its command was exec'd, by a clock that nobody sets."""

    async def wait(self) -> Exit | Lost:
        """Wait until the job and its monitor have ended and nothing of them is left."""

    async def open_input(self) -> Input:
        """A way into a job that takes input. Raises InputOver, or OSError."""

    async def stop(self, stop: Stop) -> None:
        """Its signal to the job, SIGKILL after the grace. When this returns the job is sure to get them.

        Before its command has been exec'd, SIGKILL at once; the launch then fails at the stage STOPPED.

        The same once more does nothing; another one during a stop sends its signal too, and can shorten the grace.
        """

    async def freeze(self) -> None:
        """Keep its processes from running; returns when all stand still. Does nothing for one that has ended.

        Raises CannotPause, and then some may stand still: thaw it.
        """

    async def thaw(self) -> None:
        """Let its processes go on."""

    async def is_frozen(self) -> bool:
        """Whether its processes are kept from running, or about to be."""


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How another command in a job has ended."""

    code: int
    """128 and the signal's number when it was killed; 127 or 126 when it never ran"""
    reason: str


class JobGone(Exception):
    """The job runs no more, or nothing of it listens."""


class Session(Protocol):
    """Another command in a job, under way. It ends with the job, with this server, and when it is closed."""

    def output(self) -> AsyncGenerator[tuple[int, bytes]]:
        """What it writes, each piece of one stream, until it has ended. To be read once; who is slow slows it."""

    async def write(self, data: bytes) -> None:
        """Give it input; returns when it has taken all, or takes no more."""

    async def end_input(self) -> None:
        """Nothing more comes."""

    def resize(self, terminal: Terminal) -> None:
        """Its terminal has another size now."""

    async def wait(self) -> CommandEnd:
        """Wait until it has ended."""

    async def end(self) -> None:
        """End it, if it has not ended: SIGHUP, and after a short grace SIGKILL."""

    async def close(self) -> None:
        """End it, and free what it took; when nobody reads or writes any more."""


class Executor(Protocol):
    """A place where jobs run."""

    epoch: str
    """names this life of the machine: what was launched in an earlier one runs no more"""

    async def probe(self) -> None:
        """Raise HostUnable when a job cannot be isolated and limited here."""

    def check_room(self) -> None:
        """Raise NoRoom or DiskUnusable when a job could not so much as be begun for the disk's sake."""

    async def launch(self, job: Job, begun: Callable[[Running], None] | None = None) -> Running:
        """Start a job; returns when its command has been exec'd. `begun` is given it as soon as it can be stopped.

        It has its environment, its uploads in its work directory and, as a part of a workflow, the directory that the
        workflow's jobs share. Raises LaunchFailed when it could not be started with all of that, and as `check_room`
        before anything of it was begun.
        """

    async def recover(self, job: Job) -> Running | Exit | Lost | None:
        """Find a job again that an earlier server launched, or had begun to; None when nothing of it was started."""

    async def exec(self, job: Job, command: Command) -> Session:
        """Start another command in a running job, with all that confines and limits the job's own.

        Raises JobGone or OSError.
        """

    async def usage(self, job_ids: Collection[int]) -> Mapping[int, Usage]:
        """What those of these jobs use now that run here; one that has just ended is left out."""

    def log_path(self, job_id: int) -> Path:
        """The file that holds the job's raw output. It may not exist yet."""

    async def disk_bytes(self, job_id: int) -> int:
        """What an ended job takes of the disk: its log and its work directory."""

    async def remove(self, job_id: int) -> None:
        """Remove all that is left of an ended job. What is gone already is no error; raises OSError for what stays."""

    async def open_work(self, job_id: int) -> int:
        """A descriptor of a job's work directory, which is the caller's. What is in it the job may change at any time.

        Raises NoFiles when there is none, or it cannot be reached; OSError.
        """

    async def open_shared(self, workflow_id: int) -> int:
        """The same of the directory that a workflow's jobs share."""

    async def shared_bytes(self, workflow_id: int) -> int:
        """What takes room on the disk of the directory that a workflow's jobs share."""

    async def remove_shared(self, workflow_id: int) -> None:
        """Remove the directory that an ended workflow's jobs have shared.

        What is gone already is no error; raises OSError for what stays.
        """
