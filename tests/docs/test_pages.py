"""Pages of docs/: every command prints what is shown, every program runs, and every link leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from generate import REFERENCE
from harness import ROOT, Server
from pages import Page, client_environment, like_any_server, runs_jobs

from joblet.config import load
from joblet.server.tls import server_context

COOKBOOK = ROOT / "examples/cookbook"
RECIPES = sorted(f"docs/cookbook/{path.name}" for path in (ROOT / "docs/cookbook").glob("*.md"))
GUIDES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
SPEAKING = [path for path in ("README.md", *GUIDES) if "```console" in Page(path).text]
"""pages with commands; each has a server of its own, so that its jobs are numbered from 1"""


@runs_jobs
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", SPEAKING)
def test_a_guide_prints_what_it_shows(path: str, make_server: Callable[..., Server], tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    assert Page(path).perform(make_server().start(), folder) > 0


@runs_jobs
@pytest.mark.parametrize("path", [path for path in RECIPES if "```console" in Page(path).text])
def test_a_recipe_prints_what_it_shows(path: str, server: Server, tmp_path: Path) -> None:
    """On a server that has other jobs too, with the programs of the cookbook at hand."""
    folder = shutil.copytree(COOKBOOK, tmp_path / "cookbook")
    assert Page(path).perform(server, folder, like_any_server) > 0


@runs_jobs
def test_the_fleet_is_searched_node_by_node(server: Server, tmp_path: Path) -> None:
    """Two names of the same server, and one that nobody answers at."""
    environment = client_environment(server)
    certificates = {name: environment.pop(f"JOBLET_{name.upper()}_PATH") for name in ("cert", "key", "ca")}
    address = environment.pop("JOBLET_SERVER")
    nodes = {"east": address, "west": address, "south": "localhost:1"}
    lines = "".join(
        f"  {name}: {{address: '{at}', {', '.join(f'{key}: {path}' for key, path in certificates.items())}}}\n"
        for name, at in nodes.items()
    )
    (tmp_path / "rnx-config.yml").write_text(f'version: "1"\nnodes:\n{lines}')
    job = server.rnx("run", "--wait", "--name=web", "sh", "-c", "echo fine; echo ERROR no route; echo ERROR again")
    assert job.returncode == 0
    done = subprocess.run(
        ["python3", COOKBOOK / "fleet_grep.py", "^ERROR (no|again)", *nodes],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    east, west = ([f"{node} web: ERROR no route", f"{node} web: ERROR again"] for node in ("east", "west"))
    assert done.stdout.splitlines() == [*east, *west, "south: cannot connect to localhost:1: connection refused"]


def test_every_program_of_the_cookbook_is_on_a_page() -> None:
    shown = set(
        re.findall(r"literalinclude\} \.\./\.\./examples/cookbook/(\S+)", "".join(Page(path).text for path in RECIPES))
    )
    assert shown == {path.name for path in COOKBOOK.iterdir() if path.is_file()}


def test_the_cookbook_lists_its_recipes() -> None:
    index = Page("docs/cookbook/index.md").text
    names = {Path(path).stem for path in RECIPES} - {"index"}
    assert len(names) == 10
    assert set(re.findall(r"\]\(([\w-]+)\.md\) \|", index)) == names


def test_the_site_has_every_page() -> None:
    """nox -s docs says so too, and takes longer."""
    pages = re.findall(r"^([\w/*-]+)$", "".join(Page("docs/index.md").blocks(r"\{toctree\}")), flags=re.MULTILINE)
    listed = {name for name in pages if not name.startswith(("reference/", "decisions/"))}
    assert listed | {"index"} == {Path(path).stem for path in GUIDES} | {"cookbook/index"}
    assert {name for name in pages if name.startswith("reference/")} == {
        f"reference/{Path(name).stem}" for name in REFERENCE
    }


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", *GUIDES, *RECIPES])
def test_links_lead_to_files_and_headings_that_exist(path: str) -> None:
    """Of pages that are generated only the name; nox -s docs sees the rest of these."""
    page = Page(path)
    for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.text):
        other = page.path if not target else page.path.parent / target
        if "reference" in Path(target).parts:
            assert Path(target).name in REFERENCE, target
            continue
        assert other.exists(), f"{path}: {target}"
        if heading:
            assert heading in headings(other), f"{path}: {target}#{heading}"


def headings(path: Path) -> set[str]:
    """As GitHub names them in addresses."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_programs_need_nothing_but_the_client_and_what_python_has() -> None:
    for path in COOKBOOK.rglob("*.py"):
        modules = set(re.findall(r"^(?:from|import) (\w+)", path.read_text(), flags=re.MULTILINE))
        assert modules <= {"__future__", "joblet", *sys.stdlib_module_names}, path


def test_the_server_of_the_tutorial_finds_what_it_was_given(tmp_path: Path) -> None:
    """All that is typed for it but the installation, and the start itself."""
    (block,) = (block for block in Page("docs/tutorial.md").blocks("sh") if "joblet serve" in block)
    lines = [line for line in block.splitlines() if "pip install" not in line and "joblet serve" not in line]
    typed = "\n".join(lines).replace("../venv/bin/joblet", f"{sys.executable} -m joblet")
    subprocess.run(["bash", "-e", "-c", typed], cwd=tmp_path, capture_output=True, check=True)
    path = tmp_path / "try/joblet-config.yml"
    config = load(path)
    assert config.state_dir(path.parent) == tmp_path / "try/state"
    assert server_context(config.security, path.parent).get_ca_certs()
