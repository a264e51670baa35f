"""Clang's static analyzer over every file of the shim: a finding is a failure."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from toolchain import SOURCES, find, load_build


def analyze(source: Path) -> tuple[int, str]:
    """Exit status and findings, by the analyzer's own choice of checks; as the shim is compiled, warnings apart."""
    clang = find("clang", "clang")
    flags = [flag for flag in load_build().FLAGS if not flag.startswith("-W")]
    options = ["-analyzer-output=text", "-analyzer-werror"]
    command = [clang, "--analyze", *(word for option in options for word in ("-Xclang", option)), *flags]
    result = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False, cwd=source.parent)
    return result.returncode, result.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_analyzer_has_nothing_to_say(source: Path) -> None:
    status, findings = analyze(source)
    assert (status, findings) == (0, ""), findings


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        ("int *f(int *p) { if (!p) *p = 1; return p; }", "core.NullDereference"),
        ("#include <stdlib.h>\nvoid f(void) { char *p = malloc(1); if (p) { free(p); *p = 1; } }", "unix.Malloc"),
        ("#include <unistd.h>\nint f(void) { int x; return read(0, 0, 0) ? x : 0; }", "core.uninitialized"),
    ],
)
def test_the_analyzer_would_say_so(tmp_path: Path, mistake: str, check: str) -> None:
    source = tmp_path / "mistake.c"
    source.write_text(mistake + "\n")
    status, findings = analyze(source)
    assert status != 0
    assert check in findings
