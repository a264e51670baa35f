"""The README's first command where it cannot go on, and where it is interrupted. tests/vm/chroot runs it to its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, groups

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux")


def processes_of(place: Path) -> list[str]:
    """Command lines of the processes that have to do with a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(place) in line:
            found.append(line)
    return found


def test_a_user_who_is_not_root_is_told_so_and_nothing_is_made(tmp_path: Path) -> None:
    place = Path(shutil.copytree(ROOT / "scripts", tmp_path / "checkout/scripts")).parent
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        if directory.stat().st_uid == os.geteuid() and str(directory) != "/tmp":
            directory.chmod(directory.stat().st_mode | 0o005)
    temporary.chmod(0o777)
    done = subprocess.run(
        ["/usr/bin/python3", place / "scripts/quickstart"],
        user="nobody",
        group="nogroup",
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    first, *problems = done.stderr.splitlines()
    assert first == "This machine cannot show joblet's quickstart. Missing:"
    assert [line.split(":")[0] for line in problems] == ["  - root"]
    assert not list(temporary.iterdir())


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_interrupted_with_a_job_running_it_leaves_nothing(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    before = set(groups("*"))
    quickstart = subprocess.Popen(
        [ROOT / "scripts/quickstart"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert quickstart.stdout is not None
    lines = []
    for line in quickstart.stdout:
        lines.append(line)
        if "reading" in line and "files below" in line:
            os.killpg(quickstart.pid, signal.SIGINT)
    assert quickstart.wait() == 130, "".join(lines)
    assert not list(temporary.iterdir())
    assert not processes_of(temporary)
    assert set(groups("*")) <= before
