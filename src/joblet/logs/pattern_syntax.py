"""The text of a regular expression, read: as Python's re of bytes, without what needs memory of what was matched.

The beginning and the end of a line are symbols, once each: `^^` matches nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BEGIN, END = 256, 257
"""of a line, as symbols beside its bytes"""
SYMBOLS = 258

_LONGEST = 1000
_DEEPEST = 40
_REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}|\{,(\d+)\}")
_CLASSES = {"d": rb"\d", "w": rb"\w", "s": rb"\s", "D": rb"\D", "W": rb"\W", "S": rb"\S"}
_CONTROLS = {"t": 9, "r": 13, "f": 12, "v": 11, "a": 7}
_NEWLINE = 1 << 10
_ANY = (1 << 256) - 1 & ~_NEWLINE


@dataclass(frozen=True, slots=True)
class Set:
    """One symbol of these, a bit each."""

    symbols: int

    @property
    def byte(self) -> int | None:
        """The only byte that it can be."""
        number = self.symbols.bit_length() - 1
        return number if self.symbols == 1 << number and number < BEGIN else None


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Any of them."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """So many times; `most` None is any number."""

    node: Node
    least: int
    most: int | None


Node = Set | Sequence | Alternatives | Repeat


def parse(text: str) -> tuple[Node, bytes | None]:
    """The expression, and the bytes that it is when it has nothing but plain characters. Raises ValueError."""
    if len(text) > _LONGEST:
        raise ValueError(f"longer than {_LONGEST} characters")
    reader = _Reader(text)
    node = reader.alternatives(0)
    if reader.more:
        raise reader.error("unbalanced )")
    nodes = node.nodes if isinstance(node, Sequence) else (node,)
    plain = [each.byte for each in nodes if isinstance(each, Set)]
    known = [byte for byte in plain if byte is not None]
    return node, bytes(known) if len(known) == len(nodes) else None


class _Reader:
    """The mutable state is the place in the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._any_case = text.startswith("(?i)")
        if self._any_case:
            self._place = 4

    @property
    def more(self) -> bool:
        return self._place < len(self._text)

    def error(self, what: str) -> ValueError:
        return ValueError(f"{what} at character {self._place + 1}")

    def alternatives(self, depth: int) -> Node:
        if depth > _DEEPEST:
            raise self.error(f"more than {_DEEPEST} groups in one another")
        found = [self._sequence(depth)]
        while self._take("|"):
            found.append(self._sequence(depth))
        return found[0] if len(found) == 1 else Alternatives(tuple(found))

    def _sequence(self, depth: int) -> Node:
        nodes: list[Node] = []
        while self.more and self._text[self._place] not in "|)":
            nodes += self._repeated(self._atom(depth))
        return nodes[0] if len(nodes) == 1 else Sequence(tuple(nodes))

    def _take(self, word: str) -> bool:
        found = self._text.startswith(word, self._place)
        self._place += len(word) if found else 0
        return found

    def _next(self) -> str:
        if not self.more:
            raise self.error("unexpected end")
        self._place += 1
        return self._text[self._place - 1]

    def _repeated(self, atom: list[Node]) -> list[Node]:
        """The atom with what says how often. A character of several bytes is one."""
        bounds = self._bounds()
        if bounds is None:
            return atom
        self._take("?")  # as little as possible: it matters only to who wants to know where
        if self._bounds() is not None or self._text.startswith("+", self._place):
            raise self.error("repetition of a repetition")
        return [Repeat(atom[0] if len(atom) == 1 else Sequence(tuple(atom)), *bounds)]

    def _bounds(self) -> tuple[int, int | None] | None:
        for word, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(word):
                return bounds
        found = _REPEAT.match(self._text, self._place)
        if not found:
            return None
        self._place = found.end()
        exact, most, only_most = found.groups()
        least = int(exact or 0)
        upper = int(only_most) if only_most else least if most is None else int(most) if most else None
        if upper is not None and upper < least:
            raise self.error("the least repetition is above the most")
        return least, upper

    def _atom(self, depth: int) -> list[Node]:
        character = self._next()
        if character == "(":
            if self._take("?") and not self._take(":"):
                raise self.error("only (?:...) and a leading (?i) are known of what begins with (?")
            node = self.alternatives(depth + 1)
            if not self._take(")"):
                raise self.error("missing )")
            return [node]
        if character in "*+?" or (character == "{" and _REPEAT.match(self._text, self._place - 1)):
            raise self.error("nothing to repeat")
        if character == "[":
            return [self._class()]
        if character in "^$":
            return [Set(1 << (BEGIN if character == "^" else END))]
        if character == ".":
            return [Set(_ANY)]
        if character == "\\":
            return [self._set(self._escape())]
        return [self._set(1 << byte) for byte in self._bytes(character)]

    def _set(self, symbols: int) -> Set:
        if self._any_case:
            for upper in range(ord("A"), ord("Z") + 1):
                if symbols >> upper & 1 or symbols >> (upper + 32) & 1:
                    symbols |= 1 << upper | 1 << (upper + 32)
        return Set(symbols)

    def _bytes(self, character: str) -> bytes:
        return self._checked(character.encode())

    def _checked(self, encoded: bytes) -> bytes:
        if b"\n" in encoded:
            raise self.error("a line end, which no line holds,")
        return encoded

    def _escape(self) -> int:
        character = self._next()
        if character in _CLASSES:
            return sum(1 << byte for byte in range(256) if re.match(_CLASSES[character], bytes([byte])))
        if character in _CONTROLS:
            return 1 << _CONTROLS[character]
        if character == "x":
            digits = self._text[self._place : self._place + 2]
            if not re.fullmatch("[0-9a-fA-F]{2}", digits):
                raise self.error("\\x without two hexadecimal digits")
            self._place += 2
            return 1 << self._checked(bytes.fromhex(digits))[0]
        if not character.isascii() or character.isalnum():
            raise self.error(f"unknown \\{character}")
        return 1 << ord(character)

    def _class(self) -> Set:
        negated = self._take("^")
        symbols = 0
        first = True
        while first or not self._text.startswith("]", self._place):
            low = self._member()
            if self._text.startswith("-", self._place) and self._text[self._place + 1 : self._place + 2] not in (
                "",
                "]",
            ):
                self._place += 1
                symbols |= self._range(low, self._member())
            else:
                symbols |= low
            first = False
        self._place += 1
        symbols = self._set(symbols).symbols
        return Set(_ANY & ~symbols if negated else symbols)

    def _member(self) -> int:
        character = self._next()
        if character == "\\":
            return self._escape()
        encoded = self._bytes(character)
        if len(encoded) > 1:
            raise self.error("a character that is not ASCII between [ and ]")
        return 1 << encoded[0]

    def _range(self, low: int, high: int) -> int:
        first, last = low.bit_length() - 1, high.bit_length() - 1
        if low != 1 << first or high != 1 << last or first > last:
            raise self.error("not a range")
        return (1 << (last + 1)) - (1 << first)
