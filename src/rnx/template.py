"""`--format`: text with the names of fields in braces."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

import typer

from joblet.command_line import Failure, one_line

_ESCAPES = {r"\t": "\t", r"\n": "\n"}
_HINT = "--format"


class Template:
    """Such a text, checked: `{id} {status:<10}`. `\\t` and `\\n` mean tab and newline; each thing ends in a newline."""

    def __init__(self, text: str, names: Mapping[str, str]) -> None:
        """`names` are those of the fields, and of the attributes that hold them. Raises BadParameter."""
        for escape, meaning in _ESCAPES.items():
            text = text.replace(escape, meaning)
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=_HINT) from None
        for _, name, spec, conversion in parts:
            if name is not None and (name not in names or conversion or "{" in (spec or "")):
                raise typer.BadParameter(f"no field {name!r} (fields: {', '.join(names)})", param_hint=_HINT)
        self._parts = parts
        self._names = names

    def text(self, *things: object) -> str:
        """One thing, in one or several objects that hold its fields; what is not known is empty.

        Raises Failure when a value cannot be shown so.
        """
        text = ""
        for literal, name, spec, _ in self._parts:
            text += literal
            if name is not None:
                text += _shown(name, self._value(name, things), spec or "")
        return text + "\n"

    def _value(self, name: str, things: tuple[object, ...]) -> Any:
        return next((getattr(thing, self._names[name]) for thing in things if hasattr(thing, self._names[name])), None)


def _shown(name: str, value: Any, spec: str) -> str:
    if isinstance(value, tuple):
        value = " ".join(value)
    elif isinstance(value, dict):
        value = ",".join(f"{key}={item}" for key, item in value.items())
    try:
        return one_line(format("" if value is None else value, spec))
    except ValueError as error:
        raise Failure(f"--format: {name}: {error}") from None
