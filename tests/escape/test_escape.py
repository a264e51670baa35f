"""The suite as a user runs it: against a real server, by an ordinary client."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Server, mounted_nosuid
from rich.console import Console

from joblet.client import Client, ClientConfig
from joblet.escape import HostContext, Result, Verdict, passed, run, show, summary
from joblet.escape.program import load_attempts

OWNER = 12345
"""an unprivileged user to whom the writable path belongs"""


@pytest.fixture(scope="module")
def server(certificates: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="joblet-escape-", dir="/var/tmp") as folder:
        writable = Path(folder, "writable")
        writable.mkdir()
        os.chown(writable, OWNER, OWNER)
        one = Server(
            Path(folder),
            certificates,
            joblet={"maxLogSize": 4, "cleanupTimeout": "2s"},
            isolation={"writable": [str(writable)]},
        )
        with mounted_nosuid(writable):
            yield one.start()
            one.close()


def client_config(server: Server, name: str = "admin") -> ClientConfig:
    folder = server.certificates
    return ClientConfig(
        f"localhost:{server.port}",
        str(folder / f"{name}-cert.pem"),
        str(folder / f"{name}-key.pem"),
        str(folder / "ca-cert.pem"),
    )


def host_context(server: Server) -> HostContext:
    writable = (server.directory / "writable",)
    keys = (server.certificates / "server-key.pem", server.certificates / "ca-key.pem")
    config = server.directory / "joblet-config.yml"
    return HostContext(server.state, config, keys, shown=writable, writable=writable, log_megabytes=4)


@pytest.fixture(scope="module")
def results(server: Server) -> list[Result]:
    async def make() -> list[Result]:
        async with Client(client_config(server)) as client:
            return await run(client, host_context(server))

    return asyncio.run(make())


def table(results: list[Result], **options: bool) -> str:
    console = Console(file=io.StringIO(), width=100, **options)
    show(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_there_are_enough_attempts_and_each_is_made_once(results: list[Result]) -> None:
    names = [result.attempt.name for result in results]
    assert names == [attempt.name for attempt in load_attempts()]
    assert len(names) == len(set(names)) >= 60


def test_every_attempt_is_refused_in_the_right_way(results: list[Result]) -> None:
    counts = Counter(result.verdict for result in results)
    assert passed(results), table([result for result in results if result.verdict is not Verdict.HELD])
    assert counts[Verdict.HELD] >= len(results) - 5


def test_what_was_not_simply_refused_is_explained(results: list[Result]) -> None:
    for result in results:
        if result.verdict is Verdict.GAP:
            assert result.outcome.lacks
            assert result.advice
        if result.verdict is Verdict.UNTRIED:
            assert result.outcome.detail


def test_nothing_of_the_suite_is_left(results: list[Result], server: Server) -> None:
    assert server.monitors() == []
    assert list((server.directory / "writable").iterdir()) == []


def test_no_secret_is_in_the_evidence(results: list[Result], server: Server) -> None:
    hashes = [line.split(":")[1] for line in Path("/etc/shadow").read_text().splitlines()]
    for result in results:
        assert not any(len(value) > 3 and value in result.outcome.detail for value in hashes)


def test_table_fits_a_terminal_and_lines_can_be_copied(results: list[Result]) -> None:
    wide = table(results, force_terminal=True, color_system=None)
    assert max(map(len, wide.splitlines())) <= 100
    plain = table(results)
    assert len(plain.splitlines()) >= len(results) + 1
    assert "\x1b" not in plain
    assert plain.splitlines()[-1] == summary(results)


def test_a_viewer_cannot_run_the_suite(server: Server) -> None:
    code = (
        "import sys; from joblet.client import ClientConfig; from joblet.escape import HostContext, main\n"
        "sys.exit(main(ClientConfig(*sys.argv[1:5]), HostContext()))"
    )
    config = client_config(server, "viewer")
    ran = subprocess.run(
        [sys.executable, "-c", code, config.server, config.cert, config.key, config.ca],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
