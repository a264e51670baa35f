"""The server's own log: API.md's line format, or one JSON object a line, on stderr.

Fields travel as `extra=fields(jobId=1, ...)`. Lines are written by a thread of their own, so that a slow stderr
never holds up the event loop; of those that it is too slow for, their number is written.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from joblet.clock import rfc3339

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}
_NAMES = {logging.WARNING: "WARN", logging.CRITICAL: "ERROR"}
_ATTRIBUTE = "joblet_fields"
_WAITING_MOST = 10_000
"""lines that wait for a slow stderr"""


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


class Output(logging.Handler):
    """Writes to stderr, what has come meanwhile at once. The mutable state is what waits for its thread."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._left_out = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() >= _WAITING_MOST:
            self._left_out += 1
            return
        self._tell_left_out(record.created)
        self._lines.put(self.format(record))

    def stop(self) -> None:
        """Return when all has been written."""
        self._tell_left_out(time.time())
        self._lines.put(None)
        self._thread.join()

    def _tell_left_out(self, at: float) -> None:
        if self._left_out:
            told = {"levelno": logging.WARNING, "msg": "lines left out: stderr is too slow", "created": at}
            self._lines.put(self.format(logging.makeLogRecord(told | fields(count=self._left_out))))
            self._left_out = 0

    def _write(self) -> None:
        going_on = True
        while going_on:
            line = self._lines.get()
            lines = []
            with suppress(queue.Empty):
                while line is not None:
                    lines.append(line)
                    line = self._lines.get_nowait()
            going_on = line is not None
            # Whoever reads it may have gone; there is nobody else to be told.
            with suppress(OSError, ValueError):
                sys.stderr.write("".join(f"{line}\n" for line in lines))
                sys.stderr.flush()


def start(level: str, style: str) -> Output:
    """Send all logging to stderr from `level` up, as `text` or `json`. Call `stop()` on the result at the end."""
    output = Output(_JsonFormatter() if style == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(_LEVELS[level])
    # grpclib and h2 narrate every request; what matters of them is logged by joblet itself.
    for noisy in ("grpclib", "h2", "hpack", "asyncio"):
        logging.getLogger(noisy).setLevel(max(_LEVELS[level], logging.WARNING))
    # No line tells them, and to look for them takes longer than to write it (logging, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    return output
