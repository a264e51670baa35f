"""Regular expressions whose matching takes time in proportion to the text, whatever they are.

Python's own go back and try again, which a short expression can make to take for ever. These do not: an expression
becomes an automaton (Glushkov's, a bit for each of its places) whose states are made as the text calls for them. It
tells whether a line matches anywhere, and nothing of where; so there are no groups to refer to.
"""

from __future__ import annotations

from joblet.logs.pattern_syntax import BEGIN, END, SYMBOLS, Alternatives, Node, Repeat, Sequence, Set, parse

_PLACES = 200
"""of one expression; each costs time for every byte at worst"""
_NODES = 2000
_STATES = 500
"""kept at a time: 2 KB each"""


class Pattern:
    """An expression to look for in lines. The mutable state is the automaton's states so far; for one thread."""

    def __init__(self, text: str) -> None:
        """Raises ValueError with what is wrong with the text."""
        node, self.literal = parse(text)
        self.needle = self.literal if self.literal is not None else _longest_literal(node)
        """bytes that every line which matches holds"""
        self._places: list[int] = []
        self._follow: list[int] = []
        self._left = _NODES
        empty, self._first, self._last = self._build(node)
        self._by_symbol = [
            sum(1 << place for place, symbols in enumerate(self._places) if symbols >> symbol & 1)
            for symbol in range(SYMBOLS)
        ]
        self._accept = _State(-1)
        self._states: dict[int, _State] = {}
        self._start = self._accept if empty else self._step(_State(0), BEGIN)

    def matches(self, line: bytes) -> bool:
        """Whether it is somewhere in the line, which is without its end."""
        state = self._start
        accept = self._accept
        for byte in line:
            if state is accept:
                return True
            state = state.next[byte] or self._step(state, byte)
        return state is accept or self._step(state, END) is accept

    def _step(self, state: _State, symbol: int) -> _State:
        """Where a symbol leads; a match may begin with each."""
        if state.reach < 0:
            state.reach = self._first
            for place, following in enumerate(self._follow):
                if state.places >> place & 1:
                    state.reach |= following
        places = state.reach & self._by_symbol[symbol]
        if places & self._last:
            found: _State | None = self._accept
        else:
            found = self._states.get(places)
        if found is None:
            if len(self._states) >= _STATES:
                self._forget()
            found = self._states[places] = _State(places)
        state.next[symbol] = found
        return found

    def _forget(self) -> None:
        """No state leads to another any more, so that those which are not made again go."""
        for each in self._states.values():
            each.next = [None] * SYMBOLS
        self._states = {self._start.places: self._start}

    def _build(self, node: Node) -> tuple[bool, int, int]:
        """Whether nothing matches it, and the places with which it can begin and end."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("too large when its repetitions are written out")
        if isinstance(node, Set):
            place = len(self._places)
            if place == _PLACES:
                raise ValueError(f"more than {_PLACES} characters when its repetitions are written out")
            self._places.append(node.symbols)
            self._follow.append(0)
            return False, 1 << place, 1 << place
        if isinstance(node, Alternatives):
            built = [self._build(each) for each in node.nodes]
            first = last = 0
            for _, begins, ends in built:
                first |= begins
                last |= ends
            return any(empty for empty, _, _ in built), first, last
        if isinstance(node, Repeat):
            return self._repeat(node)
        whole = (True, 0, 0)
        for each in node.nodes:
            whole = self._join(whole, self._build(each))
        return whole

    def _repeat(self, node: Repeat) -> tuple[bool, int, int]:
        whole = (True, 0, 0)
        for _ in range(node.least):
            whole = self._join(whole, self._build(node.node))
        if node.most is None:
            _, first, last = self._build(node.node)
            self._link(last, first)
            return self._join(whole, (True, first, last))
        for _ in range(node.most - node.least):
            _, first, last = self._build(node.node)
            whole = self._join(whole, (True, first, last))
        return whole

    def _join(self, one: tuple[bool, int, int], other: tuple[bool, int, int]) -> tuple[bool, int, int]:
        """One after the other."""
        self._link(one[2], other[1])
        return (
            one[0] and other[0],
            one[1] | (other[1] if one[0] else 0),
            other[2] | (one[2] if other[0] else 0),
        )

    def _link(self, ends: int, begins: int) -> None:
        for place in range(len(self._follow)):
            if ends >> place & 1:
                self._follow[place] |= begins


class _State:
    """Places where what was read so far can have ended."""

    __slots__ = ("next", "places", "reach")

    def __init__(self, places: int) -> None:
        self.places = places
        self.reach = -1
        """the places that can come next; -1: not yet known"""
        self.next: list[_State | None] = [None] * SYMBOLS


def _longest_literal(node: Node) -> bytes:
    """The longest run of plain characters that stands for itself, outside of all alternatives and repetitions."""
    best = run = b""
    for each in node.nodes if isinstance(node, Sequence) else [node]:
        byte = each.byte if isinstance(each, Set) else None
        run = b"" if byte is None else run + bytes([byte])
        best = max(best, run, key=len)
    return best
