"""The parameters of a workflow: what the file declares, and what was given for them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from joblet.job import MASK
from joblet.workflow import check
from joblet.workflow.faults import Faults, Path, nearest, show
from joblet.workflow.model import NAME, TRUTH, Parameter, describe, unfit
from joblet.workflow.render import Value
from joblet.workflow.source import Entry, Node, Scalar, Table, scalars

_NAME = re.compile(NAME)
_MUST_BE = {
    "string": "text",
    "integer": "a whole number of at most 18 digits",
    "number": "a number",
    "boolean": "true or false",
}


class _Wrong(ValueError):
    """A value is not what it must be; the message ends where the value would be shown."""


def read(node: Node | None, given: Mapping[str, str], faults: Faults, line: int) -> dict[str, Value]:
    """The value of each parameter that `node` declares. Faults are added, on `line` where nothing is in the file."""
    values: dict[str, Value] = {}
    declared: Mapping[str, Entry] = {}
    if isinstance(node, Table):
        declared, line = node.entries, node.line
    elif node is not None and not (isinstance(node, Scalar) and node.null):
        faults.add(node.line, ("parameters",), f"must be a mapping, not {describe(node)}")
        return values
    for name, entry in declared.items():
        path = ("parameters", name)
        if not _NAME.fullmatch(name):
            faults.add(entry.line, path, f"is no name of a parameter ({NAME})")
        value = _value(entry, path, given.get(name), faults)
        values[name] = value or Value("", broken=True)
    for name in given:
        if name not in declared:
            faults.add(line, ("parameters", name), f"given, but not declared{nearest(name, declared)}")
    return values


def shown(values: Mapping[str, Value]) -> dict[str, str]:
    """The values as people see them."""
    return {name: MASK if value.secret else value.text for name, value in values.items()}


def hidden(node: Node | None) -> Iterator[Scalar]:
    """Everything in the declarations that tells the values of secret ones."""
    for entry in node.entries.values() if isinstance(node, Table) else ():
        if isinstance(entry.value, Table):
            secret = entry.value.get("secret")
            if isinstance(secret, Scalar) and TRUTH.get(secret.text.lower()):
                yield from scalars(entry.value.get("default"))
                yield from scalars(entry.value.get("choices"))


def _value(entry: Entry, path: Path, given: str | None, faults: Faults) -> Value | None:
    node = entry.value
    if not isinstance(node, Scalar | Table):
        faults.add(node.line, path, f"must be a default or a mapping, not {describe(node)}")
        return None
    values: Any = check.data(node)
    if isinstance(node, Scalar):
        values = {} if node.null else {"default": node}
    model = check.read(Parameter, values, node, path, faults)
    if model is None:
        return None
    line = node.line if isinstance(node, Scalar) else entry.line
    default, kind = model.default, model.type
    if default is not None and (not isinstance(default, Scalar) or default.null):
        faults.add(line, path, f"default must be a single value, not {describe(default)}")
        return None
    if kind and kind not in _MUST_BE:
        faults.add(line, path, f"type must be one of {', '.join(_MUST_BE)}, not {show(kind)}{nearest(kind, _MUST_BE)}")
        return None
    kind = kind or _infer(default)
    try:
        allowed = _Allowed(model, kind)
        text = None if default is None else allowed.read(default, "default")
        if given is not None:
            text = allowed.read(Scalar(given, plain=kind != "string"), "the value given")
    except _Wrong as error:
        faults.add(line, path, str(error))
        return None
    if text is None:
        faults.add(entry.line, path, "has no default, and no value was given")
        return None
    return Value(text, plain=kind != "string", secret=model.secret)


def _infer(default: Scalar | None) -> str:
    if default is None:
        return "string"
    if default.boolean:
        return "boolean"
    if default.integer:
        return "integer"
    return "number" if default.number else "string"


class _Allowed:
    """What a parameter may be. Raises _Wrong when its own bounds make no sense."""

    def __init__(self, model: Parameter, kind: str) -> None:
        self._kind = kind
        self._secret = model.secret
        self._bounds: list[float | None] = [None, None]
        self._choices: list[Scalar] = []
        for index, name in enumerate(("min", "max")):
            bound = getattr(model, name)
            if bound is not None:
                if kind not in ("integer", "number"):
                    raise _Wrong(f"{name} is for numbers, not for a {kind}")
                if not isinstance(bound, Scalar):
                    raise _Wrong(f"{name} must be {_MUST_BE[kind]}, not {describe(bound)}")
                text = self._typed(bound, name)
                self._bounds[index] = int(text) if kind == "integer" else float(text)
        least, most = self._bounds
        if least is not None and most is not None and least > most:
            raise _Wrong(f"min is above max ({least:g} and {most:g})")
        for index, choice in enumerate(model.choices):
            if not isinstance(choice, Scalar):
                raise _Wrong(f"choices[{index}] must be a single value, not {describe(choice)}")
            self.read(choice, f"choices[{index}]")
            self._choices.append(choice)
        self._among = {_compared(kind, self._typed(choice, "choices")) for choice in self._choices}

    def read(self, scalar: Scalar, what: str) -> str:
        """The text of a value. Raises _Wrong, which says `what` is not allowed."""
        text = self._typed(scalar, what)
        value = _compared(self._kind, text)
        least, most = self._bounds
        below = least is not None and isinstance(value, (int, float)) and value < least
        above = most is not None and isinstance(value, (int, float)) and value > most
        if below or above:
            bound = f"at least {least:g}" if below else f"at most {most:g}"
            raise _Wrong(f"{what} must be {bound}{self._not(scalar)}")
        if self._choices and hasattr(self, "_among") and value not in self._among:
            listed = "" if self._secret else ": " + ", ".join(show(choice.text) for choice in self._choices[:10])
            raise _Wrong(f"{what} must be one of its choices{listed}{self._not(scalar)}")
        return text

    def _typed(self, scalar: Scalar, what: str) -> str:
        fits = {
            "string": not scalar.null,
            "integer": scalar.integer and len(scalar.text) <= 19,
            "number": scalar.number and math.isfinite(float(scalar.text)),
            "boolean": scalar.plain and scalar.text.lower() in TRUTH,
        }[self._kind]
        if not fits:
            raise _Wrong(f"{what} must be {_MUST_BE[self._kind]}{self._not(scalar)}")
        if wrong := unfit(scalar.text):
            raise _Wrong(f"{what} {wrong}")
        if self._kind == "boolean":
            return "true" if TRUTH[scalar.text.lower()] else "false"
        return scalar.text

    def _not(self, scalar: Scalar) -> str:
        return "" if self._secret else f", not {describe(scalar)}"


def _compared(kind: str, text: str) -> str | float | int:
    if kind == "integer":
        return int(text)
    return float(text) if kind == "number" else text
