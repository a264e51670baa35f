"""What the soak calls flat."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from benchmarks.soak.judge import Series, Verdict, judge

JOBS = [280 * n for n in range(1, 361)]
MEMORY = Series("resident", "bytes", 0.03, 1 << 20)
DATABASE = Series("database", "bytes", 0.25, 10, of_history=True)


def verdict(series: Series, value: Callable[[int], float]) -> Verdict:
    noise = random.Random(1)
    values = [value(jobs) * noise.uniform(0.995, 1.005) for jobs in JOBS]
    return judge(series, JOBS, values).verdict


def test_noise_is_flat_and_so_is_what_shrinks() -> None:
    assert verdict(MEMORY, lambda jobs: 60e6) is Verdict.FLAT
    assert verdict(MEMORY, lambda jobs: 80e6 - jobs * 100) is Verdict.FLAT


def test_a_leak_of_a_hundred_bytes_a_job_is_found() -> None:
    assert verdict(MEMORY, lambda jobs: 60e6 + jobs * 100) is Verdict.GROWS


def test_what_begins_to_leak_late_is_found() -> None:
    assert verdict(MEMORY, lambda jobs: 60e6 + max(0, jobs - 80_000) * 400) is Verdict.GROWS


def test_what_settles_in_the_beginning_is_flat() -> None:
    assert verdict(MEMORY, lambda jobs: 60e6 - 20e6 / (1 + jobs / 1000)) is Verdict.FLAT


def test_the_history_may_grow_with_the_jobs_but_no_faster() -> None:
    assert verdict(DATABASE, lambda jobs: 1e5 + jobs * 700) is Verdict.HISTORY
    assert verdict(DATABASE, lambda jobs: 1e5 + jobs**2 / 100) is Verdict.GROWS


def test_the_growth_for_each_job_is_told() -> None:
    found = judge(MEMORY, JOBS, [5e6 + 12 * jobs for jobs in JOBS])
    assert found.per_job == pytest.approx(12)
    assert found.second - found.first == pytest.approx(12 * 280 * 180)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_samples_are_not_judged(count: int) -> None:
    assert judge(MEMORY, JOBS[:count], [1e6] * count).verdict is Verdict.UNKNOWN
