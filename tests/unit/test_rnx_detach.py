"""The keys that leave a job's terminal, among all that is typed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.command_line import Failure
from rnx.detach import DEFAULT, Detacher, keys_of


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (DEFAULT, b"\x10\x11"),
        ("", b""),
        ("ctrl-],x", b"\x1dx"),
        ("CTRL-A,~,.", b"\x01~."),
        ("ctrl-@,ctrl-\\,ctrl-^,ctrl-_", b"\x00\x1c\x1e\x1f"),
        ("a", b"a"),
    ],
)
def test_names_of_keys(text: str, keys: bytes) -> None:
    assert keys_of(text) == keys


@pytest.mark.parametrize("text", [",", "ctrl-", "ctrl-1", "ctrl-ab", "enter", "a,", "é", "ctrl-ß", "\n"])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(Failure, match="no key to detach with"):
        keys_of(text)


few = st.lists(st.sampled_from([b"a", b"b", b"\x10"]), max_size=12).map(b"".join)
"""of few bytes, so that beginnings of the keys are many"""


@given(few, few, st.lists(st.integers(0, 12)))
def test_all_but_the_keys_passes_in_order(typed: bytes, keys: bytes, cuts: list[int]) -> None:
    detacher = Detacher(keys)
    passed, places = b"", [0, *sorted(cuts), len(typed)]
    for begin, end in pairwise(places):
        if not detacher.found:
            passed += detacher.feed(typed[begin:end])
    where = typed.find(keys) if keys else -1
    assert detacher.found == (where >= 0)
    if detacher.found:
        assert passed == typed[:where]
    else:
        held = typed[len(passed) :]
        assert passed + held == typed
        assert len(held) < max(len(keys), 1)
        assert keys.startswith(held)
