"""Values that are on disk in sealed form only: the environment that nobody but its job may see."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from joblet import durable
from joblet.errors import StoreFailed, StoreFull

KEY_FILE = "secret.key"
"""in the state directory"""

_KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = b"\x01"
"""AES-256-GCM: this byte, which is authenticated too, the nonce, what was sealed with its tag"""


class Sealer:
    """Seals and opens with one key."""

    def __init__(self, key: bytes) -> None:
        """`key`: 32 random bytes, as `load_key` gives them."""
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes) -> bytes:
        """What only this key opens; another each time."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, _VERSION)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed. Raises StoreFailed when that was with another key, or it has been changed since."""
        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if sealed[:1] != _VERSION or len(nonce) != _NONCE_BYTES:
            raise StoreFailed("a secret is not sealed in a way that this joblet knows")
        try:
            return self._cipher.decrypt(nonce, rest, _VERSION)
        except InvalidTag:
            raise StoreFailed(f"a secret cannot be opened: it was sealed with another {KEY_FILE}") from None

    def seal_all(self, values: Mapping[str, str]) -> bytes | None:
        """The sealed form of a secret environment; None for an empty one."""
        return self.seal(json.dumps(dict(values)).encode()) if values else None


class Secrets(Mapping[str, str]):
    """A secret environment as it is stored: its names are known, its values are opened when one is asked for.

    Asking for a value raises StoreFailed when they cannot be opened. Whoever shows a job needs its names only.
    """

    __slots__ = ("_names", "_sealed", "_sealer", "_values")

    def __init__(self, sealer: Sealer, names: tuple[str, ...], sealed: bytes) -> None:
        self._sealer = sealer
        self._names = names
        self._sealed = sealed
        self._values: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        if self._values is None:
            self._values = json.loads(self._sealer.open(self._sealed))
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._names)})"


def load_key(path: Path) -> bytes:
    """The key in the file at `path`, which is made if there is none. Raises StoreFailed.

    The caller holds the directory, so that nobody else makes one at the same time. Without the key that they were
    sealed with, secrets stay closed for ever.
    """
    try:
        if not path.exists():
            durable.replace(path, os.urandom(_KEY_BYTES))
        key = path.read_bytes()
    except OSError as error:
        full = isinstance(error.errno, int) and error.errno == 28
        raise (StoreFull if full else StoreFailed)(f"{path}: {error.strerror}") from error
    if len(key) != _KEY_BYTES:
        raise StoreFailed(f"{path} is {len(key)} bytes long, a key is {_KEY_BYTES}")
    return key
