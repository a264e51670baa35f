"""What the server says of a job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

from joblet.client._calls import check_text
from joblet.client.errors import InvalidArgument
from joblet.proto import joblet as pb

MAX_TERMINAL = 65535
"""rows, and columns (winsize of ioctl_tty(2))"""
ENDED = frozenset({"COMPLETED", "FAILED", "STOPPED"})


@dataclass(frozen=True)
class Receipt:
    """What a job has used, by the kernel's own count; None is what the server's kernel does not count."""

    wall_usec: int | None
    """microseconds from exec to the end"""
    cpu_usec: int | None
    """microseconds of CPU time, of all its processes"""
    throttled_usec: int | None
    """microseconds it was kept from running by its CPU limit"""
    memory_peak_bytes: int | None
    """page cache included"""
    io_read_bytes: int | None
    """from disks"""
    io_write_bytes: int | None
    """to disks; on control groups v1 direct and synchronous writing only"""
    processes_peak: int | None
    """processes and threads at once, the job's init included"""
    oom_kills: int | None
    """processes killed for want of memory"""


@dataclass(frozen=True)
class Schedule:
    """When a job is to run."""

    when: str
    """a time (RFC 3339), a duration from now (`1h30m`) or a cron expression"""
    timezone: str = ""
    """of a cron expression, such as `Europe/Berlin`; empty is UTC"""
    overlap: str = ""
    """when the last job has not ended: `skip` (as empty), `queue`, `allow` or `replace`"""
    jitter_ms: int = 0
    """each start is up to so many milliseconds late, at random"""
    catch_up: str = ""
    """times that passed while the server was away: `last` (as empty), `none` or `all`"""

    @property
    def recurring(self) -> bool:
        """Whether `when` has the form of a cron expression."""
        return self.when.startswith("@") or len(self.when.split()) > 2


@dataclass(frozen=True)
class Terminal:
    """The size of a terminal in characters, and its kind for $TERM."""

    rows: int
    columns: int
    term: str = ""


@dataclass(frozen=True)
class JobInfo:
    """A job as of one answer. Fields that the answer lacks have their defaults."""

    id: str
    command: str
    args: tuple[str, ...]
    status: str
    """INITIALIZING, RUNNING, COMPLETED, FAILED or STOPPED; PENDING or SCHEDULED while it waits"""
    max_cpu: int
    """percent of one core"""
    max_memory: int
    """MB"""
    max_iobps: int
    """bytes per second, 0 is unlimited"""
    start_time: str
    """RFC 3339 in UTC; empty when not yet known"""
    end_time: str
    exit_code: int
    reason: str = ""
    """why the job is in its status, where there is more to say"""
    name: str = ""
    """for people to know it by; of a workflow's job the name there"""
    cpu_cores: str = ""
    """the cores it may run on, such as `0-3,5`; empty is any"""
    max_processes: int = 0
    max_open_files: int = 0
    """of each process"""
    max_disk: int = 0
    """MB in the work directory, 0 is unlimited"""
    timeout_ms: int = 0
    """milliseconds that its command may run"""
    priority: int = 0
    key: str = ""
    """the client's own name for the order"""
    receipt: Receipt | None = None
    """in the answer to `status`, once the command has ended"""
    scheduled_time: str = ""
    runtime: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    secret_environment: dict[str, str] = field(default_factory=dict)
    """names, with the values masked"""
    workdir: str = ""
    """where its command starts, if not in the work directory"""
    workflow_id: str = ""
    """the workflow that it is of; empty for individual jobs"""
    outputs: dict[str, str] = field(default_factory=dict)
    """what it has written to $JOBLET_OUTPUT, in the answer to `status` once it has ended"""
    labels: dict[str, str] = field(default_factory=dict)
    schedule: Schedule | None = None
    schedule_id: str = ""
    """the job whose recurring schedule has made this one"""
    retries: int = 0
    """how often it is run again when it fails, as a new job each time"""
    retry_delay_ms: int = 0
    attempt: int = 0
    """which one of these this is, from 1; 0 without retries"""
    retry_of: str = ""
    """the first of these, if this is another"""
    retried_by: str = ""
    """the next of these, once it is made"""
    stdin: bool = False
    """it takes input"""
    terminal: Terminal | None = None
    separate_streams: bool = False
    """its log tells stdout and stderr apart"""
    paused_by: str = ""
    """who has paused it; empty while it runs"""
    has_uploads: bool = False
    """files were sent along"""
    owner: str = ""
    """the client that has ordered it, by the CN of its certificate"""

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ENDED


