from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from rnx.stamps import Stamper, text

SECOND = 1_000_000_000
STAMP = re.compile(rb"(?m)^(?:1970-01-01T00:00:(\d\d)\.000Z|-) ")

pieces = st.lists(
    st.tuples(st.lists(st.sampled_from([b"\n", b"a", b"bc "])).map(b"".join), st.integers(0, 59) | st.none()),
    max_size=20,
)


def test_an_instant_in_text() -> None:
    assert text(1_705_314_600_250_999_999) == b"2024-01-15T10:30:00.250Z "
    assert text(-1) == b"1969-12-31T23:59:59.999Z "
    assert text(2**63 - 1) == b"2262-04-11T23:47:16.854Z "


def test_a_line_has_the_time_of_its_first_byte() -> None:
    stamper = Stamper()
    assert stamper.feed(b"on", [(0, SECOND)]) == b"1970-01-01T00:00:01.000Z on"
    assert stamper.feed(b"e\n", [(0, 2 * SECOND)]) == b"e\n"
    assert stamper.feed(b"two\n\n", [(0, 3 * SECOND), (4, 4 * SECOND)]) == (
        b"1970-01-01T00:00:03.000Z two\n1970-01-01T00:00:04.000Z \n"
    )
    assert stamper.feed(b"x", []) == b"- x"


def test_bytes_before_the_first_place_have_no_known_time() -> None:
    assert Stamper().feed(b"a\nb\n", [(2, 0)]) == b"- a\n1970-01-01T00:00:00.000Z b\n"


@given(pieces, st.lists(st.booleans(), min_size=20, max_size=20))
def test_stamps_add_to_lines_and_change_nothing(parts: list[tuple[bytes, int | None]], together: list[bool]) -> None:
    """However the bytes are cut into chunks."""
    chunks: list[tuple[bytes, list[tuple[int, int]]]] = []
    known = False
    times: list[int | None] = []
    for (payload, at), joined in zip(parts, together, strict=False):
        seconds = at if at is not None or not known else 0
        known = known or seconds is not None
        times += [seconds] * len(payload)
        if not payload:
            continue
        if not joined or not chunks or (chunks[-1][1] and seconds is None):
            chunks.append((b"", []))
        before, marks = chunks[-1]
        if seconds is not None:
            marks = [*marks, (len(before), seconds * SECOND)]
        chunks[-1] = (before + payload, marks)
    stamper = Stamper()
    out = b"".join(stamper.feed(payload, marks) for payload, marks in chunks)
    whole = b"".join(payload for payload, _ in parts)
    assert STAMP.sub(b"", out) == whole
    starts = [0, *(match.end() for match in re.finditer(b"\n", whole))]
    stamps = [match[1] and int(match[1]) for match in STAMP.finditer(out)]
    assert stamps == [times[start] for start in starts if start < len(whole)]
