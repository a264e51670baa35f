"""An authority and what it has issued: a directory of files, changed in steps of which each can be the last.

`ca-cert.pem` is what servers and clients trust: the authority's certificate, and while it is being replaced its
predecessor's after it. The predecessor's own files are called `old-ca` then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from joblet import pki, revocation
from joblet.issued import Issued, Record, Revoked, serial_text
from joblet.pki import KeyPair, PkiError

LIST = "crl.pem"
_SHORT = timedelta(days=3)
_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}")


@dataclass(frozen=True)
class Written:
    """A certificate that was made, and where it is."""

    certificate: x509.Certificate
    paths: tuple[Path, Path]
    """of the certificate and of its key"""


@dataclass(frozen=True)
class Listed:
    """A certificate that was issued, and what has become of it."""

    issued: Issued
    revoked: datetime | None
    authority: str
    """`present`, `former` while that one is being replaced, or `retired`"""


class Authority:
    """The directory; files of clients may have left it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._record = Record(directory)

    def init(self, hosts: Sequence[str], days: float, *, force: bool) -> list[Written]:
        """Make the authority, unless it is there, and the server's certificate, for its former hosts if for none.

        Raises PkiError; also when the server has a certificate, without `force`.
        """
        known = [path for path in pki.paths(self.directory, "ca") if path.exists()]
        if len(known) == 1:
            raise PkiError(f"{known[0]} exists without its counterpart: restore that, or start in a new directory")
        present = [path for path in pki.paths(self.directory, "server") if path.exists()]
        if present and not force:
            raise PkiError(f"{present[0]} exists, not overwritten (--force renews the server's certificate)")
        if present and not hosts:
            hosts = pki.hosts_of(pki.read_certificate(pki.paths(self.directory, "server")[0]))
        ca = pki.load(self.directory, "ca") if known else pki.create_ca()
        server = pki.issue_server(ca, hosts, days)
        made = [] if known else [Written(ca.certificate, pki.save(ca, self.directory, "ca"))]
        return [*made, self._publish("server", server, ca, force=force)]

    def issue(self, name: str, role: str, days: float, *, force: bool) -> Written:
        """Make a client's certificate. Raises PkiError; also when its files are there, without `force`."""
        pki.check_name(name)
        ca = pki.load(self.directory, "ca")
        return self._publish(name, pki.issue_client(ca, name, role, days), ca, force=force)

    def renew(self, name: str, days: float | None) -> Written:
        """Make the certificate of a client, or of the `server`, again: for the same time as before, or `days`.

        Raises PkiError when none is known, or the last one is revoked.
        """
        ca = pki.load(self.directory, "ca")
        path, _ = pki.paths(self.directory, name)
        if name == "server":
            server = pki.read_certificate(path)
            pair = pki.issue_server(ca, pki.hosts_of(server), _days(_entry(name, server)) if days is None else days)
            return self._publish(name, pair, ca, force=True)
        pki.check_name(name)
        if not (known := self._known(name)):
            raise PkiError(f"no certificate of {name!r} is known in {self.directory}: issue one")
        last = known[-1]
        if since := self._revoked().get(last.serial):
            raise PkiError(f"the certificate of {name!r} was revoked on {since:%Y-%m-%d}: issue another with --force")
        pair = pki.issue_client(ca, name, last.role, _days(last) if days is None else days)
        return self._publish(name, pair, ca, force=True)

    def revoke(self, target: str) -> list[Issued]:
        """Revoke all of a client's certificates that have not expired, that in a file, or that with a serial number.

        Raises PkiError when no such certificate is known.
        """
        authorities = self._authorities()
        found = self._find(target, authorities)
        if any(entry.role == "server" for entry in found):
            raise PkiError(
                f"{target} is the server's, and clients read no lists: when its key is lost, rotate the authority"
            )
        with self._record.locked():
            revoked = self._revoked()
            now = datetime.now(UTC)
            for entry in found:
                if entry.serial not in revoked:
                    self._record.add(Revoked(entry.serial, now, entry.authority))
            self._write_list(authorities)
        return found

    def rotate(self) -> Written:
        """Make a new authority; the present one stays trusted beside it. Goes on where it was interrupted.

        Raises PkiError; also when the former authority has not been retired.
        """
        new_cert, new_key = pki.paths(self.directory, "new-ca")
        old_cert, _ = pki.paths(self.directory, "old-ca")
        if not new_cert.exists():
            if old_cert.exists():
                raise PkiError(f"{old_cert} exists: joblet certs retire-ca ends the rotation that is under way")
            pki.load(self.directory, "ca")
            called = f"joblet CA {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
            pki.save(pki.create_ca(called=called), self.directory, "new-ca", force=True)
        if not old_cert.exists():
            pki.save(pki.load(self.directory, "ca"), self.directory, "old-ca", force=True)
        # The key goes first, when all else is done.
        new = pki.load(self.directory, "new-ca" if new_key.exists() else "ca")
        old = pki.load(self.directory, "old-ca")
        cert, key = pki.paths(self.directory, "ca")
        self._present_list([new.certificate, old.certificate])
        with self._record.locked():
            pki.write(key, new.key_pem, 0o600, force=True)
            pki.write(cert, new.certificate_pem + old.certificate_pem, 0o644, force=True)
            if (self.directory / LIST).exists():
                self._write_list([new, old])
            for path in (new_key, new_cert):
                path.unlink(missing_ok=True)
        return Written(new.certificate, (cert, key))

    def retire(self, *, force: bool) -> Written:
        """End the trust in the former authority, and destroy its key. Goes on where it was interrupted.

        Raises PkiError when there is none, or when certificates that it has signed are in use; with `force` only when
        the server's is.
        """
        old_paths = pki.paths(self.directory, "old-ca")
        if not old_paths[0].exists():
            raise PkiError(f"no former authority in {self.directory}: joblet certs rotate-ca makes a new one")
        former = pki.read_certificate(old_paths[0])
        ca = pki.load(self.directory, "ca")
        server, _ = pki.paths(self.directory, "server")
        if server.exists() and pki.is_issued_by(pki.read_certificate(server), former):
            raise PkiError(f"{server} is of the former authority: run joblet certs renew server first")
        if (behind := self._behind()) and not force:
            raise PkiError(f"still with certificates of the former authority: {', '.join(behind)} (--force ends them)")
        paths = pki.paths(self.directory, "ca")
        self._present_list([ca.certificate, former])
        with self._record.locked():
            pki.write(paths[0], ca.certificate_pem, 0o644, force=True)
            if (self.directory / LIST).exists():
                self._write_list([ca], former)
            for path in reversed(old_paths):
                path.unlink(missing_ok=True)
        return Written(ca.certificate, paths)

    def listed(self) -> list[Listed]:
        """Every certificate that is known, oldest first. Raises PkiError."""
        signers = {}
        for name, what in (("old-ca", "former"), ("ca", "present")):
            path, _ = pki.paths(self.directory, name)
            if path.exists():
                signers[pki.key_id(pki.read_certificate(path))] = what
        revoked = self._revoked()
        return [
            Listed(entry, revoked.get(entry.serial), signers.get(entry.authority, "retired")) for entry in self._known()
        ]

    def record(self, name: str, pair: KeyPair, ca: KeyPair) -> None:
        """Know a certificate from now on that is not to lie here. Raises PkiError."""
        pki.make_directory(self.directory)
        self._record.add(Issued.of(name, pair.certificate, ca.certificate))

    def _publish(self, name: str, pair: KeyPair, ca: KeyPair, *, force: bool) -> Written:
        if not force:
            pki.check_absent(self.directory, name)
        self.record(name, pair, ca)
        return Written(pair.certificate, pki.save(pair, self.directory, name, force=force))

    def _authorities(self) -> list[KeyPair]:
        """The present one, and the former one while there is one."""
        former, _ = pki.paths(self.directory, "old-ca")
        names = ["ca", "old-ca"] if former.exists() else ["ca"]
        return [pki.load(self.directory, name) for name in names]

    def _known(self, name: str | None = None) -> list[Issued]:
        """What was issued, oldest first: by the record, and by the files of those from before there was one."""
        entries = {entry.serial: entry for entry in self._record.issued()}
        for path in sorted(self.directory.glob("*-cert.pem")):
            called = path.name.removesuffix("-cert.pem")
            if called not in ("ca", "old-ca", "new-ca") and name in (None, called):
                certificate = pki.read_certificate(path)
                entries.setdefault(certificate.serial_number, _entry(called, certificate))
        return sorted((entry for entry in entries.values() if name in (None, entry.name)), key=lambda entry: entry.at)

    def _find(self, target: str, authorities: list[KeyPair]) -> list[Issued]:
        now = datetime.now(UTC)
        known = self._known()
        if named := [entry for entry in known if entry.name == target]:
            valid = [entry for entry in named if entry.until > now]
            if not valid:
                raise PkiError(f"every certificate of {target!r} has expired")
            return valid
        path = Path(target)
        if path.is_file():
            certificate = pki.read_certificate(path)
            for ca in authorities:
                if pki.is_issued_by(certificate, ca.certificate):
                    return [Issued.of(pki.name_of(certificate), certificate, ca.certificate)]
            raise PkiError(f"{path} was not issued by the authority in {self.directory}")
        digits = target.replace(":", "")
        if _SERIAL.fullmatch(digits):
            if found := [entry for entry in known if entry.serial == int(digits, 16)]:
                return found
            if len(digits) > 16:  # no name, nor a slip: a serial number from a log
                return [Issued("", "", int(digits, 16), "", now, now)]
        raise PkiError(f"{target!r}: no such file, nor a name or serial number that is known in {self.directory}")

    def _behind(self) -> list[str]:
        """Clients with a certificate of the former authority in force, and none of the present one."""
        now = datetime.now(UTC)
        names: dict[str, bool] = {}
        for row in self.listed():
            if row.issued.role != "server" and not row.revoked and row.issued.until > now:
                names[row.issued.name] = names.get(row.issued.name, True) and row.authority == "former"
        return sorted(name for name, behind in names.items() if behind)

    def _revoked(self) -> dict[int, datetime]:
        return {entry.serial: entry.since for entry in reversed(self._record.revoked())}

    def _present_list(self, authorities: Iterable[x509.Certificate]) -> revocation.Revocations:
        path = self.directory / LIST
        if not path.exists():
            return revocation.Revocations()
        try:
            return revocation.read(path.read_bytes(), authorities)
        except (OSError, revocation.RevocationError) as error:
            raise PkiError(f"{path}: {error}: move it away, and it is made anew") from None

    def _write_list(self, signers: list[KeyPair], *others: x509.Certificate) -> None:
        """A list of each of `signers`: what the record says, and what the lists say that are there.

        Those may be of `others` too, whose own are left out.
        """
        present = self._present_list([*(ca.certificate for ca in signers), *others])
        entries = self._record.revoked()
        # By the clock, so that a list made anew, when the one before it was lost, is a newer one.
        number = max(present.number + 1, int(datetime.now(UTC).timestamp()))
        lists = []
        for ca in signers:
            own = ("", pki.key_id(ca.certificate))
            issuer = ca.certificate.subject.public_bytes()
            revoked = {serial: since for (name, serial), since in present.revoked.items() if name == issuer}
            revoked |= {entry.serial: entry.since for entry in reversed(entries) if entry.authority in own}
            lists.append(revocation.sign(ca, revoked, number))
        pki.write(self.directory / LIST, b"".join(lists), 0o644, force=True)


