"""A workflow's jobs as a picture: for the terminal, as Mermaid, as SVG."""

from rnx.graph.mermaid import mermaid
from rnx.graph.model import Edge, Graph, Node, of_file, of_status
from rnx.graph.svg import svg
from rnx.graph.text import text

__all__ = ["Edge", "Graph", "Node", "mermaid", "of_file", "of_status", "svg", "text"]
