"""Templates of a file filled in: parameters and matrix values, and outputs kept for when the step starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from joblet.order import MAX_ARG_BYTES
from joblet.workflow.faults import Enough, Faults, Path, nearest, show
from joblet.workflow.source import Listing, Node, Scalar
from joblet.workflow.template import Named, Output, TemplateError, encode, split

MAX_VOLUME = 32 * 2**20
"""characters of all steps together, with a few more for each value"""
_EACH = 32


@dataclass(frozen=True, slots=True)
class Value:
    """What a parameter or a key of a matrix stands for."""

    text: str
    plain: bool = False
    """not a string, so that a field which is nothing else has its type"""
    secret: bool = False
    broken: bool = False
    """it has a fault, which is known; so what it is used in has no other"""


@dataclass(frozen=True, slots=True)
class Scope:
    """What templates may stand for at some place."""

    matrix: Mapping[str, Value] = field(default_factory=dict)
    secret: bool = False
    """what is there is shown to nobody, so secret parameters may be used"""
    outputs: Callable[[str], str] | None = None
    """says what is wrong with using outputs of that step, if anything; None: they cannot be used"""
    encoded: bool = False
    """the text is filled in again when the step starts"""


class _Unfit(Exception):
    """A template cannot be filled in; without a message for what is known already."""


class Renderer:
    """The mutable state is the amount of text made so far, and where templates were faulty."""

    def __init__(self, faults: Faults, parameters: Mapping[str, Value]) -> None:
        self._faults = faults
        self._parameters = parameters
        self._volume = 0
        self.broken: set[Path] = set()

    def tree(self, node: Node, path: Path, scope: Scope) -> Any:
        """What a model reads, of the node at `path`, with its templates filled in. Faults are added."""
        if isinstance(node, Scalar):
            return self.scalar(node, path, scope)
        if isinstance(node, Listing):
            return [self.tree(item, (*path, index), scope) for index, item in enumerate(node.items)]
        return {key: self.tree(entry.value, (*path, key), scope) for key, entry in node.entries.items()}

    def scalar(self, scalar: Scalar, path: Path, scope: Scope) -> Scalar:
        """The value at `path` with its templates filled in. A fault is added, and the value then means nothing."""
        filled = scalar
        if "{{" in scalar.text:
            try:
                filled = self._fill(scalar, scope)
            except TemplateError as error:
                self.broken.add(path)
                self._faults.add(scalar.line, path, error.told(secret=scope.secret))
            except _Unfit as error:
                self.broken.add(path)
                if str(error):
                    self._faults.add(scalar.line, path, str(error))
        self.spend([filled.text], scalar.line, path)
        return filled

    def spend(self, texts: Iterable[str], line: int, path: Path) -> None:
        """Count what a step is made of. Raises Enough, and adds a fault, when it is too much in all."""
        self._volume += sum(len(text) + _EACH for text in texts)
        if self._volume > MAX_VOLUME:
            self._faults.add(line, path, f"the jobs come to more than {MAX_VOLUME} characters in all")
            raise Enough

    def _fill(self, scalar: Scalar, scope: Scope) -> Scalar:
        pieces = [piece for piece in split(scalar.text) if piece]
        if len(pieces) == 1 and isinstance(named := pieces[0], Named):
            value = self._value(named, scope)
            text = encode([value.text]) if scope.encoded else value.text
            return replace(scalar, text=text, plain=value.plain)
        filled: list[str | Output] = []
        size = 0
        for piece in pieces:
            if isinstance(piece, Named):
                filled.append(self._value(piece, scope).text)
            else:
                filled.append(self._output(piece, scope) if isinstance(piece, Output) else piece)
            last = filled[-1]
            size += len(last) if isinstance(last, str) else 0
            if size > MAX_ARG_BYTES:
                raise _Unfit(f"longer than {MAX_ARG_BYTES} characters when its templates are filled in")
        text = encode(filled) if scope.encoded else "".join(str(part) for part in filled)
        return replace(scalar, text=text, plain=False)

    def _value(self, named: Named, scope: Scope) -> Value:
        known = self._parameters if named.kind == "params" else scope.matrix
        value = known.get(named.name)
        if value is None:
            what = "parameter" if named.kind == "params" else "key of the matrix"
            raise _Unfit(f"unknown {what} {show(named.name)}{nearest(named.name, known)}")
        if value.broken:
            raise _Unfit
        if value.secret and not scope.secret:
            raise _Unfit(f"parameter {show(named.name)} is secret (it may be used below secret_environment only)")
        return value

    def _output(self, output: Output, scope: Scope) -> Output:
        if scope.outputs is None:
            raise _Unfit("outputs of jobs can be used in args, environment and secret_environment of jobs only")
        if "{{" in output.job:
            parts = split(output.job)
            if any(isinstance(part, Output) for part in parts):
                raise _Unfit("an output cannot be part of the name of a job")
            plain = replace(scope, secret=False)
            name = "".join(self._value(part, plain).text if isinstance(part, Named) else str(part) for part in parts)
            output = replace(output, job=name)
        if what := scope.outputs(output.job):
            raise _Unfit(what)
        return output
