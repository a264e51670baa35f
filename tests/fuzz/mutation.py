"""Changes to bytes, drawn from a seed: the same seed makes the same ones."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

EDGES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63,
    2**64 - 1,
)
"""numbers at which something ends"""


def _flip(rng: Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _replace(rng: Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def _insert(rng: Random, data: bytearray) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.choice((1, 2, 4, 30, 300)))


def _repeat(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randint(1, 64)]
    data[start:start] = piece * rng.choice((1, 2, 10, 100))


def _remove(rng: Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 4, 16))]


def _cut(rng: Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _number(rng: Random, data: bytearray) -> None:
    """An edge where a number may stand."""
    start, width = rng.randrange(len(data)), rng.choice((1, 2, 3, 4, 8))
    number = rng.choice(EDGES) & (1 << 8 * width) - 1
    data[start : start + width] = number.to_bytes(width, rng.choice(("big", "little")))


def _swap(rng: Random, data: bytearray) -> None:
    one, other = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    data[:] = data[other:] + data[one:other] + data[:one]


_WAYS: tuple[Callable[[Random, bytearray], None], ...] = (
    *(_flip, _flip, _replace, _insert, _repeat),
    *(_remove, _cut, _number, _number, _swap),
)


def mutate(rng: Random, data: bytes, most: int = 4) -> bytes:
    """The bytes after one to `most` changes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        if changed:
            rng.choice(_WAYS)(rng, changed)
    return bytes(changed)


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    written = b""
    while number > 0x7F:
        written += bytes([number & 0x7F | 0x80])
        number >>= 7
    return written + bytes([number])
