"""The form of a line of the audit log. No I/O.

A line is a JSON object in ASCII that begins with its number, `n`, and its time and ends with its `hash`: the SHA-256,
in hexadecimal digits, of the hash of the line before it followed by the line itself up to `,"hash"`. Each file begins
with a line of the event `opened`, which holds that former hash as `previous`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii

START = "0" * 64
"""the hash before the first line"""
MOST = 64 << 10
"""bytes of a line; those that are written are far shorter"""

_LINE = re.compile(rb'(\{"n":([1-9][0-9]{0,17}),"time":"[^"\\]*".*),"hash":"([0-9a-f]{64})"\}\n')


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it stands in a file."""

    number: int
    body: bytes
    """what its hash is of, beside the former hash"""
    hash: str

    def follows(self, previous: str) -> bool:
        """Whether its hash is right, after a line with the hash `previous`."""
        return digest(previous, self.body) == self.hash

    def values(self) -> dict[str, object]:
        """What it tells, without its hash. Raises ValueError."""
        found = json.loads(self.body + b"}")
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return found


def digest(previous: str, body: bytes) -> str:
    """The hash of a line after one with the hash `previous`."""
    return hashlib.sha256(previous.encode("ascii") + body).hexdigest()


def link(previous: str, body: str) -> tuple[bytes, str]:
    """A line, and its hash. `body` is its JSON object without the closing brace, in ASCII."""
    raw = body.encode("ascii")
    found = digest(previous, raw)
    return raw + f',"hash":"{found}"}}\n'.encode("ascii"), found


def parse(raw: bytes) -> Line | None:
    """The line, with its newline, as it was written; None for what no line can be."""
    found = _LINE.fullmatch(raw)
    return None if found is None else Line(int(found[2]), found[1], found[3].decode("ascii"))


def members(values: Mapping[str, object]) -> str:
    """The members of a JSON object, in ASCII: `"a":"b","c":1`. Nothing for None; what is no number or truth is text."""
    told = ((name, value) for name, value in values.items() if value is not None)
    return ",".join(f"{encode_basestring_ascii(name)}:{_shown(value)}" for name, value in told)


def _shown(value: object) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    return encode_basestring_ascii(str(value))
