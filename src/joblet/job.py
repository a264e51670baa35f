"""What a job is: states, transitions, limits and the verdict on its end. No I/O."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from joblet.clock import format_duration
from joblet.errors import InvalidArgument
from joblet.meaning import Meaning

DANGEROUS = frozenset(";&|`$(){}[]<>\n\0")
"""Characters refused in a command; arguments go to execve as they are."""

MAX_COMMAND_BYTES = 4095
"""PATH_MAX less its NUL (limits.h)."""

MAX_ARG_BYTES = 131071
"""MAX_ARG_STRLEN less its NUL (execve(2))."""

MAX_INT32 = 2**31 - 1

MAX_PRIORITY = 1000
MAX_TIMEOUT_MS = 10 * 365 * 86_400_000
MAX_KEY = 128
MAX_NAME = 128

MASK = "***"
"""what is shown for the value of a secret"""

TIMEOUT = "timeout after "
"""begins the reason of a job that has run for too long"""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED = "JOBLET_"
"""begins the names of the variables that tell a job what it is"""


class State(Meaning):
    """A job's status as clients see it."""

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
class Order:
    """What a client asks for; 0 and empty mean the server's choice. `settle` makes it what the job gets."""

    command: str
    args: tuple[str, ...] = ()
    limits: Limits = Limits(0, 0, 0)
    timeout_ms: int = 0
    """how long the command may run"""
    priority: int = 0
    """who waits for a slot goes before those of a lower one"""
    key: str = ""
    """the client's own name for this order: the same key gives the same job, whenever it is asked for again"""
    name: str = ""
    """for people to know it by"""
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """whose values reach the job and nobody else"""
    workdir: str = ""
    """where the command starts: relative to the work directory, or absolute in the job's view"""
    uploads: Uploads | None = None
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What the configuration and the host say of every job."""

    default: Limits
    ceiling: Limits
    timeout: float
    """seconds a job may run: the most that it may ask for, and what it gets when it does not ask"""
    role_ceilings: Mapping[str, Limits] = field(default_factory=dict)
    """of the roles that have lower ones"""


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

    @property
    def timed_out(self) -> bool:
        """Whether it was stopped for having run too long."""
        return self.state is State.STOPPED and self.reason.startswith(TIMEOUT)


@dataclass(frozen=True, slots=True)
class Ending:
    """The final state of a job and why."""

    state: State
    exit_code: int
    reason: str


def validate_command(command: str, args: Sequence[str]) -> None:
    """Raise InvalidArgument unless `command` and `args` can be given to execve(2) and are allowed."""
    if not command:
        raise InvalidArgument("invalid command: command cannot be empty")
    if DANGEROUS.intersection(command):
        raise InvalidArgument("invalid command: command contains dangerous characters")
    size = len(command.encode())
    if size > MAX_COMMAND_BYTES:
        raise InvalidArgument(f"invalid command: command is {size} bytes long (at most {MAX_COMMAND_BYTES})")
    for index, arg in enumerate(args):
        if "\0" in arg:
            raise InvalidArgument(f"invalid argument: args[{index}] contains a NUL byte")
        size = len(arg.encode())
        if size > MAX_ARG_BYTES:
            raise InvalidArgument(f"invalid argument: args[{index}] is {size} bytes long (at most {MAX_ARG_BYTES})")


def validate_environment(field: str, variables: Mapping[str, str], *, reserved: bool = False) -> None:
    """Raise InvalidArgument unless each is one that a job may be given, or with `reserved` joblet itself may give.

    Values are not shown: they may be secret.
    """
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or len(name) > MAX_NAME:
            shown = repr(name[:MAX_NAME])
            raise InvalidArgument(f"invalid {field}: {shown} is no name of a variable (letters, digits and _)")
        if name.startswith(RESERVED) and not reserved:
            raise InvalidArgument(f"invalid {field}: {name} begins with {RESERVED}, which joblet itself sets")
        if "\0" in value:
            raise InvalidArgument(f"invalid {field}: the value of {name} contains a NUL byte")
        size = len(name) + 1 + len(value.encode())
        if size > MAX_ARG_BYTES:
            raise InvalidArgument(f"invalid {field}: {name} is {size} bytes long (at most {MAX_ARG_BYTES})")


def validate_path(field: str, path: str) -> None:
    """Raise InvalidArgument unless `path` names something below the directory that it is relative to."""
    plain = bool(path) and "\0" not in path and not path.startswith("/") and ".." not in PurePosixPath(path).parts
    if not plain or str(PurePosixPath(path)) != path or path == "." or len(path.encode()) > MAX_COMMAND_BYTES:
        raise InvalidArgument(f"invalid {field}: {path[:MAX_NAME]!r} is not a plain relative path")


def validate_workdir(path: str) -> None:
    """Raise InvalidArgument unless a command can be asked to start there."""
    if path.startswith("/"):
        validate_path("workdir", path[1:])
    elif path:
        validate_path("workdir", path)


def settle(order: Order, policy: Policy, role: str) -> Order:
    """The order with everything that the client left open filled in. Raise InvalidArgument for what may not be."""
    validate_command(order.command, order.args)
    if len(order.name) > MAX_NAME or not order.name.isprintable():
        raise InvalidArgument(f"invalid name: {order.name[:MAX_NAME]!r} (at most {MAX_NAME} printable characters)")
    validate_environment("environment", order.environment, reserved=order.part is not None)
    validate_environment("secret_environment", order.secret_environment)
    validate_workdir(order.workdir)
    for path in order.uploads.paths if order.uploads else ():
        validate_path("uploads", path)
    most = round(policy.timeout * 1000)
    if not 0 <= order.timeout_ms <= most:
        allowed = f"0 to {format_duration(policy.timeout)}"
        raise InvalidArgument(f"invalid timeout: {order.timeout_ms} ms (allowed {allowed}, joblet.jobTimeout)")
    if abs(order.priority) > MAX_PRIORITY:
        raise InvalidArgument(f"invalid priority: {order.priority} (allowed -{MAX_PRIORITY} to {MAX_PRIORITY})")
    if len(order.key) > MAX_KEY or not order.key.isprintable():
        raise InvalidArgument(f"invalid key: {order.key[:MAX_KEY]!r} (at most {MAX_KEY} printable characters)")
    ceiling = policy.role_ceilings.get(role, policy.ceiling)
    limits = resolve_limits(order.limits, policy.default, ceiling)
    return replace(order, limits=limits, timeout_ms=order.timeout_ms or most)


def resolve_limits(asked: Limits, default: Limits, ceiling: Limits) -> Limits:
    """Limits with 0 replaced by the default, or by the ceiling where that is lower.

    Raise InvalidArgument for one below 0 or above its ceiling. A ceiling of MAX_INT32 is none.
    """

    def resolve(field: str, value: int, standard: int, most: int) -> int:
        if not 0 <= value <= most:
            raise InvalidArgument(f"job creation failed: {field} exceeds system limits ({value}, allowed 0 to {most})")
        if value or most == MAX_INT32:
            return value or standard
        return min(standard or most, most)  # without a limit it would be above the ceiling

    return Limits(
        resolve("maxCPU", asked.max_cpu, default.max_cpu, ceiling.max_cpu),
        resolve("maxMemory", asked.max_memory, default.max_memory, ceiling.max_memory),
        resolve("maxIOBPS", asked.max_iobps, default.max_iobps, ceiling.max_iobps),
        resolve("maxProcesses", asked.max_processes, default.max_processes, ceiling.max_processes),
        resolve("maxOpenFiles", asked.max_open_files, default.max_open_files, ceiling.max_open_files),
        resolve("maxDisk", asked.max_disk, default.max_disk, ceiling.max_disk),
        resolve_cores(asked.cpu_cores, ceiling.cpu_cores),
    )


def resolve_cores(asked: str, offered: str) -> str:
    """The cores asked for, in the kernel's own form. Raise InvalidArgument unless they are among those offered."""
    if not asked:
        return ""
    cores, there = parse_cores(asked), parse_cores(offered)
    if not cores <= there:
        raise InvalidArgument(f'job creation failed: cpuCores exceeds system limits ("{asked}", allowed {offered})')
    return format_cores(cores)


