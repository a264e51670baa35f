"""Requirements as text, and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joblet.workflow.condition import NOTHING, All, Any, Condition, End, Ended, Is, Not, Wanted, evaluate
from joblet.workflow.expression import (
    MAX_DEPTH,
    MAX_LENGTH,
    ExpressionError,
    conjunction,
    disjunction,
    expand,
    parse,
    parse_stored,
)

A, B, C = Is("a", Wanted.COMPLETED), Is("b", Wanted.FAILED), Is("c", Wanted.STOPPED)

NAMES = st.sampled_from(["a", "b", "not", "IN", "and", "x.y-z", "train[lr=0.1,depth=2]", "train[k=a b]", "t[k=(|'&&]"])
LEAVES = st.builds(Is, NAMES, st.sampled_from(Wanted))


def _nested(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(inner, min_size=1, max_size=4)
    return st.one_of(st.builds(Not, inner), several.map(conjunction), several.map(disjunction))


def _raw(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(inner, min_size=1, max_size=4).map(tuple)
    return st.one_of(st.builds(Not, inner), several.map(All), several.map(Any))


@given(st.recursive(LEAVES, _nested, max_leaves=20))
def test_a_condition_is_what_its_text_says(condition: Condition) -> None:
    assert parse_stored(str(condition)) == condition


@given(
    st.recursive(LEAVES, _raw, max_leaves=20),
    st.dictionaries(NAMES, st.builds(Ended, st.sampled_from(End), st.booleans())),
)
def test_text_keeps_the_value_of_a_condition_that_is_not_flat(condition: Condition, ended: dict[str, Ended]) -> None:
    assert evaluate(parse_stored(str(condition)), ended) == evaluate(condition, ended)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("a=COMPLETED", A),
        ("a == COMPLETED", A),
        ("\n a\t=COMPLETED ", A),
        ("'a'=COMPLETED", A),
        ('"a" = "COMPLETED"', A),
        ("((a=COMPLETED))", A),
        ("a!=COMPLETED", Not(A)),
        ("!a=COMPLETED", Not(A)),
        ("not not a=COMPLETED", Not(Not(A))),
        ("a=COMPLETED && b=FAILED && c=STOPPED", All((A, B, C))),
        ("a=COMPLETED and (b=FAILED AND c=STOPPED)", All((A, B, C))),
        ("a=COMPLETED || b=FAILED && c=STOPPED", Any((A, All((B, C))))),
        ("(a=COMPLETED or b=FAILED) && c=STOPPED", All((Any((A, B)), C))),
        ("a=COMPLETED && (b=FAILED || !(c=STOPPED))", All((A, Any((B, Not(C)))))),
        ("a IN (COMPLETED)", A),
        ("a in (COMPLETED, FAILED)", Any((A, Is("a", Wanted.FAILED)))),
        ("not in (FAILED)", Is("not", Wanted.FAILED)),
        ("not in=FAILED", Not(Is("in", Wanted.FAILED))),
        ("and=FAILED and or=FAILED", All((Is("and", Wanted.FAILED), Is("or", Wanted.FAILED)))),
        ("train[lr=0.1,depth=2]=FAILED", Is("train[lr=0.1,depth=2]", Wanted.FAILED)),
    ],
)
def test_an_expression_is_read(text: str, condition: Condition) -> None:
    assert parse_stored(text) == condition
    assert parse(text, ["a", "b", "c", "not", "in", "and", "or", "train[lr=0.1,depth=2]"]) == condition


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'expected the name of a job, "!" or "(" at column 1, found the end'),
        ("a", 'expected "=", "!=" or IN after "a" at column 2, found the end'),
        ("a COMPLETED", 'expected "=", "!=" or IN after "a" at column 3, found "COMPLETED"'),
        ("a=", "expected a state (COMPLETED, FAILED, STOPPED, CANCELED, FINISHED) at column 3, found the end"),
        ("a=completed", 'unknown state "completed" (did you mean COMPLETED?) at column 3'),
        (
            "a=RUNNING",
            'unknown state "RUNNING" (write COMPLETED, FAILED, STOPPED, CANCELED, FINISHED) at column 3',
        ),
        ("a=FAILED b=FAILED", 'expected &&, || or the end at column 10, found "b"'),
        ("a=FAILED)", 'expected &&, || or the end at column 9, found ")"'),
        ("(a=FAILED", 'expected &&, || or ")" at column 10, found the end'),
        ("a=FAILED && ", 'expected the name of a job, "!" or "(" at column 13, found the end'),
        ("a=FAILED & b=FAILED", 'unexpected "&" at column 10'),
        ("a IN FAILED", 'expected "(" after IN at column 6, found "FAILED"'),
        ("a IN (FAILED", 'expected "," or ")" at column 13, found the end'),
        ("bb=FAILED", 'unknown job "bb" at column 1 (did you mean b?)'),
        ("a=FAILED; x", 'unexpected ";" at column 9'),
        ("!" * (MAX_DEPTH + 1) + "a=FAILED", "more than 64 levels deep"),
        ("(" * (MAX_DEPTH + 1) + "a=FAILED", "more than 64 levels deep"),
        (" " * (MAX_LENGTH + 1), "4097 characters long (at most 4096)"),
    ],
)
def test_what_is_no_expression_is_told_where(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text, ["a", "b"])
    assert str(caught.value) == message


def test_nothing_is_stored_as_nothing() -> None:
    assert str(NOTHING) == ""
    assert parse_stored("") == NOTHING


def test_the_deepest_expression_can_be_stored() -> None:
    for level in ("!(b=FAILED || a=FAILED && ", "!", "("):
        depth = MAX_DEPTH // (level.count("!") + level.count("("))
        closing = ")" * (depth * level.count("("))
        condition = parse(level * depth + "a=FAILED" + closing, ["a", "b"])
        assert parse_stored(str(condition)) == condition


@settings(max_examples=300)
@given(st.text(alphabet="ab=!&|() ,\"'[]NOTINADR", max_size=60) | st.text(max_size=20))
def test_any_text_is_an_expression_or_a_fault(text: str) -> None:
    try:
        condition = parse(text, ["a", "b"])
    except ExpressionError:
        return
    assert parse_stored(str(condition)) == condition


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        (Wanted.COMPLETED, All),
        (Wanted.FINISHED, All),
        (Wanted.FAILED, Any),
        (Wanted.STOPPED, Any),
        (Wanted.CANCELED, Any),
    ],
)
def test_a_job_with_a_matrix_stands_for_all_or_any_of_its_steps(wanted: Wanted, kind: type[All] | type[Any]) -> None:
    steps = ("t[x=1]", "t[x=2]")
    expanded = kind(tuple(Is(step, wanted) for step in steps))
    assert expand(Is("t", wanted), {"t": steps}) == expanded
    assert expand(Not(Is("t", wanted)), {"t": steps}) == Not(expanded)
    assert expand(Is("t[x=1]", wanted), {"t": steps}) == Is("t[x=1]", wanted)


def test_expanding_leaves_a_condition_flat() -> None:
    groups = {"t": ("t[x=1]", "t[x=2]"), "a": ("a",)}
    assert expand(All((A, Is("t", Wanted.COMPLETED))), groups) == All(
        (A, Is("t[x=1]", Wanted.COMPLETED), Is("t[x=2]", Wanted.COMPLETED))
    )
