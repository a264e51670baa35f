"""Values of the command line that need no conversion, taken as they are: for any other typer imports pydantic."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

from joblet.command_line import Command, Group

_NUMBER = re.compile(r"-?\d{1,18}", re.ASCII)


class _AsItIs:
    """Stands for typer's own conversion of a parameter's values, until one comes that needs it, or is wrong."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the command gets it. Raises BadParameter."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        kind = param.type_descriptor
        if several and not value:
            return []
        if several and kind.annotation == list[str]:
            return [str(item) for item in value]
        try:
            return _converted(value, kind.annotation, kind.parameter_info)
        except Exception:  # typer says what is wrong
            param._runtime_param = None
            return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _converted(value: Any, kind: Any, about: Any) -> Any:
    """A value of one of the simple kinds. Raises some exception for any other."""
    if not isinstance(value, str):  # a default
        converted = value
    elif about.parser is not None:
        converted = about.parser(value)
    elif issubclass(kind, int) and _NUMBER.fullmatch(value):
        converted = int(value)
        if not (about.min is None or about.min <= converted) or not (about.max is None or converted <= about.max):
            raise ValueError
    elif issubclass(kind, Enum):
        converted = kind(value)
    else:
        converted = value
    if kind is not Any and not isinstance(converted, kind):
        raise TypeError
    return converted


class _Plain:
    """Spares a command's parameters what need not be converted. Where typer does it otherwise nothing is changed."""

    def get_params(self, ctx: Any) -> Any:
        """All parameters, that of `--help` too."""
        params = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "_runtime_param", self) is None:
                param._runtime_param = _AsItIs()
        return params


class PlainCommand(_Plain, Command):
    """A command."""


class PlainGroup(_Plain, Group):
    """A group of commands."""
