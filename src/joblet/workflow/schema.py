"""The JSON Schema of a workflow's file, for editors. `schema.json` beside this is what it gives, as it is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from joblet.workflow.model import Workflow

SHIPPED = Path(__file__).with_name("schema.json")

_NOISE = frozenset({"title", "default"})
"""what pydantic makes up of the names of fields, and of values that files do not hold"""
_OF_NAMES = frozenset({"properties", "patternProperties", "$defs"})
"""whose keys are names, not words of JSON Schema"""


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12.

    It cannot know all that `parse` refuses. It refuses a few loose ways of writing that `parse` takes: blocks that are
    left empty, and `yes` for true.
    """
    dialect = "https://json-schema.org/draft/2020-12/schema"
    schema: dict[str, Any] = _tidy(Workflow.model_json_schema())
    return {"$schema": dialect, "title": "joblet workflow", **schema}


def _tidy(schema: Any, *, names: bool = False) -> Any:
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _tidy(value, names=key in _OF_NAMES and not names)
        for key, value in schema.items()
        if names or key not in _NOISE
    }
