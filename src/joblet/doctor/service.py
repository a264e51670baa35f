"""The server's configuration, its certificates, and whether it runs."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from joblet import config, pki
from joblet.config import ConfigError
from joblet.doctor.context import Context, existing
from joblet.doctor.report import AS_ROOT, Checks, Row, Verdict, unknown
from joblet.revocation import Revocations
from joblet.server.settings import policy
from joblet.server.tls import read_authorities, read_revocations, server_context

_SOON = timedelta(days=30)
_PATIENCE = 5.0
"""seconds for a server to answer"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What there is to judge of one."""

    start: datetime
    end: datetime
    issued_by_ca: bool


def checks(context: Context) -> Checks:
    """The section's checks by name."""
    if context.config_error and os.path.lexists(context.config_path):
        return {"configuration": lambda: _configuration(context)}  # which says where the others are
    return {
        "configuration": lambda: _configuration(context),
        "certificates": lambda: _certificates(context),
        "tls": lambda: _tls(context),
        "server": lambda: _server(context),
    }


def _configuration(context: Context) -> Row:
    path = context.config_path
    try:
        mode = path.stat().st_mode
        secret = context.config.security.serverKey
        trouble = context.config_error or _why_no_policy(context.config)
        return judge_configuration(path, mode, trouble, holds_key=config.is_pem(secret))
    except FileNotFoundError:
        return judge_configuration(path, None, "", holds_key=False)
    except OSError as error:
        return Row("configuration", f"{path}: {error.strerror}", "settings", Verdict.NOTE, AS_ROOT)


def _why_no_policy(settings: config.Config) -> str:
    try:
        policy(settings)
    except (ConfigError, OSError) as error:
        return str(error)
    return ""


def judge_configuration(path: Path, mode: int | None, trouble: str, *, holds_key: bool) -> Row:
    """`mode` is None when the file is absent."""
    if mode is None:
        advice = f"Copy deploy/joblet-config.yml to {path}, or name the file with --config."
        use = "joblet serve needs it; this examination takes the defaults"
        verdict = Verdict.GAP if path == config.DEFAULT_PATH else Verdict.FAILS
        return Row("configuration", f"{path}: not there", use, verdict, advice)
    if trouble:
        if trouble.endswith(os.strerror(13)):
            return Row("configuration", trouble, "settings", Verdict.NOTE, AS_ROOT)
        advice = "Correct the file: the server does not start with it."
        return Row("configuration", trouble.replace("\n", "; "), "settings", Verdict.FAILS, advice)
    if holds_key and mode & 0o077:
        advice = f"Run chmod 600 {path}."
        return Row("configuration", f"{path}: mode {mode & 0o777:o}, with a key", "settings", Verdict.FAILS, advice)
    return Row("configuration", str(path), "settings")


def _base(context: Context) -> Path:
    return context.config_path.absolute().parent


def _certificates(context: Context) -> list[Row]:
    security, base = context.config.security, _base(context)
    paths = [
        base / value for value in (security.caCert, security.serverCert, security.serverKey) if not config.is_pem(value)
    ]
    if len(paths) == 3 and not any(os.path.lexists(path) for path in paths) and os.access(existing(paths[0]), os.X_OK):
        return [judge_absence("certificates", f"none in {paths[0].parent}", paths[0].parent, context.configured)]
    rows = [_certificate(context, "caCert"), _certificate(context, "serverCert"), _key(context)]
    return [*rows, *_revocations(context)]


def _revocations(context: Context) -> list[Row]:
    """Nothing where no list is asked for, or what it is to be judged by is in rows of its own."""
    security, base = context.config.security, _base(context)
    use = "tells which clients may not connect any more"
    try:
        read = read_revocations(security, base, read_authorities(security, base))
    except ConfigError as error:
        if not str(error).startswith("security.revocationList"):
            return []
        advice = "The server does not start with it: copy the list again, or write it anew with joblet certs revoke."
        return [Row("revocations", str(error), use, Verdict.FAILS, advice)]
    if read == Revocations():
        return []
    return [judge_revocations(len(read.revoked), read.until, datetime.now(UTC))]


def judge_revocations(count: int, until: datetime | None, now: datetime) -> Row:
    """`until` is when the list wants to be replaced."""
    use = "tells which clients may not connect any more"
    host = f"{count} certificates revoked" + (f", until {until:%Y-%m-%d}" if until else "")
    if until and now > until:
        return Row("revocations", host, use, Verdict.GAP, "It still counts; have its authority write a newer one.")
    return Row("revocations", host, use)


def judge_absence(label: str, host: str, directory: Path, configured: bool) -> Row:
    """The server does not start without; a gap only where nobody has set one up yet."""
    verdict = Verdict.FAILS if configured else Verdict.GAP
    return Row(label, host, "joblet serve needs it", verdict, f"Run joblet certs init --dir {directory}.")


