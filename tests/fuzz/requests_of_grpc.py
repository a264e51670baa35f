"""Requests for every rpc of the protocol: valid ones, and what becomes of them when bytes and fields are changed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message
from mutation import EDGES, mutate, varint

from joblet.server.descriptors import Descriptors

DESCRIPTORS = Descriptors()
MOST = 524_288
"""bytes that the server takes in one message"""
_DEEPEST = 4

_TEXTS = (
    "",
    "a",
    "x" * 200,
    "é\u2028\U0001f600",
    "a\0b",
    "\n",
    "../..",
    "/etc/passwd",
    "${{ jobs.a.outputs.b }}",
    "-1",
)
_WORKFLOW = """
name: w
jobs:
  a: {command: echo, args: ["${{ params.x }}"], retries: 1}
  b: {command: sh, args: [-c, 'echo K=1 > $JOBLET_OUTPUT'], requires: [{a: COMPLETED}]}
params: {x: {default: 1}}
"""
_KNOWN: dict[str, tuple[str, ...]] = {
    "id": ("1", "2", "3", "7", "20", "0", "-1", "9" * 30, "abc", ""),
    "ids": ("1", "2", "3", "999"),
    "jobId": ("1", "2", ""),
    "workflowId": ("1", "2", ""),
    "command": ("true", "echo", "sh", "head", "nosuch", "x" * 5000, "a;b"),
    "args": ("-c", "echo fine; echo bad >&2", "sleep 1", "cat", "", "x" * 1000),
    "cpuCores": ("0", "0-1", "0-9999," * 9 + "1", "5-2", "é"),
    "key": ("", "k1", "k2", "x" * 128, "\x7f"),
    "uploadKey": ("", "u1", "u2"),
    "workdir": ("", "src", "/tmp", "..", "a//b"),
    "path": ("a", "a/b", "d", "../x", "/x", "x" * 300, "a/" * 40 + "b", ".", ""),
    "when": ("1s", "2030-01-15T10:30:00Z", "*/1 * * * *", "@hourly", "0 0 30 2 *", "2001-01-01T00:00:00Z", "9" * 100),
    "timezone": ("", "UTC", "Europe/Berlin", "../UTC", "Nowhere/Town"),
    "overlap": ("", "skip", "queue", "allow", "replace", "x"),
    "catchUp": ("", "last", "none", "all", "x"),
    "signal": ("", "INT", "SIGKILL", "WINCH", "0"),
    "term": ("xterm", "", "../x", "a" * 70),
    "grep": ("", "fine", "(a|b)*c", "[", "(?=x)", "x{1,999}"),
    "before": ("", "1", "2", "x"),
    "yamlContent": (_WORKFLOW, "jobs: {a: {command: 'true'}}", "jobs: [", "a: &a [*a]", "{}", "x" * 5000),
    "workflow": ("w.yaml", "", "w.yaml:a", "x" * 300),
}
"""texts by the name of their field"""


def _scalar(rng: Random, field: FieldDescriptor, tame: bool) -> Any:
    """A value for a field; with `tame` one that there may be, if that can be told by its type and name."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice([*(value.number for value in field.enum_type.values), *(() if tame else (99,))])
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return rng.randbytes(rng.choice((0, 1, 100, 5000)))
        case FieldDescriptor.CPPTYPE_STRING if field.containing_type.GetOptions().map_entry:
            return rng.choice(("A", "b", "c2") if tame else ("A", "x-y", "JOBLET_X", *_TEXTS))
        case FieldDescriptor.CPPTYPE_STRING:
            known = _KNOWN.get(field.name, ("a", "b", *_TEXTS))
            return rng.choice(known[:3] if tame else (*known, *_TEXTS))
    tame_ones, all_ones = _NUMBERS.get(field.cpp_type, ((0.5,), (-1.0, float("inf"), float("nan"))))
    return rng.choice(tame_ones if tame else (*tame_ones, *all_ones))


_NUMBERS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    FieldDescriptor.CPPTYPE_INT32: ((1, 5, 50, 64), (0, -1, 2**31 - 1, -(2**31))),
    FieldDescriptor.CPPTYPE_UINT32: ((24, 80, 0o644), (0, 65536, 2**32 - 1)),
    FieldDescriptor.CPPTYPE_INT64: ((1, 100, 2000), (0, -1, -(10**9), 2**63 - 1, -(2**63))),
    FieldDescriptor.CPPTYPE_UINT64: ((0, 1, 100), (2**32, 2**63, 2**64 - 1)),
}
"""by a field's type, those that may be and those at which something ends"""


