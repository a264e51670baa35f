"""The server's configuration, by its pydantic model: every key with its type, default and bounds."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

from generator.markdown import code, prose, table
from generator.source import attribute_docs
from joblet.clock import format_duration
from joblet.config import DEFAULT_PATH, Config, Duration

_BOUNDS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "max_length": "at most {} entries",
}


def page() -> str:
    """The reference of the configuration."""
    text = (
        f"# Configuration\n\nYAML, at `{DEFAULT_PATH}` or where `joblet serve --config` says. Every key may be absent."
        " An unknown key or a bad value keeps the server from starting, and is named. What the keys are for is in"
        " [Configuration](../configuration.md); the file with every default is"
        " [deploy/joblet-config.yml](../../deploy/joblet-config.yml).\n\n"
    )
    for name, field in Config.model_fields.items():
        section = field.annotation
        assert isinstance(section, type)
        text += f"## {name}\n\n{prose(section.__doc__ or '')}\n\n"
        text += table(("key", "type", "default", "bounds", "meaning"), rows(name, section))
    return text


def rows(name: str, section: type[BaseModel]) -> Iterator[tuple[str, str, str, str, str]]:
    """A row of cells for each key of a section."""
    docs = attribute_docs(section)
    for key, field in section.model_fields.items():
        duration = _is_duration(section, key)
        kind = "duration" if duration else type_name(field.annotation)
        default = field.get_default(call_default_factory=True)
        shown = format_duration(default) if duration else shown_value(default)
        bounds = [
            text.format(getattr(limit, attribute))
            for limit in field.metadata
            for attribute, text in _BOUNDS.items()
            if getattr(limit, attribute, None) is not None
        ]
        about = " ".join(docs.get(key, "").split())
        unit = " s" if duration else ""
        yield f"`{name}.{key}`", code(kind), code(shown), ", ".join(bound + unit for bound in bounds), prose(about)


def _is_duration(section: type[BaseModel], key: str) -> bool:
    parts = typing.get_args(Duration)
    return any(part in section.model_fields[key].metadata for part in parts[1:])


def shown_value(value: object) -> str:
    """A default as YAML writes it."""
    if value is None:
        return "null"
    return value if isinstance(value, str) else repr(value)


def type_name(kind: Any) -> str:
    """A type as a reader of YAML knows it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return f"mapping of {type_name(arguments[0])} to {type_name(arguments[1])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(each) for each in arguments)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"keys of {kind.__name__.removesuffix('Section').lower()}"
    name = str(kind.__name__)
    return {"str": "text", "int": "number", "float": "number", "NoneType": "null"}.get(name, name)
