"""The record of what an authority has issued and revoked: a line of JSON each, only ever added to."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from joblet import pki

if sys.platform != "win32":
    import fcntl

NAME = "issued.jsonl"
T = TypeVar("T")


@dataclass(frozen=True)
class Issued:
    """A certificate that was issued."""

    name: str
    role: str
    """`server` for the server's"""
    serial: int
    authority: str
    """the key of who signed it: pki.key_id"""
    at: datetime
    until: datetime

    @property
    def serial_text(self) -> str:
        """The serial number as it is shown."""
        return serial_text(self.serial)

    @classmethod
    def of(cls, name: str, certificate: x509.Certificate, authority: x509.Certificate) -> Issued:
        """The entry of a certificate whose files are called after `name`."""
        return cls(
            name,
            pki.role_of(certificate),
            certificate.serial_number,
            pki.key_id(authority),
            certificate.not_valid_before_utc + pki.CLOCK_SKEW,
            certificate.not_valid_after_utc,
        )


@dataclass(frozen=True)
class Revoked:
    """A certificate that is not to be accepted any more."""

    serial: int
    since: datetime
    authority: str
    """the key of who signed it, or empty where that is not known"""


def serial_text(serial: int) -> str:
    """40 hexadecimal digits; openssl leaves out zeros at their beginning."""
    return f"{serial:040X}"


class Record:
    """The file of a directory. A line is on disk before the certificate it tells of is anywhere."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from the directory until the end, so that none overwrites what another has written."""
        descriptor = self._open()
        try:
            if sys.platform != "win32":
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def add(self, entry: Issued | Revoked) -> None:
        """Write an entry, to disk. Raises PkiError."""
        values: dict[str, str]
        if isinstance(entry, Issued):
            values = {"at": _text(entry.at), "issued": entry.name, "role": entry.role, "serial": entry.serial_text}
            values |= {"authority": entry.authority, "until": _text(entry.until)}
        else:
            values = {"at": _text(entry.since), "revoked": serial_text(entry.serial), "authority": entry.authority}
        line = json.dumps(values).encode() + b"\n"
        descriptor = self._open()
        try:
            # A line that a crash has cut short must not swallow this one.
            if self._path.read_bytes()[-1:] not in (b"", b"\n"):
                line = b"\n" + line
            if os.write(descriptor, line) < len(line):
                raise pki.PkiError(f"cannot write {self._path}: {os.strerror(errno.ENOSPC)}")
            os.fsync(descriptor)
        except OSError as error:
            raise pki.PkiError(f"cannot write {self._path}: {error.strerror}") from None
        finally:
            os.close(descriptor)

    def issued(self) -> list[Issued]:
        """What was issued, oldest first. Raises PkiError for a line that is whole and cannot be understood."""
        return self._entries("issued", _read_issued)

    def revoked(self) -> list[Revoked]:
        """What was revoked, oldest first. Raises PkiError for a line that is whole and cannot be understood."""
        return self._entries("revoked", _read_revoked)

    def _entries(self, kind: str, read: Callable[[dict[str, str]], T]) -> list[T]:
        """Those of a kind. A line that a crash has cut short is left out: its certificate was never written."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise pki.PkiError(f"cannot read {self._path}: {error.strerror}") from None
        entries = []
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
            except ValueError:
                continue
            try:
                if kind in values:
                    entries.append(read(values))
            except (KeyError, TypeError, ValueError):
                raise pki.PkiError(f"{self._path}: line {number} is none that joblet has written") from None
        return entries

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            raise pki.PkiError(f"cannot write {self._path}: {error.strerror}") from None


def _read_issued(values: dict[str, str]) -> Issued:
    return Issued(
        values["issued"],
        values["role"],
        int(values["serial"], 16),
        values["authority"],
        _instant(values["at"]),
        _instant(values["until"]),
    )


def _read_revoked(values: dict[str, str]) -> Revoked:
    return Revoked(int(values["revoked"], 16), _instant(values["at"]), values["authority"])


def _text(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def _instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
