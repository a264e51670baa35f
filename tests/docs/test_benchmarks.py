"""The benchmarks run, and what they measure beside each other does the same work. How long that takes is not asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="isolation needs root on Linux")


@pytest.mark.alone
def test_all_contests_are_held(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    command = [sys.executable, "-m", "benchmarks", "--short", f"--out={tmp_path}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert len(done.stdout.splitlines()) == len(results) > 20
    for result in results:
        assert all(value > 0 for values in result["values"].values() for value in values), result
