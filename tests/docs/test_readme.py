"""What README.md and deploy/ say is true: commands give the output shown, keys and defaults are those of the code."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from harness import PATIENCE, ROOT, Server

from joblet.client import ClientConfig
from joblet.clock import parse_duration
from joblet.config import DEFAULT_PATH, Config, load

README = (ROOT / "README.md").read_text()
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

MEASURED = re.compile(r"^(\w+Time|MemoryPeak|IORead|IOWrite|ProcessesPeak|MaxOpenFiles): .+$", re.MULTILINE)
"""the host has a say in the limit of open files too"""

runs_jobs = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="isolation needs root on Linux")


def blocks(language: str) -> list[str]:
    """The texts of the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def dialogue() -> Iterator[tuple[str, str]]:
    """Each `$ rnx` command of the console blocks and the output shown below it; others depend on the host."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            if command.startswith("rnx "):
                yield command, output


def like_any_run(output: str) -> str:
    """Output without what differs from run to run; a job just started may be running already."""
    output = MEASURED.sub(r"\1 MEASURED", output)
    return TIME.sub("TIME", output).replace("INITIALIZING", "RUNNING")


def client_environment(server: Server) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JOBLET_SERVER": f"localhost:{server.port}",
        "JOBLET_CERT_PATH": str(server.certificates / "admin-cert.pem"),
        "JOBLET_KEY_PATH": str(server.certificates / "admin-key.pem"),
        "JOBLET_CA_PATH": str(server.certificates / "ca-cert.pem"),
    }


def shell(command: str, **kwargs: object) -> str:
    """Standard output and error of a command that may fail."""
    done = subprocess.run(
        ["bash", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
        **kwargs,
    )
    return done.stdout


@runs_jobs
def test_rnx_prints_what_the_readme_shows(make_server: Callable[..., Server], tmp_path: Path) -> None:
    environment = client_environment(make_server().start())
    for block in blocks("yaml"):
        if name := re.match(r"# (\S+)\n", block):
            (tmp_path / name[1]).write_text(block)
    shown = list(dialogue())
    assert len(shown) > 5
    for command, output in shown:
        assert like_any_run(shell(command, env=environment, cwd=tmp_path)) == like_any_run(output), command


@runs_jobs
def test_the_python_examples_run(make_server: Callable[..., Server]) -> None:
    environment = client_environment(make_server().start())
    programs = blocks("python")
    assert len(programs) == 2
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert re.fullmatch(r"hello from \S+\nCOMPLETED\n", done.stdout)


def test_the_certificate_commands_work(tmp_path: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("joblet certs")]
    assert len(commands) == 2
    for command in commands:
        arguments = shlex.split(command.replace("/opt/joblet", str(tmp_path)))[1:]
        subprocess.run([sys.executable, "-m", "joblet", *arguments], check=True, capture_output=True)
    made = {path.name for path in (tmp_path / "certs").iterdir()}
    names = [f"{name}-{kind}.pem" for name in ("ca", "server", "alice") for kind in ("cert", "key")]
    assert made == set(names)


def test_the_client_settings_file_is_valid(tmp_path: Path) -> None:
    (text,) = (block for block in blocks("yaml") if "nodes:" in block)
    path = tmp_path / "rnx-config.yml"
    path.write_text(text)
    settings = ClientConfig.resolve(config=path, environ={})
    assert settings.address == ("prod.example.com", 50051)
    assert settings.cert == str(tmp_path / "certs/alice-cert.pem")


def test_files_that_the_readme_names_exist() -> None:
    for name in re.findall(r"\b(?:deploy|scripts|protos|examples|docs)/[\w./-]*\w", README):
        assert (ROOT / name).exists(), name
    for command in ("scripts/quickstart", "scripts/test", ".ci/run"):
        assert os.access(ROOT / command, os.X_OK), command


def test_the_example_configuration_is_the_defaults() -> None:
    path = ROOT / "deploy/joblet-config.yml"
    assert load(path) == Config()
    assert keys(yaml.safe_load(path.read_text())) == keys(Config().model_dump())


def test_the_configuration_table_is_the_defaults() -> None:
    table = dict(re.findall(r"^\| `(\w+\.\w+)` \| `(.+?)` \|", README, flags=re.MULTILINE))
    defaults = Config().model_dump()
    assert set(table) == keys(defaults)
    for key, shown in table.items():
        section, _, name = key.partition(".")
        value = defaults[section][name]
        if isinstance(value, float):
            assert parse_duration(shown) == value, key
        else:
            assert (shown if isinstance(value, str) else yaml.safe_load(shown)) == value, key


def keys(sections: dict[str, dict[str, object]]) -> set[str]:
    return {f"{section}.{key}" for section, values in sections.items() for key in values}


def test_the_service_starts_what_the_readme_installs() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "deploy/joblet.service")
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert f"{Path(program).parent.parent}/bin/pip install ." in README
    assert arguments == ["serve", "--config", str(DEFAULT_PATH)]
    assert unit["Service"]["KillMode"] == "process"


def test_sessions_that_the_documents_name_exist() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), flags=re.MULTILINE))
    named = re.findall(r"scripts/test -s ([a-z_]+)", README + (ROOT / "CONTRIBUTING.md").read_text())
    assert named
    assert set(named) <= sessions
