"""What the escape suite makes of an attempt's outcome, and how it shows it."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from joblet.escape import Outcome, Result, Verdict, passed, show, summary
from joblet.escape.attempts import frame
from joblet.escape.attempts.frame import Attempt, Gap
from joblet.escape.program import arguments, load_attempts
from joblet.escape.runner import read_line
from joblet.escape.verdict import judge
from joblet.order import MAX_ARG_BYTES

OLDEST_PYTHON = (3, 8)
"""the oldest that a host may have for jobs"""


def attempt(*expect: str, gap: Gap | None = None) -> Attempt:
    return Attempt("open the door", "doors", lambda context: "", frozenset(expect), gap, False, "", {}, False, 1)


def result(outcome: Outcome, gap: Gap | None = None) -> Result:
    return judge(attempt("EPERM", gap=gap), outcome)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome("EPERM"), Verdict.HELD),
        (Outcome("done", "it opened"), Verdict.BREACH),
        (Outcome("done", "it opened", lacks="locks"), Verdict.GAP),
        (Outcome("ENOENT"), Verdict.DIFFERS),
        (Outcome("error", "a fault of the attempt's own"), Verdict.DIFFERS),
        (Outcome("signal SIGSYS"), Verdict.DIFFERS),
        (Outcome("not tried", "no door"), Verdict.UNTRIED),
    ],
)
def test_outcome_is_judged(outcome: Outcome, verdict: Verdict) -> None:
    assert result(outcome).verdict is verdict


@pytest.mark.parametrize(("name", "passes"), [("EPERM", True), ("not tried", True), ("ENOENT", False), ("done", False)])
def test_one_bad_result_fails_the_suite(name: str, passes: bool) -> None:
    assert passed([result(Outcome("EPERM")), result(Outcome(name))]) is passes


def test_a_gap_names_what_is_missing_and_what_to_do() -> None:
    found = result(Outcome("done", "it opened", "locks"), Gap("locks", "buy one"))
    text = shown([found])
    assert passed([found])
    assert "gap: open the door: it opened. Missing: locks. To do: buy one" in text


def test_all_that_did_not_hold_is_explained_below_the_lines() -> None:
    results = [result(Outcome("EPERM", "hidden detail")), result(Outcome("ENOENT", "no [door]"))]
    text = shown(results)
    assert "DIFFERS: open the door: ENOENT, not EPERM: no [door]" in text
    assert "hidden detail" not in text
    assert text.splitlines()[-1] == summary(results) == "2 attempts: 1 held, 1 DIFFERS"


def test_a_table_is_shown_on_a_terminal() -> None:
    text = shown([result(Outcome("EPERM"))], force_terminal=True, color_system=None)
    assert [line.split() for line in text.splitlines()[:2]] == [
        ["CATEGORY", "ATTEMPT", "OUTCOME", "VERDICT"],
        ["doors", "open", "the", "door", "EPERM", "held"],
    ]


@pytest.mark.parametrize("line", [b"Traceback", b"[1]", b"\xff", b""])
def test_a_line_that_is_no_news_is_noise(line: bytes) -> None:
    assert read_line(line) == {"noise": line.decode(errors="replace")}


def test_each_attempt_says_what_is_right() -> None:
    for one in load_attempts():
        assert one.expect, one.name
        assert not one.expect & {"done", "error", "not tried"}, one.name
        assert len(one.name) <= 70


def test_a_category_fits_into_a_jobs_arguments() -> None:
    for category in {one.category for one in load_attempts()}:
        names = [one.name for one in load_attempts() if one.category == category]
        program = arguments(category, names, {})
        assert max(map(len, program)) < MAX_ARG_BYTES
        assert json.loads(program[-2]) == names


def test_what_is_sent_into_jobs_is_written_for_an_old_python() -> None:
    for path in Path(frame.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST_PYTHON)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("joblet"):
                assert node.module.startswith("joblet.escape.attempts."), path


@pytest.mark.parametrize(
    ("refusals", "raised"),
    [
        ([PermissionError(1, "a"), PermissionError(1, "b")], PermissionError),
        ([FileNotFoundError(2, "a"), frame.Absent("b")], frame.Absent),
        ([PermissionError(1, "a"), FileNotFoundError(2, "b")], RuntimeError),
        ([], frame.Absent),
    ],
)
def test_refusals_that_differ_are_no_refusal(refusals: list[Exception], raised: type[Exception]) -> None:
    left = iter(refusals)

    def act(path: str) -> str:
        raise next(left)

    with pytest.raises(raised):
        frame.try_each(["x"] * len(refusals), act)


def test_a_preparation_that_fails_is_no_refusal() -> None:
    def act(context: frame.Context) -> str:
        with frame.preparing("find a door"):
            raise PermissionError(1, "no")
        return "never"

    assert frame.outcome_of(act, {})[0] == "error"


def shown(results: list[Result], **options: object) -> str:
    console = Console(file=io.StringIO(), width=100, **options)  # type: ignore[arg-type]
    show(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
