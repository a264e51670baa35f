"""As which client the doctor goes to the server, and what the escape suite is told of the host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from joblet import pki
from joblet.client import ClientConfig, SettingsError
from joblet.config import Config
from joblet.doctor.escape import client_config, host_context, run

NONE: dict[str, str | None] = dict.fromkeys(("server", "cert", "key", "ca"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with a configuration's certificates: a viewer, an admin of another authority, an admin."""
    certs = tmp_path / "certs"
    ca = pki.create_ca()
    pki.save(ca, certs, "ca")
    pki.save(pki.issue_server(ca), certs, "server")
    pki.save(pki.issue_client(ca, "ann", pki.Role.VIEWER), certs, "ann")
    pki.save(pki.issue_client(pki.create_ca(), "bob", pki.Role.ADMIN), certs, "bob")
    pki.save(pki.issue_client(ca, "carol", pki.Role.ADMIN), certs, "carol")
    return tmp_path


def settings(port: int = 50051, address: str = "0.0.0.0", **security: str) -> Config:
    paths = {"caCert": "certs/ca-cert.pem", "serverCert": "certs/server-cert.pem", "serverKey": "certs/server-key.pem"}
    return Config.model_validate({"server": {"port": port, "address": address}, "security": paths | security})


def resolve(
    config: Config, base: Path, flags: Mapping[str, str | None] = NONE, environ: Mapping[str, str] | None = None
) -> ClientConfig:
    return client_config(config, base, flags, environ or {})


def test_the_admin_is_found_beside_the_servers_certificate(base: Path) -> None:
    found = resolve(settings(), base)
    assert found.server == "localhost:50051"
    assert (found.cert, found.key) == (f"{base}/certs/carol-cert.pem", f"{base}/certs/carol-key.pem")
    assert found.ca == f"{base}/certs/ca-cert.pem"


def test_flags_come_before_variables_and_these_before_the_configuration(base: Path) -> None:
    environ = {"JOBLET_SERVER": "other:1", "JOBLET_CERT_PATH": "c.pem", "JOBLET_KEY_PATH": "k.pem"}
    found = resolve(settings(), base, NONE | {"cert": "flag.pem"}, environ)
    assert (found.server, found.cert, found.key) == ("other:1", "flag.pem", "k.pem")


@pytest.mark.parametrize(
    ("address", "server"), [("::", "localhost:7"), ("10.0.0.1", "10.0.0.1:7"), ("2001:db8::1", "[2001:db8::1]:7")]
)
def test_the_address_of_the_server(base: Path, address: str, server: str) -> None:
    assert resolve(settings(7, address), base).server == server


def test_a_port_that_nobody_knows_must_be_named(base: Path) -> None:
    with pytest.raises(SettingsError, match="--server"):
        resolve(settings(0), base)


def test_without_an_admin_there_is_no_client(base: Path) -> None:
    (base / "certs/carol-key.pem").unlink()
    with pytest.raises(SettingsError, match=r"no admin's certificate in .*/certs: make one with joblet certs issue"):
        resolve(settings(), base)


def test_a_certificate_needs_its_key(base: Path) -> None:
    with pytest.raises(SettingsError, match="name both"):
        resolve(settings(), base, NONE | {"cert": "c.pem"})


def test_pem_text_has_no_directory_to_look_in(base: Path) -> None:
    text = (base / "certs/server-cert.pem").read_text()
    with pytest.raises(SettingsError, match="--cert and --key"):
        resolve(settings(serverCert=text), base)


def test_the_suite_is_told_where_the_servers_secrets_are(base: Path) -> None:
    host = host_context(settings(), base / "joblet-config.yml")
    assert host.config == base / "joblet-config.yml"
    assert host.keys == (base / "certs/server-key.pem", base / "certs/ca-key.pem")
    assert host.state_dir == Path("/var/lib/joblet")


def test_a_server_that_is_not_there_cannot_be_tried(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = base / "joblet-config.yml"
    config.write_text(
        "server: {address: 127.0.0.1, port: 1}\n"
        "security: {caCert: certs/ca-cert.pem, serverCert: certs/server-cert.pem, serverKey: certs/server-key.pem}\n"
    )
    assert run(config, NONE, {}) == 2
    output = capsys.readouterr()
    assert output.err.startswith("joblet: ")
    assert output.err.count("\n") == 1
