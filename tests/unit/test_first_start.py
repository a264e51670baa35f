"""What `joblet init` makes, and what it leaves alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from cryptography.x509.oid import NameOID

from joblet import first_start, pki
from joblet.client import ClientConfig
from joblet.config import Config, SecuritySection
from joblet.server.tls import server_context

CERTIFICATES = {
    "caCert": "certs/ca-cert.pem",
    "serverCert": "certs/server-cert.pem",
    "serverKey": "certs/server-key.pem",
}


def configured(folder: Path, **security: object) -> tuple[Config, Path]:
    """A configuration whose certificates are beside it, and its file."""
    path = folder / "joblet-config.yml"
    path.touch()
    return Config(security=SecuritySection(**{**CERTIFICATES, **security})), path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_first_start_makes_certificates_and_an_admins_settings(tmp_path: Path) -> None:
    config, path = configured(tmp_path, hosts=["prod.example.com", "192.0.2.7"])
    made = first_start.prepare(config, path, ["first.example.com"])
    assert made is not None
    assert {"first.example.com", "prod.example.com", "192.0.2.7", "localhost", *first_start.own_addresses()} <= set(
        made.hosts
    )
    server_context(config.security, tmp_path)
    assert made.settings == tmp_path / "rnx-config.yml"
    assert stat.S_IMODE(made.settings.stat().st_mode) == 0o600
    found = ClientConfig.resolve(config=made.settings, environ={})
    assert found.address == ("first.example.com", 50051)
    client, authority = pki.read_certificate(found.cert), pki.read_certificate(tmp_path / "certs/ca-cert.pem")
    assert pki.is_issued_by(client, authority)
    assert found.ca == (tmp_path / "certs/ca-cert.pem").read_text()
    (unit,) = client.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    assert unit.value == "admin"
    assert found.key.startswith("-----BEGIN PRIVATE KEY-----")


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    config, path = configured(tmp_path)
    first_start.prepare(config, path)
    (tmp_path / "rnx-config.yml").unlink()
    before = {file: file.read_bytes() for file in (tmp_path / "certs").iterdir()}
    assert first_start.prepare(config, path) is None
    assert {file: file.read_bytes() for file in (tmp_path / "certs").iterdir()} == before
    assert not (tmp_path / "rnx-config.yml").exists()


@pytest.mark.parametrize("written", range(5))
def test_killed_anywhere_it_is_completed(tmp_path: Path, written: int) -> None:
    config, path = configured(tmp_path)
    first_start.prepare(config, path)
    for name in ("ca-key.pem", "ca-cert.pem", "server-key.pem", "server-cert.pem")[written:]:
        (tmp_path / "certs" / name).unlink()
    made = first_start.prepare(config, path)
    assert (made is None) == (written == 4)
    server_context(config.security, tmp_path)
    authority = pki.load(tmp_path / "certs", "ca")
    assert pki.is_issued_by(pki.load(tmp_path / "certs", "server").certificate, authority.certificate)
    node = yaml.safe_load((tmp_path / "rnx-config.yml").read_text())["nodes"]["default"]
    assert pki.is_issued_by(pki.read_certificate(node["cert"]), authority.certificate)


@pytest.mark.parametrize("lost", ["ca-cert.pem", "server-key.pem"])
def test_half_of_a_pair_that_has_been_in_use_is_not_replaced(tmp_path: Path, lost: str) -> None:
    config, path = configured(tmp_path)
    first_start.prepare(config, path)
    (tmp_path / "certs" / lost).unlink()
    before = names(tmp_path)
    with pytest.raises(pki.PkiError, match=rf"server-cert\.pem exists without .*/certs/{lost}: restore that"):
        first_start.prepare(config, path)
    assert names(tmp_path) == before


def test_an_authority_without_its_key_makes_no_server(tmp_path: Path) -> None:
    config, path = configured(tmp_path)
    first_start.prepare(config, path)
    for name in ("ca-key.pem", "server-key.pem", "server-cert.pem"):
        (tmp_path / "certs" / name).unlink()
    with pytest.raises(pki.PkiError, match=r"cannot read .*ca-key\.pem"):
        first_start.prepare(config, path)


def test_files_of_other_names_are_not_made(tmp_path: Path) -> None:
    config, path = configured(tmp_path, serverCert="tls/fullchain.pem")
    with pytest.raises(pki.PkiError, match=r"does not exist, and is not made: that would be ca-cert\.pem,"):
        first_start.prepare(config, path)
    assert names(tmp_path) == {path.name}


def test_texts_in_the_configuration_need_no_files(tmp_path: Path) -> None:
    ca = pki.create_ca()
    server = pki.issue_server(ca)
    texts = {"caCert": ca.certificate_pem, "serverCert": server.certificate_pem, "serverKey": server.key_pem}
    config, path = configured(tmp_path, **{name: text.decode() for name, text in texts.items()})
    assert first_start.prepare(config, path) is None
    assert names(tmp_path) == {path.name}
