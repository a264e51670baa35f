"""A workflow's file as it is written: YAML with the line of everything, and bounds against bombs.

Scalars stay text here; what they mean is decided by the field they stand in. The file is read event by event, so that
what would grow too large or too deep is refused before it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from joblet.workflow.faults import Enough, Faults, Path

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_NODES = 100_000
"""with each alias counted as all that it stands for"""
MAX_ALIASES = 100

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_PROPERTIES = re.compile(r"([&!]\S*\s+)*")
"""anchors and tags, which stand before a value"""

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value, as it is written."""

    text: str
    plain: bool = False
    """without quotes, so that it may be a number, a truth value or null"""
    line: int = 0
    """from 1, as all lines"""
    span: tuple[int, int] = (0, 0)
    """where it stands in the text"""

    @property
    def null(self) -> bool:
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")

    @property
    def integer(self) -> bool:
        return self.plain and _INTEGER.fullmatch(self.text) is not None

    @property
    def number(self) -> bool:
        return self.plain and _NUMBER.fullmatch(self.text) is not None

    @property
    def boolean(self) -> bool:
        return self.plain and self.text in ("true", "True", "TRUE", "false", "False", "FALSE")


@dataclass(frozen=True, slots=True)
class Listing:
    """A sequence."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping. Its keys are text whatever they look like."""

    entries: dict[str, Entry]
    line: int

    def get(self, key: str) -> Node | None:
        """The value of a key, None when it is absent."""
        entry = self.entries.get(key)
        return entry.value if entry else None


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key of a mapping stands for."""

    line: int
    """of the key"""
    value: Node


Node = Scalar | Listing | Table


def load(text: str, faults: Faults) -> Node | None:
    """The file's one document; None when there is nothing in it.

    Duplicate keys are added to `faults`. For what is not YAML, or out of bounds, a fault is added and Enough raised.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise _refuse(faults, text.count("\n", 0, error.start) + 1, "not UTF-8 text") from None
    if size > MAX_BYTES:
        raise _refuse(faults, 1, f"{size} bytes long (at most {MAX_BYTES})")
    try:
        return _Composer(text, faults).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise _refuse(faults, mark.line + 1 if mark else 1, f"not valid YAML: {what}") from None
    except yaml.reader.ReaderError as error:
        line = text.encode().count(b"\n", 0, error.position) + 1
        raise _refuse(faults, line, f"not valid YAML: {error.reason}") from None
    except (ValueError, OverflowError):  # the loader without libyaml, of an escape beyond Unicode
        raise _refuse(faults, 1, "not valid YAML: an escape that stands for no character") from None


def line_of(node: Node, path: Iterable[str | int]) -> int:
    """The line of what the path leads to, or of the last on the way that there is."""
    line = node.line
    for part in path:
        if isinstance(node, Table) and part in node.entries:
            entry = node.entries[str(part)]
            node, line = entry.value, entry.line
            if isinstance(node, Scalar):
                line = node.line
        elif isinstance(node, Listing) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            line = node.line
        else:
            break
    return line


def scalars(node: Node | None) -> Iterator[Scalar]:
    """Every value in it."""
    match node:
        case Scalar():
            yield node
        case Listing(items):
            for item in items:
                yield from scalars(item)
        case Table(entries):
            for entry in entries.values():
                yield from scalars(entry.value)


def without(text: str, hidden: Iterable[Scalar], mask: str) -> str:
    """The file's text with some of its values replaced; still YAML of the same shape."""
    for start, end in sorted({scalar.span for scalar in hidden}, reverse=True):
        if start < end:
            text = f'{text[:start]}"{mask}"{text[end:]}'
    return text


def _refuse(faults: Faults, line: int, what: str, path: Path = ()) -> Enough:
    faults.add(line, path, what)
    return Enough()


