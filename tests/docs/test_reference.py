"""The reference is complete: it has every error, rpc, message, key, command and name of the client."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
from pathlib import Path

import generate
import pytest
from generator import commands, errors, man, markdown, protocol, source
from google.protobuf.descriptor_pb2 import DescriptorProto
from harness import ROOT

from joblet import client
from joblet import errors as server_errors
from joblet.client import errors as client_errors
from joblet.client import sync
from joblet.config import Config
from joblet.workflow.schema import json_schema


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each page's text by its name without suffix."""
    folder = tmp_path_factory.mktemp("reference")
    generate.write_reference(folder)
    return {path.stem: path.read_text() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every manual page."""
    folder = tmp_path_factory.mktemp("man")
    generate.write_man(folder)
    return folder


def headings(page: str, level: str) -> list[str]:
    return re.findall(rf"^{level} (.+)$", page, flags=re.MULTILINE)


def test_the_catalogue_has_every_error_with_what_to_do(pages: dict[str, str]) -> None:
    defined = [
        node.name
        for module in (server_errors, client_errors)
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef)
    ]
    assert headings(pages["errors"], "###") == defined
    assert len(re.findall(r"^- What to do: \S.+\.$", pages["errors"], flags=re.MULTILINE)) == len(defined)


def test_every_error_has_its_texts(pages: dict[str, str]) -> None:
    """All but the bases, which are made by nobody, and those of the client that hold the server's own sentence."""
    bases = {server_errors.JobletError, server_errors.StoreFull, client_errors.JobletError, client_errors.CallError}
    given = set(client_errors.CallError.__subclasses__())
    every = errors.classes(server_errors) + errors.classes(client_errors)
    assert [kind.__name__ for kind in every if kind not in bases | given and not errors.texts(kind)] == [
        "InvalidWorkflow"  # of the client: the faults are its text
    ]
    assert "- Text: `job has not ended: {job_id} (current status: {state})`" in pages["errors"]
    assert "  - `invalid key: {key} (at most {max_key} printable characters)`" in pages["errors"]


def test_the_catalogue_names_no_error_that_is_not(pages: dict[str, str]) -> None:
    assert set(errors.OF_SERVER) <= {kind.__name__ for kind in errors.classes(server_errors)}
    assert set(errors.OF_CLIENT) <= {kind.__name__ for kind in errors.classes(client_errors)}


def test_the_protocol_has_every_rpc_and_field(pages: dict[str, str]) -> None:
    file = protocol.read(ROOT / "src/joblet/proto/joblet.binpb")
    rpcs = [method.name for service in file.service for method in service.method]
    assert [
        name
        for name in rpcs
        if not re.search(rf"^\| `{name}` \|.*\| (admin|viewer|admin, viewer) \|", pages["protocol"], flags=re.MULTILINE)
    ] == []
    parts = dict(re.findall(r"^### (\w+)$\n(.*?)(?=^###|\Z)", pages["protocol"], flags=re.MULTILINE | re.DOTALL))
    assert [message.name for message in file.message_type if not has_fields(message, parts)] == []
    assert "milliseconds that its command may run" in parts["Job"]


def has_fields(message: DescriptorProto, parts: dict[str, str]) -> bool:
    text = parts.get(message.name, "")
    return all(f"| {field.number} | `{field.name}` |" in text for field in message.field)


def test_the_configuration_has_every_key_with_its_meaning(pages: dict[str, str]) -> None:
    shown = re.findall(r"^\| `(\w+\.\w+)` \| `.+?` \| .+? \| .* \| .+ \|$", pages["configuration"], flags=re.MULTILINE)
    assert shown == [
        f"{name}.{key}" for name, values in Config().model_dump().items() for key in _in_order(name, values)
    ]


def _in_order(name: str, values: dict[str, object]) -> list[str]:
    return list(type(getattr(Config(), name)).model_fields)


def test_the_workflow_page_has_every_key(pages: dict[str, str]) -> None:
    schema = json_schema()
    parts = [schema, *schema["$defs"].values()]
    keys = {key for part in parts for key in part.get("properties", ())}
    assert {key for key in keys if f"| `{key}` |" not in pages["workflow"]} == set()


@pytest.mark.parametrize("name", ["rnx", "joblet"])
def test_a_program_has_every_command_option_and_example(name: str, pages: dict[str, str]) -> None:
    program, *rest = commands.programs()[name]
    assert headings(pages[name], "##") == ["Flags of the program", *(" ".join(each.words) for each in rest)]
    for command in (program, *rest):
        for option, about in command.options:
            assert f"| {markdown.code(option)} | {markdown.prose(about)} |".replace("|", "") in pages[name].replace(
                "\\|", ""
            ).replace("|", ""), (command.words, option)
        assert [line for _, line in command.examples if f"\n{line}\n" not in pages[name]] == []


def test_the_client_has_every_name(pages: dict[str, str]) -> None:
    shown = set(re.findall(r"autoclass:: (\S+)", pages["client"]))
    assert shown == {f"joblet.client.{name}" for name in client.__all__} | {
        f"joblet.client.sync.{name}" for name in ("Client", "Job", "Workflow")
    }
    assert {name for name in vars(sync) if isinstance(getattr(sync, name), type)} >= {"Client", "Job", "Workflow"}


def test_there_is_a_manual_page_of_every_command(manual: Path) -> None:
    names = {"-".join(each.words) for tree in commands.programs().values() for each in tree}
    assert {path.name for path in manual.iterdir()} == {f"{name}.1" for name in names}
    assert {"rnx", "rnx-run", "rnx-workflow-graph", "joblet", "joblet-certs-issue"} <= names


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not on this machine")
def test_groff_finds_nothing_wrong_with_the_manual(manual: Path) -> None:
    done = subprocess.run(
        ["groff", "-man", "-z", "-ww", "-Tutf8", *sorted(manual.iterdir())], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not on this machine")
def test_a_manual_page_reads_as_the_help_does(manual: Path) -> None:
    """With every character as it was typed: dashes that can be copied, and quotes."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-P-cbou", manual / "rnx-list.1"], capture_output=True, text=True, check=True
    )
    text = " ".join(done.stdout.split())
    assert "rnx list --label=app=backup --format='{id:<6} {status:<10} {name}'" in text
    assert "-w, --watch On a terminal: draw it again whenever something happens." in text


def test_what_means_something_to_roff_is_escaped() -> None:
    assert man.escaped(".TH\n'x -\\ `~^ ä") == "\\&.TH\n\\(aqx \\-\\e \\(ga\\(ti\\(ha \\[u00E4]"


def test_sentences_are_read_from_the_source() -> None:
    (statement,) = ast.parse('"a " + f"{len(names)} of {self.most!r}, {x[:1].lower()}{x[1:]}"').body
    assert isinstance(statement, ast.Expr)
    assert source.sentence(statement.value) == "a {names} of {most}, {x}"


def test_the_script_does_what_its_own_text_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, status in ((["man", str(tmp_path)], 0), (["man"], 2), (["html", str(tmp_path)], 2)):
        monkeypatch.setattr("sys.argv", ["generate.py", *arguments])
        assert generate.main() == status
        assert ("python docs/generate.py man" in capsys.readouterr().err) == (status == 2)
    assert (tmp_path / "rnx.1").exists()
