"""`rnx nodes --check`, with a server that answers and one that does not."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from harness import PATIENCE, Server


def check(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rnx", "nodes", "--check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=folder)


def test_each_node_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVER", "CERT_PATH", "KEY_PATH", "CA_PATH"):
        monkeypatch.delenv(f"JOBLET_{name}", raising=False)
    names = {"cert": "viewer-cert", "key": "viewer-key", "ca": "ca-cert"}
    files = {key: str(server.certificates / f"{name}.pem") for key, name in names.items()}
    nodes = {"default": {"address": f"localhost:{server.port}", **files}}
    path = tmp_path / "rnx-config.yml"
    path.write_text(yaml.safe_dump({"nodes": nodes}))
    result = check(folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(rf"^\* default localhost:{server.port} ok \(\d+ ms\)$", result.stdout, re.MULTILINE)
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind(("127.0.0.1", 0))
        nodes["gone"] = {"address": f"127.0.0.1:{unused.getsockname()[1]}", **files}
        path.write_text(yaml.safe_dump({"nodes": nodes}))
        result = check("--json", folder=tmp_path)
    assert result.returncode == 1
    good, gone = json.loads(result.stdout)["nodes"]
    assert good["error"] is None
    assert good["milliseconds"] > 0
    assert "refused" in gone["error"]
    assert gone["milliseconds"] is None
