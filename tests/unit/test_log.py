from __future__ import annotations

import json
import logging
import re
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
