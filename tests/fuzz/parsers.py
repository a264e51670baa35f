"""The parsers that read what strangers have written, each as a function of bytes that says what has to hold.

Whatever the bytes are, a parser gives a value or refuses with its own error; any other exception is a finding, and so
is an assertion here that does not hold.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from connections import frames

from joblet import schedule
from joblet.client import SettingsError
from joblet.client.config import NodeFile, parse_address
from joblet.clock import format_duration, parse_duration
from joblet.command import Command, check
from joblet.config import Config, ConfigError, load
from joblet.errors import InvalidArgument, InvalidWorkflow
from joblet.executor.local import outputs
from joblet.job import Limits, Schedule
from joblet.logs.grep import Grep
from joblet.logs.pattern import Pattern
from joblet.order import Policy, parse_cores, settle, stop_of
from joblet.proto import joblet as pb
from joblet.server.descriptors import Descriptors
from joblet.server.orders import order_of, terminal_of
from joblet.server.rpc import Codec
from joblet.uploads import File, validate
from joblet.workflow import expression, template
from joblet.workflow.build import parse

NOW = 1_700_000_000 * schedule.SECOND
_SCRATCH = Path(tempfile.gettempdir())


def workflow(data: bytes) -> None:
    """A file has a plan, or one line for each fault."""
    text = data.decode(errors="replace")
    try:
        parsed = parse(text, file="w.yaml", parameters={"p": "1"})
    except InvalidWorkflow as error:
        assert error.faults
        assert all(fault.startswith("w.yaml:") for fault in error.faults)
        return
    assert parsed.plan.steps
    parse(parsed.masked, file="w.yaml", parameters={"p": "1"})


def configuration(data: bytes) -> None:
    """A file is a configuration, or each line of the error begins with its name."""
    with _file(data) as path:
        try:
            assert isinstance(load(path), Config)
        except ConfigError as error:
            assert all(line.startswith(str(path)) for line in str(error).split("\n") if line)


def nodes(data: bytes) -> None:
    """A client's file of nodes; the first line is the address of a server beside it."""
    text, _, rest = data.partition(b"\n")
    with contextlib.suppress(SettingsError):
        _, port = parse_address(text.decode(errors="replace"))
        assert 1 <= port <= 65535
    with _file(rest) as path, contextlib.suppress(SettingsError):
        file = NodeFile.find(path)
        assert file is not None
        for name in file.nodes:
            file.settings(name)


def cron(data: bytes) -> None:
    """A schedule's next time is later than now, and the one after that later still."""
    when, _, zone = data.decode(errors="replace").partition("\n")
    if len(when) > 128:  # an order's is refused before
        return
    asked = Schedule(when, zone, "skip", 1000, "all")
    with contextlib.suppress(InvalidArgument):
        first = schedule.first(asked, NOW)
        assert first >= NOW - schedule.GRACE
        if asked.recurring:
            what = schedule.cron_of(asked)
            following = what.after(first)
            assert following is None or following > first
            due = schedule.due(what, asked, 7, first, first + schedule.SECOND)
            assert due.times == [] or due.times[0] >= first


def duration(data: bytes) -> None:
    """What is a duration is a number of seconds that can be written, and read again."""
    try:
        seconds = parse_duration(data.decode(errors="replace"))
    except ValueError:
        return
    assert 0 <= seconds < float("inf")
    if seconds > 1e15:  # not to the millisecond any more
        return
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= 0.001 + seconds * 1e-9


def grep(data: bytes) -> None:
    """The lines that an expression picks are the log's own, whole, and the same however the log comes in pieces."""
    text, _, log = data.partition(b"\n")
    try:
        pattern = Pattern(text.decode(errors="replace"))
    except ValueError as error:
        assert str(error)
        return
    whole, pieces = Grep(pattern, 0), Grep(pattern, 0)
    found = b"".join(run for _, run in whole.feed(log) + whole.end())
    picked = [run for start in range(0, len(log), 7) for _, run in pieces.feed(log[start : start + 7])]
    assert found == b"".join([*picked, *(run for _, run in pieces.end())])
    if found:
        assert set(found.removesuffix(b"\n").split(b"\n")) <= set(log.split(b"\n"))


