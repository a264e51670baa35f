from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from joblet import pki

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca() -> pki.KeyPair:
    return pki.create_ca()


def joblet(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from joblet.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_client_subject_is_that_of_the_specification(ca: pki.KeyPair) -> None:
    certificate = pki.issue_client(ca, "alice", pki.Role.VIEWER).certificate
    attributes = {a.oid: a.value for a in certificate.subject}
    assert attributes == {
        NameOID.COMMON_NAME: "alice",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "viewer",
        NameOID.ORGANIZATION_NAME: "joblet",
    }
    assert usages(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_server_cannot_pose_as_a_client(ca: pki.KeyPair) -> None:
    certificate = pki.issue_server(ca).certificate
    assert usages(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)


def test_server_is_named_for_this_machine_and_what_was_asked(ca: pki.KeyPair) -> None:
    hosts = pki.hosts_of(
        pki.issue_server(ca, ["Prod.Example.com.", "10.1.2.3", "[fe80::1]", "b\u00fccher.example"]).certificate
    )
    assert {"localhost", "127.0.0.1", "::1", "prod.example.com", "10.1.2.3", "fe80::1", "xn--bcher-kva.example"} <= {
        *hosts
    }
    assert len(hosts) == len(set(hosts))


@pytest.mark.parametrize("host", ["", "a b", "a..b", "-a.example", "https://a", "a" * 64, "*", "a\nb", "1.2.3.4:5"])
def test_impossible_hosts(ca: pki.KeyPair, host: str) -> None:
    with pytest.raises(pki.PkiError, match="neither a DNS name nor an IP address"):
        pki.issue_server(ca, [host])


def test_lifetimes_and_clock_skew() -> None:
    ca = pki.create_ca(now=NOW)
    assert ca.certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert ca.certificate.not_valid_after_utc == NOW + timedelta(days=3650)
    assert pki.issue_server(ca, now=NOW).certificate.not_valid_after_utc == NOW + timedelta(days=825)
    client = pki.issue_client(ca, "a", pki.Role.ADMIN, now=NOW).certificate
    assert client.not_valid_after_utc == NOW + timedelta(days=365)
    assert not pki.has_expired(client, NOW + timedelta(days=365))
    assert pki.has_expired(client, NOW + timedelta(days=365, seconds=1))


def test_nothing_outlives_its_authority() -> None:
    ca = pki.create_ca(days=10, now=NOW)
    client = pki.issue_client(ca, "a", pki.Role.ADMIN, now=NOW).certificate
    assert client.not_valid_after_utc == ca.certificate.not_valid_after_utc
    with pytest.raises(pki.PkiError, match=r"^the authority expired on 2026-01-25$"):
        pki.issue_client(ca, "a", pki.Role.ADMIN, now=NOW + timedelta(days=11))


@pytest.mark.parametrize("days", [0, -1, 36_501, 10**12])
def test_impossible_lifetimes(ca: pki.KeyPair, days: int) -> None:
    with pytest.raises(pki.PkiError, match="invalid number of days"):
        pki.issue_client(ca, "a", pki.Role.ADMIN, days)


def test_serials_and_keys_are_never_the_same(ca: pki.KeyPair) -> None:
    made = [pki.issue_client(ca, "a", pki.Role.ADMIN) for _ in range(20)]
    assert len({pair.certificate.serial_number for pair in made}) == 20
    assert len({pair.key.private_numbers().private_value for pair in made}) == 20
    assert all(isinstance(pair.key.curve, ec.SECP256R1) for pair in made)


def test_issuer_is_told_by_key_not_by_name(ca: pki.KeyPair) -> None:
    other = pki.create_ca()
    assert ca.certificate.subject == other.certificate.subject
    client = pki.issue_client(ca, "a", pki.Role.ADMIN).certificate
    assert pki.is_issued_by(client, ca.certificate)
    assert not pki.is_issued_by(client, other.certificate)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_openssl_accepts_them_strictly(ca: pki.KeyPair, tmp_path: Path) -> None:
    authority, _ = pki.save(ca, tmp_path, "ca")
    for pair, name, purpose in [
        (pki.issue_server(ca), "server", "sslserver"),
        (pki.issue_client(ca, "a", pki.Role.ADMIN), "a", "sslclient"),
    ]:
        path, _ = pki.save(pair, tmp_path, name)
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", authority, path]
        subprocess.run(command, check=True, capture_output=True)


@given(
    st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(
        lambda n: n.lower() not in ("ca", "server")
    )
)
def test_usable_names(name: str) -> None:
    pki.check_name(name)
    assert Path("d", f"{name}-key.pem").parent == Path("d")


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "a/b", "../a", "a b", "a\n", "\u00e4", "ca", "CA", "server", "a" * 65, "a\0"]
)
def test_unusable_names(ca: pki.KeyPair, name: str) -> None:
    with pytest.raises(pki.PkiError, match="invalid name"):
        pki.issue_client(ca, name, pki.Role.ADMIN)


