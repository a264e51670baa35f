"""`rnx cp`: what jobs leave in their work directories, whatever they do to it meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Server, memory_kb

from joblet.client import ClientConfig, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, sync

SECRET = b"nobody's business"


def settings(server: Server, name: str = "admin") -> ClientConfig:
    names = (f"{name}-cert", f"{name}-key", "ca-cert")
    return ClientConfig(f"localhost:{server.port}", *(str(server.certificates / f"{name}.pem") for name in names))


@pytest.fixture
def blocking(server: Server) -> Iterator[sync.Client]:
    with sync.Client(settings(server)) as client:
        yield client


def run(client: sync.Client, script: str, *, ended: bool = True, **limits: int) -> str:
    job = client.run("bash", "-c", script, **limits)
    if ended:
        assert job.wait().status == "COMPLETED", b"".join(job.logs())
    else:
        next(job.logs())
    return job.id


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Content (None: a directory, text: a link) of all that is below."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else None
        if path.is_dir()
        else path.read_bytes()
        for path in folder.rglob("*")
    }


MAKE = "mkdir -p out/sub; echo -n one >out/1; echo -n two >out/sub/2; chmod 750 out/sub out/1; ln -s sub/2 out/link; :"
MADE = {"1": b"one", "sub": None, "sub/2": b"two", "link": "sub/2"}


@pytest.mark.parametrize("limits", [{}, {"max_disk": 16}], ids=["directory", "disk"])
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "running"])
def test_files_of_a_job(
    server: Server, blocking: sync.Client, tmp_path: Path, ended: bool, limits: dict[str, int]
) -> None:
    job_id = run(blocking, MAKE + ("" if ended else "; echo made; sleep 1000"), ended=ended, **limits)
    done = server.rnx("cp", f"{job_id}:out", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert tree(tmp_path / "out") == MADE
    assert stat.S_IMODE((tmp_path / "out/1").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "out/sub").stat().st_mode) == 0o750
    copied = blocking.download(job_id, "out", tmp_path / "new")
    assert (copied.path, copied.files, copied.bytes, copied.skipped) == (tmp_path / "new", 3, 6, ())
    assert tree(tmp_path / "new") == MADE
    assert tree(blocking.download(job_id, "", tmp_path / "all").path) == {
        "out": None,
        **{f"out/{path}": content for path, content in MADE.items()},
    }
    blocking.download(job_id, "out/1", tmp_path / "single")
    assert (tmp_path / "single").read_bytes() == b"one"
    assert server.rnx("cp", f"{job_id}:./out/sub/2", "-").stdout == "two"
    if not ended:
        blocking.stop(job_id)
    blocking.delete(job_id)
    with pytest.raises(NotFound, match=f"job not found: {job_id}"):
        blocking.download(job_id, "out", tmp_path)


def test_what_is_there_is_replaced_only_by_its_kind(blocking: sync.Client, tmp_path: Path) -> None:
    job_id = run(blocking, MAKE)
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    target = tmp_path / "target"
    (target / "out").mkdir(parents=True)
    (target / "out/1").write_bytes(b"old")
    (target / "out/other").write_bytes(b"other")
    blocking.download(job_id, "out", target)
    assert tree(target / "out") == {**MADE, "other": b"other"}
    for name, text in (("1", "it exists, and is no file"), ("sub", "it exists, and is no directory")):
        place = target / "out" / name
        place.rename(target / f"old-{name}")
        place.symlink_to(outside if name == "1" else tmp_path)
        with pytest.raises(InvalidArgument, match=f"cannot write .*{name}: {text}"):
            blocking.download(job_id, "out", target)
        place.unlink()
    assert outside.read_bytes() == b"mine"
    with pytest.raises(InvalidArgument, match="is no directory"):
        blocking.download(job_id, "out", tmp_path / "none/there")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".rnx-")]


HOSTILE = """
ln -s {secret} stolen; ln -s / root; ln -s ../../../.. up; mkfifo pipe; mkdir -p real/in; echo fine > real/in/file
ln -s in real/link; ln -s in/.. real/back; ln -s real/in/../../.. out
python3 -c "
import os, socket
s = socket.socket(socket.AF_UNIX); s.bind('socket')
open(b'bad\\xff', 'w').close()
os.symlink(b'bad\\xff', 'to-bad')
for n in range(80): os.mkdir('deep'); os.chdir('deep')
"
"""


def test_a_hostile_directory(server: Server, blocking: sync.Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    job_id = run(blocking, HOSTILE.format(secret=secret))
    os.mknod(server.state / f"jobs/{job_id}/work/device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    copied = blocking.download(job_id, "", tmp_path / "copy")
    why = dict(copied.skipped)
    assert why.pop("/".join(["deep"] * 65)) == "more than 64 directories deep"
    assert why == {
        "stolen": f"a link to {secret}, which is elsewhere",
        "root": "a link to /, which is elsewhere",
        "up": "a link to ../../../.., which is elsewhere",
        "out": "a link to real/in/../../.., which is elsewhere",
        "real/back": "a link to in/.., which is elsewhere",
        "bad?": "its name is not UTF-8 text",
        "to-bad": "the target of the link is not UTF-8 text",
        **dict.fromkeys(("pipe", "socket", "device"), "neither a file, a directory nor a link"),
    }
    found = {path: content for path, content in tree(tmp_path / "copy").items() if not path.startswith("deep")}
    assert found == {"real": None, "real/in": None, "real/in/file": b"fine\n", "real/link": "in"}
    for path, text in (
        ("stolen", "a link to"),
        ("pipe", "neither a file"),
        ("device", "neither a file"),
        ("real", "is a directory"),
    ):
        done = server.rnx("cp", f"{job_id}:{path}", "-")
        assert (done.returncode, done.stdout, text in done.stderr) == (1, "", True), done.stderr
    for path in ("root/etc/shadow", "up/etc/shadow", "real/back/in/file", "real/link/file"):
        with pytest.raises(InvalidArgument, match=f"{path} leads over a link"):
            blocking.download(job_id, path, tmp_path)
    for path in ("../work/real", "/etc/shadow", "real/../real", "a\0b"):
        with pytest.raises(InvalidArgument, match="not a plain relative path"):
            blocking.download(job_id, path, tmp_path)
    with pytest.raises(NotFound, match=rf"file not found: real/none \(job {job_id}\)"):
        blocking.download(job_id, "real/none", tmp_path)


SWAP = """
mkdir -p d/e; for n in $(seq 50); do echo fine > d/e/$n; done; ln -s {folder} l; echo begun
python3 -c "
import os
while True:
    os.rename('d/e', 'x'); os.rename('l', 'd/e'); os.rename('d/e', 'l'); os.rename('x', 'd/e')
