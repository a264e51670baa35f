"""What a job is: states, transitions, limits and the verdict on its end. No I/O."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from joblet.meaning import Meaning

MASK = "***"
"""what is shown for the value of a secret"""

MAX_RETRY_DELAY_MS = 3_600_000
"""between two attempts, however many there have been"""

TIMEOUT = "timeout after "
"""begins the reason of a job that has run for too long"""

LOST = "lost: "
"""begins the reason of a job of whose end nothing is known"""
_OUT_OF_MEMORY = "out of memory"
_KILLED = "killed by signal "


class State(Meaning):
    """A job's status as clients see it."""

    SCHEDULED = "SCHEDULED", "waits for its time"
    PENDING = "PENDING", "waits for a slot"
    INITIALIZING = "INITIALIZING", "isolation and limits are being set up"
    RUNNING = "RUNNING", "the command has been exec'd"
    COMPLETED = "COMPLETED", "ended with exit code 0"
    FAILED = "FAILED", "ended otherwise, or never ran"
    STOPPED = "STOPPED", "ended by a user's request or a timeout"

    @property
    def final(self) -> bool:
        return not TRANSITIONS[self]


TRANSITIONS: dict[State, frozenset[State]] = {
    State.SCHEDULED: frozenset({State.PENDING, State.INITIALIZING, State.FAILED, State.STOPPED}),
    State.PENDING: frozenset({State.INITIALIZING, State.FAILED, State.STOPPED}),
    State.INITIALIZING: frozenset({State.RUNNING, State.FAILED, State.STOPPED}),
    State.RUNNING: frozenset({State.COMPLETED, State.FAILED, State.STOPPED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.STOPPED: frozenset(),
}


def sources(target: State) -> tuple[State, ...]:
    """The states from which a job may go to `target`."""
    return tuple(state for state, targets in TRANSITIONS.items() if target in targets)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may use at most."""

    max_cpu: int
    """percent of one core"""
    max_memory: int
    """MiB; swap does not add to it"""
    max_iobps: int
    """bytes per second of reading and, apart, of writing each block device; 0 is unlimited"""
    max_processes: int = 0
    """processes and threads"""
    max_open_files: int = 0
    """open files of each process"""
    max_disk: int = 0
    """MiB in the work directory; 0 is unlimited"""
    cpu_cores: str = ""
    """the cores it may run on, as `0-3,5`; empty is any"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a job has used, by the kernel's own count. None: this kernel does not count it."""

    wall_usec: int | None = None
    """microseconds from exec to the end"""
    cpu_usec: int | None = None
    """microseconds of CPU time, of all its processes"""
    throttled_usec: int | None = None
    """microseconds it was kept from running by its CPU limit, summed over cores"""
    memory_peak: int | None = None
    """bytes, page cache included"""
    io_read: int | None = None
    """bytes from disks"""
    io_write: int | None = None
    """bytes to disks; on control groups v1 direct and synchronous writing only"""
    processes_peak: int | None = None
    """processes and threads at once, the job's init included"""
    oom_kills: int | None = None
    """processes killed for want of memory"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a job is to run, as it was asked for (protos/joblet.proto, Schedule)."""

    when: str
    timezone: str = ""
    overlap: str = ""
    jitter_ms: int = 0
    catch_up: str = ""

    @property
    def recurring(self) -> bool:
        """Whether it has the form of a cron expression: its job stays, and makes another one each time."""
        return self.when.startswith("@") or len(self.when.split()) > 2


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal's size in characters, and its kind for $TERM."""

    rows: int
    columns: int
    term: str = ""


@dataclass(frozen=True, slots=True)
class Uploads:
    """Files that lie ready for a job."""

    folder: str
    """where, in the store of uploads"""
    paths: tuple[str, ...] = ()
    """those that are put into the work directory, at the same relative paths; a directory with all below it"""


@dataclass(frozen=True, slots=True)
class Part:
    """What of a workflow a job is. No two jobs are the same."""

    workflow_id: int
    position: int
    """of the step in its plan"""
    attempt: int
    """from 1"""


@dataclass(frozen=True, slots=True)
class Stop:
    """How a job is asked to stop."""

    signal: int = signal.SIGTERM
    """to begin with"""
    grace_ms: int | None = None
    """milliseconds until SIGKILL; 0 is at once, None the server's own"""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it is stored. Instants are nanoseconds since the epoch."""

    id: int
    command: str
    args: tuple[str, ...]
    limits: Limits
    state: State
    owner: str
    """CN of the client that submitted it"""
    created_at: int
    started_at: int | None = None
    """when it left the queue"""
    exec_at: int | None = None
    """when its command was exec'd"""
    ended_at: int | None = None
    exit_code: int = 0
    reason: str = ""
    stop_reason: str = ""
    """why it was asked to stop; set before it is signalled"""
    stop: Stop = Stop()
    """how, by the last who asked"""
    receipt: Receipt | None = None
    """None until its command has ended"""
    timeout_ms: int = 0
    """how long its command may run"""
    priority: int = 0
    key: str = ""
    epoch: str = ""
    """the life of its machine in which it left the queue"""
    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """with its values, which go to the job and to nobody else"""
    workdir: str = ""
    uploads: Uploads | None = None
    part: Part | None = None
    """None for an individual job"""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """what it has written to $JOBLET_OUTPUT"""
    labels: Mapping[str, str] = field(default_factory=dict)
    schedule: Schedule | None = None
    scheduled_at: int | None = None
    """when it is to run, or to run next"""
    schedule_id: int | None = None
    """the job whose recurring schedule has made this one"""
    queued: bool = False
    """it was to run while another one of its schedule did, and waits for the end of all of these"""
    retries: int = 0
    """how often it is run again when it fails"""
    retry_delay_ms: int = 0
    attempt: int = 1
    """which one of these this is"""
    retry_of: int | None = None
    """the first of these, if this is another"""
    retried_by: int | None = None
    """the next of these"""
    stdin: bool = False
    terminal: Terminal | None = None
    separate_streams: bool = False
    paused_by: str = ""
    """who has paused it; empty while it runs"""
    role: str = ""
    """of its owner, when it was ordered"""

    @property
    def timed_out(self) -> bool:
        """Whether it was stopped for having run too long."""
        return self.state is State.STOPPED and self.reason.startswith(TIMEOUT)

    @property
    def recurring(self) -> bool:
        """Whether it runs nothing itself, and makes another job at each time of its schedule."""
        return self.schedule is not None and self.schedule.recurring

    @property
    def counted(self) -> bool:
        """Whether it takes one of the places of the queue when it waits for a slot.

        What was accepted for later, or as a part of something, has nobody to be refused to when its time has come.
        """
        later = self.schedule is not None or self.schedule_id is not None or self.retry_of is not None
        return self.part is None and not later


@dataclass(frozen=True, slots=True)
class Ending:
    """The final state of a job and why."""

    state: State
    exit_code: int
    reason: str


def conclude(*, code: int | None, killed_by: int | None, stopped: bool, stop_reason: str, oom_kills: int) -> Ending:
    """The verdict on a command that ran.

    Exactly one of `code` (exit status) and `killed_by` (signal number) is given. `stopped` says that the job was
    signalled on request, `stop_reason` on whose. `oom_kills` is the kernel's own count for the job's cgroup.
    """
    if stopped:
        return Ending(State.STOPPED, -1, stop_reason or "stopped")
    status = code if code is not None else 128 + (killed_by or 0)
    if oom_kills and status == 128 + signal.SIGKILL:
        return Ending(State.FAILED, status, _OUT_OF_MEMORY)
    notice = f" ({oom_kills} of its processes killed: out of memory)" if oom_kills else ""
    if status == 0:
        return Ending(State.COMPLETED, 0, "exit code 0" + notice)
    if killed_by is not None:
        return Ending(State.FAILED, status, f"{_KILLED}{killed_by} ({signal_name(killed_by)})" + notice)
    return Ending(State.FAILED, status, f"exit code {status}" + notice)


class Cause(Meaning):
    """What a job ended of, in few words that can be counted."""

    COMPLETED = "completed", "exit code 0"
    EXIT_CODE = "exit_code", "another exit code"
    SIGNAL = "signal", "killed by a signal that nobody asked for"
    OUT_OF_MEMORY = "out_of_memory", "killed for want of memory within its limit"
    TIMEOUT = "timeout", "ran for too long"
    STOPPED = "stopped", "a user's request, or its workflow's"
    NOT_STARTED = "not_started", "its command could not be exec'd"
    LOST = "lost", "the host was rebooted, or its monitor was killed"


def cause_of(job: Job) -> Cause:
    """Of a job that has ended."""
    if job.state is State.COMPLETED:
        return Cause.COMPLETED
    if job.state is State.STOPPED:
        return Cause.TIMEOUT if job.timed_out else Cause.STOPPED
    if job.reason.startswith(LOST):
        return Cause.LOST
    if job.exec_at is None:
        return Cause.NOT_STARTED
    if job.reason.startswith(_OUT_OF_MEMORY):
        return Cause.OUT_OF_MEMORY
    return Cause.SIGNAL if job.reason.startswith(_KILLED) else Cause.EXIT_CODE


def retry_delay(job: Job, ending: Ending, stop_reason: str) -> int | None:
    """Milliseconds until a job that ends so is run again; None when it is not. `stop_reason` is why it was to stop.

    A job of a workflow is tried again by that, and what a user has stopped has ended.
    """
    timed_out = ending.state is State.STOPPED and ending.reason.startswith(TIMEOUT)
    wanted = timed_out or (ending.state is State.FAILED and (not stop_reason or stop_reason.startswith(TIMEOUT)))
    if not wanted or job.attempt > job.retries or job.part is not None or job.recurring:
        return None
    return min(job.retry_delay_ms << min(job.attempt - 1, 32), MAX_RETRY_DELAY_MS)


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; real-time and unknown numbers by number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
