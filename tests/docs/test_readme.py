"""What README.md, the guides and deploy/ say is true: programs run, keys and defaults are those of the code."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml
from harness import PATIENCE, ROOT, Server
from pages import Page, client_environment, runs_jobs

from joblet.client import ClientConfig
from joblet.clock import parse_duration
from joblet.config import DEFAULT_PATH, Config, load

README = Page("README.md")
INSTALL = Page("docs/install.md")
GUIDES = [Page(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))]


@runs_jobs
def test_the_python_examples_run(make_server: Callable[..., Server]) -> None:
    environment = client_environment(make_server().start())
    programs = [*README.blocks("python"), *Page("docs/python.md").blocks("python")]
    assert len(programs) == 3
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
    commands = [line for block in README.blocks("sh") for line in block.splitlines() if line.startswith("joblet certs")]
    assert len(commands) == 1
    config = tmp_path / "joblet-config.yml"
    files = {"caCert": "ca-cert.pem", "serverCert": "server-cert.pem", "serverKey": "server-key.pem"}
    config.write_text(yaml.safe_dump({"security": {key: f"certs/{name}" for key, name in files.items()}}))
    for command in (f"joblet init --config {config}", *commands):
        arguments = shlex.split(command.replace("/opt/joblet", str(tmp_path)))[1:]
        subprocess.run([sys.executable, "-m", "joblet", *arguments], check=True, capture_output=True)
    made = {path.name for path in (tmp_path / "certs").iterdir()}
    names = [f"{name}-{kind}.pem" for name in ("ca", "server", "alice") for kind in ("cert", "key")]
    assert made == {*names, "issued.jsonl"}


def test_the_client_settings_file_is_valid(tmp_path: Path) -> None:
    (text,) = (block for block in Page("docs/jobs.md").blocks("yaml") if "nodes:" in block)
    path = tmp_path / "rnx-config.yml"
    path.write_text(text)
    settings = ClientConfig.resolve(config=path, environ={})
    assert settings.address == ("prod.example.com", 50051)
    assert settings.cert == str(tmp_path / "certs/alice-cert.pem")


def test_files_that_the_pages_name_exist() -> None:
    for page in (README, *GUIDES):
        for name in re.findall(r"(?<![\w/.])(?:deploy|scripts|protos|examples|docs)/[\w./-]*\w", page.text):
            assert (ROOT / name).exists(), f"{page.path.name}: {name}"
    for command in ("scripts/quickstart", "scripts/test", ".ci/run"):
        assert os.access(ROOT / command, os.X_OK), command


def test_the_guide_installs_as_the_readme_does() -> None:
    (block,) = (block for block in README.blocks("sh") if "pip install" in block)
    assert INSTALL.blocks("sh")[0] == block


def test_the_example_configuration_is_the_defaults() -> None:
    path = ROOT / "deploy/joblet-config.yml"
    assert load(path) == Config()
    assert keys(yaml.safe_load(path.read_text())) == keys(Config().model_dump())


def test_the_configuration_table_is_the_defaults() -> None:
    table = dict(re.findall(r"^\| `(\w+\.\w+)` \| `(.+?)` \|", Page("docs/configuration.md").text, flags=re.MULTILINE))
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
    for key, word in (("ExecStartPre", "init"), ("ExecStart", "serve")):
        program, *arguments = shlex.split(unit["Service"][key].removeprefix("+"))
        assert f"{Path(program).parent.parent}/bin/pip install ." in README.text
        assert arguments == [word, "--config", str(DEFAULT_PATH)]
    assert unit["Service"]["KillMode"] == "process"


def test_sessions_that_the_documents_name_exist() -> None:
    sessions = set(re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), flags=re.MULTILINE))
    named = re.findall(r"scripts/test -s ([a-z_]+)", README.text + Page("CONTRIBUTING.md").text)
    assert named
    assert set(named) <= sessions
