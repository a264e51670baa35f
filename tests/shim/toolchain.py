"""The compilers for the shim's checks, and the build's own idea of how it is compiled."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SHIM = ROOT / "shim"
SOURCES = sorted(SHIM.glob("*.c"))


def load_build() -> ModuleType:
    """hatch_build.py, which no package holds."""
    specification = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def find(name: str, package: str) -> str:
    """The program, or a skip that says what to install."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed: on Debian, apt-get install {package}")
    return program


def find_with(flags: tuple[str, ...], directory: Path, candidates: dict[str, str]) -> str:
    """The first compiler that makes programs with these flags, for which it needs a runtime library perhaps."""
    source = directory / "probe.c"
    source.write_text("int main(void) { return 0; }\n")
    for name in candidates:
        command = [name, *flags, str(source), "-o", str(directory / "probe")]
        if shutil.which(name) and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return name
    needed = " or ".join(f"{name} ({package})" for name, package in candidates.items())
    pytest.skip(f"nothing here compiles with {' '.join(flags)}: needs {needed}")
