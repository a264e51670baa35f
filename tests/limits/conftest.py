"""Figures that the tests here measured, in a table at the end of the run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from joblet.executor.local import host

_FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()

Report = Callable[[str, str, str], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Takes a limit's name, what was asked, and what was measured."""
    return lambda limit, asked, measured: request.config.stash[_FIGURES].append((limit, asked, measured))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash[_FIGURES]
    if figures:
        kind = host.find_cgroups("figures").name
        terminalreporter.section(f"limits measured, control groups {kind}")
        for limit, asked, measured in figures:
            terminalreporter.write_line(f"{limit:<34} {asked:<16} {measured}")
