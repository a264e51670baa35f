"""What is drawn: jobs, and which requires which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from joblet.client import WorkflowFile, WorkflowStatus
    from joblet.workflow.condition import Condition


@dataclass(frozen=True)
class Node:
    """One job."""

    name: str
    status: str = ""
    """empty for a job of a file"""
    note: str = ""
    """what it requires, if that is not just that others complete"""
    reason: str = ""


@dataclass(frozen=True)
class Edge:
    """One job depends on another. Both are positions in the graph's nodes."""

    source: int
    target: int
    label: str = ""
    """what is wanted of the source, if not that it completes"""
    optional: bool = False
    """the target may run without it: it is one of several ways"""


@dataclass(frozen=True)
class Graph:
    """The jobs of a workflow, in the file's order."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    """ordered by target; none twice, none from or to what is not there"""


def of_file(file: WorkflowFile) -> Graph:
    """The graph of a file that has not been run."""
    steps = file.plan.steps
    positions = {step.name: position for position, step in enumerate(steps)}
    edges: list[Edge] = []
    for target, step in enumerate(steps):
        edges += _edges(target, step.condition, step.dependencies, positions)
    nodes = tuple(Node(step.name, note="" if is_plain(step.condition) else str(step.condition)) for step in steps)
    return Graph(file.path.name, nodes, tuple(edges))


def of_status(status: WorkflowStatus) -> Graph:
    """The graph of a workflow as it stands."""
    positions = {job.job_name: position for position, job in enumerate(status.jobs)}
    nodes: list[Node] = []
    edges: list[Edge] = []
    for target, job in enumerate(status.jobs):
        condition = _parse(job.condition)
        edges += _edges(target, condition, job.dependencies, positions)
        plain = condition is None or is_plain(condition)
        nodes.append(Node(job.job_name, job.status, "" if plain else job.condition, job.reason))
    return Graph(f"{status.workflow.workflow} ({status.workflow.status})", tuple(nodes), tuple(edges))


def is_plain(condition: Condition) -> bool:
    """Whether it is no more than that some jobs complete."""
    from joblet.workflow.condition import All, Is, Wanted

    match condition:
        case Is(_, wanted):
            return wanted is Wanted.COMPLETED
        case All(parts):
            return all(is_plain(part) for part in parts)
        case _:
            return False


def _parse(text: str) -> Condition | None:
    """The condition that a server has told; None for one that is not understood here."""
    if not text:
        return None
    from joblet.workflow.expression import parse_stored

    try:
        return parse_stored(text)
    except ValueError:
        return None


def _edges(
    target: int, condition: Condition | None, dependencies: Iterable[str], positions: Mapping[str, int]
) -> Iterator[Edge]:
    wanted: dict[str, list[str]] = {}
    optional: dict[str, bool] = {}
    for name, text, required in _wants(condition) if condition is not None else ():
        wanted.setdefault(name, [])
        if text not in wanted[name]:
            wanted[name].append(text)
        optional[name] = optional.get(name, True) and not required
    for name in dict.fromkeys([*dependencies, *wanted]):
        source = positions.get(name)
        if source is not None and source != target:
            texts = wanted.get(name, [])
            label = "" if texts in ([], ["COMPLETED"]) else " or ".join(texts)
            yield Edge(source, target, label, optional.get(name, False))


def _wants(condition: Condition, *, required: bool = True, negated: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Each name in it, what is wanted of it, and whether nothing else would do."""
    from joblet.workflow.condition import All, Is, Not

    match condition:
        case Is(name, wanted):
            yield name, f"not {wanted}" if negated else str(wanted), required
        case Not(part):
            yield from _wants(part, required=required, negated=not negated)
        case _:
            one_of = isinstance(condition, All) is negated and len(condition.parts) > 1
            for part in condition.parts:
                yield from _wants(part, required=required and not one_of, negated=negated)
