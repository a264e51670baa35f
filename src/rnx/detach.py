"""The keys that leave a job's terminal: found among what is typed, which all else goes on to the job."""

from __future__ import annotations

from joblet.command_line import Failure

DEFAULT = "ctrl-p,ctrl-q"


def keys_of(text: str) -> bytes:
    """The bytes that `ctrl-p,ctrl-q` or `ctrl-],x` stand for; empty for none. Raises Failure."""
    keys = bytearray()
    for name in text.split(",") if text else ():
        control = name[5:].upper() if name[:5].lower() == "ctrl-" else ""
        if len(name) == 1 and " " <= name <= "~":
            keys += name.encode()
        elif len(control) == 1 and "@" <= control <= "_":
            keys.append(ord(control) - ord("@"))
        else:
            raise Failure(f'no key to detach with: "{name}" (write for example "{DEFAULT}" or "ctrl-],x")')
    return bytes(keys)


class Detacher:
    """Looks for the keys. The mutable state is what may be the beginning of them, and waits for the next key."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = bytearray()
        self.found = False

    def feed(self, typed: bytes) -> bytes:
        """What of this, and of what was held back, is the job's. Once the keys are `found`, nothing after them."""
        if not self._keys:
            return typed
        passed = bytearray()
        for byte in typed:
            self._held.append(byte)
            while not self._keys.startswith(bytes(self._held)):
                passed.append(self._held.pop(0))
            if len(self._held) == len(self._keys):
                self.found = True
                break
        return bytes(passed)
