"""A graph for the terminal: boxes and lines where they fit, a listing by layers where they do not."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from joblet.command_line import one_line
from rnx.columns import cells, cut, padded
from rnx.graph.canvas import Canvas
from rnx.graph.layout import Layout, arrange, layers_of
from rnx.graph.model import Graph, Node

_MOST_BOXES = 80
_NAME, _NOTE = 40, 40
"""columns that a name and a note take at most"""
_GAP = 2


def text(graph: Graph, width: int = 100) -> str:
    """The graph in lines of at most `width` columns, where names allow it."""
    title = f"{one_line(graph.title)}\n\n"
    if graph.nodes and len(graph.nodes) <= _MOST_BOXES:
        lines = _boxes(graph, width)
        if lines is not None:
            return title + "\n".join(lines) + "\n"
    return title + listing(graph, width)


def listing(graph: Graph, width: int = 100) -> str:
    """One line a job: its layer, name, status, and what it comes after."""
    layers = layers_of(len(graph.nodes), [(edge.source, edge.target) for edge in graph.edges])
    before: dict[int, list[str]] = {}
    for edge in graph.edges:
        before.setdefault(edge.target, []).append(one_line(graph.nodes[edge.source].name))
    names = [cut(one_line(node.name), _NAME) for node in graph.nodes]
    name_width = max((len(cells(name)) for name in names), default=0)
    status_width = max((len(node.status) for node in graph.nodes), default=0)
    number_width = len(str(max(layers, default=0) + 1))
    lines, last = [], -1
    for position in sorted(range(len(graph.nodes)), key=lambda position: layers[position]):
        node = graph.nodes[position]
        number = str(layers[position] + 1) if layers[position] != last else ""
        last = layers[position]
        columns = [padded(number, number_width), padded(names[position], name_width)]
        columns += [padded(one_line(node.status), status_width)] if status_width else []
        line = "  ".join([*columns, _after(node, before.get(position, []))])
        lines.append(cut(line.rstrip(), max(width, name_width + number_width + status_width + 8)))
    return "".join(f"{line}\n" for line in lines)


def _after(node: Node, before: list[str]) -> str:
    if node.note:
        return f"if {one_line(node.note)}"
    return f"after {', '.join(before)}" if before else ""


def _boxes(graph: Graph, width: int) -> list[str] | None:
    """None where they do not fit."""
    contents = [_content(node) for node in graph.nodes]
    widths = [max(len(cells(line)) for line in content) + 4 for content in contents]
    widths = [box + 1 - box % 2 for box in widths]  # odd, so that there is a middle
    pairs = [(edge.source, edge.target) for edge in graph.edges]
    layout = arrange(len(contents), pairs, size=lambda item: widths[item], gap=_GAP, bend=1, whole=True)
    right = max(layout.across[item] + widths[item] / 2 for item in range(len(contents)))
    if right > width or not _goes_down(layout):
        return None
    canvas = Canvas()
    middles = [int(at) for at in layout.across]
    row = 0
    nets = _Nets(layout, widths, middles)
    for number, layer in enumerate(layout.layers):
        height = max((len(contents[item]) for item in layer if item < len(contents)), default=0)
        for item in layer:
            if item < len(contents):
                left = middles[item] - widths[item] // 2
                _draw_box(canvas, row, left, widths[item], contents[item], height)
                if nets.has_dependents(item):
                    canvas.write(row + height + 1, middles[item], "┬")
            else:
                canvas.down(item, middles[item], row, row + height + 1)
        row += height + 2
        if number + 1 < len(layout.layers):
            drawn = nets.draw(canvas, row, number)
            if drawn is None:
                return None
            row = drawn
    return canvas.lines()


def _content(node: Node) -> list[str]:
    lines = [cut(one_line(node.name), _NAME)]
    if node.status:
        lines.append(one_line(node.status))
    if node.note:
        lines.append(cut(f"if {one_line(node.note)}", _NOTE))
    return lines


def _draw_box(canvas: Canvas, row: int, left: int, width: int, content: list[str], height: int) -> None:
    canvas.write(row, left, "┌" + "─" * (width - 2) + "┐")
    for offset in range(height):
        line = content[offset] if offset < len(content) else ""
        before = (width - 2 - len(cells(line))) // 2
        canvas.write(row + 1 + offset, left, "│" + padded(" " * before + line, width - 2) + "│")
    canvas.write(row + height + 1, left, "└" + "─" * (width - 2) + "┘")


def _goes_down(layout: Layout) -> bool:
    """Whether every part of an edge leads from a layer to the next: not so in a cycle, or without bends."""
    layer = layout.layer_of()
    return all(layer[two] == layer[one] + 1 for path in layout.paths for one, two in pairwise(path))


@dataclass
class _Net:
    """Sources of one layer with the same dependents in the next: one set of lines that belong together."""

    number: int
    """one of the sources"""
    targets: list[int]
    entries: list[int]
    """column at which it enters each target"""
    exits: list[int]
    """columns of its sources"""
    track: int = -1
    """row of its horizontal line; -1 without one"""

    @property
    def left(self) -> int:
        return min(self.exits + self.entries)

    @property
    def right(self) -> int:
        return max(self.exits + self.entries)


class _Nets:
    """The lines between the layers of a layout. The mutable state is where each enters, and its track."""

    def __init__(self, layout: Layout, widths: list[int], middles: list[int]) -> None:
        self._widths = widths
        self._middles = middles
        self._layers: list[list[_Net]] = []
        below: dict[int, set[int]] = {}
        for path in layout.paths:
            for one, two in pairwise(path):
                below.setdefault(one, set()).add(two)
        self._sources = below.keys()
        for layer in layout.layers:
            groups: dict[tuple[int, ...], list[int]] = {}
            for item in layer:
                if item in below:
                    groups.setdefault(tuple(sorted(below[item], key=middles.__getitem__)), []).append(item)
            self._layers.append(
                [
                    _Net(sources[0], list(targets), [0] * len(targets), [middles[source] for source in sources])
                    for targets, sources in groups.items()
                ]
            )

    def has_dependents(self, item: int) -> bool:
        return item in self._sources

    def draw(self, canvas: Canvas, row: int, layer: int) -> int | None:
        """The lines below a layer, whose boxes end above `row`: the row of the next layer; None if that cannot be."""
        nets = self._layers[layer]
        self._enter(nets)
        tracks = _lay_tracks(nets)
        if tracks is None:
            return None
        bottom = row + max(tracks, 1)
        for net in nets:
            for column in net.exits:
                canvas.down(net.number, column, row - 1, row + net.track if net.track >= 0 else bottom)
            if net.track >= 0:
                canvas.along(net.number, row + net.track, net.left, net.right)
            for target, column in zip(net.targets, net.entries, strict=True):
                canvas.down(net.number, column, row + max(net.track, 0), bottom + (target >= len(self._widths)))
                if target < len(self._widths):
                    canvas.write(bottom, column, "▼")
        return bottom + 1

    def _enter(self, nets: list[_Net]) -> None:
        """Choose where each net enters its targets: apart, and not below the exit of another."""
        entering: dict[int, list[tuple[_Net, int]]] = {}
        for net in nets:
            for place, target in enumerate(net.targets):
                entering.setdefault(target, []).append((net, place))
        for target, entries in entering.items():
            middle = self._middles[target]
            if target >= len(self._widths):
                for net, place in entries:
                    net.entries[place] = middle
                continue
            room = self._widths[target] // 2 - 1
            entries.sort(key=lambda entry: sum(entry[0].exits) / len(entry[0].exits))
            step = min(4, 2 * room // max(1, len(entries) - 1)) if len(entries) > 1 else 0
            taken: set[int] = set()
            for rank, (net, place) in enumerate(entries):
                wish = middle + round((rank - (len(entries) - 1) / 2) * step)
                others = {column for other in nets if other is not net for column in other.exits}
                free = [
                    column
                    for column in range(middle - room, middle + room + 1)
                    if column not in others and column not in taken
                ]
                net.entries[place] = min(free, key=lambda column: (abs(column - wish), column)) if free else wish
                taken.add(net.entries[place])


def _lay_tracks(nets: list[_Net]) -> int | None:
    """Give each net a row for its horizontal line; the number of rows, None where nets wait for each other.

    Where one net enters a target in the column in which another leaves its source, the other has to turn off above.
    """
    rows: list[list[tuple[int, int]]] = []
    waiting = [net for net in nets if net.left != net.right]
    while waiting:
        ready = [net for net in waiting if not any(_is_above(other, net) for other in waiting if other is not net)]
        if not ready:
            return None
        for net in sorted(ready, key=lambda net: (net.right - net.left, net.left)):
            first = 1 + max((other.track for other in nets if other.track >= 0 and _is_above(other, net)), default=-1)
            track = next(row for row in range(first, len(rows) + 1) if row == len(rows) or _is_free(rows[row], net))
            if track == len(rows):
                rows.append([])
            rows[track].append((net.left, net.right))
            net.track = track
        waiting = [net for net in waiting if net.track < 0]
    return len(rows)


def _is_above(one: _Net, other: _Net) -> bool:
    return any(column in one.exits for column in other.entries)


def _is_free(taken: list[tuple[int, int]], net: _Net) -> bool:
    return all(net.right < left - 1 or net.left > right + 1 for left, right in taken)
