"""A graph as SVG: self-contained, without scripts, readable on light and dark backgrounds."""

from __future__ import annotations

from html import escape

from joblet.command_line import one_line
from rnx.columns import cells, cut
from rnx.graph.colors import COLORS, Colors
from rnx.graph.layout import Layout, arrange
from rnx.graph.model import Graph, Node

_LETTER, _SMALL = 7.9, 6.7
"""pixels across a character of a name, and of all else"""
_NAME, _NOTE = 48, 36
"""characters of a name and of a note that are shown; the whole is in the tooltip"""
_LINE = 17
_PAD = 11
_GAP = 16
_CHANNEL = 56
_MARGIN = 24
_HEAD = 40
"""height of the title"""


def svg(graph: Graph) -> str:
    """The picture, layers from left to right."""
    contents = [_content(node) for node in graph.nodes]
    heights = [_LINE * len(content) + 2 * _PAD - 4 for content in contents]
    widths = [
        max((len(cells(line)) * (_SMALL if number else _LETTER) for number, line in enumerate(content)), default=0)
        + 2 * _PAD
        + 6
        for content in contents
    ]
    pairs = [(edge.source, edge.target) for edge in graph.edges]
    layout = arrange(len(contents), pairs, size=lambda item: heights[item], gap=_GAP, bend=10)
    columns, right = _columns(graph, layout, widths)
    bottom = max((layout.across[item] + heights[item] / 2 for item in range(len(contents))), default=0)
    title = one_line(graph.title)
    total = max(right, len(cells(title)) * 8.6) + 2 * _MARGIN
    height = bottom + _HEAD + _MARGIN + (_MARGIN / 2 if graph.nodes else 0)
    middles = [at + _HEAD + _MARGIN / 2 for at in layout.across]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {total:.0f} {height:.0f}" role="img" aria-label="{_text(title)}">',
        f"<style>{_style(graph)}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0.5 8 4 0 7.5z"/></marker></defs>',
        '<rect class="ground" width="100%" height="100%"/>',
        f'<text class="title" x="{_MARGIN}" y="{_MARGIN + 6}">{_text(title)}</text>',
    ]
    labels = []
    for edge, path in zip(graph.edges, layout.paths, strict=True):
        line, middle = _curve(path, columns, middles, widths)
        kind = "edge optional" if edge.optional else "edge"
        parts.append(f'<path class="{kind}" d="{line}" marker-end="url(#arrow)"/>')
        if edge.label:
            x, y = middle
            labels.append(f'<text class="label" x="{x:.1f}" y="{y + 4:.1f}">{_text(edge.label)}</text>')
    parts += [
        _box(node, content, columns[number][0], middles[number], widths[number], heights[number])
        for number, (node, content) in enumerate(zip(graph.nodes, contents, strict=True))
    ]
    return "\n".join([*parts, *labels, "</svg>"]) + "\n"


def _content(node: Node) -> list[str]:
    lines = [cut(one_line(node.name), _NAME)]
    if node.status:
        lines.append(one_line(node.status))
    if node.note:
        lines.append(cut(f"if {one_line(node.note)}", _NOTE))
    return lines


def _columns(graph: Graph, layout: Layout, widths: list[float]) -> tuple[list[tuple[float, float]], float]:
    """Left and right end of each item's layer, and the right end of all."""
    layer_of = layout.layer_of()
    room = [float(_CHANNEL)] * (len(layout.layers) + 1)
    for edge in graph.edges:
        if edge.label:
            before = layer_of[edge.target]
            room[before] = max(room[before], len(cells(edge.label)) * _SMALL + 50)
    ends: list[tuple[float, float]] = [(0.0, 0.0)] * len(layer_of)
    left = right = float(_MARGIN)
    for number, layer in enumerate(layout.layers):
        left = right + room[number] if number else left
        right = left + max((widths[item] for item in layer if item < len(widths)), default=0)
        for item in layer:
            ends[item] = left, right
    return ends, right


def _curve(
    path: list[int], columns: list[tuple[float, float]], middles: list[float], widths: list[float]
) -> tuple[str, tuple[float, float]]:
    """The line from box to box, and the middle of its last part. It bends between layers only, where no boxes are."""
    start = path[0]
    x, y = columns[start][1], middles[start]
    text = f"M{columns[start][0] + widths[start]:.1f} {y:.1f}H{x:.1f}"
    middle = (x, y)
    for item in path[1:]:
        left, right = columns[item]
        at = middles[item]
        half = (x + left) / 2
        text += f"C{half:.1f} {y:.1f} {half:.1f} {at:.1f} {left:.1f} {at:.1f}"
        middle = (half, (y + at) / 2)
        x, y = left, at
        if item >= len(widths):
            text += f"H{right:.1f}"
            x = right
    return text, middle


def _box(node: Node, content: list[str], left: float, middle: float, width: float, height: float) -> str:
    kind = node.status if node.status in COLORS else "PENDING"
    top = middle - height / 2
    tip = "\n".join(one_line(line) for line in (node.name, node.status, node.reason, node.note) if line)
    lines = [
        f'<text class="{("name", "state", "note")[_kind(node, number)]}" x="{left + _PAD + 3:.1f}"'
        f' y="{top + _PAD + 10 + _LINE * number:.1f}">{_text(line)}</text>'
        for number, line in enumerate(content)
    ]
    return (
        f'<g class="{kind}"><title>{_text(tip, lines=True)}</title>'
        f'<rect class="box" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6"/>'
        f'<rect class="mark" x="{left:.1f}" y="{top + 5:.1f}" width="4" height="{height - 10:.1f}" rx="2"/>'
        + "".join(lines)
        + "</g>"
    )


def _kind(node: Node, number: int) -> int:
    """Whether a line is the name (0), the status (1) or the note (2)."""
    return number if node.status or not number else 2


def _style(graph: Graph) -> str:
    used = sorted({node.status for node in graph.nodes} & COLORS.keys() | {"PENDING"})
    font = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
    light = _palette({status: COLORS[status] for status in used}, dark=False)
    dark = _palette({status: COLORS[status] for status in used}, dark=True)
    return (
        f"text{{{font};font-size:11px;white-space:pre}}.title{{font-size:14px;font-weight:bold}}.name{{font-size:13px}}"
        ".box{stroke-width:1.2}.edge{fill:none;stroke-width:1.3}.optional{stroke-dasharray:5 4}"
        ".label{text-anchor:middle;paint-order:stroke;stroke-width:5px;stroke-linejoin:round}"
        f"{light}@media (prefers-color-scheme:dark){{{dark}}}"
    )


def _palette(states: dict[str, Colors], *, dark: bool) -> str:
    ground, ink, line = ("#0d1117", "#e6edf3", "#8b949e") if dark else ("#ffffff", "#1f2328", "#6e7781")
    rules = [
        f".ground{{fill:{ground}}}.title{{fill:{ink}}}.edge{{stroke:{line}}}.tip{{fill:{line}}}"
        f".label{{fill:{ink};stroke:{ground}}}"
    ]
    for status, colors in states.items():
        fill, stroke, text = colors[3:] if dark else colors[:3]
        rules.append(f".{status} .box{{fill:{fill};stroke:{stroke}}}.{status} .mark{{fill:{stroke}}}")
        rules.append(f".{status} text{{fill:{text}}}")
    return "".join(rules)


def _text(text: str, *, lines: bool = False) -> str:
    """Escaped for content and for attributes; control characters are none of XML's."""
    return "\n".join(escape(one_line(line)) for line in (text.split("\n") if lines else [text]))
