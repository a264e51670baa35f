"""The directory of an authority: what it issues, revokes and hands over, and that each step may be the last."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from joblet import pki, revocation
from joblet.authority import LIST, Authority, columns
from joblet.cli import app
from joblet.issued import NAME, Record


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.init([], pki.SERVER_DAYS, force=False)
    made.issue("alice", pki.Role.ADMIN, 365, force=False)
    return made


def serials(authority: Authority) -> set[int]:
    """What the lists of a directory say, by its own authorities."""
    names = [name for name in ("ca", "old-ca") if (authority.directory / f"{name}-cert.pem").exists()]
    trusted = [pki.read_certificate(authority.directory / f"{name}-cert.pem") for name in names]
    read = revocation.read((authority.directory / LIST).read_bytes(), trusted)
    return {serial for _, serial in read.revoked}


def table(authority: Authority) -> str:
    return "\n".join(columns(authority.listed(), datetime.now(UTC)))


def test_all_of_a_clients_certificates_are_revoked_though_its_files_have_gone(authority: Authority) -> None:
    authority.renew("alice", None)
    for path in pki.paths(authority.directory, "alice"):
        path.unlink()
    found = authority.revoke("alice")
    assert len(found) == 2
    assert serials(authority) == {entry.serial for entry in found}
    assert table(authority).count("  revoked on ") == 2
    assert len(authority.revoke("alice")) == 2  # once more changes nothing
    assert len(Record(authority.directory).revoked()) == 2


def test_one_from_before_there_was_a_record_is_known_by_its_file(authority: Authority) -> None:
    (authority.directory / NAME).unlink()
    certificate = pki.load(authority.directory, "alice").certificate
    assert {row.issued.name for row in authority.listed()} == {"server", "alice"}
    (found,) = authority.revoke("alice")
    assert found.serial == certificate.serial_number
    assert serials(authority) == {certificate.serial_number}


@pytest.mark.parametrize("shape", ["{:x}", "{:X}", "colons"])
def test_a_serial_number_may_be_given_as_openssl_prints_it(authority: Authority, shape: str) -> None:
    serial = pki.load(authority.directory, "alice").certificate.serial_number
    text = re.sub(r"(..)(?!$)", r"\1:", f"{serial:040X}") if shape == "colons" else shape.format(serial)
    authority.revoke(text)
    assert serials(authority) == {serial}


def test_a_serial_number_that_nobody_knows_is_revoked_all_the_same_and_a_slip_is_not(authority: Authority) -> None:
    authority.revoke("6B17A4B78FE41DAA8B63BEA0A6D2C8D84A34A7E2")
    assert serials(authority) == {0x6B17A4B78FE41DAA8B63BEA0A6D2C8D84A34A7E2}
    for slip in ("alicia", "12ab", ""):
        with pytest.raises(pki.PkiError, match=rf"^'{slip}': no such file, nor a name or serial number that is known"):
            authority.revoke(slip)


def test_of_others_and_the_server_nothing_is_revoked(authority: Authority, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(pki.issue_client(pki.create_ca(), "eve", pki.Role.ADMIN).certificate_pem)
    with pytest.raises(pki.PkiError, match=r"other\.pem was not issued by the authority in "):
        authority.revoke(str(other))
    with pytest.raises(pki.PkiError, match="server is the server's, and clients read no lists"):
        authority.revoke("server")
    assert not (authority.directory / LIST).exists()


def test_a_list_has_what_the_record_and_the_list_before_it_had(authority: Authority) -> None:
    authority.revoke("alice")
    alice = serials(authority)
    (authority.directory / LIST).write_bytes(revocation.sign(pki.load(authority.directory, "ca"), {77: _ago(1)}, 9))
    authority.issue("bob", pki.Role.VIEWER, 1, force=False)
    (bob,) = authority.revoke("bob")
    assert serials(authority) == {*alice, 77, bob.serial}
    trusted = [pki.read_certificate(authority.directory / "ca-cert.pem")]
    assert revocation.read((authority.directory / LIST).read_bytes(), trusted).number > 9


def test_a_damaged_list_is_told_and_not_replaced(authority: Authority) -> None:
    (authority.directory / LIST).write_text("garbage")
    with pytest.raises(pki.PkiError, match=r"crl\.pem: not a list of revoked .*: move it away, and it is made anew"):
        authority.revoke("alice")
    (authority.directory / LIST).unlink()
    authority.revoke("alice")
    assert len(serials(authority)) == 1


def test_what_is_renewed_lasts_as_long_has_the_same_role_and_another_key(authority: Authority) -> None:
    authority.issue("brief", pki.Role.VIEWER, 8 / 24, force=False)
    before = pki.load(authority.directory, "brief")
    for path in pki.paths(authority.directory, "brief"):
        path.unlink()
    after = pki.load(authority.directory, "brief") if authority.renew("brief", None) else before
    start, end = after.certificate.not_valid_before_utc + pki.CLOCK_SKEW, after.certificate.not_valid_after_utc
    assert end - start == timedelta(hours=8)
    assert pki.role_of(after.certificate) == "viewer"
    assert after.key_pem != before.key_pem
    server = pki.load(authority.directory, "server")
    renewed = pki.read_certificate(authority.renew("server", 10).paths[0])
    assert pki.hosts_of(renewed) == pki.hosts_of(server.certificate)
    assert renewed.not_valid_after_utc - datetime.now(UTC) < timedelta(days=10)


def test_who_is_revoked_or_unknown_is_not_renewed(authority: Authority) -> None:
    authority.revoke("alice")
    with pytest.raises(
        pki.PkiError, match=r"^the certificate of 'alice' was revoked on .*: issue another with --force$"
    ):
        authority.renew("alice", None)
    authority.issue("alice", pki.Role.ADMIN, 1, force=True)
    authority.renew("alice", None)
    with pytest.raises(pki.PkiError, match=r"^no certificate of 'bob' is known in .*: issue one$"):
        authority.renew("bob", None)


def test_a_line_cut_short_by_a_crash_hides_no_other(authority: Authority) -> None:
    path = authority.directory / NAME
    path.write_bytes(path.read_bytes() + b'{"at": "2026-01-')
    authority.issue("bob", pki.Role.VIEWER, 1, force=False)
    assert [entry.name for entry in Record(authority.directory).issued()] == ["server", "alice", "bob"]
    path.write_bytes(path.read_bytes() + json.dumps({"issued": "eve", "serial": "zz"}).encode() + b"\n")
    with pytest.raises(pki.PkiError, match=r"issued\.jsonl: line 5 is none that joblet has written$"):
        authority.listed()


class Stop(Exception):
    """A crash."""


@pytest.mark.parametrize("operation", ["rotate", "retire", "revoke"])
def test_what_a_crash_interrupts_is_finished_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """At every single change of a file; trust is never lost in between, and what was revoked never comes back."""
    steps = 0
    while True:
        folder = tmp_path / str(steps)
        authority = Authority(folder)
        authority.init([], 825, force=False)
        for name in ("alice", "bob"):
            authority.issue(name, pki.Role.ADMIN, 1, force=False)
        first = pki.read_certificate(folder / "ca-cert.pem")
        (bob,) = authority.revoke("bob")
        if operation == "retire":
            authority.rotate()
            authority.renew("server", None)
            authority.renew("alice", None)
        arguments = {"rotate": (), "retire": (), "revoke": ("alice",)}[operation]
        options = {"force": False} if operation == "retire" else {}
        with monkeypatch.context() as patch:
            _stop_after(patch, steps)
            try:
                getattr(authority, operation)(*arguments, **options)
            except Stop:
                pass
            else:
                break
        trusted = pki.read_certificates(folder / "ca-cert.pem")
        assert first in trusted or operation == "retire"
        if first in trusted:
            assert bob.serial in serials(authority)
        getattr(authority, operation)(*arguments, **options)
        finished = pki.load(folder, "ca").certificate
        expected = {"rotate": [finished, first], "retire": [finished], "revoke": [first]}[operation]
        assert pki.read_certificates(folder / "ca-cert.pem") == expected
        assert (folder / "old-ca-cert.pem").exists() == (operation == "rotate")
        assert not (folder / "new-ca-key.pem").exists()
        if operation == "revoke":
            assert len(serials(authority)) == 2
        steps += 1
    assert steps >= 1


def _stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Crash at the change of a file's name after so many."""
    left = steps

    def counting(change):
        def changed(*args, **kwargs):
            nonlocal left
            if Path(args[-1]).name.startswith("."):  # what a file is called before it is whole
                return change(*args, **kwargs)
            if left == 0:
                raise Stop
            left -= 1
            return change(*args, **kwargs)

        return changed

    for name in ("replace", "link", "unlink"):
        patch.setattr(os, name, counting(getattr(os, name)))


