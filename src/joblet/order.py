"""What a client asks for: an order, the rules that it has to keep, and what is filled in. No I/O."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from joblet.access import Quota
from joblet.clock import format_duration
from joblet.errors import InvalidArgument
from joblet.job import MAX_RETRY_DELAY_MS, Job, Limits, Part, Schedule, Stop, Terminal, Uploads

DANGEROUS = frozenset(";&|`$(){}[]<>\n\0")
"""Characters refused in a command; arguments go to execve as they are."""

MAX_COMMAND_BYTES = 4095
"""PATH_MAX less its NUL (limits.h)."""

MAX_ARG_BYTES = 131071
"""MAX_ARG_STRLEN less its NUL (execve(2))."""

MAX_INT32 = 2**31 - 1
LEAST_IOBPS = 2
"""bytes a second; control groups v2 take no limit of one (block/blk-throttle.c, tg_set_limit)"""

MAX_PRIORITY = 1000
MAX_TIMEOUT_MS = 10 * 365 * 86_400_000
MAX_KEY = 128
MAX_NAME = 128
MAX_RETRIES = 100
RETRY_DELAY_MS = 1000
MAX_LABELS = 64
MAX_LABEL_VALUE = 256
MAX_SCHEDULE = 128
MAX_JITTER_MS = 86_400_000
OVERLAPS = ("skip", "queue", "allow", "replace")
CATCH_UPS = ("last", "none", "all")
MAX_TERMINAL = 65535
"""rows, and columns (struct winsize of ioctl_tty(2))"""

MAX_CORES = 1024
"""characters of a list of cores: each may stand for thousands of numbers"""

_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9_./]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED = "JOBLET_"
"""begins the names of the variables that tell a job what it is"""


STOP_SIGNALS = ("TERM", "INT", "HUP", "QUIT", "ABRT", "USR1", "USR2", "ALRM", "WINCH", "KILL")
"""the signals that a job can be asked to end by"""


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks for; 0 and empty mean the server's choice. `settle` makes it what the job gets."""

    command: str
    args: tuple[str, ...] = ()
    limits: Limits = field(default_factory=lambda: Limits(0, 0, 0))
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
    labels: Mapping[str, str] = field(default_factory=dict)
    """for people and their programs to find it by"""
    schedule: Schedule | None = None
    """when it is to run; None is as soon as there is a slot"""
    retries: int = 0
    """how often it is run again when it fails"""
    retry_delay_ms: int = 0
    """before the first of these, twice as many each time"""
    stdin: bool = False
    """it takes input; always so with a terminal"""
    terminal: Terminal | None = None
    separate_streams: bool = False
    """its log tells stdout and stderr apart"""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the configuration and the host say of every job."""

    default: Limits
    ceiling: Limits
    timeout: float
    """seconds a job may run: the most that it may ask for, and what it gets when it does not ask"""
    role_ceilings: Mapping[str, Limits] = field(default_factory=dict)
    """of the roles that have lower ones"""
    max_scheduled: int = 1000
    """jobs that wait for their time"""
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    """of the clients of every role that there is; empty: of none, whatever there is"""


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


def validate_size(rows: int, columns: int) -> None:
    """Raise InvalidArgument unless a terminal can have this size."""
    for name, count in (("rows", rows), ("columns", columns)):
        if not 1 <= count <= MAX_TERMINAL:
            raise InvalidArgument(f"invalid terminal: {count} {name} (allowed 1 to {MAX_TERMINAL})")


def validate_terminal(terminal: Terminal) -> None:
    """Raise InvalidArgument unless there can be one like it."""
    validate_size(terminal.rows, terminal.columns)
    if terminal.term and not _TERM.fullmatch(terminal.term):
        raise InvalidArgument(f"invalid terminal: {terminal.term[:64]!r} is no kind of terminal (as xterm-256color)")


def validate_input(order: Order) -> None:
    """Raise InvalidArgument for a terminal that cannot be, and for input that nobody would send."""
    if order.terminal is not None:
        validate_terminal(order.terminal)
        if order.separate_streams:
            raise InvalidArgument("invalid separateStreams: a terminal has only one stream")
    if not order.stdin:
        return
    what = "takes input" if order.terminal is None else "has a terminal"
    if order.retries:
        raise InvalidArgument(f"invalid retries: {order.retries} of a job that {what}, which nobody would send again")
    if order.schedule is not None and order.schedule.recurring:
        shown = repr(order.schedule.when[:MAX_NAME])
        raise InvalidArgument(f"invalid schedule: {shown} of a job that {what}, which nobody would send again")


def validate_labels(labels: Mapping[str, str]) -> None:
    """Raise InvalidArgument unless these can be a job's labels."""
    if len(labels) > MAX_LABELS:
        raise InvalidArgument(f"invalid labels: {len(labels)} labels (at most {MAX_LABELS})")
    for key, value in labels.items():
        if not _LABEL.fullmatch(key):
            what = "1 to 63 of a-z, 0-9, -, _, . and /, with a letter or digit at both ends"
            raise InvalidArgument(f"invalid labels: {key[:MAX_NAME]!r} is no name of a label ({what})")
        if len(value) > MAX_LABEL_VALUE or not value.isprintable():
            shown = repr(value[:MAX_NAME])
            raise InvalidArgument(
                f"invalid labels: the value {shown} of {key} (at most {MAX_LABEL_VALUE} printable characters)"
            )


