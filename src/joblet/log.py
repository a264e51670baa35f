"""The server's own log: API.md's line format, or one JSON object a line, on stderr.

Fields travel as `extra=fields(jobId=1, ...)`. Lines are written by a thread of their own, so that a slow stderr
never holds up the event loop.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
from logging.handlers import QueueHandler, QueueListener
from typing import Any

from joblet.clock import rfc3339

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}
_NAMES = {logging.WARNING: "WARN", logging.CRITICAL: "ERROR"}
_ATTRIBUTE = "joblet_fields"


def fields(**values: object) -> dict[str, Any]:
    """The `extra` of a logging call that shows `values` behind the message."""
    return {_ATTRIBUTE: values}


def _value(value: object) -> str:
    text = str(value)
    if not text or any(c in ' "=|\\' or not c.isprintable() for c in text):
        return _printable(json.dumps(text, ensure_ascii=False))
    return text


def _printable(text: str) -> str:
    """`text` with escapes for what could start a line or steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = _NAMES.get(record.levelno, record.levelname)
        line = f"[{rfc3339(int(record.created * 1e9))}] [{level}] {_one_line(record)}"
        values = getattr(record, _ATTRIBUTE, None)
        if values:
            line += " | " + " ".join(f"{key}={_value(value)}" for key, value in values.items())
        return line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": rfc3339(int(record.created * 1e9)),
            "level": _NAMES.get(record.levelno, record.levelname),
            "message": _one_line(record),
            **getattr(record, _ATTRIBUTE, {}),
        }
        return json.dumps(entry, ensure_ascii=False, default=str)


def _one_line(record: logging.LogRecord) -> str:
    message = record.getMessage()
    if record.exc_info:
        message += ": " + logging.Formatter().formatException(record.exc_info)
    return _printable(message)


class _Handler(QueueHandler):
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


def start(level: str, style: str) -> QueueListener:
    """Send all logging to stderr from `level` up, as `text` or `json`. Call `stop()` on the result at the end."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = QueueListener(lines, output)
    root = logging.getLogger()
    root.handlers = [_Handler(lines)]
    root.setLevel(_LEVELS[level])
    # grpclib and h2 narrate every request; what matters of them is logged by joblet itself.
    for noisy in ("grpclib", "h2", "hpack", "asyncio"):
        logging.getLogger(noisy).setLevel(max(_LEVELS[level], logging.WARNING))
    listener.start()
    return listener
