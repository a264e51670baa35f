"""The Debian package's scripts, where they can be tried without dpkg; `nox -s install` has the rest."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from pathlib import Path

import pytest
from harness import ROOT

DEB = ROOT / "deploy/deb"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_shell(name: str) -> None:
    subprocess.run(["sh", "-n", DEB / name], check=True)
    assert "set -e\n" in (DEB / name).read_text()


@pytest.mark.parametrize(("schema", "refused"), [(None, False), (6, False), (7, False), (8, True), (300, True)])
def test_going_back_over_a_move_of_the_schema_is_refused(tmp_path: Path, schema: int | None, refused: bool) -> None:
    database = tmp_path / "joblet.db"
    if schema is not None:
        connection = sqlite3.connect(database)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA user_version = {schema}")
        connection.execute("CREATE TABLE jobs (id)")
        connection.close()
    text = (DEB / "preinst").read_text()
    text = text.replace("/var/lib/joblet", str(tmp_path)).replace("@SCHEMA@", "7").replace("@VERSION@", "1.2.3")
    done = subprocess.run(["sh", "-c", text, "preinst", "upgrade", "9"], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if refused else 0), done.stderr
    if refused:
        assert done.stderr.startswith(
            f"joblet 1.2.3 knows database schemas up to 7, and {database} has schema {schema}.\n"
        )
        assert f"joblet restore {database}.schema-7\n" in done.stderr


def test_scripts_ask_for_nothing_that_the_build_does_not_say() -> None:
    said = set(re.findall(r'"([A-Z_]+)": ', (DEB / "build.py").read_text()))
    for name in ("control", *SCRIPTS, "templates"):
        assert set(re.findall(r"@([A-Z_]+)@", (DEB / name).read_text())) <= said, name