def _entry(name: str, certificate: x509.Certificate) -> Issued:
    """What a certificate says of itself, and so who has signed it only by the name of its key."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        authority = (extension.value.key_identifier or b"").hex()
    except x509.ExtensionNotFound:
        authority = ""
    start, end = certificate.not_valid_before_utc + pki.CLOCK_SKEW, certificate.not_valid_after_utc
    return Issued(name, pki.role_of(certificate), certificate.serial_number, authority, start, end)


def _days(entry: Issued) -> float:
    """For how long a certificate was issued."""
    return max((entry.until - entry.at).total_seconds() / 86_400, pki.MIN_DAYS)


_STATUS = {"present": "valid", "former": "valid, of the former authority", "retired": "of a retired authority"}


def last_moment(start: datetime, end: datetime) -> str:
    """The day until which a certificate is valid; of a short-lived one the time too."""
    return f"{end:%Y-%m-%d %H:%M UTC}" if end - start < _SHORT else f"{end:%Y-%m-%d}"


def columns(rows: Iterable[Listed], now: datetime) -> Iterator[str]:
    """The lines of a table, the first its head."""
    table = [("NAME", "ROLE", "SERIAL", "UNTIL", "STATUS")]
    for row in rows:
        entry = row.issued
        if row.revoked:
            status = f"revoked on {row.revoked:%Y-%m-%d}"
        elif entry.until <= now:
            status = "expired"
        else:
            status = _STATUS[row.authority]
        until = last_moment(entry.at, entry.until)
        table.append((entry.name, entry.role, serial_text(entry.serial), until, status))
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    for line in table:
        cells = [cell.ljust(width) for cell, width in zip(line, (*widths, 0), strict=True)]
        yield "  ".join(cells).rstrip()