def validate_again(order: Order) -> None:
    """Raise InvalidArgument unless an order can be run later and again as it says. Its times are not looked at."""
    if not 0 <= order.retries <= MAX_RETRIES:
        raise InvalidArgument(f"invalid retries: {order.retries} (allowed 0 to {MAX_RETRIES})")
    if not 0 <= order.retry_delay_ms <= MAX_RETRY_DELAY_MS:
        raise InvalidArgument(f"invalid retryDelayMs: {order.retry_delay_ms} ms (allowed 0 to {MAX_RETRY_DELAY_MS})")
    schedule = order.schedule
    if schedule is None:
        return
    for name, text in (("when", schedule.when), ("timezone", schedule.timezone)):
        if len(text) > MAX_SCHEDULE or not text.isprintable():
            shown = repr(text[:MAX_SCHEDULE])
            raise InvalidArgument(f"invalid schedule: {name} {shown} (at most {MAX_SCHEDULE} printable characters)")
    if not 0 <= schedule.jitter_ms <= MAX_JITTER_MS:
        raise InvalidArgument(f"invalid schedule: jitterMs {schedule.jitter_ms} (allowed 0 to {MAX_JITTER_MS})")
    for name, value, known in (
        ("overlap", schedule.overlap, OVERLAPS),
        ("catchUp", schedule.catch_up, CATCH_UPS),
        ("timezone", schedule.timezone, ()),
    ):
        if value and not schedule.recurring:
            raise InvalidArgument(f"invalid schedule: {name} is of cron expressions only")
        if value and known and value not in known:
            raise InvalidArgument(f"invalid schedule: {name} {value[:MAX_NAME]!r} is none of {', '.join(known)}")
    if schedule.catch_up == "all" and schedule.overlap != "allow":
        raise InvalidArgument('invalid schedule: catchUp "all" runs many at a time, which needs overlap "allow"')


def settle(order: Order, policy: Policy, role: str) -> Order:
    """The order with everything that the client left open filled in. Raise InvalidArgument for what may not be."""
    validate_command(order.command, order.args)
    if len(order.name) > MAX_NAME or not order.name.isprintable():
        raise InvalidArgument(f"invalid name: {order.name[:MAX_NAME]!r} (at most {MAX_NAME} printable characters)")
    validate_environment("environment", order.environment, reserved=order.part is not None)
    validate_environment("secret_environment", order.secret_environment)
    validate_workdir(order.workdir)
    validate_input(order)
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
    validate_labels(order.labels)
    validate_again(order)
    if order.separate_streams and order.terminal is not None:
        raise InvalidArgument("invalid separateStreams: a terminal has one stream for both stdout and stderr")
    ceiling = policy.role_ceilings.get(role, policy.ceiling)
    limits = resolve_limits(order.limits, policy.default, ceiling)
    delay = order.retry_delay_ms or RETRY_DELAY_MS if order.retries else 0
    return replace(order, limits=limits, timeout_ms=order.timeout_ms or most, retry_delay_ms=delay)


def made_by(job: Job) -> Order:
    """The order that has made a job."""
    return Order(
        command=job.command,
        args=job.args,
        limits=job.limits,
        timeout_ms=job.timeout_ms,
        priority=job.priority,
        key=job.key,
        name=job.name,
        environment=job.environment,
        secret_environment=job.secret_environment,
        workdir=job.workdir,
        uploads=job.uploads,
        part=job.part,
        labels=job.labels,
        schedule=job.schedule,
        retries=job.retries,
        retry_delay_ms=job.retry_delay_ms,
        stdin=job.stdin,
        terminal=job.terminal,
        separate_streams=job.separate_streams,
    )


def stop_of(name: str, grace_ms: int | None) -> Stop:
    """The stop that a client asks for: a signal by name (INT, SIGINT) or number, and the milliseconds until KILL.

    Empty is TERM. Raise InvalidArgument for others.
    """
    if grace_ms is not None and not 0 <= grace_ms <= MAX_INT32:
        raise InvalidArgument(f"invalid graceMs: {grace_ms} ms (allowed 0 to {MAX_INT32})")
    numbers = {f"SIG{known}": signal.Signals[f"SIG{known}"] for known in STOP_SIGNALS}
    text = name.upper() or "TERM"
    if text.isascii() and text.isdecimal() and len(text) < 3:
        number = next((each for each in numbers.values() if each == int(text)), None)
    else:
        number = numbers.get(text if text.startswith("SIG") else f"SIG{text}")
    if number is None:
        allowed = ", ".join(STOP_SIGNALS)
        hint = "; to keep a job from running there is PauseJob" if text in ("STOP", "SIGSTOP", "19") else ""
        raise InvalidArgument(f"invalid signal: {name[:MAX_NAME]!r} (allowed {allowed}, or their numbers{hint})")
    return Stop(signal.SIGTERM, 0) if number is signal.SIGKILL else Stop(number, grace_ms)


def resolve_limits(asked: Limits, default: Limits, ceiling: Limits) -> Limits:
    """Limits with 0 replaced by the default, or by the ceiling where that is lower.

    Raise InvalidArgument for one below 0, above its ceiling, or too low for the kernel. A ceiling of MAX_INT32 is none.
    """
    if 0 < asked.max_iobps < LEAST_IOBPS:
        raise InvalidArgument(
            f"job creation failed: maxIOBPS is below system limits "
            f"({asked.max_iobps}, allowed 0 and {LEAST_IOBPS} to {ceiling.max_iobps})"
        )

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
    if len(text) > MAX_CORES:
        raise InvalidArgument(f"invalid cpuCores: {len(text)} characters long (at most {MAX_CORES})")
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
