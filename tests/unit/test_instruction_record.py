"""When counts of instructions are a regression."""

from __future__ import annotations

import pytest

from benchmarks.instructions import record

SHIM: record.Counts = {
    "compiler": "gcc 12", "machine": "x86_64", "cgroups": "v1", "monitor": 1000, "init": 2000, "command": 300
}  # fmt: skip


@pytest.mark.parametrize(
    ("monitor", "worse", "better"),
    [(1000, False, False), (1050, False, False), (1051, True, False), (950, False, False), (949, False, True)],
)
def test_five_in_a_hundred_are_allowed_in_the_shim(monitor: int, worse: bool, better: bool) -> None:
    found, *others = record.compare("shim", {**SHIM, "monitor": monitor}, SHIM)
    assert (found.worse, found.better) == (worse, better)
    assert ("renew the record" in str(found)) is better
    assert not any(other.worse or other.better for other in others)


def test_counts_of_another_compiler_or_host_are_not_compared() -> None:
    assert record.differences("shim", SHIM, SHIM) == []
    assert record.differences("shim", {**SHIM, "cgroups": "v2"}, SHIM) == ["cgroups v2, of the record v1"]
    assert record.differences("server", {"python": "3.12"}, {"python": "3.11"}) == ["python 3.12, of the record 3.11"]


def test_the_record_holds_what_is_compared() -> None:
    kept = record.load()
    for part in record.BOUNDS:
        assert record.differences(part, kept[part], kept[part]) == []
        assert [found.ratio for found in record.compare(part, kept[part], kept[part])] == [1] * len(
            record.COMPARED[part]
        )
