from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.executor.local.outputs import BadOutputs, parse


def test_each_line_is_a_value_and_the_last_one_counts() -> None:
    assert parse(b"A=1\nb_2=x=y z\n\n# C=3\n_=\n  \t\nA=2") == {"A": "2", "b_2": "x=y z", "_": ""}


def test_a_value_is_kept_byte_for_byte() -> None:
    value = " \u2028 \r \x0b \x85 #= é "
    assert parse(f"A={value}\nB=1\n".encode()) == {"A": value, "B": "1"}


def test_nothing_gives_nothing() -> None:
    assert parse(b"") == parse(b"\n\n# note\n") == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"A=1\n\nB", "line 3 is not KEY=VALUE"),
        (b"=1", "line 1 is not KEY=VALUE"),
        (b"1A=1", "line 1 is not KEY=VALUE"),
        (b"A-B=1", "line 1 is not KEY=VALUE"),
        (b" A=1", "line 1 is not KEY=VALUE"),
        (b"A =1", "line 1 is not KEY=VALUE"),
        ("É=1".encode(), "line 1 is not KEY=VALUE"),
        (b"A" * 129 + b"=1", "line 1 is not KEY=VALUE"),
        (b"A=1\nB=\xff\n", "line 2 is not UTF-8"),
        (b"A=1\nB=a\0b\n", "line 2 contains a NUL byte"),
        (b"A\0=1", "line 1 is not KEY=VALUE"),
    ],
)
def test_of_a_file_with_a_bad_line_nothing_is_taken(data: bytes, said: str) -> None:
    with pytest.raises(BadOutputs, match=f"^{said}$"):
        parse(data)


def test_the_longest_key_is_taken() -> None:
    assert parse(b"A" * 128 + b"=1") == {"A" * 128: "1"}


@given(
    st.dictionaries(
        st.from_regex("[A-Za-z_][A-Za-z0-9_]{0,127}", fullmatch=True),
        st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"])),
    )
)
def test_what_is_written_is_read(outputs: dict[str, str]) -> None:
    assert parse("".join(f"{key}={value}\n" for key, value in outputs.items()).encode()) == outputs


@given(st.binary(max_size=60))
def test_any_bytes_are_values_or_an_error_that_shows_none(data: bytes) -> None:
    try:
        outputs = parse(data)
    except BadOutputs as error:
        assert str(error).startswith("line ")
    else:
        assert all("\0" not in value for value in outputs.values())
