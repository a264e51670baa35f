"""What a booted machine gets on /job: this work tree, joblet's wheel made from it, and all packages they need.

The machine has no network and is slow. So the packages are also laid out ready to import, on this side, by the same
version of Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("JOBLET_VM_CACHE", "/var/tmp/joblet-vm"))
PYTHON = "python3.11"
"""Debian bookworm's"""

_LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__", "_bin", "*.o")


class CannotSupplyError(Exception):
    """Something is missing on this side; the message says what."""


def packages() -> Path:
    """A directory with `wheels` and, laid out for import, `site`: what joblet and its tests need, without joblet.

    Kept in the cache for as long as pyproject.toml asks for the same.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    key = hashlib.sha256(json.dumps([PYTHON, wanted]).encode()).hexdigest()[:12]
    made = CACHE / f"packages-{key}"
    if not made.exists():
        with _new_directory(made) as fresh:
            _pip("wheel", "--wheel-dir", fresh / "wheels", *wanted)
            wheels = sorted((fresh / "wheels").iterdir())
            _pip("install", "--no-deps", "--no-index", "--target", fresh / "site", *wheels)
    return made


def joblet(folder: Path) -> None:
    """Fill `folder` with the work tree as `joblet`, its wheel in `wheels`, and that laid out in `joblet-site`."""
    shutil.copytree(ROOT, folder / "joblet", symlinks=True, ignore=_LEFT_BEHIND)
    with tempfile.TemporaryDirectory() as build:
        shutil.copytree(folder / "joblet", Path(build, "joblet"), symlinks=True)
        _pip("wheel", "--no-deps", "--wheel-dir", folder / "wheels", Path(build, "joblet"))
    (wheel,) = (folder / "wheels").iterdir()
    _pip("install", "--no-deps", "--no-index", "--target", folder / "joblet-site", wheel)


def boot(program: Path, *options: str | Path) -> int:
    """Boot the machine and run `program` in it; its exit status."""
    return subprocess.run([HERE / "boot", *options, program], check=False).returncode


def _pip(command: str, *arguments: str | Path) -> None:
    """Run pip by the machine's version of Python."""
    environment = CACHE / PYTHON
    if not environment.exists():
        try:
            subprocess.run([PYTHON, "-c", "import ensurepip"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            raise CannotSupplyError(f"needs {PYTHON} with its venv module, the machine's version of Python") from None
        with _new_directory(environment) as fresh:
            subprocess.run([PYTHON, "-m", "venv", fresh], check=True)
    options = ("--quiet", "--disable-pip-version-check")
    subprocess.run([environment / "bin/python", "-m", "pip", *options, command, *arguments], check=True)


@contextlib.contextmanager
def _new_directory(path: Path) -> Iterator[Path]:
    """A directory that becomes `path` once it is complete, unless another process has made the same meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making.") as folder:
        fresh = Path(folder, path.name)
        fresh.mkdir()
        yield fresh
        try:
            fresh.rename(path)
        except OSError:
            if not path.exists():
                raise
