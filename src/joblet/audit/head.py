"""What is known apart of the last line: so a log that was cut at its end does not look whole. Blocking file work.

The head is rewritten with each line, which costs a write to memory: it outlives a killed server, as the lines do. What
a power failure may take of both is what was not flushed, so it names the line up to which all is flushed, and the boot
in which it was written. It is sealed with a key that only root can read.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
from pathlib import Path
from typing import NamedTuple

from joblet import durable
from joblet.audit.chain import START

HEAD_FILE = "audit.head"
KEY_FILE = "audit.key"
"""in the state directory"""

_SIZE = 512
"""bytes, a sector: it is written whole or not at all"""
_KEY_BYTES = 32
_SEAL = ',"seal":"'


class Head(NamedTuple):
    """The mark of a moment."""

    n: int = 0
    """the number of the last line; 0 before the first"""
    hash: str = START
    flushed: int = 0
    """the number of the last line that the disk has"""
    flushed_hash: str = START
    boot: str = ""
    """of the host: clock.boot_id"""
    closed: bool = False
    """whether the server has ended as it should, so that there is nothing behind that line"""

    def marks(self, boot: str) -> set[tuple[int, str]]:
        """The lines, by number and hash, of which one must be there.

        When the host has not been started since, that is the last; otherwise what was flushed may be all.
        """
        last = (self.n, self.hash)
        return {last} if self.boot == boot or self.closed else {last, (self.flushed, self.flushed_hash)}


def seal(head: Head, key: bytes) -> bytes:
    """As it stands in the file."""
    rest = _rest((head.flushed, head.flushed_hash), head.boot, head.closed)
    return _sealed(head.n, head.hash, rest, hmac.new(key, digestmod="sha256"))


def _rest(flushed: tuple[int, str], boot: str, closed: bool) -> str:
    """Its members but the last line's number and hash, which are others with each line."""
    number, digest = flushed
    told = "true" if closed else "false"
    return f'"flushed":{number},"flushed_hash":"{digest}","boot":"{boot}","closed":{told}'


def _sealed(number: int, digest: str, rest: str, keyed: hmac.HMAC) -> bytes:
    text = f'{{"n":{number},"hash":"{digest}",{rest}'
    mac = keyed.copy()
    mac.update(text.encode("ascii"))
    return f'{text}{_SEAL}{mac.hexdigest()}"}}'.ljust(_SIZE - 1).encode("ascii") + b"\n"


def unseal(raw: bytes, key: bytes) -> Head | None:
    """The head; None when it is none, or was not sealed with this key."""
    text, found, _ = raw.partition(_SEAL.encode())
    try:
        head = Head(**json.loads(text + b"}")) if found else None
    except (ValueError, TypeError):
        return None
    return head if head is not None and hmac.compare_digest(seal(head, key), raw) else None


class Seal:
    """The head and its key, in a state directory that this process holds. The mutable state is the head in its file."""

    def __init__(self, state_dir: Path) -> None:
        """Raises OSError."""
        self._key = b""
        self._fd = -1
        self.fault = ""
        """what is wrong with what an earlier server has left"""
        self.head: Head | None = self._load(state_dir)
        """as it was found"""
        self._keyed = hmac.new(self._key, digestmod="sha256")  # to begin one takes OpenSSL longer than to copy it
        self._rest = ""

    def settle(self, flushed: tuple[int, str], boot: str, *, closed: bool = False) -> None:
        """What each head tells, from now on, beside the last line; before the first one is written."""
        self._rest = _rest(flushed, boot, closed)

    def write(self, number: int, digest: str) -> None:
        """The last line has this number and this hash. Raises OSError."""
        os.pwrite(self._fd, _sealed(number, digest, self._rest, self._keyed), 0)

    def sync(self) -> None:
        """Wait until the disk has what was written. Raises OSError."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Write no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _load(self, state_dir: Path) -> Head | None:
        path, key_path = state_dir / HEAD_FILE, state_dir / KEY_FILE
        known = key_path.exists()
        self._key = key_path.read_bytes() if known else os.urandom(_KEY_BYTES)
        if len(self._key) != _KEY_BYTES:
            self.fault = f"{KEY_FILE} is damaged"
            self._key, known = os.urandom(_KEY_BYTES), False
        raw = path.read_bytes() if path.exists() else b""
        head = unseal(raw, self._key) if known else None
        if known and head is None:
            self.fault = f"{HEAD_FILE} is {'damaged' if raw else 'missing'}"
        elif not known and raw and not self.fault and not _is_first(raw):
            self.fault = f"{KEY_FILE} is missing"
        if head is None:  # the head first: without it, the key would tell of a log that there has been
            durable.replace(path, seal(Head(), self._key))
            durable.replace(key_path, self._key)
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        return head


def read(state_dir: Path) -> tuple[Head | None, str]:
    """The head, for who only looks, and what is wrong when there is none. Raises OSError but for absent files."""
    raw: dict[str, bytes] = {}
    for name in (KEY_FILE, HEAD_FILE):
        with contextlib.suppress(FileNotFoundError):
            raw[name] = (state_dir / name).read_bytes()
    if KEY_FILE not in raw and HEAD_FILE not in raw:
        return None, ""
    for name in (KEY_FILE, HEAD_FILE):
        if name not in raw:
            return None, f"{state_dir / name} is missing"
    head = unseal(raw[HEAD_FILE], raw[KEY_FILE])
    return head, "" if head else f"{state_dir / HEAD_FILE} is damaged, or sealed with another key"


def _is_first(raw: bytes) -> bool:
    """Whether a server was killed between making this and the key."""
    return raw.startswith(b'{"n":0,')
