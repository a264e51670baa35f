"""`rnx nodes`, where there are no servers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rnx import main

FILE = """\
nodes:
  default:
    address: prod.example.com:50051
    cert: certs/me-cert.pem
    key: |
      -----BEGIN PRIVATE KEY-----
      secret
  staging: {address: "localhost:1"}
  broken: 3
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("joblet.client.config.SEARCH_PATH", (".", "config"))
    for name in ("SERVER", "CERT_PATH", "KEY_PATH", "CA_PATH"):
        monkeypatch.delenv(f"JOBLET_{name}", raising=False)


def rnx(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["rnx", *arguments])
        with pytest.raises(SystemExit) as end:
            main.main()
    return end.value.code, *capsys.readouterr()


def test_the_nodes_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rnx-config.yml").write_text(FILE)
    assert rnx(capsys, "nodes") == (
        0,
        "Settings file: rnx-config.yml\n"
        "\n"
        "  NODE    ADDRESS\n"
        "* default prod.example.com:50051\n"
        "  staging localhost:1\n"
        "  broken                         rnx-config.yml: node 'broken' must hold address, cert, key and ca\n"
        "\n"
        "Chosen: default (no --node)\n"
        "Server: prod.example.com:50051 (node default)\n"
        "Cert: certs/me-cert.pem (node default)\n"
        "Key: (PEM text) (node default)\n"
        "CA: certs/ca-cert.pem (default)\n",
        "",
    )


def test_a_node_asked_for_and_what_wins_over_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rnx-config.yml").write_text(FILE)
    _, output, _ = rnx(capsys, "nodes", "--node=staging")
    assert "\n* staging localhost:1\n" in output
    assert "\nChosen: staging (--node=staging)\nServer: localhost:1 (node staging)\n" in output
    monkeypatch.setenv("JOBLET_CERT_PATH", "env.pem")
    _, output, _ = rnx(capsys, "--server=flag:7", "nodes")
    assert "\n* (as given) flag:7\n" in output
    assert "\nChosen: (as given) (no --node, and flags or variables win)\n" in output
    assert "\nServer: flag:7 (--server)\nCert: env.pem ($JOBLET_CERT_PATH)\nKey: (PEM text) (node default)\n" in output


def test_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = rnx(capsys, "nodes")
    assert status == 0
    assert output.startswith("Settings file: none (rnx-config.yml is in none of ., config)\n")
    assert (
        "\n* (as given) localhost:50051\n\nChosen: (as given) (no file)\nServer: localhost:50051 (default)\n" in output
    )


def test_json_holds_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rnx-config.yml").write_text(FILE)
    _, output, _ = rnx(capsys, "nodes", "--json")
    told = json.loads(output)
    assert told["nodes"][0] == {
        "name": "default",
        "address": "prod.example.com:50051",
        "chosen": True,
        "error": None,
    }
    assert told["settings"]["key"] == {"value": "(PEM text)", "source": "node default"}
    assert "secret" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--node=x"], "Error: rnx-config.yml: no node 'x' (nodes: broken, default, staging)\n"),
        (["--config=none.yml"], "Error: cannot read none.yml: No such file or directory\n"),
    ],
)
def test_what_cannot_be_chosen(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    Path("rnx-config.yml").write_text(FILE)
    assert rnx(capsys, "nodes", *arguments) == (1, "", message)
