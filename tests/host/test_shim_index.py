"""The bound on a log's index, with a shim that grants so little that a short job meets it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shim_harness import ROOT, Launcher, load_build


def test_an_index_is_not_larger_than_its_log_and_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = load_build()
    monkeypatch.setattr(build, "ROOT", tmp_path)
    shutil.copytree(ROOT / "shim", tmp_path / "shim")
    source = tmp_path / "shim/index.c"
    text = source.read_text()
    assert text.count("FREE_SIZE = 256 << 10,") == 1
    source.write_text(text.replace("FREE_SIZE = 256 << 10,", "FREE_SIZE = 64,"))
    build.compile_shim(tmp_path / "joblet-shim", build.find_compiler(build.wanted_machine()))
    launcher = Launcher(tmp_path / "joblet-shim", tmp_path)
    try:
        code = "import os, time\nfor _ in range(64): os.write(1, b'x'); time.sleep(0.003)"
        shim = launcher.run("python3", "-c", code)
        marks = shim.marks
    finally:
        launcher.close()
    assert 4 <= len(marks) <= (64 + 64) // 16
    assert all((place + 1) * 16 <= 64 + offset for place, (_, offset) in enumerate(marks))
