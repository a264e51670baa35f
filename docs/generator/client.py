"""The client library: a page of directives by which Sphinx's autodoc reads signatures and docstrings."""

from __future__ import annotations

import inspect

from joblet import client
from joblet.client import errors, sync

_HANDLES = ("Client", "Job", "Workflow")


def page() -> str:
    """The reference of joblet.client: every name that it offers."""
    names = [name for name in client.__all__ if name not in _HANDLES]
    failures = [name for name in names if _is_error(name)]
    ordered = sorted(failures, key=lambda name: len(inspect.getmro(getattr(client, name))))
    text = (
        "# Python client\n\n`joblet.client` runs on Linux, macOS and Windows, and imports nothing of the server."
        " [From Python](../python.md) shows how it is used, [Errors](errors.md) which answers of the server give"
        " which exception.\n\n```{eval-rst}\n.. module:: joblet.client\n```\n\n"
    )
    text += "## Client, Job, Workflow\n\n" + "".join(_class(f"joblet.client.{name}") for name in _HANDLES)
    text += "## What it gives and takes\n\n"
    text += "".join(_class(f"joblet.client.{name}") for name in names if name not in failures)
    text += "## Exceptions\n\n" + "".join(_class(f"joblet.client.{name}", bases=True) for name in ordered)
    text += f"## Without await\n\n{inspect.cleandoc(sync.__doc__ or '').partition(chr(10))[0]}\n\n"
    text += "```{eval-rst}\n.. module:: joblet.client.sync\n```\n\n"
    return text + "".join(_class(f"joblet.client.sync.{name}") for name in _HANDLES)


def _is_error(name: str) -> bool:
    kind = getattr(client, name)
    return isinstance(kind, type) and issubclass(kind, errors.JobletError)


def _class(name: str, *, bases: bool = False) -> str:
    options = ["members", "show-inheritance"] if bases else ["members", "inherited-members"]
    lines = "".join(f"   :{option}:\n" for option in options)
    return f"```{{eval-rst}}\n.. autoclass:: {name}\n{lines}```\n\n"