def fill(rng: Random, message: Message, tame: bool, depth: int = 0) -> None:
    """Give values to some of a message's fields."""
    for field in message.DESCRIPTOR.fields:
        # the first ones are what an rpc is about
        if rng.random() > (0.9 if field.number <= 2 else 0.15 if tame else 0.3):
            continue
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            for _ in range(rng.randint(1, 3)):
                key, value = (_scalar(rng, inner.fields_by_name[name], tame) for name in ("key", "value"))
                getattr(message, field.name)[key] = value
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(rng.randint(1, 3)):
                if inner is None:
                    values.append(_scalar(rng, field, tame))
                elif depth < _DEEPEST:
                    fill(rng, values.add(), tame, depth + 1)
        elif inner is None:
            setattr(message, field.name, _scalar(rng, field, tame))
        elif depth < _DEEPEST:
            getattr(message, field.name).SetInParent()
            fill(rng, getattr(message, field.name), tame, depth + 1)


def _length(content: bytes) -> bytes:
    return varint(len(content)) + content


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def _of_another_type(rng: Random, kind: type[Message]) -> bytes:
    """A field that there is, in a wire type that is not its own."""
    fields = kind.DESCRIPTOR.fields
    number = rng.choice(fields).number if fields else 1
    bodies = {0: varint(rng.choice(EDGES)), 1: rng.randbytes(8), 2: _length(rng.randbytes(9)), 5: rng.randbytes(4)}
    wire_type = rng.choice(list(bodies))
    return _tag(number, wire_type) + bodies[wire_type]


def _nested(rng: Random, kind: type[Message]) -> bytes:
    """Groups in one another, or a field within itself, deeper than anyone reads."""
    depth, number = rng.choice((10, 99, 101, 5000)), rng.choice((1, 7, 15))
    if rng.random() < 0.5:
        return _tag(number, 3) * depth + _tag(number, 4) * rng.choice((depth, 0))
    content = b""
    for _ in range(min(depth, 300)):
        content = _tag(number, 2) + _length(content)
    return content


_SPOILS: tuple[Callable[[Random, type[Message]], bytes], ...] = (
    _of_another_type,
    _of_another_type,
    _nested,
    lambda rng, kind: _tag(rng.choice((1, 99, 2**29 - 1)), rng.randrange(8)) + rng.randbytes(12),  # unknown, or no type
    lambda rng, kind: _tag(1, 2) + varint(rng.choice(EDGES)),  # a length, and nothing
    lambda rng, kind: _tag(3, 0) + b"\xff" * rng.choice((9, 10, 11, 60)) + b"\1",  # too many bits
    lambda rng, kind: (
        _tag(1, 2) + _length(rng.choice((b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80")))
    ),
    lambda rng, kind: _tag(0, 2) + _length(b"x"),
    lambda rng, kind: b"\x80" * rng.choice((1, 10, 500)),
)


@dataclass(frozen=True)
class Request:
    """What is sent with a call."""

    method: str
    """/package.Service/Method"""
    data: bytes
    """with the gRPC prefix, as many messages as there are"""
    fault: str
    """which of `FAULTS` the first message has; empty if it can be read"""
    streaming: bool
    """the client may send more than one message"""


FAULTS = {"no message", "compressed", "too large", "cut off", "not protobuf"}


def methods() -> list[MethodDescriptor]:
    """Every rpc of the protocol."""
    files = DESCRIPTORS.pool.FindFileByName("joblet.proto")
    return [method for service in files.services_by_name.values() for method in service.methods]


def _body(rng: Random, kind: type[Message]) -> bytes:
    message = kind()
    fill(rng, message, tame=rng.random() < 0.5)
    body = message.SerializeToString()
    way = rng.random()
    if way < 0.4:
        return body
    if way < 0.7:
        return mutate(rng, body) if body else rng.randbytes(5)
    place = rng.choice((0, len(body)))
    return body[:place] + rng.choice(_SPOILS)(rng, kind) + body[place:]


def _reads(kind: type[Message], body: bytes) -> bool:
    try:
        kind.FromString(body)
    except DecodeError:
        return False
    return True


def request(rng: Random, method: MethodDescriptor) -> Request:
    """A request for the method, and how it is framed."""
    kind = DESCRIPTORS.message(method.input_type.name)
    name = f"/{method.containing_service.full_name}/{method.name}"
    body = _body(rng, kind)
    fault = "" if _reads(kind, body) else "not protobuf"
    flag, length = 0, len(body)
    way = rng.random()
    if way < 0.05:
        return Request(name, b"", "no message", method.client_streaming)
    if way < 0.1:
        fault, flag = "compressed", rng.choice((1, 2, 255))
    elif way < 0.15:
        fault, length = "too large", rng.choice((MOST + 1, 2**31, 2**32 - 1))
    elif way < 0.2:
        fault, length = "cut off", len(body) + rng.randint(1, 100)
    elif way < 0.22:
        body += b"x" * (MOST + 1)
        fault, length = "too large", len(body)
    data = struct.pack(">BI", flag, length) + body
    if method.client_streaming and not fault:
        for _ in range(rng.randint(0, 4)):
            more = _body(rng, kind)
            data += struct.pack(">BI", 0, len(more)) + more
    return Request(name, data, fault, method.client_streaming)
