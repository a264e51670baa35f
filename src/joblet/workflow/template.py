"""`${{ ... }}` in a workflow's file: parameters, matrix values and the outputs of other jobs. Nothing is computed.

The same text has the same meaning in the file and in a plan, where only outputs are left: of a run of dollars before
`{{` each two are one dollar, and one that is left over begins a template. So `$${{` is a literal `${{`, and text that
`encode` has made of a literal never becomes a template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from joblet.order import Order
from joblet.workflow.faults import show

_OPENING = re.compile(r"(?<!\$)(\$+)\{\{")
_BODY = re.compile(r"((?:[^\[\]}]|\}(?!\})|\[[^\[\]]*\])*)\}\}")
"""up to the closing braces, but those within the brackets of a step's name"""
_NAMED = re.compile(r"(params|matrix)\.([A-Za-z_][A-Za-z0-9_-]*)")
_OUTPUT = re.compile(r"jobs\.(.+)\.outputs\.([A-Za-z_][A-Za-z0-9_]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Named:
    """`${{ params.NAME }}` or `${{ matrix.NAME }}`."""

    kind: str
    """`params` or `matrix`"""
    name: str


@dataclass(frozen=True, slots=True)
class Output:
    """`${{ jobs.JOB.outputs.KEY }}`."""

    job: str
    """the name of a step; it may hold templates of its own while it is in a file"""
    key: str


class TemplateError(ValueError):
    """The text holds `${{` that begins no template. `str` of it does not show what follows, which may be secret."""

    def __init__(self, body: str | None = None) -> None:
        """`body` is what stands in the braces; None when they are not closed."""
        self._body = body
        super().__init__(self.told())

    def told(self, *, secret: bool = True) -> str:
        """What is wrong, with the body if that is not secret."""
        if self._body is None:
            return '"${{" without "}}" after it (write "$${{" for the text itself)'
        shown = "" if secret else f" {show(self._body)}"
        return f"unknown template{shown} (write params.NAME, matrix.NAME or jobs.NAME.outputs.KEY)"


class MissingOutput(Exception):
    """A step has not written an output that another one uses."""

    def __init__(self, job: str, key: str) -> None:
        super().__init__(f"{job} has not written the output {key}")
        self.job = job
        self.key = key


def split(text: str) -> Sequence[str | Named | Output]:
    """The text as literal pieces and templates. Raises TemplateError."""
    pieces: list[str | Named | Output] = []
    position = 0
    while opening := _OPENING.search(text, position):
        dollars = len(opening[1])
        literal = text[position : opening.start()] + "$" * (dollars // 2)
        position = opening.end()
        if dollars % 2 == 0:
            pieces.append(literal + "{{")
            continue
        body = _BODY.match(text, position)
        if body is None:
            raise TemplateError
        pieces += [literal, _template(body[1].strip())]
        position = body.end()
    pieces.append(text[position:])
    return pieces


def _template(body: str) -> Named | Output:
    if named := _NAMED.fullmatch(body):
        return Named(named[1], named[2])
    if output := _OUTPUT.fullmatch(body):
        return Output(output[1], output[2])
    raise TemplateError(body)


def encode(pieces: Iterable[str | Output]) -> str:
    """The text that `split` takes apart again, of literals and outputs."""
    text = literal = ""
    for piece in pieces:
        if isinstance(piece, str):
            literal += piece
        else:
            dollars = len(literal) - len(literal.rstrip("$"))
            text += _escape(literal) + "$" * dollars + f"${{{{ jobs.{piece.job}.outputs.{piece.key} }}}}"
            literal = ""
    return text + _escape(literal)


def _escape(literal: str) -> str:
    return _OPENING.sub(r"\1\1{{", literal)


def fill(text: str, outputs: Mapping[str, Mapping[str, str]]) -> str:
    """A text of a plan with the outputs of steps, by name and key, in place. Raises MissingOutput.

    What is put in is not looked at again.
    """
    filled = ""
    for piece in split(text):
        if isinstance(piece, Output):
            try:
                filled += outputs[piece.job][piece.key]
            except KeyError:
                raise MissingOutput(piece.job, piece.key) from None
        else:
            assert isinstance(piece, str), "a plan has no other templates left"
            filled += piece
    return filled


def wanted(order: Order) -> set[tuple[str, str]]:
    """The outputs, as step and key, that an order's arguments and environment use."""
    texts = (*order.args, *order.environment.values(), *order.secret_environment.values())
    return {
        (piece.job, piece.key) for text in texts if "{{" in text for piece in split(text) if isinstance(piece, Output)
    }


PREFIX = "JOBLET_OUTPUT_"


def variables(outputs_by_step: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The environment variables that tell a job what those it requires have written: `JOBLET_OUTPUT_<JOB>__<KEY>`."""
    return {
        f"{PREFIX}{variable(step)}__{variable(key)}": value
        for step, outputs in outputs_by_step.items()
        for key, value in outputs.items()
    }


def variable(name: str) -> str:
    """`train[lr=0.1]` as part of a variable's name: `TRAIN_LR_0_1`."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).upper().rstrip("_")