class JobList(list[JobInfo]):
    """Jobs by id. `more`: there are older ones."""

    def __init__(self, jobs: Iterable[JobInfo] = (), *, more: bool = False) -> None:
        super().__init__(jobs)
        self.more = more


@dataclass(frozen=True)
class StopResult:
    """How a stopped job ended."""

    id: str
    status: str
    end_time: str
    exit_code: int


def info_of(message: pb.RunJobRes | pb.GetJobStatusRes | pb.Job) -> JobInfo:
    """Translate an answer."""
    info = JobInfo(
        id=message.id,
        command=message.command,
        args=tuple(message.args),
        status=message.status,
        max_cpu=message.max_cpu,
        max_memory=message.max_memory,
        max_iobps=message.max_iobps,
        start_time=message.start_time,
        end_time=message.end_time,
        exit_code=message.exit_code,
        reason=message.reason,
        cpu_cores=message.cpu_cores,
        max_processes=message.max_processes,
        max_open_files=message.max_open_files,
        max_disk=message.max_disk,
        timeout_ms=message.timeout_ms,
        priority=message.priority,
        key=message.key,
        name=message.name,
        environment=dict(message.environment),
        secret_environment=dict(message.secret_environment),
        workdir=message.workdir,
        workflow_id=message.workflow_id,
        labels=dict(message.labels),
        schedule=_schedule_of(message.schedule),
        schedule_id=message.schedule_id,
        scheduled_time=message.scheduled_time,
        retries=message.retries,
        retry_delay_ms=message.retry_delay_ms,
        attempt=message.attempt,
        retry_of=message.retry_of,
        retried_by=message.retried_by,
        stdin=message.stdin,
        terminal=_terminal_of(message.terminal),
        separate_streams=message.separate_streams,
        paused_by=message.paused_by,
        has_uploads=message.has_uploads,
        owner=message.owner,
    )
    if isinstance(message, pb.RunJobRes | pb.GetJobStatusRes):
        receipt = None if message.receipt is None else _receipt_of(message.receipt)
        return replace(info, receipt=receipt, outputs=dict(message.outputs))
    return replace(info, runtime=message.runtime)


def _schedule_of(message: pb.Schedule | None) -> Schedule | None:
    if message is None:
        return None
    return Schedule(message.when, message.timezone, message.overlap, message.jitter_ms, message.catch_up)


def _terminal_of(message: pb.Terminal | None) -> Terminal | None:
    return None if message is None else Terminal(message.rows, message.columns, message.term)


def _receipt_of(message: pb.Receipt) -> Receipt:
    return Receipt(**{field.name: getattr(message, field.name) for field in fields(Receipt)})


def schedule_message(schedule: Schedule) -> pb.Schedule:
    """As a request has it. Raises InvalidArgument for numbers beyond its fields."""
    if not 0 <= schedule.jitter_ms < 2**63:
        raise InvalidArgument(f"invalid jitter: {schedule.jitter_ms} ms (allowed 0 and above)")
    return pb.Schedule(
        when=schedule.when,
        timezone=schedule.timezone,
        overlap=schedule.overlap,
        jitter_ms=schedule.jitter_ms,
        catch_up=schedule.catch_up,
    )


def terminal_message(terminal: Terminal) -> pb.Terminal:
    """As a request has it. Raises InvalidArgument for a size that no terminal has."""
    for name, count in (("rows", terminal.rows), ("columns", terminal.columns)):
        if not 1 <= count <= MAX_TERMINAL:
            raise InvalidArgument(f"invalid terminal: {count} {name} (allowed 1 to {MAX_TERMINAL})")
    check_text("terminal", terminal.term)
    return pb.Terminal(rows=terminal.rows, columns=terminal.columns, term=terminal.term)
