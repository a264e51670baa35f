"""`${{ ... }}`: what is filled in, and what never is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.order import Order
from joblet.workflow.template import (
    MissingOutput,
    Named,
    Output,
    TemplateError,
    encode,
    fill,
    split,
    variable,
    variables,
    wanted,
)

LITERALS = st.text(alphabet="${} jobs.a.outputs.k[]x", max_size=20) | st.text(max_size=8)
OUTPUTS = st.builds(
    Output,
    st.sampled_from(["a", "a.outputs.b", "train[lr=0.1,depth=2]", "t[x=}}]", "t[x=${{]", "t[x= $]"]),
    st.sampled_from(["k", "_K9"]),
)


@given(st.lists(LITERALS | OUTPUTS, max_size=6), LITERALS)
def test_a_plan_gives_back_every_literal_and_every_output(pieces: list[str | Output], value: str) -> None:
    outputs = {piece.job: {"k": value, "_K9": value} for piece in pieces if isinstance(piece, Output)}
    expected = "".join(piece if isinstance(piece, str) else value for piece in pieces)
    assert fill(encode(pieces), outputs) == expected


@given(st.lists(LITERALS | OUTPUTS, max_size=6))
def test_the_outputs_of_a_plan_are_found(pieces: list[str | Output]) -> None:
    text = encode(pieces)
    expected = {(piece.job, piece.key) for piece in pieces if isinstance(piece, Output)}
    assert wanted(Order("c", (text,))) == expected
    assert wanted(Order("c", environment={"A": text})) == expected
    assert wanted(Order("c", secret_environment={"A": text})) == expected


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("plain $HOME {{ x }} ${x}", ["plain $HOME {{ x }} ${x}"]),
        ("${{params.a}}", [Named("params", "a")]),
        ("x-${{  matrix.lr }}-y", ["x-", Named("matrix", "lr"), "-y"]),
        ("${{ jobs.a.outputs.k }}", [Output("a", "k")]),
        ("${{ jobs.a.b-c.outputs.k }}", [Output("a.b-c", "k")]),
        ("${{ jobs.t[x=1,y=}}].outputs.k }}", [Output("t[x=1,y=}}]", "k")]),
        ("${{ jobs.t[x=${{ matrix.x }}].outputs.k }}", [Output("t[x=${{ matrix.x }}]", "k")]),
        ("$${{ params.a }}", ["${{ params.a }}"]),
        ("$$${{ params.a }}", ["$", Named("params", "a")]),
        ("$$$${{ params.a }}", ["$${{ params.a }}"]),
        ("$${{", ["${{"]),
    ],
)
def test_text_is_taken_apart(text: str, pieces: list[str | Named | Output]) -> None:
    joined: list[str | Named | Output] = []
    for piece in split(text):
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece:
            joined.append(piece)
    assert joined == pieces


@pytest.mark.parametrize(
    "body",
    [
        "",
        "params",
        "params.",
        "params.a.b",
        "params.a + 1",
        "env.HOME",
        "jobs.a",
        "jobs.a.outputs.",
        "jobs.a.outputs.9",
        "a}b",
    ],
)
def test_nothing_else_is_a_template(body: str) -> None:
    with pytest.raises(TemplateError, match="unknown template \\(write") as caught:
        split(f"${{{{ {body} }}}}")
    assert caught.value.told(secret=False).startswith(f'unknown template "{body}" (')


@pytest.mark.parametrize("text", ["${{", "${{ params.a }", "${{ jobs.t[x=1.outputs.k }}", "${{ a }} ${{ [ }}"])
def test_an_open_template_is_a_fault(text: str) -> None:
    with pytest.raises(TemplateError):
        split(text)


@pytest.mark.parametrize("outputs", [{}, {"a": {}}, {"a": {"K": ""}}])
def test_an_output_that_is_not_there_is_told(outputs: dict[str, dict[str, str]]) -> None:
    with pytest.raises(MissingOutput, match=re.escape("a has not written the output k")) as caught:
        fill("x${{ jobs.a.outputs.k }}", outputs)
    assert (caught.value.job, caught.value.key) == ("a", "k")


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    assert fill("${{ jobs.a.outputs.k }}", {"a": {"k": "${{ jobs.a.outputs.k }}"}}) == "${{ jobs.a.outputs.k }}"


def test_outputs_are_variables_too() -> None:
    assert variables({"train[lr=0.1,depth=2]": {"accuracy": "0.9", "Model_path": "m"}, "a-b.c": {"_x": ""}}) == {
        "JOBLET_OUTPUT_TRAIN_LR_0_1_DEPTH_2__ACCURACY": "0.9",
        "JOBLET_OUTPUT_TRAIN_LR_0_1_DEPTH_2__MODEL_PATH": "m",
        "JOBLET_OUTPUT_A_B_C___X": "",
    }


@given(st.text(max_size=30))
def test_every_name_makes_a_variable(name: str) -> None:
    assert re.fullmatch(r"(_?[A-Z0-9]+)*", variable(name))
