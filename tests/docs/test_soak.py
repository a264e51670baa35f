"""A soak runs, finds nothing wrong where nothing is, and what is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, Server

from benchmarks.site import connected
from benchmarks.soak.load import follow

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="isolation needs root on Linux")


@pytest.mark.alone
def test_a_soak_of_a_second(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes=0.02", "--every=0.2", "--followers=5"]
    done = subprocess.run([*command, f"--out={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    account = json.loads((tmp_path / "soak.json").read_text())
    assert account["wrong"] == []
    assert account["jobs"] == 33
    assert {judged["name"] for judged in account["judgements"]} <= account["samples"][-1].keys()


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("0 1 end+2", ""),
        ("0 2 end+2", "line b'2' where 1"),
        ("0 1", "the log ended after 2"),
        ("0 1 end+1", "line b'end 1'"),
    ],
)
async def test_a_follower_tells_what_is_missing(server: Server, lines: str, fault: str) -> None:
    async with connected(server) as client:
        job = await client.run("printf", "%s\n", *(line.replace("+", " ") for line in lines.split()))
        found = await follow(client, job.id)
    assert found.startswith(fault) if fault else found == ""
