from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.client import ClientConfig, SettingsError
from joblet.client.config import parse_address

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
FILE = """
version: "3.0"
nodes:
  default:
    address: "prod.example.com:50051"
    cert: certs/me-cert.pem
    key: /keys/me-key.pem
    ca: |
      -----BEGIN CERTIFICATE-----
      AAAA
      -----END CERTIFICATE-----
  staging:
    address: staging:50052
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but the test's own: an empty working directory, home and search path."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("joblet.client.config.SEARCH_PATH", (".", "config", "~/.rnx", str(tmp_path / "etc")))


def test_defaults_are_those_of_the_specification() -> None:
    config = ClientConfig.resolve(environ={})
    assert (config.server, config.cert, config.key, config.ca) == (
        "localhost:50051",
        "certs/client-cert.pem",
        "certs/client-key.pem",
        "certs/ca-cert.pem",
    )


def test_each_setting_from_the_first_source_that_has_it() -> None:
    Path("rnx-config.yml").write_text(FILE)
    config = ClientConfig.resolve(server="flag", environ={"JOBLET_SERVER": "env", "JOBLET_CERT_PATH": "env.pem"})
    assert (config.server, config.cert, config.key, config.ca) == ("flag", "env.pem", "/keys/me-key.pem", PEM)


def test_empty_values_are_none() -> None:
    config = ClientConfig.resolve(server="", environ={"JOBLET_SERVER": "", "JOBLET_CA_PATH": ""})
    assert (config.server, config.ca) == ("localhost:50051", "certs/ca-cert.pem")


@pytest.mark.parametrize("folder", [".", "config", "../home/.rnx", "../etc"])
def test_places_where_the_file_is_looked_for(folder: str) -> None:
    Path(folder).mkdir(exist_ok=True)
    Path(folder, "rnx-config.yml").write_text(FILE)
    assert ClientConfig.resolve(environ={}).address == ("prod.example.com", 50051)


def test_the_nearest_file_wins() -> None:
    Path("config").mkdir()
    Path("config/rnx-config.yml").write_text(FILE)
    Path("rnx-config.yml").write_text("nodes: {default: {address: near}}")
    assert ClientConfig.resolve(environ={}).server == "near"


def test_paths_are_relative_to_the_file() -> None:
    Path("config").mkdir()
    Path("config/rnx-config.yml").write_text(FILE)
    assert ClientConfig.resolve(environ={}).cert == "config/certs/me-cert.pem"


def test_node_and_file_asked_for() -> None:
    Path("mine.yml").write_text(FILE)
    config = ClientConfig.resolve(config="mine.yml", node="staging", environ={})
    assert (config.address, config.cert) == (("staging", 50052), "certs/client-cert.pem")


def test_a_file_is_not_read_when_nothing_is_wanted_from_it() -> None:
    Path("rnx-config.yml").write_text("{")
    config = ClientConfig.resolve(server="a", cert="b", key="c", ca="d", environ={})
    assert config.server == "a"


@pytest.mark.parametrize(
    ("text", "node", "message"),
    [
        (None, "x", r"^node 'x': no rnx-config.yml in ., config, ~/.rnx, "),
        (FILE, "x", r"^rnx-config.yml: no node 'x' \(nodes: default, staging\)$"),
        ("nodes: {a: {}}", None, r"^rnx-config.yml: no node 'default' \(nodes: a\)$"),
        ("nodes: {}", None, r"no node 'default' \(nodes: none\)$"),
        ("", None, r"^rnx-config.yml: expected a section `nodes`$"),
        ("[1]", None, r"expected a section `nodes`$"),
        ("nodes: 3", None, r"expected a section `nodes`$"),
        ("nodes: {default: text}", None, r"node 'default' must hold address, cert, key and ca$"),
        ("nodes: {default: {address: 5}}", None, r"nodes.default.address: expected text, not 5$"),
        ("a: b: c", None, r"^rnx-config.yml: line 1: not valid YAML: "),
        ("a: \x03", None, r"^rnx-config.yml: not valid YAML: special characters are not allowed$"),
        ("\xff", None, r"^rnx-config.yml: not UTF-8 text at byte 0$"),
    ],
)
def test_files_that_cannot_be_used(text: str | None, node: str | None, message: str) -> None:
    if text is not None:
        Path("rnx-config.yml").write_text(text, encoding="latin-1")
    with pytest.raises(SettingsError, match=message):
        ClientConfig.resolve(node=node, environ={})


def test_a_file_asked_for_must_be_there() -> None:
    with pytest.raises(SettingsError, match=r"^cannot read none.yml: No such file or directory$"):
        ClientConfig.resolve(config="none.yml", environ={})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host", ("host", 50051)),
        ("host:1", ("host", 1)),
        (" host:65535\n", ("host", 65535)),
        ("10.0.0.1:50052", ("10.0.0.1", 50052)),
        ("[::1]:50052", ("::1", 50052)),
        ("[::1]", ("::1", 50051)),
        ("::1", ("::1", 50051)),
        ("fe80::1:2", ("fe80::1:2", 50051)),
        ("fe80::1%eth0", ("fe80::1%eth0", 50051)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ":1", "host:", "host:0", "host:65536", "host:-1", "host:x", "host:\u0661", "host:99999999999", "host:+1"),
        "host:0111111",  # beyond the last port, though its first six digits are not
        *("a:b:c", "[::1", "[::1]1", "[host]:1", "[]:1", "https://host:1", "ho st:1", "host\0:1"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^invalid server address "):
        ClientConfig(server=text)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_address_and_port(address: object, port: int) -> None:
    host = f"[{address}]" if ":" in str(address) else str(address)
    assert parse_address(f"{host}:{port}") == (str(address), port)


@given(st.text())
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    with suppress(SettingsError):
        host, port = parse_address(text)
        assert host
        assert 1 <= port <= 65535


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(ClientConfig(key="-----BEGIN PRIVATE KEY----- secret"))


def test_the_client_imports_nothing_of_the_server() -> None:
    code = "import joblet.client, sys; print(*sorted(m for m in sys.modules if m.startswith('joblet')))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for module in output.split():
        assert module in ("joblet", "joblet.corked") or module.startswith(("joblet.client", "joblet.proto")), module
