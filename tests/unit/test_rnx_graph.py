"""Graphs of workflows: where the jobs go, and what the drawings hold."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joblet.client import WorkflowInfo, WorkflowJob, WorkflowStatus
from joblet.workflow.build import parse
from rnx.columns import cells, cut
from rnx.graph import Edge, Graph, Node, mermaid, of_status, svg, text
from rnx.graph.layout import arrange, layers_of
from rnx.graph.text import listing

SVG = "{http://www.w3.org/2000/svg}"


def graph_of(names: dict[str, str], **statuses: str) -> Graph:
    """Jobs, each with those that it requires: `{"b": "a"}`."""
    jobs = list(names)
    edges = [Edge(jobs.index(name), place) for place, job in enumerate(jobs) for name in names[job].split()]
    return Graph("w.yaml", tuple(Node(job, statuses.get(job, "")) for job in jobs), tuple(edges))


@st.composite
def dags(draw: st.DrawFn, most: int = 25) -> tuple[int, list[tuple[int, int]]]:
    """So many jobs, and edges that lead from a lower to a higher one in some order."""
    count = draw(st.integers(0, most))
    order = draw(st.permutations(range(count)))
    pairs = draw(st.sets(st.tuples(st.integers(0, most), st.integers(0, most)), max_size=2 * count))
    return count, sorted((order[a], order[b]) for a, b in pairs if a < b < count)


ugly = st.text(max_size=60)
"""lone surrogates included, as a name of a file may have them"""


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count, pairs = draw(dags(12))
    known = st.sampled_from(["", "PENDING", "RUNNING", "FAILED", "bogus"])
    nodes = tuple(Node(draw(ugly), draw(known), draw(ugly), draw(ugly)) for _ in range(count))
    edges = tuple(Edge(a, b, draw(st.just("") | ugly), draw(st.booleans())) for a, b in pairs)
    return Graph(draw(ugly), nodes, edges)


@given(dags())
def test_each_job_is_below_all_that_it_depends_on_and_no_lower(dag: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = dag
    layers = layers_of(count, edges)
    for job in range(count):
        assert layers[job] == max((layers[source] + 1 for source, target in edges if target == job), default=0)


@settings(deadline=None)
@given(dags())
def test_a_layout_holds_every_item_once_and_apart(dag: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = dag

    def size(item: int) -> int:
        return 5 + 2 * (item % 4)

    layout = arrange(count, edges, size=size, gap=2, bend=1, whole=True)
    assert sorted(item for layer in layout.layers for item in layer) == list(range(len(layout.across)))
    assert len(layout.across) >= count
    layer_of = layout.layer_of()
    for (source, target), path in zip(edges, layout.paths, strict=True):
        assert (path[0], path[-1]) == (source, target)
        assert all(item >= count for item in path[1:-1])
        assert all(layer_of[two] == layer_of[one] + 1 for one, two in pairwise(path))
    for layer in layout.layers:
        for one, two in pairwise(layer):
            between = (size(one) if one < count else 1) / 2 + 2 + (size(two) if two < count else 1) / 2
            assert layout.across[two] - layout.across[one] >= between
    assert all((at * 2) % 2 == 1 for at in layout.across)
    assert layout == arrange(count, edges, size=size, gap=2, bend=1, whole=True)


def test_a_fan_is_centred() -> None:
    layout = arrange(5, [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)], size=lambda _: 10, gap=2, bend=1)
    assert layout.across == [17, 5, 17, 29, 17]


def test_an_order_without_crossings_is_found() -> None:
    layout = arrange(6, [(0, 5), (1, 4), (2, 3)], size=lambda _: 10, gap=2, bend=1)
    assert [target for _, target in sorted((layout.across[a], b) for a, b in [(0, 5), (1, 4), (2, 3)])] == [5, 4, 3]
    assert all(layout.across[a] == layout.across[b] for a, b in [(0, 5), (1, 4), (2, 3)])


def test_a_cycle_and_a_thousand_jobs_are_drawn_all_the_same() -> None:
    cycle = Graph("w", (Node("a"), Node("b"), Node("c")), (Edge(2, 0), Edge(0, 1), Edge(1, 2)))
    assert listing(cycle).split() == ["1", "a", "after", "c", "2", "b", "after", "a", "3", "c", "after", "b"]
    many = Graph("w", tuple(Node(str(n)) for n in range(1000)), tuple(Edge(n // 2, n) for n in range(1, 1000)))
    chain = Graph("w", many.nodes, tuple(Edge(a, n) for n in range(1, 1000) for a in sorted({0, n - 1})))
    for graph in (cycle, many, chain):
        assert len(ElementTree.fromstring(svg(graph)).findall(f"{SVG}g")) == len(graph.nodes)
        assert len(text(graph).splitlines()) == len(graph.nodes) + 2


def test_the_terminal_shows_a_pipeline() -> None:
    pipeline = graph_of(
        {"fetch": "", "clean": "fetch", "train[a]": "clean", "train[b]": "clean", "report": "train[a] train[b] clean"}
    )
    assert text(pipeline) == (
        "w.yaml\n"
        "\n"
        "                  ┌───────┐\n"
        "                  │ fetch │\n"
        "                  └───┬───┘\n"
        "                      │\n"
        "                      ▼\n"
        "                  ┌───────┐\n"
        "                  │ clean │\n"
        "                  └───┬───┘\n"
        "      ┌──────────────┬┴───────┐\n"
        "      ▼              ▼        │\n"
        "┌───────────┐  ┌───────────┐  │\n"
        "│ train[a]  │  │ train[b]  │  │\n"
        "└─────┬─────┘  └─────┬─────┘  │\n"
        "      └──────────────┼────────┘\n"
        "                     ▼\n"
        "                ┌─────────┐\n"
        "                │ report  │\n"
        "                └─────────┘\n"
    )


def test_lines_of_different_jobs_cross_without_meeting() -> None:
    drawn = text(graph_of({"a": "", "b": "", "c": "a b", "d": "a b", "e": "a", "f": "b", "g": "c f", "h": "d e"}))
    assert drawn == (
        "w.yaml\n"
        "\n"
        "       ┌───┐  ┌───┐\n"
        "       │ a │  │ b │\n"
        "       └─┬─┘  └─┬─┘\n"
        "  ┌─────┬┴─────┐│\n"
        "  │     │ ┌────│┴┬─────┐\n"
        "  ▼     ▼ ▼    ▼ ▼     ▼\n"
        "┌───┐  ┌───┐  ┌───┐  ┌───┐\n"
        "│ e │  │ d │  │ c │  │ f │\n"
        "└─┬─┘  └─┬─┘  └─┬─┘  └─┬─┘\n"
        "  └──┬───┘      └──┬───┘\n"
        "     ▼             ▼\n"
        "   ┌───┐         ┌───┐\n"
        "   │ h │         │ g │\n"
        "   └───┘         └───┘\n"
    )


def test_states_and_conditions_stand_in_the_boxes() -> None:
    graph = Graph("w", (Node("a", "FAILED"), Node("b", "PENDING", "a=FAILED")), (Edge(0, 1, "FAILED"),))
    assert text(graph).splitlines()[2:] == [
        "  ┌─────────┐",
        "  │    a    │",
        "  │ FAILED  │",
        "  └────┬────┘",
        "       │",
        "       ▼",
        "┌─────────────┐",
        "│      b      │",
        "│   PENDING   │",
        "│ if a=FAILED │",
        "└─────────────┘",
    ]


def test_what_is_too_wide_is_listed() -> None:
    wide = graph_of({"a": "", **{f"job-number-{n}": "a" for n in range(12)}}, a="COMPLETED")
    lines = text(wide).splitlines()[2:]
    assert lines[:2] == ["1  a              COMPLETED", "2  job-number-0              after a"]
    assert all(len(line) <= 100 for line in lines)


@settings(deadline=None)
@given(graphs(), st.integers(20, 120))
def test_the_terminal_gets_every_job_and_nothing_that_commands_it(graph: Graph, width: int) -> None:
    drawn = text(graph, width)
    assert drawn == text(graph, width)
    assert all(line.isprintable() for line in drawn.split("\n"))
    boxes, rows = drawn.count("┌─"), len(listing(graph, width).splitlines())
    assert rows == len(graph.nodes)
    assert boxes >= len(graph.nodes) or len(drawn.splitlines()) == rows + 2


@given(ugly, st.integers(1, 30))
def test_cut_text_fits(name: str, width: int) -> None:
    assert len(cells(cut(name, width))) <= width
    assert cut(name, 1000) == name


@settings(deadline=None)
@given(graphs())
def test_svg_is_well_formed_and_says_what_is_said(graph: Graph) -> None:
    drawn = svg(graph)
    root = ElementTree.fromstring(drawn.encode())
    assert len(root.findall(f"{SVG}g")) == len(graph.nodes)
    assert len(root.findall(f"{SVG}path")) == len(graph.edges)
    assert not root.findall(f".//{SVG}script")
    kinds = {tag.tag.removeprefix(SVG) for tag in root.iter()}
    assert kinds <= {"svg", "style", "defs", "marker", "path", "rect", "text", "g", "title"}
    assert drawn == svg(graph)


@pytest.mark.parametrize(
    "name",
    ['"><script>alert(1)</script>', "]]>", "&amp;", "a\x00b\x1b[31m", "\ud800", "\u202ertl", "'\"`#;|", "\uffff"],
)
def test_hostile_names_stay_names(name: str) -> None:
    graph = Graph(name, (Node(name, "RUNNING", name, name), Node("b")), (Edge(0, 1, name),))
    root = ElementTree.fromstring(svg(graph).encode())
    assert root.findall(f".//{SVG}script") == []
    assert {tag for element in root.iter() for tag in element.attrib if tag.startswith("on")} == set()
    flowchart = mermaid(graph)
    assert flowchart.encode()
    assert len(flowchart.splitlines()) == 5
    node = re.fullmatch(r'  n0\["([^"<>`]*)<br/>RUNNING"\]:::RUNNING', flowchart.splitlines()[1])
    assert node
    shown = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), node[1])
    assert shown.isprintable()
    assert not re.search(r"[&;#|\[\]{}\"'`<>\\]", re.sub(r"#\d+;", "", node[1]))


def test_mermaid() -> None:
    nodes = (Node("a", "COMPLETED"), Node("b[x=1]", "PENDING"), Node("c", "CANCELED"))
    edges = (Edge(0, 1), Edge(0, 2, "FAILED"), Edge(1, 2, "not COMPLETED", optional=True))
    assert mermaid(Graph("w", nodes, edges)) == (
        "flowchart LR\n"
        '  n0["a<br/>COMPLETED"]:::COMPLETED\n'
        '  n1["b#91;x=1#93;<br/>PENDING"]:::PENDING\n'
        '  n2["c<br/>CANCELED"]:::CANCELED\n'
        "  n0 --> n1\n"
        '  n0 -->|"FAILED"| n2\n'
        '  n1 -.->|"not COMPLETED"| n2\n'
        "  classDef CANCELED fill:#eaeef2,stroke:#59636e,color:#393f46\n"
        "  classDef COMPLETED fill:#dafbe1,stroke:#1a7f37,color:#0f401b\n"
        "  classDef PENDING fill:#f6f8fa,stroke:#818b98,color:#1f2328\n"
    )


@pytest.mark.parametrize(
    ("requires", "edges", "note"),
    [
        ("[a]", [Edge(0, 2)], ""),
        ("[a, b]", [Edge(0, 2), Edge(1, 2)], ""),
        ("[{a: FAILED}]", [Edge(0, 2, "FAILED")], "a=FAILED"),
        ("[{a: FINISHED}, b]", [Edge(0, 2, "FINISHED"), Edge(1, 2)], "a=FINISHED && b=COMPLETED"),
        (
            '[{expression: "a=FAILED || b=COMPLETED"}]',
            [Edge(0, 2, "FAILED", True), Edge(1, 2, "", True)],
            "a=FAILED || b=COMPLETED",
        ),
        (
            '[{expression: "!(a=FAILED || b=STOPPED)"}]',
            [Edge(0, 2, "not FAILED"), Edge(1, 2, "not STOPPED")],
            "!(a=FAILED || b=STOPPED)",
        ),
        (
            '[{expression: "(a=FAILED || a=STOPPED) && b=COMPLETED"}]',
            [Edge(0, 2, "FAILED or STOPPED", True), Edge(1, 2)],
            "(a=FAILED || a=STOPPED) && b=COMPLETED",
        ),
    ],
)
def test_edges_say_what_is_required(requires: str, edges: list[Edge], note: str) -> None:
    jobs = f"jobs:\n  a: {{command: a}}\n  b: {{command: b}}\n  c: {{command: c, requires: {requires}}}\n"
    plan = parse(jobs, file="w.yaml").plan
    told = [
        WorkflowJob("0", step.name, "PENDING", step.dependencies, None, None, 0, condition=str(step.condition))
        for step in plan.steps
    ]
    info = WorkflowInfo("1", "w.yaml", "RUNNING", 3, 0, 0, 0, 0, None, None, None)
    graph = of_status(WorkflowStatus(info, tuple(told), 1))
    assert list(graph.edges) == edges
    assert graph.nodes[2].note == note


def test_what_a_newer_server_says_is_drawn_as_far_as_it_is_understood() -> None:
    told = (
        WorkflowJob("0", "a", "PENDING", (), None, None, 0),
        WorkflowJob("0", "b", "NEW", ("a", "gone"), None, None, 0, condition="a within 5m"),
    )
    info = WorkflowInfo("1", "w.yaml", "RUNNING", 2, 0, 0, 0, 0, None, None, None)
    graph = of_status(WorkflowStatus(info, told, 1))
    assert graph.edges == (Edge(0, 1),)
    assert "NEW" in text(graph)
    assert 'n1["b<br/>NEW"]\n' in mermaid(graph)
