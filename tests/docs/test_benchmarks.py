"""The benchmarks run, and what they measure beside each other does the same work. How long that takes is not asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import publish, report
from benchmarks.measure import OURS, Aim, CannotRunError, Contest, Figure, Result, Sample, hold

needs_root = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="isolation needs root on Linux")


@needs_root
@pytest.mark.alone
@pytest.mark.timeout(600)
def test_all_contests_are_held(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    command = [sys.executable, "-m", "benchmarks", "--short", f"--out={tmp_path}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    described, (results,) = report.load(tmp_path / "results.json")
    assert described["cores"] == len(os.sched_getaffinity(0))
    assert len(done.stdout.splitlines()) == len(results) > 20
    for result in results:
        assert all(value > 0 for values in result.values.values() for value in values), result
        assert not result.figure.aim or not result.figure.aim.reference or result.references or result.absent, result


def of(name: str, ours: list[float], **others: list[float]) -> Result:
    return Result(Figure(name, "/s", higher_is_better=True, aim=Aim(1.5, "crun")), {OURS: ours, **others})


def test_runs_stand_beside_each_other_in_the_tables() -> None:
    runs = [[of("jobs", [15, 30, 45], crun=[10, 10, 15])], [of("jobs", [10, 10, 10], crun=[10, 20, 10])]]
    assert report.aims(runs).splitlines()[2:] == [
        "| jobs | crun | at least 1.50 | 3.00 (1.50 to 3.00) | 1.00 (0.50 to 1.00) | 1 of 2 |"
    ]
    assert report.table(runs).splitlines()[2:] == [
        "| jobs | 20 /s | crun 10 /s | 3.00 (1.50 to 3.00) | 1.00 (0.50 to 1.00) |"
    ]


def test_a_reference_that_is_absent_is_in_the_table_with_the_reason() -> None:
    lacking = Result(of("jobs", []).figure, {OURS: [10.0], "bwrap": [5.0]}, absent={"crun": "no crun installed"})
    assert report.table([[lacking]]).splitlines()[2:] == [
        "| jobs | 10 /s | bwrap 5 /s | 2.00 (2.00 to 2.00) |",
        "| jobs | 10 /s | crun: not measured, no crun installed |  |",
    ]
    assert len(report.aims([[lacking]]).splitlines()) == 2
    nothing = Result(of("jobs", []).figure, {}, absent={"crun": "no crun installed"})
    assert report.table([[nothing]]).splitlines()[2:] == ["| jobs |  | crun: not measured, no crun installed |  |"]
    assert report.line(nothing) == "jobs: not measured; without crun: no crun installed"


async def test_a_reference_that_fails_is_left_out_and_joblet_never_is() -> None:
    async def sound() -> Sample:
        return Sample((2.0,), (0.5, 1.5))

    async def lame() -> Sample:
        raise CannotRunError("crun has failed")

    figure = of("jobs", []).figure
    (result,) = await hold(Contest((figure,), {OURS: sound, "bwrap": sound, "crun": lame}, rounds=3))
    assert result.values == {OURS: [2.0] * 3, "bwrap": [2.0] * 3}
    assert result.absent == {"crun": "crun has failed"}
    assert set(result.quantiles["bwrap"]) == {0.5, 1.5}

    async def wrong() -> Sample:
        raise AssertionError("not what was asked for")

    with pytest.raises(AssertionError):
        await hold(Contest((figure,), {OURS: wrong, "crun": sound}))


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    runs = [[of("jobs", [1.0], crun=[2.0])]]
    report.save(tmp_path / "made/results.json", {"cores": 2}, runs)
    assert report.load(tmp_path / "made/results.json") == ({"cores": 2}, runs)


def test_the_page_has_a_place_for_the_figures() -> None:
    page = publish.PAGE.read_text()
    before, after = page.split(publish.BEGIN)[0], page.split(publish.END)[1]
    assert publish.with_figures(page, "new") == f"{before}{publish.BEGIN}\nnew\n{publish.END}{after}"
    with pytest.raises(ValueError, match="no marks"):
        publish.with_figures("text", "new")
