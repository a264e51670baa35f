"""A job's matrix: the combinations of values that it runs with, each a step of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from math import prod

from joblet.workflow.faults import Enough, Faults, Path, nearest, show
from joblet.workflow.model import MAX_STEPS, NAME, describe
from joblet.workflow.render import Renderer, Scope, Value
from joblet.workflow.source import Listing, Node, Scalar, Table

MAX_VALUE = 64
"""characters"""

MAX_LOOKUPS = 1_000_000
"""to find out which combinations are excluded"""

_NAME = re.compile(NAME)
_REFUSED = frozenset('[],"=')
"""what separates values within the name of a step, or quotes it"""

Combination = Mapping[str, Value]


def read(node: Node, path: Path, renderer: Renderer, faults: Faults) -> list[Combination]:
    """The combinations in the order of the file, the last key changing fastest. Faults are added; with one, none.

    Raises Enough when there are more than MAX_STEPS.
    """
    if not isinstance(node, Table):
        faults.add(node.line, path, f"must be a mapping, not {describe(node)}")
        return []
    if "include" in node.entries:
        faults.add(node.entries["include"].line, (*path, "include"), "not supported yet")
        return []
    keys: dict[str, list[Value]] = {}
    whole = True
    for key, entry in node.entries.items():
        if key == "exclude":
            continue
        if not _NAME.fullmatch(key):
            faults.add(entry.line, (*path, key), f"is no name of a value ({NAME})")
        keys[key] = _values(entry.value, (*path, key), renderer, faults)
        whole = whole and bool(keys[key])
    if not keys:
        faults.add(node.line, path, "has no values")
    if not keys or not whole:
        return []
    if prod(len(values) for values in keys.values()) > MAX_STEPS:
        faults.add(node.line, path, f"more than {MAX_STEPS} combinations")
        raise Enough
    excluded = _excluded(node.get("exclude"), (*path, "exclude"), keys, renderer, faults)
    combinations: list[Combination] = [dict(zip(keys, values, strict=True)) for values in product(*keys.values())]
    if len(combinations) * len(excluded) > MAX_LOOKUPS:
        what = f"{len(excluded)} different sets of keys for {len(combinations)} combinations are too many"
        faults.add(node.line, (*path, "exclude"), what)
        raise Enough
    left = [
        one
        for one in combinations
        if not any(tuple(one[key].text for key in names) in patterns for names, patterns in excluded.items())
    ]
    if not left:
        faults.add(node.line, path, "every combination is excluded")
    return left


def step_name(job: str, combination: Combination) -> str:
    """`train[lr=0.1,depth=2]`; the job's own name without a matrix."""
    if not combination:
        return job
    return f"{job}[{','.join(f'{key}={value.text}' for key, value in combination.items())}]"


def _values(node: Node, path: Path, renderer: Renderer, faults: Faults) -> list[Value]:
    """The values of one key; none when there is a fault."""
    if not isinstance(node, Listing) or not node.items:
        faults.add(node.line, path, f"must be a list of values, not {_nothing(node)}")
        return []
    values: list[Value] = []
    texts: set[str] = set()
    for index, item in enumerate(node.items):
        where = (*path, index)
        value = _value(item, where, renderer, faults)
        if value is None:
            return []
        if value.text in texts:
            faults.add(item.line, where, f"{show(value.text)} a second time")
            return []
        texts.add(value.text)
        values.append(value)
    return values


def _nothing(node: Node) -> str:
    return "an empty one" if isinstance(node, Listing) else describe(node)


def _value(node: Node, path: Path, renderer: Renderer, faults: Faults) -> Value | None:
    if not isinstance(node, Scalar) or node.null:
        faults.add(node.line, path, f"must be a single value, not {describe(node)}")
        return None
    scalar = renderer.scalar(node, path, Scope())
    if path in renderer.broken:
        return None
    text = scalar.text
    if not text or len(text) > MAX_VALUE or not text.isprintable() or _REFUSED & set(text):
        what = f'must be 1 to {MAX_VALUE} printable characters without [ ] , " and =, not {show(text)}'
        faults.add(node.line, path, what)
        return None
    return Value(text, plain=scalar.plain)


def _excluded(
    node: Node | None, path: Path, keys: Mapping[str, list[Value]], renderer: Renderer, faults: Faults
) -> Mapping[tuple[str, ...], set[tuple[str, ...]]]:
    """What is left out, by the keys that it names."""
    patterns: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    if node is None or (isinstance(node, Scalar) and node.null):
        return patterns
    if not isinstance(node, Listing):
        faults.add(node.line, path, f"must be a list of mappings, not {describe(node)}")
        return patterns
    for index, item in enumerate(node.items):
        if not isinstance(item, Table) or not item.entries:
            faults.add(item.line, (*path, index), "must be a mapping of keys of the matrix to values")
            continue
        pattern: dict[str, str] = {}
        for key, entry in item.entries.items():
            where = (*path, index, key)
            if key not in keys:
                faults.add(entry.line, where, f"unknown key of the matrix{nearest(key, keys)}")
                continue
            value = _value(entry.value, where, renderer, faults)
            if value is None:
                continue
            pattern[key] = value.text
            if all(value.text != one.text for one in keys[key]):
                faults.add(entry.line, where, f"{show(value.text)} is none of its values")
        if pattern:
            patterns.setdefault(tuple(pattern), set()).add(tuple(pattern.values()))
    return patterns
