"""What a job gives out: lines KEY=VALUE in the file that $JOBLET_OUTPUT names."""

from __future__ import annotations

import re

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class BadOutputs(Exception):
    """`str(error)` says what is wrong, without showing any value."""


def parse(data: bytes) -> dict[str, str]:
    """The values; the last of a key counts. Blank lines, and those that begin with #, are none.

    Raises BadOutputs: of a file that is wrong somewhere nothing is taken.
    """
    outputs: dict[str, str] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise BadOutputs(f"line {number} is not UTF-8") from None
        if not text.strip() or text.startswith("#"):
            continue
        key, equals, value = text.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise BadOutputs(f"line {number} is not KEY=VALUE")
        if "\0" in value:
            raise BadOutputs(f"line {number} contains a NUL byte")
        outputs[key] = value
    return outputs
