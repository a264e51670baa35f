"""What `joblet install --systemd` and `uninstall` write and take away, below a directory in place of the root."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT

from joblet import installation
from joblet.installation import PROGRAM


def joblet(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "joblet", *arguments], capture_output=True, text=True, check=False)


def tree(folder: Path) -> dict[str, str]:
    """Each file's text and each link's target below a directory."""
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def make(root: Path, program: str = "/somewhere/bin/joblet") -> list[str]:
    made = [entry for entry in installation.layout(Path(program), root) if entry.wanted]
    for entry in made:
        entry.make()
    return [str(entry.path.relative_to(root)) for entry in made]


def test_a_dry_run_says_what_an_installation_writes(tmp_path: Path) -> None:
    dry = joblet("install", "--systemd", "--prefix", tmp_path, "--dry-run")
    assert (dry.returncode, dry.stderr, tree(tmp_path)) == (0, "", {})
    done = joblet("install", "--systemd", "--prefix", tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", dry.stdout)
    program = Path(sys.executable).with_name("joblet")
    unit = (ROOT / "deploy/joblet.service").read_text()
    assert tree(tmp_path) == {
        "etc/systemd/system/joblet.service": unit.replace(PROGRAM, str(program)),
        "etc/systemd/system/joblet.slice": (ROOT / "deploy/joblet.slice").read_text(),
        "etc/joblet/joblet-config.yml": (ROOT / "deploy/joblet-config.yml").read_text(),
        "opt/joblet/joblet-config.yml": "-> /etc/joblet/joblet-config.yml",
        "opt/joblet/certs": "-> /etc/joblet/certs",
    }
    assert unit.count(PROGRAM) == 2
    assert (tmp_path / "etc/joblet/certs").stat().st_mode & 0o777 == 0o700
    assert joblet("install", "--systemd", "--prefix", tmp_path).stdout == ""


def test_what_is_the_operators_stays(tmp_path: Path) -> None:
    make(tmp_path)
    config = tmp_path / "etc/joblet/joblet-config.yml"
    config.write_text("joblet: {maxConcurrentJobs: 7}\n")
    assert make(tmp_path, "/elsewhere/bin/joblet") == ["etc/systemd/system/joblet.service"]
    assert config.read_text() == "joblet: {maxConcurrentJobs: 7}\n"
    gone = joblet("uninstall", "--prefix", tmp_path)
    assert gone.stdout.splitlines()[-1] == "kept: /etc/joblet, /var/lib/joblet and this program"
    assert set(tree(tmp_path)) == {"etc/joblet/joblet-config.yml"}


def test_an_earlier_installation_keeps_its_places(tmp_path: Path) -> None:
    (tmp_path / "opt/joblet/certs").mkdir(parents=True)
    (tmp_path / "opt/joblet/joblet-config.yml").touch()
    assert make(tmp_path) == ["etc/systemd/system/joblet.service", "etc/systemd/system/joblet.slice"]
    assert joblet("uninstall", "--prefix", tmp_path).returncode == 0
    assert set(tree(tmp_path)) == {"opt/joblet/joblet-config.yml"}


def test_there_is_one_kind_of_service() -> None:
    refused = joblet("install", "--dry-run")
    assert refused.returncode == 2
    assert "say --systemd" in refused.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    make(tmp_path, "/bin/true")
    units = [str(tmp_path / "etc/systemd/system" / name) for name in installation.UNITS]
    command = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    about_ours = [line for line in done.stderr.splitlines() if "joblet" in line]
    assert (done.returncode, about_ours) == (0, [])
