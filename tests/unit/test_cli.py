from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from joblet import __version__
from joblet.cli import serve
from joblet.command_line import Failure


def joblet(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from joblet.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_serving_needs_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Failure, match=r"^job execution requires Linux server \(current: darwin\)$"):
        serve(Path("joblet-config.yml"))


@pytest.mark.skipif(sys.platform != "linux", reason="serving needs Linux")
def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    result = joblet("serve", "--config", str(tmp_path / "none.yml"))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"Error: {tmp_path}/none.yml: No such file or directory\n"


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments: list[str]) -> None:
    result = joblet(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"joblet {__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["bogus"], ["certs"], ["serve", "--bogus"], ["serve", "extra"]])
def test_usage_errors_are_one_line(arguments: list[str]) -> None:
    result = joblet(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