def parse_cores(text: str) -> frozenset[int]:
    """The numbers of a list such as `0-3,5` (cpuset(7), "List format"). Raise InvalidArgument."""
    cores: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not _is_core(first) or (dash and not (_is_core(last) and int(first) <= int(last))):
            shown = text if len(text) <= 64 else text[:64] + "..."
            raise InvalidArgument(f'invalid cpuCores: "{shown}" is not a list of cores (write for example "0-3,5")')
        cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def format_cores(cores: frozenset[int]) -> str:
    """The shortest list that `parse_cores` reads back."""
    parts: list[str] = []
    for core in sorted(cores):
        if core - 1 not in cores:
            parts.append(str(core))
        elif core + 1 not in cores:
            parts[-1] += f"-{core}"
    return ",".join(parts)


def _is_core(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 4


def conclude(*, code: int | None, killed_by: int | None, stopped: bool, stop_reason: str, oom_kills: int) -> Ending:
    """The verdict on a command that ran.

    Exactly one of `code` (exit status) and `killed_by` (signal number) is given. `stopped` says that the job was
    signalled on request, `stop_reason` on whose. `oom_kills` is the kernel's own count for the job's cgroup.
    """
    if stopped:
        return Ending(State.STOPPED, -1, stop_reason or "stopped")
    status = code if code is not None else 128 + (killed_by or 0)
    if oom_kills and status == 128 + signal.SIGKILL:
        return Ending(State.FAILED, status, "out of memory")
    notice = f" ({oom_kills} of its processes killed: out of memory)" if oom_kills else ""
    if status == 0:
        return Ending(State.COMPLETED, 0, "exit code 0" + notice)
    if killed_by is not None:
        return Ending(State.FAILED, status, f"killed by signal {killed_by} ({signal_name(killed_by)})" + notice)
    return Ending(State.FAILED, status, f"exit code {status}" + notice)


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; real-time and unknown numbers by number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
