"""What a shim says and leaves behind: its report line and the files of shim/PROTOCOL.md."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from joblet.executor.base import Exit, LaunchFailed
from joblet.executor.local import outputs
from joblet.job import Receipt

_SILENT = 4
"""the newest version whose monitors do not say it"""
_REPORT_MOST = 4096

NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
"""errors that say nothing of the file, and go by"""


@dataclass(frozen=True, slots=True)
class Monitor:
    """Who a job's monitor is; all three must match before its pid is believed."""

    pid: int
    start: int
    """field 22 of /proc/PID/stat: clock ticks since boot"""
    boot: str
    protocol: int
    """version of shim/PROTOCOL.md"""


class BadRecord(Exception):
    """A file or line of the shim that is not of the protocol's form."""


def parse_report(line: bytes) -> LaunchFailed | None:
    """The report line: None when exec has succeeded. Raises BadRecord."""
    text = line[:_REPORT_MOST].decode(errors="replace")
    if not text.endswith("\n"):
        raise BadRecord("the shim ended before it reported")
    match text[:-1].split(" ", 3):
        case ["started", pid] if pid.isdecimal():
            return None
        case ["failed", stage, errno, reason] if errno.isdecimal():
            return LaunchFailed(stage, int(errno), reason)
    raise BadRecord(f"not a report: {text[:-1]!r}")


def read_monitor(directory: Path) -> Monitor | None:
    """The `monitor` file, or None when the monitor did not get so far. Raises BadRecord."""
    pairs = _read_pairs(directory / "monitor")
    if pairs is None:
        return None
    protocol = _number(pairs, "version") if "version" in pairs else _SILENT
    return Monitor(_number(pairs, "pid"), _number(pairs, "start"), pairs.get("boot", ""), protocol)


@dataclass(frozen=True, slots=True)
class Started:
    """When a command was exec'd."""

    at: int
    """nanoseconds since the epoch"""
    monotonic: float
    """seconds of CLOCK_MONOTONIC"""


def read_started(directory: Path) -> Started | None:
    """When the command was exec'd, from the `started` file, or None when it was not. Raises BadRecord."""
    pairs = _read_pairs(directory / "started")
    return None if pairs is None else Started(_number(pairs, "at"), _number(pairs, "monotonic_us") / 1e6)


def read_exit(directory: Path) -> Exit | None:
    """The exit record, or None when there is none. Raises BadRecord, also for what a power failure has left of one."""
    pairs = _read_pairs(directory / "exit")
    if pairs is None:
        return None
    if any("\0" in value for value in pairs.values()):
        raise BadRecord("exit record with bytes missing")
    if pairs.get("version") != "1" or pairs.get("end") != "1":
        raise BadRecord("exit record of another version, or incomplete")
    outcome = pairs.get("outcome")
    if outcome not in ("exited", "signaled", "failed"):
        raise BadRecord(f"exit record with outcome {outcome!r}")
    launch_error = None
    if outcome == "failed":
        launch_error = LaunchFailed(pairs.get("stage", ""), _number(pairs, "errno"), pairs.get("reason", ""))
    given_out, outputs_error = _read_outputs(directory, pairs)
    return Exit(
        ended_at=_number(pairs, "ended_at"),
        started_at=_number(pairs, "started_at") if "started_at" in pairs else None,
        code=_number(pairs, "code") if outcome == "exited" else None,
        signal=_number(pairs, "signal") if outcome == "signaled" else None,
        stopped="stop" in pairs,
        launch_error=launch_error,
        log_bytes=_number(pairs, "log_bytes") if "log_bytes" in pairs else 0,
        log_lost=_number(pairs, "log_lost") if "log_lost" in pairs else 0,
        outputs=given_out,
        outputs_error=outputs_error,
        receipt=_receipt({key.removeprefix("stat."): _number(pairs, key) for key in pairs if key.startswith("stat.")}),
    )


def _read_outputs(directory: Path, pairs: dict[str, str]) -> tuple[dict[str, str], str]:
    """What the job has given out, and why nothing of it can be taken."""
    if "outputs" not in pairs:
        return {}, pairs.get("outputs_error", "")
    length = _number(pairs, "outputs")
    data = _read(directory / "outputs")
    if data is None or len(data) != length:
        return {}, "missing or cut short on the server"
    try:
        return outputs.parse(data), ""
    except outputs.BadOutputs as error:
        return {}, str(error)


def _receipt(stats: dict[str, int]) -> Receipt:
    def usec(name: str) -> int | None:
        nanoseconds = stats.get(f"{name}_nsec")  # v1 counts these
        return stats.get(f"{name}_usec") if nanoseconds is None else nanoseconds // 1000

    return Receipt(
        wall_usec=usec("wall"),
        cpu_usec=usec("cpu"),
        throttled_usec=usec("throttled"),
        memory_peak=stats.get("memory_peak"),
        io_read=stats.get("io_read"),
        io_write=stats.get("io_write"),
        processes_peak=stats.get("processes_peak"),
        oom_kills=stats.get("oom_kill"),
    )


def _read_pairs(path: Path) -> dict[str, str] | None:
    """As `_read`."""
    data = _read(path)
    if data is None:
        return None
    # Only a newline ends a line: splitlines would let U+2028 in a command's name forge one.
    return dict(line.split("=", 1) for line in data.decode(errors="replace").split("\n") if "=" in line)


def _read(path: Path) -> bytes | None:
    """None when there is no such file. Raises BadRecord, or OSError while there is no descriptor to read with."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in NO_DESCRIPTOR:
            raise
        raise BadRecord(f"{path.name} cannot be read: {error.strerror}") from error


def _number(pairs: dict[str, str], key: str) -> int:
    value = pairs.get(key, "")
    if not (value.isdecimal() and len(value) < 20 and int(value) < 2**63):
        raise BadRecord(f"{key} is {value[:40]!r}, not a number")
    return int(value)
