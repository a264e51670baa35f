"""From what went wrong on a connection to the one sentence that helps."""

from __future__ import annotations

import os
import re
import socket
import ssl
from datetime import UTC, datetime

from joblet.client._tls import read_pem
from joblet.client.config import ClientConfig, is_pem
from joblet.client.errors import CertificateRejected, ConnectionFailed, ConnectionLost, SettingsError

_ALERT = re.compile(r"(?:TLSV1|SSLV3|TLSV13)_ALERT_(\w+)")
_UNKNOWN = "the server does not know the CA of the client certificate: have another one issued by the server's CA"
_ALERTS = {
    "CERTIFICATE_EXPIRED": "certificate has expired",
    "UNKNOWN_CA": _UNKNOWN,
    "BAD_CERTIFICATE": "the server finds the client certificate bad",
    "DECRYPT_ERROR": _UNKNOWN,
    "UNSUPPORTED_CERTIFICATE": "the server does not accept this kind of client certificate",
    "CERTIFICATE_REVOKED": "the client certificate is revoked: have another one issued",
    "CERTIFICATE_UNKNOWN": "the server does not accept the client certificate",
    "CERTIFICATE_REQUIRED": "the server requires a client certificate",
    "ACCESS_DENIED": "the server does not accept the client certificate",
}
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_UNTRUSTED = {2, 18, 19, 20, 21}  # no issuer certificate, or a self-signed one that is not ours: verify(1ssl)


def explain_connect(error: Exception, config: ClientConfig) -> ConnectionFailed:
    """Why the connection could not be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_server_certificate(error, config)
    if isinstance(error, ssl.SSLError):
        alert = _explain_alert(error)
        return alert or _cannot_connect(config, f"TLS handshake failed: {_reason(error)}")
    if isinstance(error, TimeoutError):
        return _cannot_connect(config, f"no answer within {config.connect_timeout:g} s")
    if isinstance(error, socket.gaierror):
        return _cannot_connect(config, f"host name not resolved ({error.strerror})")
    if isinstance(error, UnicodeError):
        return _cannot_connect(config, "not a valid host name")
    if isinstance(error, ConnectionRefusedError):
        return _cannot_connect(config, "connection refused")
    if isinstance(error, ConnectionResetError | ConnectionAbortedError):
        # Before TLS 1.3 a server judges the client's certificate within the handshake, and may just hang up.
        return explain_own_certificate(config) or _cannot_connect(config, "connection closed during the TLS handshake")
    return _cannot_connect(config, _os_reason(error))


def explain_loss(cause: Exception | None, config: ClientConfig, *, answered: bool) -> ConnectionFailed:
    """Why a connection ended. `answered` says whether the server had sent anything on it.

    With TLS 1.3 the client's handshake is over before the server has seen its certificate: a refusal arrives as an
    alert, or as a bare hang-up, when the first call is already under way.
    """
    alert = _explain_alert(cause) if isinstance(cause, ssl.SSLError) else None
    if alert or not answered:
        refusal = explain_own_certificate(config) or alert
        if refusal:
            return refusal
    where = _place(*config.address)
    if not answered:
        return ConnectionLost(
            f"connection to {where} closed before any answer: the server may not accept the client certificate "
            "(if its CA is another one now, have another one issued)"
        )
    if cause is None:
        return ConnectionLost(f"connection to {where} closed by the server")
    return ConnectionLost(
        f"connection to {where} lost: {_reason(cause) if isinstance(cause, ssl.SSLError) else _os_reason(cause)}"
    )


def explain_nonsense(config: ClientConfig) -> ConnectionFailed:
    """What answers is something else."""
    return _cannot_connect(config, "what answers there does not speak gRPC")


def explain_own_certificate(config: ClientConfig) -> CertificateRejected | None:
    """What a server would hold against the client's own certificate: its dates, its issuer."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        own, *chain = x509.load_pem_x509_certificates(read_pem(config.cert, "client certificate").encode())
        authorities = x509.load_pem_x509_certificates(read_pem(config.ca, "CA certificate").encode())
    except (ValueError, SettingsError):
        return None
    now = datetime.now(UTC)
    if own.not_valid_after_utc < now:
        return CertificateRejected("certificate verify failed: certificate has expired")
    if own.not_valid_before_utc > now:
        return CertificateRejected("certificate verify failed: certificate is not yet valid")
    for authority in (*chain, *authorities):
        try:
            own.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return None
    return CertificateRejected(
        f"certificate verify failed: client certificate{_file(config.cert)} is not signed by the CA{_file(config.ca)}: "
        "have one issued by the server's CA"
    )


def _explain_server_certificate(error: ssl.SSLCertVerificationError, config: ClientConfig) -> CertificateRejected:
    text = error.verify_message.rstrip(".")
    if error.verify_code in _UNTRUSTED:
        text = f"the server's certificate is not signed by the CA{_file(config.ca)}: get the server's CA certificate"
    elif error.verify_code == _EXPIRED:
        text += " (the server's): have it renewed there (joblet certs renew server)"
    return CertificateRejected(f"certificate verify failed: {text}")


def _explain_alert(error: ssl.SSLError) -> CertificateRejected | None:
    match = _ALERT.search(error.reason or "")
    text = _ALERTS.get(match[1]) if match else None
    return CertificateRejected(f"certificate verify failed: {text}") if text else None


def _cannot_connect(config: ClientConfig, reason: str) -> ConnectionFailed:
    return ConnectionFailed(f"cannot connect to {_place(*config.address)}: {reason}")


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _file(setting: str) -> str:
    return "" if is_pem(setting) else f" in {setting}"


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "").lower().replace("_", " ") or str(error)


def _os_reason(error: Exception) -> str:
    """The reason in words. Where several addresses were tried asyncio gives the reasons only inside its text."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        numbers = re.findall(r"\[Errno (\d+)\]", str(error))
        number = int(numbers[-1]) if numbers else None
    reason = os.strerror(number) if number is not None else str(error)
    return reason[:1].lower() + reason[1:] if reason else type(error).__name__
