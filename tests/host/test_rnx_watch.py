"""`rnx list --watch` on a terminal, over a restart of the server; `--format` and filters with a real server."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable

from harness import PATIENCE, Server
from terminal import read_until


def test_a_list_is_drawn_again_when_something_happens(make_server: Callable[..., Server]) -> None:
    server = make_server(joblet={"cleanupTimeout": "2s"}).start()
    ours, theirs = pty.openpty()
    view = subprocess.Popen(
        server.rnx_command("list", "--watch", "--format={id} is {status}"),
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(theirs)
    try:
        read_until(ours, "0 jobs; Ctrl-C ends the view")
        server.rnx("run", "sleep", "1000")
        read_until(ours, "1 is RUNNING")
        server.kill()
        server.start()
        server.rnx("stop", "1")
        drawn = read_until(ours, "1 is STOPPED")
        assert not re.search(r"\x1b\[[\d;]*3\d", drawn)  # no colour
        view.send_signal(signal.SIGINT)
        assert view.wait(PATIENCE) == 130
    finally:
        view.kill()
        view.wait(PATIENCE)
        os.close(ours)


def test_fields_and_filters(server: Server) -> None:
    server.rnx("run", "--wait", "--name=filter-a", "true")
    server.rnx("run", "--wait", "--name=filter-b", "false")
    result = server.rnx("list", "--name=filter-*", "--since=1h", "--format={name}={status}/{exitCode}")
    assert (result.returncode, result.stdout) == (0, "filter-a=COMPLETED/0\nfilter-b=FAILED/1\n")
    result = server.rnx("list", "--name=filter-*", "--status=failed", "--format={id}")
    assert server.rnx("status", result.stdout.strip(), r"--format={name}\t{reason}").stdout == "filter-b\texit code 1\n"
