"""A flame graph as SVG, without scripts: a bar for each frame, as wide as its share, above those that it calls."""

from __future__ import annotations

from collections.abc import Iterator
from colorsys import hls_to_rgb
from pathlib import Path
from xml.sax.saxutils import escape
from zlib import crc32

from benchmarks.flame.stacks import Node

_WIDTH, _HEIGHT = 1200, 15
_TOP = 34
_CHARACTER = 5.6
"""pixels that one takes"""
_HUES = {  # degrees
    "joblet/": 140,
    "grpclib/": 30,
    "h2/": 45,
    "hpack/": 45,
    "hyperframe/": 45,
    "betterproto2/": 15,
    "uvloop": 210,
}


def draw(root: Node, title: str, path: Path) -> None:
    """Write the graph of a tree."""
    bars = list(_bars(root, 0.0, 0, _WIDTH / root.count))
    height = _TOP + (1 + max(depth for depth, *_ in bars)) * _HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="10">',
        f'<text x="4" y="20" font-size="14">{escape(title)}</text>',
        *(_bar(*bar, total=root.count) for bar in bars),
        "</svg>",
    ]
    path.write_text("\n".join(lines) + "\n")


def _bars(node: Node, left: float, depth: int, scale: float) -> Iterator[tuple[int, float, float, Node]]:
    yield depth, left, node.count * scale, node
    for callee in sorted(node.callees.values(), key=lambda callee: callee.name):
        yield from _bars(callee, left, depth + 1, scale)
        left += callee.count * scale


def _bar(depth: int, left: float, width: float, node: Node, *, total: int) -> str:
    top = _TOP + depth * _HEIGHT
    tip = f"<title>{escape(node.name)}: {node.count / total:.1%}</title>"
    box = f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_HEIGHT - 1}" fill="{_color(node.name)}"/>'
    room = int(width / _CHARACTER)
    text = node.name if len(node.name) <= room else node.name[: room - 1] + "…" if room > 3 else ""
    label = f'<text x="{left + 2:.1f}" y="{top + 11}">{escape(text)}</text>' if text else ""
    return f"<g>{tip}{box}{label}</g>"


def _color(name: str) -> str:
    """One hue a package; shades tell neighbours apart."""
    hue = next((hue for package, hue in _HUES.items() if package in name), 0)
    lightness = 0.72 + crc32(name.encode()) % 14 / 100
    return "#" + "".join(f"{round(part * 255):02x}" for part in hls_to_rgb(hue / 360, lightness, 0.55 if hue else 0))
