"""A workflow's file as a plan, or all that is wrong with it. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from joblet.job import MASK, Limits
from joblet.order import MAX_NAME, Order
from joblet.workflow import check, matrix, parameters, requirements
from joblet.workflow.condition import NOTHING, Condition, names
from joblet.workflow.faults import Enough, Faults, Path, nearest, show
from joblet.workflow.model import JOB_NAME, MAX_STEPS, Header, Job, describe
from joblet.workflow.plan import Plan, Retry, Step
from joblet.workflow.render import Renderer, Scope
from joblet.workflow.source import Node, Scalar, Table, load, scalars, without

_JOB_NAME = re.compile(JOB_NAME)
_ENVIRONMENTS = ("environment", "secret_environment")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file that has no faults."""

    plan: Plan
    masked: str
    """its text, with every value below secret_environment and those that tell secret parameters replaced"""


def parse(
    text: str,
    *,
    file: str,
    parameters: Mapping[str, str] = MappingProxyType({}),
    sent: Collection[str] | None = None,
    job: str = "",
) -> Parsed:
    """The plan of a file's text. `file` is its name, for messages.

    `parameters` are the values given, `sent` the paths of the files that came along (None: not looked at). `job` is the
    only one that is to run, whatever it requires; empty for all.

    Raises InvalidWorkflow with one line for each fault, in the file's order.
    """
    faults = Faults(file)
    try:
        parsed = _Reader(text.removeprefix("\ufeff"), parameters, sent, job, faults).parsed()
    except Enough:
        parsed = None
    faults.check()
    assert parsed is not None, "without a fault all of the file has been read"
    return parsed


@dataclass(frozen=True, slots=True)
class _Draft:
    """A job of the file, of which steps are to be made."""

    name: str
    node: Table
    combinations: list[matrix.Combination]
    """one, of nothing, for a job without a matrix"""

    @property
    def path(self) -> Path:
        return "jobs", self.name

    @property
    def steps(self) -> tuple[str, ...]:
        return tuple(matrix.step_name(self.name, combination) for combination in self.combinations)


