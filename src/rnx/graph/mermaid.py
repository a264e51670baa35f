"""A graph as a Mermaid flowchart, as Markdown on most forges shows it."""

from __future__ import annotations

from joblet.command_line import one_line
from rnx.graph.colors import COLORS
from rnx.graph.model import Graph

_PLAIN = frozenset(" _-.,=/:()")


def mermaid(graph: Graph) -> str:
    """The flowchart's text."""
    lines = ["flowchart LR"]
    for number, node in enumerate(graph.nodes):
        known = node.status in COLORS
        label = _escaped(node.name) + (f"<br/>{_escaped(node.status)}" if node.status else "")
        lines.append(f'  n{number}["{label}"]' + (f":::{node.status}" if known else ""))
    for edge in graph.edges:
        arrow = "-.->" if edge.optional else "-->"
        label = f'|"{_escaped(edge.label)}"|' if edge.label else ""
        lines.append(f"  n{edge.source} {arrow}{label} n{edge.target}")
    for status in sorted({node.status for node in graph.nodes} & COLORS.keys()):
        colors = COLORS[status]
        lines.append(f"  classDef {status} fill:{colors.fill},stroke:{colors.line},color:{colors.text}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    """Every character that could mean something to Mermaid, Markdown or HTML as a numeric entity of Mermaid's."""
    return "".join(
        character if character.isalnum() or character in _PLAIN else f"#{ord(character)};"
        for character in one_line(text)
    )