def test_a_rotation_waits_for_those_who_have_not_changed(authority: Authority) -> None:
    authority.rotate()
    assert table(authority).count("valid, of the former authority") == 2
    with pytest.raises(pki.PkiError, match=r"old-ca-cert\.pem exists: joblet certs retire-ca ends the rotation"):
        authority.rotate()
    with pytest.raises(pki.PkiError, match=r"server-cert\.pem is of the former authority: run joblet certs renew"):
        authority.retire(force=True)
    authority.renew("server", None)
    with pytest.raises(pki.PkiError, match=r"certificates of the former authority: alice \(--force ends them\)$"):
        authority.retire(force=False)
    authority.renew("alice", None)
    authority.retire(force=False)
    assert table(authority).count("  of a retired authority") == 2
    with pytest.raises(pki.PkiError, match="no former authority in "):
        authority.retire(force=False)


def test_what_the_commands_print(tmp_path: Path) -> None:
    folder = tmp_path / "certs"

    def joblet(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["certs", *arguments, f"--dir={folder}"])

    joblet("init")
    assert re.fullmatch(
        rf"{folder}/alice-cert\.pem \(until \d{{4}}-\d\d-\d\d \d\d:\d\d UTC\), {folder}/alice-key\.pem\n",
        joblet("issue", "alice", "--role=admin", "--hours=2").stdout,
    )
    lines = [line.split() for line in joblet("list").stdout.splitlines()]
    assert [line[:2] for line in lines] == [["NAME", "ROLE"], ["server", "server"], ["alice", "admin"]]
    assert joblet("revoke", "alice").stdout == f"alice: revoked {lines[2][2]}\n{folder}/crl.pem\n"
    assert joblet("list").stdout.splitlines()[2].split()[-3:-1] == ["revoked", "on"]
    wrong = joblet("issue", "bob", "--role=viewer", "--days=1", "--hours=1")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    for command in ("rotate-ca", "renew server", "retire-ca"):
        assert joblet(*command.split()).exit_code == 0


def _ago(days: int) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(days=days)