def test_files_and_their_modes(ca: pki.KeyPair, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "certs"
    before = os.umask(0o077)
    try:
        certificate, key = pki.save(ca, folder, "ca")
    finally:
        os.umask(before)
    assert (certificate, key) == (folder / "ca-cert.pem", folder / "ca-key.pem")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (certificate, key, folder)] == [0o644, 0o600, 0o700]
    assert sorted(path.name for path in folder.iterdir()) == ["ca-cert.pem", "ca-key.pem"]
    assert key.read_text().startswith("-----BEGIN PRIVATE KEY-----")


def test_a_key_is_never_readable_by_others(ca: pki.KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    link = os.link

    def watch(source: Path, target: Path) -> None:
        seen.append((target.name, stat.S_IMODE(source.stat().st_mode)))
        link(source, target)

    monkeypatch.setattr(os, "link", watch)
    before = os.umask(0)
    try:
        pki.save(ca, tmp_path, "ca")
    finally:
        os.umask(before)
    assert seen == [("ca-key.pem", 0o600), ("ca-cert.pem", 0o644)]


@pytest.mark.parametrize("name", ["a-cert.pem", "a-key.pem"])
def test_existing_files_are_kept(ca: pki.KeyPair, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(pki.PkiError, match=rf"{name} exists, not overwritten"):
        pki.save(ca, tmp_path, "a")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_force_replaces_a_link_and_not_its_target(ca: pki.KeyPair, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "a-key.pem").symlink_to(target)
    pki.save(ca, folder, "a", force=True)
    assert target.read_text() == "precious"
    assert not (folder / "a-key.pem").is_symlink()


def test_directory_that_cannot_be_made(ca: pki.KeyPair, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(pki.PkiError, match="cannot create directory"):
        pki.save(ca, tmp_path / "file" / "certs", "ca")


def test_load_gives_back_what_was_saved(ca: pki.KeyPair, tmp_path: Path) -> None:
    pki.save(ca, tmp_path, "ca")
    loaded = pki.load(tmp_path, "ca")
    assert loaded.certificate == ca.certificate
    assert loaded.key_pem == ca.key_pem


def test_load_tells_what_is_wrong(ca: pki.KeyPair, tmp_path: Path) -> None:
    with pytest.raises(pki.PkiError, match=r"^cannot read .*a-cert.pem: No such file or directory$"):
        pki.load(tmp_path, "a")
    certificate, key = pki.save(ca, tmp_path, "a")
    key.write_bytes(pki.create_ca().key_pem)
    with pytest.raises(pki.PkiError, match=r"a-key.pem is not the key of .*a-cert.pem$"):
        pki.load(tmp_path, "a")
    key.write_text("garbage")
    with pytest.raises(pki.PkiError, match=r"a-key.pem: not an unencrypted private key"):
        pki.load(tmp_path, "a")
    certificate.write_text("garbage")
    with pytest.raises(pki.PkiError, match=r"a-cert.pem: not a certificate in PEM format"):
        pki.load(tmp_path, "a")


def test_certificates_are_read_from_files_and_text(ca: pki.KeyPair, tmp_path: Path) -> None:
    path, _ = pki.save(ca, tmp_path, "ca")
    for source in (path, str(path), path.read_text()):
        assert pki.read_certificate(source) == ca.certificate
    with pytest.raises(pki.PkiError, match=r"^PEM text: not a certificate"):
        pki.read_certificate("-----BEGIN NONSENSE-----")


def test_command_line(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    made = joblet("certs", "init", "--dir", folder, "--host", "prod.example.com", "--host", "10.0.0.5")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.count("\n") == 2
    made = joblet("certs", "issue", "alice", "--role", "viewer", "--dir", folder, "--days", 7)
    assert (made.returncode, made.stderr) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("alice-cert.pem", "alice-key.pem", "ca-cert.pem", "ca-key.pem"),
        *("issued.jsonl", "server-cert.pem", "server-key.pem"),
    ]
    alice = pki.load(folder, "alice").certificate
    assert timedelta(days=6) < alice.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=7)
    made = joblet("certs", "issue", "dora", "--role", "Developer", "--dir", folder)
    note = "Note: developer may do nothing on a server whose configuration has no access.roles.developer\n"
    assert (made.returncode, made.stderr) == (0, note)
    subject = pki.load(folder, "dora").certificate.subject
    assert [unit.value for unit in subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)] == ["developer"]
    assert {"prod.example.com", "10.0.0.5"} <= {*pki.hosts_of(pki.load(folder, "server").certificate)}


def test_renewing_the_server_keeps_authority_and_hosts(tmp_path: Path) -> None:
    joblet("certs", "init", "--dir", tmp_path, "--host", "prod.example.com")
    before = pki.load(tmp_path, "server").certificate
    refused = joblet("certs", "init", "--dir", tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"Error: {tmp_path}/server-cert.pem exists, not overwritten (--force renews the server's certificate)\n"
    )
    renewed = joblet("certs", "init", "--dir", tmp_path, "--force")
    assert (renewed.returncode, renewed.stderr) == (0, "")
    after = pki.load(tmp_path, "server").certificate
    assert after.serial_number != before.serial_number
    assert pki.hosts_of(after) == pki.hosts_of(before)
    assert pki.is_issued_by(after, pki.load(tmp_path, "ca").certificate)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["issue", "a", "--role", "admin"], 1, "cannot read {}/ca-cert.pem: No such file or directory"),
        (["issue", "../a", "--role", "admin"], 1, "invalid name '../a'"),
        (["issue", "a", "--role", "root!"], 2, "'root!' is no name of a role"),
        (["issue", "a"], 2, "Missing option '--role'"),
        (["issue", "a", "--role", "admin", "--days", "x"], 2, "--days"),
        (["init", "--host", "a b"], 1, "invalid host 'a b'"),
        (["init", "--days", "0"], 1, "invalid number of days 0"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, arguments: list[str], status: int, text: str) -> None:
    result = joblet("certs", *arguments, "--dir", tmp_path)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("Error: ")
    assert text.format(tmp_path) in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_half_an_authority_is_not_completed(tmp_path: Path) -> None:
    pki.save(pki.create_ca(), tmp_path, "ca")
    (tmp_path / "ca-key.pem").unlink()
    result = joblet("certs", "init", "--dir", tmp_path)
    assert result.returncode == 1
    assert "ca-cert.pem exists without its counterpart" in result.stderr


def test_they_make_a_tls_connection(ca: pki.KeyPair, tmp_path: Path) -> None:
    for name, pair in {
        "ca": ca,
        "server": pki.issue_server(ca),
        "a": pki.issue_client(ca, "a", pki.Role.ADMIN),
    }.items():
        pki.save(pair, tmp_path, name)
    server = _context(ssl.PROTOCOL_TLS_SERVER, tmp_path, "server")
    server.verify_mode = ssl.CERT_REQUIRED
    client = _context(ssl.PROTOCOL_TLS_CLIENT, tmp_path, "a")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    two = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for side in (one, two):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    peer = two.getpeercert()
    assert peer is not None
    assert (("organizationalUnitName", "admin"),) in peer["subject"]


def _context(protocol: int, folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(*pki.paths(folder, name))
    context.load_verify_locations(folder / "ca-cert.pem")
    return context
