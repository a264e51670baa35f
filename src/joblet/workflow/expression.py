"""Requirements as text: `a=COMPLETED && (b=FAILED || !(c IN (STOPPED, CANCELED)))`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from joblet.workflow.condition import NOTHING, All, Any, Condition, Is, Not, Wanted
from joblet.workflow.faults import nearest, show

MAX_LENGTH = 4096
"""characters"""
MAX_DEPTH = 64
"""levels of brackets and negations"""

_STORED_DEPTH = 3 * MAX_DEPTH
"""`str` brackets what precedence alone had kept together, and all that is negated"""

_TOKEN = re.compile(
    r"""(?P<name>[A-Za-z0-9_.-]+(?:\[[^\[\]"]*\])?)|(?P<quoted>"[^"]*"|'[^']*')|(?P<sign>&&|\|\||==|!=|[=!(),])"""
)
_SPACE = re.compile(r"\s*")
_STATES = ", ".join(Wanted)


class ExpressionError(ValueError):
    """The text is no expression; the message says what was expected, and where."""


def parse(text: str, known: Collection[str]) -> Condition:
    """The condition that a user's expression stands for.

    `&&` binds closer than `||`; AND, OR, NOT and IN are written in any case. Raises ExpressionError for what is no
    expression, is longer than MAX_LENGTH or deeper than MAX_DEPTH, or speaks of a job that is not `known`.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{len(text)} characters long (at most {MAX_LENGTH})")
    return _Parser(text, known, MAX_DEPTH).parse()


def parse_stored(text: str) -> Condition:
    """The condition whose `str` the text is; nothing, for an empty one. Raises ExpressionError."""
    return _Parser(text, None, _STORED_DEPTH).parse() if text else NOTHING


def conjunction(parts: Iterable[Condition]) -> Condition:
    """All of them, without an All within an All or around one alone."""
    flat: list[Condition] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, All) else (part,))
    return flat[0] if len(flat) == 1 else All(tuple(flat))


def disjunction(parts: Iterable[Condition]) -> Condition:
    """Any of them, without an Any within an Any or around one alone."""
    flat: list[Condition] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Any) else (part,))
    return flat[0] if len(flat) == 1 else Any(tuple(flat))


def expand(condition: Condition, groups: Mapping[str, Collection[str]]) -> Condition:
    """The condition over steps that one over jobs stands for. `groups` has the steps of each job.

    COMPLETED and FINISHED are asked of all steps of a job, the other states of any.
    """
    match condition:
        case Is(name, wanted):
            steps = (Is(step, wanted) for step in groups.get(name, (name,)))
            return conjunction(steps) if wanted in (Wanted.COMPLETED, Wanted.FINISHED) else disjunction(steps)
        case Not(part):
            return Not(expand(part, groups))
        case All(parts):
            return conjunction(expand(part, groups) for part in parts)
        case Any(parts):
            return disjunction(expand(part, groups) for part in parts)


def wanted_state(text: str) -> Wanted:
    """The state of that name. Raises ExpressionError."""
    state = Wanted.__members__.get(text)
    if state is None:
        raise ExpressionError(f"unknown state {show(text)}{nearest(text.upper(), Wanted) or f' (write {_STATES})'}")
    return state


class _Parser:
    """One pass over the text, by recursive descent."""

    def __init__(self, text: str, known: Collection[str] | None, max_depth: int) -> None:
        self._known = known
        self._max_depth = max_depth
        self._depth = 0
        self._tokens = list(_tokens(text))
        """column from 1, kind, text; the end comes three times, for those who look ahead"""
        self._at = 0

    def parse(self) -> Condition:
        condition = self._or()
        if self._tokens[self._at][1] != "end":
            raise self._expected("&&, || or the end")
        return condition

    def _or(self) -> Condition:
        parts = [self._and()]
        while self._take("||", "OR"):
            parts.append(self._and())
        return disjunction(parts)

    def _and(self) -> Condition:
        parts = [self._not()]
        while self._take("&&", "AND"):
            parts.append(self._not())
        return conjunction(parts)

    def _not(self) -> Condition:
        before = self._depth
        while not self._names_a_job() and self._take("!", "NOT"):
            self._deeper()
        negations = self._depth - before
        if not self._names_a_job() and self._take("("):
            self._deeper()
            condition = self._or()
            if not self._take(")"):
                raise self._expected('&&, || or ")"')
        else:
            condition = self._comparison()
        self._depth = before
        for _ in range(negations):
            condition = Not(condition)
        return condition

    def _comparison(self) -> Condition:
        column, kind, name = self._tokens[self._at]
        if kind not in ("name", "quoted"):
            raise self._expected('the name of a job, "!" or "("')
        self._at += 1
        if self._known is not None and name not in self._known:
            raise ExpressionError(f"unknown job {show(name)} at column {column}{nearest(name, self._known)}")
        if self._take("=", "=="):
            return Is(name, self._state())
        if self._take("!="):
            return Not(Is(name, self._state()))
        if not self._take("IN"):
            raise self._expected(f'"=", "!=" or IN after {show(name)}')
        if not self._take("("):
            raise self._expected('"(" after IN')
        parts = [Is(name, self._state())]
        while self._take(","):
            parts.append(Is(name, self._state()))
        if not self._take(")"):
            raise self._expected('"," or ")"')
        return disjunction(parts)

    def _state(self) -> Wanted:
        column, kind, text = self._tokens[self._at]
        if kind not in ("name", "quoted"):
            raise self._expected(f"a state ({_STATES})")
        self._at += 1
        try:
            return wanted_state(text)
        except ExpressionError as error:
            raise ExpressionError(f"{error} at column {column}") from None

    def _names_a_job(self) -> bool:
        """Whether what comes is compared with a state: so a job may be called `not`."""
        (_, kind, _), (_, _, after), (_, _, third) = self._tokens[self._at : self._at + 3]
        compared = after in ("=", "==", "!=") or (after.upper() == "IN" and third == "(")
        return kind == "quoted" or (kind == "name" and compared)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > self._max_depth:
            raise ExpressionError(f"more than {self._max_depth} levels deep")

    def _take(self, *wanted: str) -> bool:
        _, kind, text = self._tokens[self._at]
        found = (kind == "sign" and text in wanted) or (kind == "name" and text.upper() in wanted)
        self._at += found
        return found

    def _expected(self, what: str) -> ExpressionError:
        column, kind, text = self._tokens[self._at]
        found = "the end" if kind == "end" else show(text)
        return ExpressionError(f"expected {what} at column {column}, found {found}")


def _tokens(text: str) -> Iterable[tuple[int, str, str]]:
    position = _SPACE.match(text).end()  # type: ignore[union-attr]
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ExpressionError(f"unexpected {show(text[position])} at column {position + 1}")
        kind = str(found.lastgroup)
        yield position + 1, kind, found[0][1:-1] if kind == "quoted" else found[0]
        position = _SPACE.match(text, found.end()).end()  # type: ignore[union-attr]
    yield from [(len(text) + 1, "end", "")] * 3
