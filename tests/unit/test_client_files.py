"""Files that go along with an order: where they lie in the work directory, and which are refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from harness import bound_by_modes

from joblet.client import InvalidArgument, InvalidWorkflow, WorkflowFile
from joblet.client import _files as files
from joblet.proto import joblet as pb

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project: `a.txt`, `run.sh` and `src/lib/x.py`."""
    (tmp_path / "src/lib").mkdir(parents=True)
    (tmp_path / "a.txt").write_bytes(b"a\r\n\x00")
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "src/lib/x.py").write_text("x")
    (tmp_path / "run.sh").chmod(0o755)
    for path in ("a.txt", "src/lib/x.py"):
        (tmp_path / path).chmod(0o640)
    for path in ("src", "src/lib"):
        (tmp_path / path).chmod(0o750)
    return tmp_path


SRC = [
    pb.FileUpload("src", mode=0o750, is_directory=True),
    pb.FileUpload("src/lib", mode=0o750, is_directory=True),
    pb.FileUpload("src/lib/x.py", b"x", 0o640),
]


def test_a_file_lies_by_its_name_and_a_directory_as_what_is_in_it(folder: Path) -> None:
    a, script = pb.FileUpload("a.txt", b"a\r\n\x00", 0o640), pb.FileUpload("run.sh", b"#!/bin/sh\n", 0o755)
    assert sent(folder / "a.txt") == [a]
    assert sent(folder) == [a, script, *SRC]
    assert sent(str(folder / "run.sh"), folder / "src") == [script, *[_up(upload) for upload in SRC[1:]]]
    assert sent() == []


def sent(*paths: str | Path) -> list[pb.FileUpload]:
    return files.read(files.uploads(paths))


def _up(upload: pb.FileUpload) -> pb.FileUpload:
    return pb.FileUpload(upload.path.removeprefix("src/"), upload.content, upload.mode, upload.is_directory)


def test_what_a_workflow_names_lies_where_it_says(folder: Path) -> None:
    assert files.read(files.uploads_of(folder, ["src", "src/lib/x.py", "src"], {})) == SRC
    assert files.read(files.uploads_of(folder, ["src/lib/x.py"], {})) == SRC[2:]


def test_contents_given_need_no_file(folder: Path) -> None:
    given = {"a.txt": b"other", "none/b": b"b"}
    assert files.read(files.uploads_of(folder, ["a.txt", "none", "run.sh"], given)) == [
        pb.FileUpload("a.txt", b"other"),
        pb.FileUpload("none/b", b"b"),
        pb.FileUpload("run.sh", b"#!/bin/sh\n", 0o755),
    ]


def test_a_link_to_a_file_is_the_file(folder: Path) -> None:
    (folder / "link").symlink_to("a.txt")
    assert sent(folder / "link") == [pb.FileUpload("link", b"a\r\n\x00", 0o640)]


def test_files_that_cannot_be_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*paths: Path) -> str:
        with pytest.raises(InvalidArgument) as error:
            files.uploads(paths)
        return str(error.value).replace(f"{folder}/", "")

    assert refused(folder / "none") == "cannot upload none: no such file or directory"
    assert refused(Path("\0")) == "cannot upload \0: its name holds a NUL byte"
    (folder / "other").mkdir()
    (folder / "other/a.txt").touch()
    assert refused(folder / "a.txt", folder / "other") == "cannot upload other/a.txt: a.txt would be a.txt too"
    (folder / "src/loop").symlink_to("..")
    assert refused(folder) == "cannot upload src/loop: a link to a directory"
    (folder / "src/loop").unlink()
    os.mkfifo(folder / "pipe")
    assert refused(folder / "pipe") == "cannot upload pipe: neither a file nor a directory"
    (folder / "pipe").unlink()
    monkeypatch.setattr(files, "MAX_FILES", 3)
    assert refused(folder).endswith(": more than 3 files")


def test_a_file_that_changes_while_it_is_read_is_not_sent(folder: Path) -> None:
    (source,) = files.uploads([folder / "a.txt"])
    for text in ("longer than it was", "a", "b\r\n\x00"):
        (folder / "a.txt").write_text(text)
        os.utime(folder / "a.txt", ns=(1, 1))
        with pytest.raises(InvalidArgument, match=r"cannot upload .*a\.txt: it changes while it is read"):
            files.read([source])


def test_sources_are_told_apart_without_being_read(folder: Path) -> None:
    def digest() -> str:
        return files.digest(files.uploads([folder]))

    digests = [digest()]
    assert digest() == digests[0]
    (folder / "a.txt").chmod(0o600)
    digests.append(digest())
    os.utime(folder / "a.txt", ns=(1, 1))
    digests.append(digest())
    (folder / "a.txt").rename(folder / "b.txt")
    digests.append(digest())
    digests.append(files.digest([files.Source("x", size=1, content=b"1")]))
    digests.append(files.digest([files.Source("x", size=1, content=b"2")]))
    assert len(set(digests)) == len(digests)


@needs_linux
def test_files_that_may_not_be_read(folder: Path) -> None:
    for path in ("a.txt", "src"):
        (folder / path).chmod(0)
        with bound_by_modes(), pytest.raises(InvalidArgument, match="permission denied"):
            sent(folder / path)


TEXT = """\
parameters: {name: {type: string}}
jobs:
  a: {command: cat, args: ["${{ params.name }}"], uploads: {files: [a.txt, src]}}
  b: {command: cat, requires: [a]}
"""


def test_a_workflow_file(folder: Path) -> None:
    path = folder / "w.yaml"
    path.write_text(TEXT)
    file = WorkflowFile.read(path, parameters={"name": "n"})
    assert [step.name for step in file.plan.steps] == ["a", "b"]
    assert [upload.path for upload in file.uploads()] == ["a.txt", "src", "src/lib", "src/lib/x.py"]
    assert WorkflowFile.read(path, parameters={"name": "n"}, job="b").uploads() == []
    assert WorkflowFile.read(path, text=TEXT, parameters={"name": "n"}) == file
    assert "secret" not in repr(WorkflowFile.read(path, parameters={"name": "secret"}))
    (folder / "a.txt").unlink()
    with pytest.raises(InvalidArgument, match=r"cannot upload .*a\.txt: no such file or directory"):
        file.uploads()
    assert file.uploads({"a.txt": b""})[0].path == "a.txt"


def test_all_faults_of_a_workflow_file_are_told(folder: Path) -> None:
    with pytest.raises(InvalidWorkflow) as error:
        WorkflowFile.read(
            folder / "w.yaml", text="jobs:\n  a: {comand: x, command: a}\n  b: {command: b, requires: [c]}"
        )
    assert error.value.faults == (
        f'{folder}/w.yaml:2: job "a": comand: unknown key (did you mean command?)',
        f'{folder}/w.yaml:3: job "b": requires[0]: unknown job "c"',
    )
    assert str(error.value) == "\n".join(error.value.faults)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"jobs: \xff", "w.yaml: not UTF-8 text at byte 6"),
        (b"x" * (2**20 + 1), "w.yaml: larger than 1048576 bytes"),
        (None, "cannot read w.yaml: no such file or directory"),
    ],
)
def test_workflow_files_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("w.yaml").write_bytes(content)
    with pytest.raises(InvalidArgument) as error:
        WorkflowFile.read("w.yaml")
    assert str(error.value) == message
