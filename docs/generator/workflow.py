"""The keys of a workflow's file, by its JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from generator.markdown import code, prose, table
from joblet.workflow.schema import json_schema

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "minProperties": "at least {}",
    "maxProperties": "at most {}",
}
_DURATION = "ms|[smhd]"
"""stands in the pattern of durations"""


def page() -> str:
    """The reference of the workflow file."""
    schema = json_schema()
    text = (
        "# Workflow file\n\nEvery key of a workflow's YAML file, as `rnx workflow schema` prints it for editors."
        " [The workflow file](../workflow-file.md) explains them, and shows what is refused. Where a value may be a"
        " template, `${{ ... }}` may stand for it.\n\n"
    )
    parts: dict[str, Any] = schema["$defs"]
    text += f"## The workflow\n\n{prose(schema['description'])}\n\n" + _table(schema, parts)
    for name, part in parts.items():
        if "properties" in part:
            text += f"## {name}\n\n{prose(part.get('description', ''))}\n\n" + _table(part, parts)
    return text


def _table(schema: dict[str, Any], parts: dict[str, Any]) -> str:
    return table(("key", "value", "meaning"), _rows(schema, parts))


def _rows(schema: dict[str, Any], parts: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    needed = schema.get("required", ())
    for name, value in schema["properties"].items():
        about = value.get("description") or _of_parts(value, parts)
        examples = value.get("examples", ())
        shown = f" For example {', '.join(code(_example(each)) for each in examples)}." if examples else ""
        yield code(name), value_of(value) + (", needed" if name in needed else ""), prose(about) + shown


def _of_parts(value: dict[str, Any], parts: dict[str, Any]) -> str:
    """What is said of the part of the schema that a value refers to."""
    for each in (value, *value.get("anyOf", ())):
        if "$ref" in each:
            return str(parts[each["$ref"].rpartition("/")[2]].get("description", ""))
    return ""


def _example(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_example, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_example(each)}' for key, each in value.items())}}}"
    return str(value)


def value_of(schema: dict[str, Any]) -> str:
    """What a value may be, in words."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("enum"):
        return " or ".join(code(str(choice)) for choice in choices)
    if alternatives := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(map(value_of, alternatives)))
    if _DURATION in schema.get("pattern", ""):
        return "duration"
    if schema.get("description") == "a template":
        return "template"
    bounds = [text.format(schema[key]) for key, text in _BOUNDS.items() if key in schema]
    return ", ".join([_kind(schema), *bounds])


def _kind(schema: dict[str, Any]) -> str:
    kinds = schema.get("type", ())
    if kinds == "array":
        items = schema.get("items", {})
        return f"list of {value_of(items)}" if items else "list"
    if kinds == "object":
        values = schema.get("additionalProperties")
        if "properties" in schema:
            return f"mapping with {', '.join(map(code, schema['properties']))}"
        return f"mapping of names to {value_of(values)}" if isinstance(values, dict) else "mapping"
    if isinstance(kinds, str):
        return {"string": "text", "integer": "number"}.get(kinds, kinds)
    return "text" if "string" in kinds else " or ".join(kinds)