def _certificate(context: Context, setting: str) -> Row:
    label = "authority" if setting == "caCert" else "certificate"
    value, base = getattr(context.config.security, setting), _base(context)
    source: str | Path = value if config.is_pem(value) else base / value
    name = "PEM text" if config.is_pem(value) else str(source)
    if isinstance(source, Path) and (row := _unreadable(context, label, source)):
        return row
    try:
        certificate = pki.read_certificate(source)
        issuer = context.config.security.caCert
        authorities = pki.read_certificates(issuer if config.is_pem(issuer) else base / issuer)
    except pki.PkiError as error:
        advice = "Restore the file, or make another with joblet certs init."
        return Row(label, str(error), _CERTIFICATE_USE[label], Verdict.FAILS, advice)
    found = Certificate(
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        setting == "caCert" or any(pki.is_issued_by(certificate, authority) for authority in authorities),
    )
    return judge_certificate(label, name, found, datetime.now(UTC))


_CERTIFICATE_USE = {"authority": "tells whose clients may connect", "certificate": "shown to clients"}


def judge_certificate(label: str, name: str, found: Certificate, now: datetime) -> Row:
    use = _CERTIFICATE_USE[label]
    renew = "Make a new authority: joblet certs rotate-ca" if label == "authority" else "Run joblet certs renew server"
    host = f"{name}, until {found.end:%Y-%m-%d}"
    if now > found.end:
        return Row(label, f"{name}, expired on {found.end:%Y-%m-%d}", use, Verdict.FAILS, f"{renew}.")
    if now < found.start:
        advice = "Set the clock, or make the certificate again."
        return Row(label, f"{name}, valid only from {found.start:%Y-%m-%d %H:%M} UTC", use, Verdict.FAILS, advice)
    if not found.issued_by_ca:
        advice = "Clients that trust security.caCert refuse it: put the certificate's own authority there or renew it."
        return Row(label, f"{name}, of another authority", use, Verdict.GAP, advice)
    if now > found.end - _SOON:
        return Row(label, host, use, Verdict.GAP, f"{renew} before that day.")
    return Row(label, host, use)


def _unreadable(context: Context, label: str, path: Path) -> Row | None:
    """The row of a file that is absent or closed to the caller."""
    try:
        with open(path, "rb"):
            return None
    except FileNotFoundError:
        return judge_absence(label, f"{path}: not there", path.parent, context.configured)
    except PermissionError:
        return unknown(label, _CERTIFICATE_USE[label])
    except OSError as error:
        return Row(label, f"{path}: {error.strerror}", "joblet serve needs it", Verdict.FAILS, "Restore the file.")


def _key(context: Context) -> Row:
    value = context.config.security.serverKey
    use = "proves that the server is the certificate's"
    if config.is_pem(value):
        return Row("key", "PEM text in the configuration", use)
    path = _base(context) / value
    try:
        status = path.stat()
    except FileNotFoundError:
        return judge_absence("key", f"{path}: not there", path.parent, context.configured)
    except OSError:
        return unknown("key", use)
    return judge_key(path, status.st_uid, status.st_mode, (path.parent / "ca-key.pem").exists())


def judge_key(path: Path, owner: int, mode: int, has_ca_key: bool) -> Row:
    use = "proves that the server is the certificate's"
    if owner != 0 or stat.S_IMODE(mode) & 0o077:
        advice = f"Run chown root {path} and chmod 600 {path}, and renew it if others may have read it."
        host = f"{path}: mode {stat.S_IMODE(mode):o} of user {owner}"
        return Row("key", host, use, Verdict.FAILS, advice)
    if has_ca_key:
        advice = f"Move {path.parent}/ca-key.pem to another machine: whoever has it can make an admin."
        return Row("key", f"{path}, and the authority's key beside it", use, Verdict.NOTE, advice)
    return Row("key", f"{path}, for root only", use)


def _tls(context: Context) -> list[Row]:
    """Nothing when the files are not all there to be read: their own rows say so."""
    security, base = context.config.security, _base(context)
    values = (security.caCert, security.serverCert, security.serverKey)
    if not all(config.is_pem(value) or os.access(base / value, os.R_OK) for value in values):
        return []
    use = f"TLS {security.minTlsVersion} or newer, both sides with certificates"
    try:
        server_context(security, base)
    except ConfigError as error:
        advice = "Correct security in the configuration, or make the files again with joblet certs init --force."
        return [Row("tls", str(error), use, Verdict.FAILS, advice)]
    return [Row("tls", "certificate and key belong together", use)]


def _server(context: Context) -> Row:
    address, port = context.config.server.address, context.config.server.port
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if port == 0:
        return Row("server", "the configuration lets it choose a port", "not to be found")
    try:
        return judge_server(name, _greet(host, port), "")
    except OSError as error:
        return judge_server(name, None, error.strerror or str(error))


def _greet(host: str, port: int) -> str:
    """Shake hands without a certificate of our own, as the server allows; the protocol it speaks then."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Whether it is the right certificate is the clients' question; this one asks whether anybody is there.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, port), timeout=_PATIENCE) as plain, context.wrap_socket(plain) as channel:
        return channel.selected_alpn_protocol() or ""


def judge_server(name: str, protocol: str | None, trouble: str) -> Row:
    """`protocol` agreed in the handshake, None when there was none."""
    use = "takes jobs"
    if protocol == "h2":
        return Row("server", f"answers at {name}", use)
    if protocol is not None:
        advice = "Stop what listens there, or set server.port to another."
        return Row("server", f"something else answers at {name}", use, Verdict.GAP, advice)
    advice = "Start it: systemctl enable --now joblet."
    return Row("server", f"does not answer at {name}: {trouble[:1].lower()}{trouble[1:]}", use, Verdict.NOTE, advice)
