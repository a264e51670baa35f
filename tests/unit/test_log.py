from __future__ import annotations

import io
import json
import logging
import os
import re
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joblet import log as logs
from joblet.log import fields

INSTANT = 1_705_314_600.25
PAIR = re.compile(r'(\w+=)("(?:[^"\\]|\\.)*"|[^ "=|]+)( |$)')


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The server configures the root logger for good; tests share it with pytest's own."""
    loggers = [logging.getLogger(name) for name in ("", "grpclib", "h2", "hpack", "asyncio")]
    levels, handlers = [logger.level for logger in loggers], logging.getLogger().handlers
    yield
    logging.getLogger().handlers = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def record(message: str, level: int = logging.INFO, **values: object) -> logging.LogRecord:
    made = logging.getLogger("joblet.test").makeRecord(
        "joblet.test", level, __file__, 1, message, (), None, extra=fields(**values) if values else None
    )
    made.created = INSTANT
    return made


def written(
    capsys: pytest.CaptureFixture[str], style: str, *records: logging.LogRecord, level: str = "DEBUG"
) -> list[str]:
    listener = logs.start(level, style)
    for each in records:
        logging.getLogger("joblet.test").handle(each)
    listener.stop()
    text = capsys.readouterr().err
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


def test_a_line_is_that_of_the_specification(capsys: pytest.CaptureFixture[str]) -> None:
    entry = record("job started successfully", jobId=1, pid=12345, command="python3 script.py", duration="50ms")
    assert written(capsys, "text", entry) == [
        "[2024-01-15T10:30:00Z] [INFO] job started successfully"
        ' | jobId=1 pid=12345 command="python3 script.py" duration=50ms'
    ]


def test_a_line_without_fields_ends_after_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert written(capsys, "text", record("server stopped")) == ["[2024-01-15T10:30:00Z] [INFO] server stopped"]


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (logging.DEBUG, "DEBUG"),
        (logging.INFO, "INFO"),
        (logging.WARNING, "WARN"),
        (logging.ERROR, "ERROR"),
        (logging.CRITICAL, "ERROR"),
    ],
)
@pytest.mark.parametrize("style", ["text", "json"])
def test_levels_have_the_specifications_names(
    capsys: pytest.CaptureFixture[str], style: str, level: int, name: str
) -> None:
    (line,) = written(capsys, style, record("x", level))
    assert line.startswith(f"[2024-01-15T10:30:00Z] [{name}] ") or json.loads(line)["level"] == name


@pytest.mark.parametrize(("level", "shown"), [("DEBUG", "diwe"), ("INFO", "iwe"), ("WARN", "we"), ("ERROR", "e")])
def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str], level: str, shown: str) -> None:
    listener = logs.start(level, "text")
    logger = logging.getLogger("joblet.test")
    for say in (logger.debug, logger.info, logger.warning, logger.error):
        say(say.__name__)
    listener.stop()
    assert [line.split()[-1][0] for line in capsys.readouterr().err.splitlines()] == list(shown)


def test_libraries_narrate_only_from_warn_up(capsys: pytest.CaptureFixture[str]) -> None:
    listener = logs.start("DEBUG", "text")
    for name in ("grpclib", "h2", "hpack", "asyncio"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("%s matters", name)
    listener.stop()
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["grpclib", "h2", "hpack", "asyncio"]


@pytest.mark.parametrize(
    "value", ["", "two words", 'say "x"', "a=b", "a|b", "back\\slash", "tab\t", "line\nbreak", "\x1b[2J"]
)
def test_a_value_that_could_be_misread_is_quoted(capsys: pytest.CaptureFixture[str], value: str) -> None:
    (line,) = written(capsys, "text", record("m", value=value))
    shown = line.partition("value=")[2]
    assert shown.startswith('"')
    assert json.loads(shown.replace("\\x1b", "\\u001b")) == value


FORGED = "x\n[2024-01-15T10:30:00Z] [INFO] forged | jobId=2"


@pytest.mark.parametrize(
    "value",
    [FORGED, ValueError(FORGED), [FORGED], FORGED.replace("\n", "\r"), FORGED.replace("\n", "\u2028")],
    ids=["text", "error", "list", "carriage return", "line separator"],
)
def test_a_value_cannot_start_a_line(capsys: pytest.CaptureFixture[str], value: object) -> None:
    (line,) = written(capsys, "text", record("m", value=value))
    assert line.isprintable()
    (line,) = written(capsys, "json", record("m", value=value))
    assert json.loads(line)["value"] in (value, str(value))


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("breaker", ["\n", "\r", "\x85", "\u2028", "\x0b", "\x1b[2J"])
def test_a_message_cannot_start_a_line(capsys: pytest.CaptureFixture[str], style: str, breaker: str) -> None:
    (line,) = written(capsys, style, record("one" + breaker + "two"))
    assert line.isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.text(st.characters(codec=None, categories=None), max_size=20), min_size=1, max_size=3))
def test_no_text_in_a_value_leaves_its_line_or_its_quotes(
    capsys: pytest.CaptureFixture[str], values: list[str]
) -> None:
    (line,) = written(capsys, "text", record("m", **{f"k{index}": value for index, value in enumerate(values)}))
    assert line.isprintable()
    shown = PAIR.findall(line.partition(" | ")[2])
    assert "".join(map("".join, shown)) == line.partition(" | ")[2]
    assert [key for key, _, _ in shown] == [f"k{index}=" for index in range(len(values))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.text(), st.text())
def test_json_gives_message_and_values_back(capsys: pytest.CaptureFixture[str], message: str, value: str) -> None:
    (line,) = written(capsys, "json", record(message.replace("%", ""), jobId=7, value=value))
    entry = json.loads(line)
    assert (entry["time"], entry["jobId"], entry["value"]) == ("2024-01-15T10:30:00Z", 7, value)


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_exception_is_told_with_its_traceback_in_one_line(capsys: pytest.CaptureFixture[str], style: str) -> None:
    listener = logs.start("INFO", style)
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        logging.getLogger("joblet.test").exception("job runner failed", extra=fields(jobId=3))
    listener.stop()
    (line,) = capsys.readouterr().err.splitlines()
    assert "Traceback" in line
    assert "first\\nsecond" in line or "first\\\\nsecond" in line


class _Stuck(io.StringIO):
    """A stderr that nobody reads until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.flushed = 0

    def write(self, text: str) -> int:
        self.asked.set()
        assert self.go_on.wait(60)
        return super().write(text)

    def flush(self) -> None:
        self.flushed += 1


def test_lines_that_stderr_is_too_slow_for_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = _Stuck()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr("joblet.log._WAITING_MOST", 3)
    output = logs.start("INFO", "text")
    log = logging.getLogger("joblet.test")
    log.handle(record("first"))
    assert stderr.asked.wait(60)  # it is being written, and waits no more
    for number in range(5):
        log.handle(record(f"more {number}"))
    stderr.go_on.set()
    output.stop()
    output = logs.start("INFO", "text")
    output.stop()
    assert [line.partition("] [")[2] for line in stderr.getvalue().splitlines()] == [
        "INFO] first",
        "INFO] more 0",
        "INFO] more 1",
        "INFO] more 2",
        "WARN] lines left out: stderr is too slow | count=2",
    ]
    assert stderr.flushed == 3  # what had come meanwhile was written at once


def test_a_stderr_that_is_no_more_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, "w")
    monkeypatch.setattr("sys.stderr", gone)
    output = logs.start("INFO", "text")
    logging.getLogger("joblet.test").handle(record("to nobody"))
    output.stop()
    with pytest.raises(BrokenPipeError):  # what could not be written is still there
        gone.close()