"
"""


def test_what_is_swapped_while_it_is_read(blocking: sync.Client, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    for number in range(1, 51):
        (folder / str(number)).write_bytes(SECRET)
    job_id = run(blocking, SWAP.format(folder=folder), ended=False)
    seen = 0
    for number in range(40):
        target = tmp_path / f"copy{number}"
        blocking.download(job_id, "", target)
        for path in target.rglob("*"):
            if path.is_file() and not path.is_symlink():
                seen += 1
                assert path.read_bytes() == b"fine\n"
    assert seen
    blocking.stop(job_id)


def test_a_workflows_directory(server: Server, blocking: sync.Client, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("jobs: {a: {command: bash, args: [-c, 'echo shared > /workflow/x']}}\n")
    workflow = blocking.run_workflow(tmp_path / "w.yaml")
    workflow.wait()
    done = server.rnx("cp", "--workflow", f"{workflow.id}:x", str(tmp_path / "copy"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "copy").read_text() == "shared\n"
    assert server.rnx("complete", "bash", "--", "cp", "--workflow", "").returncode == 0


def test_what_cannot_be_copied(server: Server, blocking: sync.Client, tmp_path: Path) -> None:
    assert server.rnx("cp", "1", str(tmp_path)).returncode == 2
    done = server.rnx("cp", "999999:x", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "Error: job not found: 999999\n")
    with sync.Client(settings(server, "viewer")) as viewer, pytest.raises(PermissionDenied, match="read_files"):
        viewer.download("1", "", tmp_path)


def test_a_job_that_waits_has_no_files(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server(joblet={"maxConcurrentJobs": 1}).start()
    with sync.Client(settings(server)) as client:
        client.run("sleep", "1000")
        waiting = client.run("true")
        with pytest.raises(FailedPrecondition) as error:
            waiting.client.download(waiting.id, "", tmp_path)
        assert str(error.value) == "files of job 2 cannot be read: it has not started (current status: PENDING)"
        client.stop(waiting.id)
        with pytest.raises(FailedPrecondition, match="files of job 2 cannot be read: nothing of it has been started"):
            client.download(waiting.id, "", tmp_path)


def test_much_comes_at_flat_memory(make_server: Callable[..., Server]) -> None:
    server = make_server().start()
    with sync.Client(settings(server)) as client:
        job_id = run(client, "truncate -s 100M sparse; echo -n end >> sparse")
        at_start, own = memory_kb(server.pid), memory_kb(os.getpid())
        for pid in (server.pid, os.getpid()):
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak counts from here (proc_pid_clear_refs(5))
        size = sum(len(entry.content) for entry in client.read_files(job_id, "sparse"))
        peaks = memory_kb(server.pid, "VmHWM") - at_start, memory_kb(os.getpid(), "VmHWM") - own
        assert size == (100 << 20) + 3
        assert max(peaks) < 16 << 10, f"KiB more of server and client: {peaks}"
    assert not server.descriptors_of(server.state / f"jobs/{job_id}/work")


def test_a_job_that_is_deleted_meanwhile(blocking: sync.Client) -> None:
    job_id = run(blocking, "truncate -s 20M a b c")
    entries = blocking.read_files(job_id)
    next(entries)
    blocking.delete(job_id)
    with pytest.raises(NotFound, match=f"job not found: {job_id}"):
        list(entries)
