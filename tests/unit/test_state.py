"""Who holds a state directory: one server, until that process has ended, however it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from joblet.server.state import StartError, hold

HOLDER = """
import os, signal, sys
from pathlib import Path
from joblet.server.state import hold
with hold(Path(sys.argv[1])):
    child = os.fork()  # as a shim is, until it execs
    if child == 0:
        signal.pause()
    print(child, flush=True)
    signal.pause()
"""


def test_a_state_directory_is_held_by_one_process_and_not_by_its_children(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(StartError, match="is in use by another joblet server"), hold(tmp_path):
            pass
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # it is there, with all that it has inherited
        with hold(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_a_state_directory_is_made(tmp_path: Path) -> None:
    with hold(tmp_path / "a/b") as path:
        assert path.stat().st_mode & 0o777 == 0o700
    with hold(tmp_path / "a/b"):
        pass