class _Composer:
    """Builds nodes from events. The mutable state is what has been counted, and the anchors met so far."""

    def __init__(self, text: str, faults: Faults) -> None:
        self._text = text
        self._faults = faults
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._nodes = 0
        self._aliases = 0
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}
        """with how many nodes they are, and how deep; None while they are being read"""

    def document(self) -> Node | None:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        node, _ = self._node(next(self._events), (), 1)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._refusal(event, "a second document (a workflow is one)")
        return node

    def _refusal(self, event: Any, what: str, path: Path = ()) -> Enough:
        """Without the names of tags and anchors: a secret may be taken for one."""
        return _refuse(self._faults, event.start_mark.line + 1, what, path)

    def _count(self, event: Any, nodes: int, depth: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise self._refusal(event, f"more than {MAX_NODES} values, those that aliases repeat included")
        if depth > MAX_DEPTH:
            raise self._refusal(event, f"more than {MAX_DEPTH} levels deep")

    def _node(self, event: Any, path: Path, depth: int) -> tuple[Node, int]:
        """What the event begins, and how many levels it is high."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        before = self._nodes
        self._count(event, 1, depth)
        if event.anchor:
            self._anchors[event.anchor] = None
        node: Node
        height = 1
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event, path, "seq")
            node, height = self._listing(event, path, depth)
        else:
            self._check_tag(event, path, "map")
            node, height = self._table(event, path, depth)
        if event.anchor:
            self._anchors[event.anchor] = node, self._nodes - before, height
        return node, height

    def _alias(self, event: Any, path: Path, depth: int) -> tuple[Node, int]:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise self._refusal(event, f"more than {MAX_ALIASES} aliases")
        if event.anchor not in self._anchors:
            raise self._refusal(event, 'unknown anchor (quote text that begins with "*")', path)
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise self._refusal(event, "an alias within what it stands for", path)
        node, nodes, height = anchored
        self._count(event, nodes, depth + height - 1)
        return node, height

    def _check_tag(self, event: Any, path: Path, *allowed: str) -> None:
        if event.tag and event.tag != "!" and event.tag not in {_CORE + name for name in allowed}:
            raise self._refusal(event, 'a tag that is not allowed (quote text that begins with "!")', path)

    def _scalar(self, event: Any, path: Path) -> Scalar:
        self._check_tag(event, path, "str", "int", "float", "bool", "null")
        start, end = event.start_mark.index, event.end_mark.index
        properties = _PROPERTIES.match(self._text, start, end) if event.anchor or event.tag else None
        start = properties.end() if properties else start
        end = start + len(self._text[start:end].rstrip())
        plain = not event.style if not event.tag else event.tag not in ("!", _CORE + "str")
        return Scalar(event.value, plain, event.start_mark.line + 1, (start, end))

    def _listing(self, event: Any, path: Path, depth: int) -> tuple[Listing, int]:
        items: list[Node] = []
        height = 0
        while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
            node, high = self._node(inner, (*path, len(items)), depth + 1)
            items.append(node)
            height = max(height, high)
        return Listing(tuple(items), event.start_mark.line + 1), height + 1

    def _table(self, event: Any, path: Path, depth: int) -> tuple[Table, int]:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        height = 0
        while not isinstance(inner := next(self._events), yaml.MappingEndEvent):
            key, _ = self._node(inner, path, depth + 1)
            line = inner.start_mark.line + 1
            if not isinstance(key, Scalar):
                raise self._refusal(inner, "a key must be text")
            merge = key.plain and key.text == "<<"
            value, high = self._node(next(self._events), path if merge else (*path, key.text), depth + 1)
            height = max(height, high)
            if merge:
                self._merge(value, line, path, merged)
            elif key.text in entries:
                what = "duplicate job" if path == ("jobs",) else "duplicate key"
                self._faults.add(line, (*path, key.text), f"{what} (first on line {entries[key.text].line})")
            else:
                entries[key.text] = Entry(line, value)
        return Table({**merged, **entries} if merged else entries, event.start_mark.line + 1), height + 1

    def _merge(self, value: Node, line: int, path: Path, merged: dict[str, Entry]) -> None:
        """Take over the entries of one mapping or of several, the first of which win."""
        for table in value.items if isinstance(value, Listing) else (value,):
            if isinstance(table, Table):
                for key, entry in table.entries.items():
                    merged.setdefault(key, entry)
            else:
                self._faults.add(line, path, "<<: must be a mapping, or a list of them")