class _Reader:
    """Reads one file, from the top down. The mutable state is what has been found so far."""

    def __init__(
        self, text: str, given: Mapping[str, str], sent: Collection[str] | None, only: str, faults: Faults
    ) -> None:
        self._text = text
        self._given = given
        self._sent = None if sent is None else {*sent, *(str(above) for path in sent for above in _above(path))}
        self._only = only
        self._faults = faults

    def parsed(self) -> Parsed | None:
        """The file's plan; None, or Enough raised, when there are faults."""
        root = load(self._text, self._faults)
        if not isinstance(root, Table):
            if root is None or (isinstance(root, Scalar) and root.null):
                self._faults.add(1, (), "the file is empty")
            else:
                self._faults.add(root.line, (), f"must be a mapping with jobs, not {describe(root)}")
            return None
        declared = root.get("parameters")
        values = parameters.read(declared, self._given, self._faults, root.line)
        self._renderer = Renderer(self._faults, values)
        header = self._header(root)
        drafts = self._drafts(root)
        self._names = requirements.Names({draft.name: draft.steps for draft in drafts}, self._faults)
        steps = [step for draft in drafts for step in self._steps(draft, header or Header())]
        requirements.check_cycles(steps, {draft.name: draft.node for draft in drafts}, self._names, self._faults)
        if self._faults or header is None:
            return None
        plan = Plan(tuple(steps), header.name, header.timeout, header.max_parallel, parameters.shown(values))
        return Parsed(plan, without(self._text, _secrets(root), MASK))

    def _header(self, root: Table) -> Header | None:
        values: dict[str, Any] = {}
        for key, entry in root.entries.items():
            if key not in ("parameters", "jobs"):
                scope = Scope(secret=key == "secret_environment", encoded=key in _ENVIRONMENTS)
                values[key] = self._renderer.tree(entry.value, (key,), scope)
        return check.read(Header, values, root, (), self._faults, self._renderer.broken)

    def _drafts(self, root: Table) -> list[_Draft]:
        node = root.get("jobs")
        line = root.entries["jobs"].line if node else root.line
        if node is None or (isinstance(node, Scalar) and node.null) or (isinstance(node, Table) and not node.entries):
            self._faults.add(line, ("jobs",), "there are none")
            raise Enough
        if not isinstance(node, Table):
            self._faults.add(line, ("jobs",), f"must be a mapping, not {describe(node)}")
            raise Enough
        if self._only and self._only not in node.entries:
            self._faults.add(line, ("jobs",), f"there is no {show(self._only)}{nearest(self._only, node.entries)}")
            raise Enough
        drafts: list[_Draft] = []
        total = 0
        for name, entry in node.entries.items():
            if self._only not in ("", name):
                continue
            draft = self._draft(name, entry.line, entry.value)
            drafts.append(draft)
            total += len(draft.combinations)
            if total > MAX_STEPS:
                self._faults.add(line, ("jobs",), f"more than {MAX_STEPS} jobs, those of matrices included")
                raise Enough
        return drafts

    def _draft(self, name: str, line: int, node: Node) -> _Draft:
        path = ("jobs", name)
        if not _JOB_NAME.fullmatch(name):
            self._faults.add(line, path, "is no name of a job (1 to 63 letters, digits and _ . -, not . or - first)")
        elif name == "expression":
            self._faults.add(line, path, "no job can be called so")
        if isinstance(node, Table):
            node = Table(node.entries, line)  # what it lacks is told where its name is
        elif isinstance(node, Scalar) and node.null:
            node = Table({}, line)
        else:
            self._faults.add(node.line, path, f"must be a mapping, not {describe(node)}")
            return _Draft(name, Table({}, line), [])
        values = node.get("matrix")
        if values is None or (isinstance(values, Scalar) and values.null):
            return _Draft(name, node, [{}])
        combinations = matrix.read(values, (*path, "matrix"), self._renderer, self._faults)
        draft = _Draft(name, node, combinations)
        for step in draft.steps:
            if len(step) > MAX_NAME:
                what = f"the name {show(step)} is {len(step)} characters long (at most {MAX_NAME})"
                self._faults.add(values.line, (*path, "matrix"), what)
                break
        return draft

    def _steps(self, draft: _Draft, header: Header) -> Iterator[Step]:
        """The steps of a job, those without faults."""
        inherited = [*header.environment.values(), *header.secret_environment.values()]
        for combination, name in zip(draft.combinations, draft.steps, strict=True):
            self._renderer.spend(inherited, draft.node.line, draft.path)
            scope = Scope(combination)
            condition: Condition | None = NOTHING
            if not self._only:
                condition = self._names.condition(draft.node, draft.path, name, self._renderer, scope)
            model = self._job(draft, scope, condition)
            if model is not None:
                yield Step(
                    name,
                    self._order(name, model, header),
                    condition or NOTHING,
                    _retry(model),
                    model.continue_on_failure,
                    tuple(model.uploads.files),
                )

    def _job(self, draft: _Draft, scope: Scope, condition: Condition | None) -> Job | None:
        used = Scope(scope.matrix, outputs=self._outputs(condition), encoded=True)
        scopes = {
            "args": used,
            "environment": used,
            "secret_environment": Scope(used.matrix, secret=True, outputs=used.outputs, encoded=True),
        }
        values = {
            key: self._renderer.tree(entry.value, (*draft.path, key), scopes.get(key, scope))
            for key, entry in draft.node.entries.items()
            if key not in ("requires", "matrix")
        }
        self._check_uploads(values.get("uploads"), draft.path)
        return check.read(Job, values, draft.node, draft.path, self._faults, self._renderer.broken)

    def _outputs(self, condition: Condition | None) -> Callable[[str], str]:
        """Says what is wrong with using outputs of a step, for one that requires as much."""
        required = set(names(condition)) if condition else set()

        def refuse(step: str) -> str:
            if self._only:
                return f"there are no outputs of {show(step)} when one job is run alone"
            if condition is None or step in required:
                return ""
            return self._names.why_no_outputs(step)

        return refuse

    def _check_uploads(self, uploads: Any, path: Path) -> None:
        """Add the faults of files that no single one has."""
        files = uploads.get("files") if isinstance(uploads, dict) else None
        before: set[str] = set()
        for index, file in enumerate(files if isinstance(files, list) else ()):
            field: Path = ("uploads", "files", index)
            if not isinstance(file, Scalar) or (*path, *field) in self._renderer.broken:
                continue
            if file.text in before:
                self._faults.add(file.line, (*path, *field), f"{show(file.text)} a second time")
            elif self._sent is not None and file.text not in self._sent:
                self._faults.add(file.line, (*path, *field), f"{show(file.text)} was not sent along")
            before.add(file.text)

    def _order(self, name: str, model: Job, header: Header) -> Order:
        environment = dict(header.environment)
        secret = dict(header.secret_environment)
        _lay_over(environment, secret, model.environment)
        for variable in (*secret, *model.secret_environment):
            environment.pop(variable, None)
        resources = model.resources
        return Order(
            command=model.command,
            args=tuple(model.args),
            limits=Limits(
                resources.max_cpu,
                resources.max_memory,
                resources.max_io_bps,
                resources.max_processes,
                resources.max_open_files,
                resources.max_disk,
                resources.cpu_cores,
            ),
            timeout_ms=round(model.timeout * 1000),
            priority=model.priority,
            name=name,
            environment=environment,
            secret_environment={**secret, **model.secret_environment},
            workdir=model.workdir,
            labels=model.labels,
        )


def _lay_over(environment: dict[str, str], secret: dict[str, str], own: Mapping[str, str]) -> None:
    """Let a job's own variables win over the workflow's, secret ones included."""
    for name, value in own.items():
        secret.pop(name, None)
        environment[name] = value


def _retry(model: Job) -> Retry:
    asked = model.retries
    longest = asked.max_backoff if "max_backoff" in asked.model_fields_set else max(asked.max_backoff, asked.backoff)
    return Retry(asked.limit, asked.backoff, asked.factor, longest, frozenset(asked.exit_codes))


def _above(path: str) -> Iterable[PurePosixPath]:
    """The directories that a file lies in, below the one of all."""
    return list(PurePosixPath(path).parents)[:-1]


def _secrets(root: Table) -> Iterator[Scalar]:
    """Every value of a file that nobody is shown."""
    yield from scalars(root.get("secret_environment"))
    yield from parameters.hidden(root.get("parameters"))
    jobs = root.get("jobs")
    for entry in jobs.entries.values() if isinstance(jobs, Table) else ():
        if isinstance(entry.value, Table):
            yield from scalars(entry.value.get("secret_environment"))
