"""What the jobs of a file require of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from joblet.workflow.condition import NOTHING, Condition, Is, Wanted, names
from joblet.workflow.expression import ExpressionError, conjunction, expand, parse, wanted_state
from joblet.workflow.faults import Enough, Faults, Path, nearest, show
from joblet.workflow.model import describe
from joblet.workflow.plan import Step
from joblet.workflow.render import Renderer, Scope
from joblet.workflow.source import Listing, Node, Scalar, Table
from joblet.workflow.template import PREFIX, variable

MAX_REQUIREMENTS = 100_000
"""of all steps together, each step that one requires counted"""

SHOWN_OF_CYCLE = 20
"""names"""


@dataclass(frozen=True, slots=True)
class _Required:
    """What one job requires, in terms of jobs, and how many steps that speaks of."""

    condition: Condition
    size: int


class Names:
    """The jobs and steps of a file. The mutable state is the number of requirements so far."""

    def __init__(self, steps: Mapping[str, Sequence[str]], faults: Faults) -> None:
        """`steps` has those of each job."""
        self._steps = {job: tuple(those) or (job,) for job, those in steps.items()}
        self._unsure = frozenset(job for job, those in steps.items() if not those)
        """jobs of which no steps are known, for their matrix has faults"""
        self._known = dict.fromkeys([*self._steps, *(step for those in self._steps.values() for step in those)])
        self._jobs = {step: job for job, those in self._steps.items() for step in those}
        self._faults = faults
        self._count = 0
        self._same: tuple[Node, _Required] | None = None
        """what was read last, of a job that requires the same for each of its steps"""

    def job(self, step: str) -> str:
        """The job that a step is of."""
        return self._jobs[step]

    def condition(self, job: Table, path: Path, step: str, renderer: Renderer, scope: Scope) -> Condition | None:
        """What a step of the job requires, in terms of steps; None when there are faults, which are added."""
        node = job.get("requires")
        if node is None or (isinstance(node, Scalar) and node.null):
            return NOTHING
        path = (*path, "requires")
        required = self._required(node, path, renderer, scope)
        if required is None:
            return None
        self._count += required.size
        if self._count > MAX_REQUIREMENTS:
            self._faults.add(node.line, path, f"more than {MAX_REQUIREMENTS} requirements of all jobs together")
            raise Enough
        condition = expand(required.condition, self._steps)
        dependencies = dict.fromkeys(names(condition))
        if step in dependencies:
            self._faults.add(node.line, path, "the job requires itself")
            return None
        return condition if self._check_variables(dependencies, node, path) else None

    def why_no_outputs(self, step: str) -> str:
        """What is wrong with using outputs of a step that is not required."""
        if step not in self._known:
            return f"unknown job {show(step)}{nearest(step, self._known)}"
        if step not in self._jobs:
            return f"job {show(step)} has a matrix (name one of its steps, as {self._steps[step][0]})"
        return f"output of job {show(step)}, which it does not require"

    def _required(self, node: Node, path: Path, renderer: Renderer, scope: Scope) -> _Required | None:
        if self._same and self._same[0] is node:
            return self._same[1]
        if not isinstance(node, Listing):
            self._faults.add(node.line, path, f"must be a list, not {describe(node)}")
            return None
        parts: list[Condition] = []
        whole = True
        for index, item in enumerate(node.items):
            for part in self._parts(item, (*path, index), renderer, scope):
                if part is None:
                    whole = False
                else:
                    parts.append(part)
        if not whole:
            return None
        condition = conjunction(parts) if parts else NOTHING
        required = _Required(condition, sum(len(self._steps.get(name, (name,))) for name in names(condition)))
        if not _has_templates(node):
            self._same = node, required
        return required

    def _parts(self, item: Node, path: Path, renderer: Renderer, scope: Scope) -> Iterator[Condition | None]:
        """The conditions that one entry of the list stands for; None for one with a fault."""
        if isinstance(item, Scalar):
            yield self._is(item, Scalar(Wanted.COMPLETED), path, renderer, scope)
        elif isinstance(item, Table) and item.entries:
            for key, entry in item.entries.items():
                if key == "expression":
                    yield self._expression(entry.value, (*path, key), renderer, scope)
                else:
                    yield self._is(Scalar(key, line=entry.line), entry.value, path, renderer, scope)
        else:
            self._faults.add(item.line, path, "must be the name of a job, JOB: STATE, or expression: TEXT")
            yield None

    def _is(self, job: Scalar, state: Node, path: Path, renderer: Renderer, scope: Scope) -> Condition | None:
        name = renderer.scalar(job, path, scope).text
        if path in renderer.broken:
            return None
        if name not in self._known:
            if name.partition("[")[0] not in self._unsure:
                hint = nearest(name, self._known) or (" (write expression: TEXT for one)" if "=" in name else "")
                self._faults.add(job.line, path, f"unknown job {show(name)}{hint}")
            return None
        if not isinstance(state, Scalar):
            self._faults.add(job.line, path, f"must be a state, not {describe(state)}")
            return None
        try:
            return Is(name, wanted_state(renderer.scalar(state, path, scope).text))
        except ExpressionError as error:
            if path not in renderer.broken:
                self._faults.add(job.line, path, str(error))
            return None

    def _expression(self, node: Node, path: Path, renderer: Renderer, scope: Scope) -> Condition | None:
        if not isinstance(node, Scalar):
            self._faults.add(node.line, path, f"must be text, not {describe(node)}")
            return None
        text = renderer.scalar(node, path, scope).text
        try:
            return None if path in renderer.broken else parse(text, self._known)
        except ExpressionError as error:
            self._faults.add(node.line, path, str(error))
            return None

    def _check_variables(self, dependencies: Mapping[str, None], node: Node, path: Path) -> bool:
        """Whether the outputs of each of them have variables of their own."""
        taken: dict[str, str] = {}
        for name in dependencies:
            prefix = variable(name)
            other = taken.setdefault(prefix, name)
            if other != name:
                what = f"the outputs of {show(other)} and {show(name)} have the same variables, {PREFIX}{prefix}__..."
                self._faults.add(node.line, path, what)
                return False
        return True


def _has_templates(node: Listing) -> bool:
    def texts(inner: Node) -> Iterator[str]:
        match inner:
            case Scalar(text):
                yield text
            case Listing(items):
                for item in items:
                    yield from texts(item)
            case Table(entries):
                for key, entry in entries.items():
                    yield key
                    yield from texts(entry.value)

    return any("{{" in text for text in texts(node))


def check_cycles(steps: Sequence[Step], jobs: Mapping[str, Table], known: Names, faults: Faults) -> None:
    """Add a fault for each circle of jobs that wait for each other, written as a path."""
    left = {step.name: set(step.dependencies) for step in steps}
    told: set[frozenset[str]] = set()
    while _remove_what_can_end(left):
        cycle = _cycle(left)
        about = frozenset(known.job(name) for name in cycle)
        job = known.job(cycle[0])
        if about not in told:
            told.add(about)
            node = jobs[job].get("requires")
            line = node.line if node else jobs[job].line
            shown = cycle if len(cycle) <= SHOWN_OF_CYCLE else [*cycle[: SHOWN_OF_CYCLE - 1], "...", cycle[-1]]
            faults.add(line, ("jobs", job, "requires"), f"in a circle: {' -> '.join((*shown, cycle[0]))}")
        for name in cycle:
            del left[name]


def _remove_what_can_end(left: dict[str, set[str]]) -> bool:
    """Take away the steps that do not wait for each other; whether any remain. Those not in `left` have ended."""
    waiting: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for name, dependencies in left.items():
        inner = [dependency for dependency in dependencies if dependency in left]
        counts[name] = len(inner)
        for dependency in inner:
            waiting.setdefault(dependency, []).append(name)
    free = [name for name, count in counts.items() if not count]
    while free:
        name = free.pop()
        del left[name]
        for dependent in waiting.get(name, ()):
            counts[dependent] -= 1
            if not counts[dependent]:
                free.append(dependent)
    return bool(left)


def _cycle(left: Mapping[str, set[str]]) -> list[str]:
    """A circle among steps each of which requires another of them, beginning with its first in the file."""
    order = {name: position for position, name in enumerate(left)}
    name = next(iter(left))
    way: dict[str, int] = {}
    while name not in way:
        way[name] = len(way)
        name = min((dependency for dependency in left[name] if dependency in left), key=order.__getitem__)
    cycle = list(way)[way[name] :]
    first = min(range(len(cycle)), key=lambda index: order[cycle[index]])
    return cycle[first:] + cycle[:first]
