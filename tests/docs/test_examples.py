"""The examples do what their pages say."""

from __future__ import annotations

import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import ROOT, Server
from pages import Page, client_environment, like_any_run, runs_jobs, shell

PIPELINE = ROOT / "examples/pipeline"


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The pipeline as somebody would copy it, without what it makes."""
    return shutil.copytree(PIPELINE, tmp_path / "pipeline", ignore=shutil.ignore_patterns("*.svg", "__pycache__"))


def in_any_order(output: str) -> list[str]:
    """Lines without what differs from run to run: jobs that run at the same time come as they come."""
    lines = like_any_run(output).splitlines()
    return sorted(re.sub(r"^\d+|(?<=job )\d+", "N", line) if "train[" in line else line for line in lines)


@runs_jobs
def test_the_pipeline_prints_and_draws_what_its_page_shows(make_server: Callable[..., Server], pipeline: Path) -> None:
    server = make_server().start()
    environment = client_environment(server)
    shown = list(Page(PIPELINE / "README.md").dialogue())
    assert len(shown) == 7
    for command, output in shown:
        assert in_any_order(shell(command, env=environment, cwd=pipeline)) == in_any_order(output), command
    picture = (PIPELINE / "report.svg").read_bytes()
    assert (pipeline / "report.svg").read_bytes() == picture
    assert (server.state / "workflows/1/shared/report.svg").read_bytes() == picture
    graph = (pipeline / "graph.svg").read_text()
    assert [
        name for name in ("fetch", "clean", "train[degree=4]", "compare", "report") if f">{name}<" not in graph
    ] == []


@runs_jobs
def test_the_pipeline_tries_a_source_again_that_is_not_there_yet(
    make_server: Callable[..., Server], pipeline: Path
) -> None:
    """And with other parameters comes to another picture."""
    environment = client_environment(make_server().start())
    text = (pipeline / "pipeline.yaml").read_text()
    absent = text.replace("args: [steps/fetch.py, data/demand.csv]", "args: [steps/fetch.py, data/none.csv]")
    absent = absent.replace("backoff: 1s", "backoff: 1ms")
    (pipeline / "absent.yaml").write_text(absent)
    output = shell("rnx run --workflow=absent.yaml --follow", env=environment, cwd=pipeline)
    assert output.count("fetch FAILED") == 3
    assert output.splitlines()[-1] == "Workflow 1 FAILED (1 failed, 5 canceled): fetch is FAILED"
    options = "--param=holdout=3 --param=ridge=0.1"
    output = shell(f"rnx run --workflow=pipeline.yaml {options} --follow --logs", env=environment, cwd=pipeline)
    assert output.splitlines()[-1] == "Workflow 2 COMPLETED (6 completed)"
    assert "error on 238 unseen days" in output


def test_the_data_of_the_pipeline_is_what_its_program_makes(pipeline: Path) -> None:
    data = pipeline / "data/demand.csv"
    data.unlink()
    runpy.run_path(str(pipeline / "make_data.py"), run_name="__main__")
    assert data.read_bytes() == (PIPELINE / "data/demand.csv").read_bytes()
