from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from joblet.logs import pattern as patterns
from joblet.logs.grep import LONGEST, Grep
from joblet.logs.pattern import Pattern

atoms = st.sampled_from(
    ["a", "b", "ab", ".", "[ab]", "[^a]", "[a-c]", "[]a]", "[a-]", r"\d", r"\W", r"\.", r"\x61", "é", "1", "]"]
)
quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{2,}", "*?", "+?", "{0}"])


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    def group() -> str:
        return draw(st.sampled_from(["(%s)", "(?:%s)"])) % draw(expressions(depth=depth - 1))

    pieces = []
    for _ in range(draw(st.integers(0, 4))):
        grouped = depth > 0 and draw(st.booleans())
        piece = group() if grouped else draw(atoms)
        if piece != "ab" and draw(st.booleans()):
            piece += draw(quantifiers)
        pieces.append(piece)
    text = "".join(pieces)
    if depth == 3:
        text = draw(st.sampled_from(["", "^"])) + text + draw(st.sampled_from(["", "$"]))
    return text + "|" + draw(expressions(depth=0)) if depth and draw(st.integers(0, 4)) == 0 else text


def as_python(text: str) -> re.Pattern[bytes]:
    """A character of several bytes is one in a repetition; `$` is before the end of a line that we do not have."""
    return re.compile(text.replace("é", "(?:é)").replace("$", r"\Z").encode())


def fitting(text: str) -> Pattern:
    """The pattern, unless it is too large for one, which is tested by itself."""
    try:
        return Pattern(text)
    except ValueError as error:
        assume("when its repetitions are written out" not in str(error))
        raise


characters = st.sampled_from([b"a", b"b", b"c", b"1", b".", b"]", b"-", "é".encode(), b"\xff"])
# Python takes exponential time for some patterns.
lines = st.lists(characters, max_size=8).map(b"".join)


@example("(^|b)a", [b"a", b"ba", b"ca", b""], False)
@example("a(?:$|b)", [b"a", b"ab", b"ac", b""], False)
@example("(^a)+b", [b"ab", b"aab", b"b"], False)
@example("^$|c", [b"", b"a", b"c"], True)
@given(expressions(), st.lists(lines, max_size=8), st.booleans())
def test_it_matches_what_python_matches(text: str, texts: list[bytes], any_case: bool) -> None:
    if any_case:
        text, texts = f"(?i){text}", [each.upper() if len(each) % 2 else each for each in texts]
    mine, python = fitting(text), as_python(text)
    for line in texts:
        assert mine.matches(line) == bool(python.search(line)), (text, line)
        assert mine.needle in line or not python.search(line)


@settings(max_examples=30)
@given(expressions(), st.lists(lines, max_size=8))
def test_it_forgets_states_and_goes_on(text: str, texts: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patterns, "_STATES", 2)
        mine = fitting(text)
        for line in texts:
            assert mine.matches(line) == bool(as_python(text).search(line))
            assert len(mine._states) <= 2


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("(", "missing ) at character 2"),
        ("a)", "unbalanced ) at character 2"),
        ("*a", "nothing to repeat at character 2"),
        ("a**", "repetition of a repetition at character 4"),
        ("a{2}{3}", "repetition of a repetition"),
        ("a{3,2}", "the least repetition is above the most"),
        ("[a", "unexpected end at character 3"),
        ("[b-a]", "not a range"),
        ("[é]", "a character that is not ASCII between [ and ]"),
        ("a\\", "unexpected end"),
        (r"\b", r"unknown \b at character 3"),
        (r"(a)\1", r"unknown \1"),
        (r"\xg0", r"\x without two hexadecimal digits"),
        (r"a\x0a", "a line end"),
        ("a\n", "a line end"),
        ("(?=a)", "only (?:...) and a leading (?i) are known"),
        ("a" * 201, "more than 200 characters when its repetitions are written out"),
        ("((a{100}){100}){100}", "more than 200 characters"),
        ("((((){1000}){1000}){1000}){1000}", "too large when its repetitions are written out"),
        ("a" * 1001, "longer than 1000 characters"),
        ("(" * 50 + ")" * 50, "more than 40 groups in one another"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=re.escape(what)):
        Pattern(text)


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    try:
        made = Pattern(text)
    except ValueError:
        return
    made.matches(text.encode())


@pytest.mark.parametrize(
    "text", ["(a*)*b", "(a|a)*b", "(a|aa)+$", "a?" * 60 + "a" * 60 + "b", "(.*)(.*)(.*)(.*)(.*)x$"]
)
def test_no_expression_takes_long(text: str) -> None:
    """With Python's each of these takes longer than anybody waits."""
    mine = Pattern(text)
    began = time.perf_counter()
    mine.matches(b"a" * 20_000 + b"c")
    assert time.perf_counter() - began < 10


def test_states_are_bounded() -> None:
    """This one has a state for each of the last 20 characters being an `a` or not."""
    mine = Pattern("a" + "." * 20 + "z")
    state = 1
    line = bytearray()
    for _ in range(5_000):
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        line += b"ab"[state >> 16 & 1 :][:1]
    assert not mine.matches(bytes(line))
    assert mine.matches(bytes(line) + b"a" * 21 + b"z")
    assert len(mine._states) <= patterns._STATES


def found(grep: Grep, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    runs = []
    for piece in pieces:
        nothing = grep.passes_over(piece)
        fed = grep.feed(piece)
        assert not (nothing and fed)
        runs += fed
    return runs + grep.end()


@given(
    st.lists(st.sampled_from([b"a\n", b"b", b"\n", b"ab", b"\r", b"x\ny"])).map(b"".join),
    st.lists(st.integers(1, 9)),
    st.sampled_from(["a", "ab", "^b", "y$", "a|x", "", "b.", "^$"]),
)
def test_lines_are_picked_however_they_are_cut(log: bytes, cuts: list[int], text: str) -> None:
    pieces, rest = [], log
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    grep = Grep(Pattern(text), 100)
    runs = found(grep, [*pieces, rest])
    python = as_python(text)
    expected = [line for line in re.findall(rb"[^\n]*\n|[^\n]+", log) if python.search(line.removesuffix(b"\n"))]
    assert b"".join(payload for _, payload in runs) == b"".join(expected)
    assert all(log[offset - 100 :].startswith(payload) for offset, payload in runs)
    assert grep.done == 100 + len(log)


def test_a_line_without_end_is_held_until_it_is_too_long() -> None:
    grep = Grep(Pattern("a"), 0)
    assert grep.feed(b"a" * LONGEST) == []
    assert grep.done == 0
    assert grep.feed(b"a") == [(0, b"a" * (LONGEST + 1))]
    assert grep.feed(b"b\na") == []
    assert grep.end() == [(LONGEST + 3, b"a")]
