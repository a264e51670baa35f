"""What a file holds, read by a model, with the faults of both in the file's own terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from joblet.workflow.faults import Faults, Path, nearest
from joblet.workflow.model import NOT_YET, Header, Job, Model, Parameter, Resources, Retries, Uploads, Workflow
from joblet.workflow.source import Listing, Node, Scalar, Table, line_of

_Model = TypeVar("_Model", bound=BaseModel)

_KNOWN: Mapping[tuple[type[BaseModel], Path], type[Model]] = {
    (Header, ()): Workflow,
    (Job, ()): Job,
    (Job, ("resources",)): Resources,
    (Job, ("uploads",)): Uploads,
    (Job, ("retries",)): Retries,
    (Parameter, ()): Parameter,
}
"""the model whose keys are known at a path below another"""


def data(node: Node) -> Any:
    """What a model reads: mappings and lists, of scalars as they are."""
    match node:
        case Scalar():
            return node
        case Listing(items):
            return [data(item) for item in items]
        case Table(entries):
            return {key: data(entry.value) for key, entry in entries.items()}


def read(
    model: type[_Model], values: Any, node: Node, path: Path, faults: Faults, broken: Collection[Path] = ()
) -> _Model | None:
    """The model of the values, which come from the node at `path`; None when there are faults, which are added.

    Of what lies at the paths in `broken` the faults are known already, and no more are added.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            location = fault["loc"][:-1] if fault["loc"][-1:] == ("[key]",) else fault["loc"]
            if (*path, *location) in broken:
                continue
            if fault["type"] == "extra_forbidden":
                what = _unknown(model, location)
            elif fault["type"] == "missing":
                what = "is missing"
            else:
                what = str(fault["msg"]).removeprefix("Value error, ")
            about_key = fault["type"] == "extra_forbidden" or location is not fault["loc"]
            line = _key_line(node, location) if about_key else line_of(node, location)
            faults.add(line, (*path, *location), what)
        return None


def _key_line(node: Node, path: Path) -> int:
    """The line of the key that is the last part of the path."""
    above = node
    for part in path[:-1]:
        if isinstance(above, Table) and part in above.entries:
            above = above.entries[str(part)].value
    key = str(path[-1])
    return above.entries[key].line if isinstance(above, Table) and key in above.entries else line_of(node, path)


def _unknown(model: type[BaseModel], location: Path) -> str:
    key = str(location[-1])
    if key in NOT_YET and location[:-1] == ():
        return "not supported yet"
    known = _KNOWN.get((model, location[:-1]))
    return f"unknown key{nearest(key, known.model_fields if known else ())}"
