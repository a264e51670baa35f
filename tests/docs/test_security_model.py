"""The table of threats names tests that there are."""

from __future__ import annotations

import ast
import re

import pytest
from harness import ROOT
from pages import Page

TABLE = Page("docs/security-model.md").text.partition("## What we defend")[2].partition("## What we do not")[0]
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in TABLE.splitlines() if line.startswith("| ")][1:]
NAMED = sorted(set(re.findall(r"`(tests/[^`]+)`", TABLE + Page("docs/security.md").text)))


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_is_there(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).exists()
    if function:
        tree = ast.parse((ROOT / path).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in functions


def test_every_threat_has_a_test() -> None:
    assert len(ROWS) > 20
    for threat, against, tested in ROWS:
        heading = threat.startswith("**")
        assert bool(against) != heading
        assert bool(re.search(r"`tests/[^`]+`", tested)) != heading, threat