def condition(data: bytes) -> None:
    """An expression's text, written anew, is the same condition."""
    try:
        parsed = expression.parse(data.decode(errors="replace"), {"a", "b", "c", "train[lr=0.1]"})
    except expression.ExpressionError as error:
        assert str(error)
        return
    assert expression.parse_stored(str(parsed)) == parsed


def templates(data: bytes) -> None:
    """A literal that was encoded is a literal again; outputs are put in as they are."""
    text = data.decode(errors="replace")
    assert "".join(map(str, template.split(template.encode([text])))) == text
    with contextlib.suppress(template.TemplateError):
        pieces = template.split(text)
        if all(isinstance(piece, str | template.Output) for piece in pieces):
            written = template.encode(pieces)
            used = [piece for piece in pieces if isinstance(piece, template.Output)]
            given: dict[str, dict[str, str]] = {}
            for piece in used:
                given.setdefault(piece.job, {})[piece.key] = "${{"
            expected = "".join("${{" if isinstance(piece, template.Output) else str(piece) for piece in pieces)
            assert template.fill(written, given) == expected


def job_outputs(data: bytes) -> None:
    """What a job has written to $JOBLET_OUTPUT is taken whole, or not at all."""
    with contextlib.suppress(outputs.BadOutputs):
        assert all(key.isascii() and "\0" not in value for key, value in outputs.parse(data).items())


def cores(data: bytes) -> None:
    """A list of cores, and a signal's name."""
    text = data.decode(errors="replace")
    with contextlib.suppress(InvalidArgument):
        assert len(parse_cores(text)) <= 100_000
    with contextlib.suppress(InvalidArgument):
        stop_of(text, 5)


def paths(data: bytes) -> None:
    """Paths of files that are sent along stay below where they belong."""
    names = data.decode(errors="replace").split("\n")
    with contextlib.suppress(InvalidArgument):
        validate([File(name, b"", 0o644, is_directory=False) for name in names])
        assert not any(name.startswith("/") or ".." in name.split("/") for name in names)


_CODEC = Codec(Descriptors(), 4 << 20)
_REQUESTS = [
    *(pb.RunJobReq, pb.StopJobReq, pb.GetJobLogsReq, pb.EmptyRequest, pb.RunWorkflowRequest, pb.WatchEventsRequest),
    *(pb.JobInput, pb.ExecInput, pb.UploadPiece, pb.ReadFilesReq, pb.StreamJobUsageReq, pb.SetJobTimeoutReq),
]
_POLICY = Policy(Limits(100, 512, 0), Limits(400, 8192, 2**31 - 1, 4096, 65536, 4096, "0-3"), 3600.0)


def requests(data: bytes) -> None:
    """Bytes are the message of a request, or an invalid argument; a job's order is one that may be, or is refused."""
    kind = _REQUESTS[data[0] % len(_REQUESTS)] if data else pb.RunJobReq
    with contextlib.suppress(InvalidArgument):
        message = _CODEC.decode(data[1:], kind)
        if isinstance(message, pb.RunJobReq):
            order = settle(order_of(message), _POLICY, "admin")
            assert order.timeout_ms > 0
            if order.schedule is not None:
                schedule.first(order.schedule, NOW)
        elif isinstance(message, pb.ExecInput):
            environment = dict(message.environment)
            terminal = terminal_of(message.terminal)
            check(Command(message.command, tuple(message.args), environment, message.workdir, message.stdin, terminal))


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=_SCRATCH, prefix="joblet-fuzz-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


PARSERS: dict[str, Callable[[bytes], None]] = {
    "workflow": workflow,
    "configuration": configuration,
    "nodes": nodes,
    "cron": cron,
    "duration": duration,
    "grep": grep,
    "condition": condition,
    "templates": templates,
    "outputs": job_outputs,
    "cores": cores,
    "paths": paths,
    "requests": requests,
    "frames": frames,
}
"""by the name of their corpus"""
