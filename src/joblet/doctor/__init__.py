"""`joblet doctor`: what this host offers, what joblet uses of it, and what to do about each gap.

Every check is a look at the host at the edge and a pure judgement of what was seen. One that cannot find out says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from joblet.doctor import context, groups, host, installation, isolation, service, storage
from joblet.doctor.context import Context
from joblet.doctor.render import render
from joblet.doctor.report import Checks, Report, Row, Section, Verdict

__all__ = ["Report", "Row", "Section", "Verdict", "examine", "render"]

_SECTIONS: dict[str, Callable[[Context], Checks]] = {
    "Host": host.checks,
    "Control groups": groups.checks,
    "Isolation": isolation.checks,
    "Storage": storage.checks,
    "Installation": installation.checks,
    "Service": service.checks,
}


def examine(config_path: Path) -> Report:
    """Look at everything; no server needs to run.

    What it makes it removes. Controllers of v2 stay switched on at the root, as they are where the server runs.
    """
    facts = context.look(config_path)
    sections = tuple(Section(title, tuple(_rows(checks(facts)))) for title, checks in _SECTIONS.items())
    return Report(sections, facts.root)


def _rows(checks: Checks) -> Sequence[Row]:
    rows: list[Row] = []
    for name, check in checks.items():
        try:
            found = check()
        except Exception as error:  # one that cannot find out must not hide what the others found
            advice = "Report this: the check itself has failed."
            found = Row(name, "cannot be found out", f"{type(error).__name__}: {error}", Verdict.NOTE, advice)
        rows += [found] if isinstance(found, Row) else found
    return rows
