"""The Python program that carries attempts into a job: their source as arguments of an interpreter that is there."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from importlib import resources
from typing import Any

from joblet.escape.attempts.frame import ALL, Attempt

CATEGORIES = (
    "files", "procfs", "processes", "mounts", "namespaces", "devices", "cgroups", "privileges", "kernel", "sockets",
    "terminals", "ipc", "bombs", "quotas", "stops",
)  # fmt: skip
_PACKAGE = "joblet.escape.attempts"
_SHARED = {"cgroups": ("procfs",)}
"""modules that another category's attempts use"""

# Registered under the names that they import each other by; none of them needs the package to be there.
_LOADER = """\
import json, sys, types
for name, source in json.loads(sys.argv[1]).items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
sys.modules["joblet.escape.attempts.frame"].main(sys.argv[2:])
"""


def load_attempts() -> list[Attempt]:
    """Every attempt, in the order of the categories."""
    for category in CATEGORIES:
        importlib.import_module(f"{_PACKAGE}.{category}")
    return sorted(ALL.attempts.values(), key=lambda one: CATEGORIES.index(one.category))


def arguments(category: str, names: Iterable[str], context: dict[str, Any]) -> list[str]:
    """What Python is given to run attempts of one category."""
    modules = ("frame", "calls", *_SHARED.get(category, ()), category)
    sources = {f"{_PACKAGE}.{name}": _source(name) for name in modules}
    return ["-I", "-c", _LOADER, json.dumps(sources), json.dumps(list(names)), json.dumps(context)]


def _source(name: str) -> str:
    return (resources.files(_PACKAGE) / f"{name}.py").read_text(encoding="utf-8")
