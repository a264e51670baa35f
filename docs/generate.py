"""Write the reference pages, or the manual pages, from the source that they are about.

    python docs/generate.py reference DIRECTORY     Markdown, which docs/conf.py puts into docs/reference
    python docs/generate.py man DIRECTORY           rnx.1, rnx-run.1, ... joblet.1, ...: for share/man/man1

Needs joblet itself and nothing else. What it writes is never committed, so it cannot be older than the source.
"""

from __future__ import annotations

import sys
from pathlib import Path

from generator import client, commands, configuration, errors, man, protocol, workflow

REFERENCE = {
    "rnx.md": commands.rnx_page,
    "joblet.md": commands.joblet_page,
    "protocol.md": protocol.page,
    "client.md": client.page,
    "workflow.md": workflow.page,
    "configuration.md": configuration.page,
    "errors.md": errors.page,
}
"""each page's file, and what gives its text"""


def write_reference(folder: Path) -> None:
    """Write every reference page into a directory, which is made; a page that is the same already is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in REFERENCE.items():
        _write(folder / name, text())


def write_man(folder: Path) -> None:
    """Write every manual page into a directory, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in man.pages().items():
        _write(folder / name, text)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def main() -> int:
    """Do what the command line says; 2 for one that cannot be understood."""
    kinds = {"reference": write_reference, "man": write_man}
    match sys.argv[1:]:
        case [kind, folder] if kind in kinds:
            kinds[kind](Path(folder))
            return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
