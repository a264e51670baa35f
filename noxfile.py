"""What CI runs, by name: `nox -l` lists it, `nox -s lint` runs one."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROTO = ROOT / "src/joblet/proto"
PYTHONS = ("3.11", "3.12", "3.13")
PROJECT = nox.project.load_toml("pyproject.toml")
ON_EACH = [
    *(f"tests/host/test_{name}.py" for name in ("rnx", "workflows", "calls", "client_errors", "client_sync")),
    "tests/unit",
]
"""The tests that run on each Python, long ones first. What others ask is asked of the kernel, the compilers and the
server as a whole, and they would learn nothing new from another Python."""

nox.options.sessions = ["lint", "codegen_check", "tests", "machines"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
# Tests start hundreds of programs, each of which would compile what it imports.
os.environ["UV_COMPILE_BYTECODE"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def group(name: str) -> list[str]:
    """The requirements of one dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


def present(version: str) -> bool:
    """Whether this Python can be started; a pyenv shim on PATH proves nothing."""
    program = shutil.which(f"python{version}")
    if program is None:
        return False
    return subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0


def select_pyenv_versions() -> None:
    """Let pyenv's shims answer for every Python that it has, not only for the one selected."""
    if shutil.which("pyenv") and "PYENV_VERSION" not in os.environ:
        listing = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=False)
        versions = [v for v in listing.stdout.split() if v.startswith(tuple(f"{p}." for p in PYTHONS))]
        if versions:
            os.environ["PYENV_VERSION"] = ":".join(versions)


select_pyenv_versions()
PRESENT = [version for version in PYTHONS if present(version)]


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and format, and mypy --strict over src, the documents' generator and the cookbook."""
    session.install(*PROJECT["project"]["dependencies"], *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy", "--strict")
    session.run("mypy", "--strict", "docs", "examples/cookbook")


@nox.session
def codegen(session: nox.Session) -> None:
    """Write src/joblet/proto anew from protos/."""
    fresh = generate(session)
    shutil.rmtree(PROTO)
    shutil.copytree(fresh, PROTO)


@nox.session
def codegen_check(session: nox.Session) -> None:
    """Fail when src/joblet/proto is not what protos/ generates."""
    fresh = generate(session)
    drifted = [path for path in files(fresh) | files(PROTO) if not same(fresh / path, PROTO / path)]
    for path in sorted(drifted):
        session.log(f"differs: src/joblet/proto/{path}")
        show_difference(PROTO / path, fresh / path)
    if drifted:
        session.error("src/joblet/proto is not what protos/ generates: run `nox -s codegen` and commit the result")


def generate(session: nox.Session) -> Path:
    """Compile protos/ into a directory of the session. The plugin, and the ruff it calls, are the session's own."""
    session.install(*group("codegen"))
    folder = ROOT / session.create_tmp()
    target = folder / "proto"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    # The ruff that formats the result reads this, and so not the project's settings.
    (folder / "ruff.toml").touch()
    with session.chdir(folder):
        session.run(
            *("python", "-m", "grpc_tools.protoc", f"-I{ROOT}/protos"),
            "--python_betterproto2_out=proto",
            "--python_betterproto2_opt=client_generation=async",
            "--python_betterproto2_opt=server_generation=async",
            "--descriptor_set_out=proto/joblet.binpb",
            "--include_source_info",
            f"{ROOT}/protos/joblet.proto",
        )
    return target


def files(root: Path) -> set[Path]:
    """Every file below `root`, relative to it."""
    found = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    return {path for path in found if "__pycache__" not in path.parts}


def same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def show_difference(old: Path, new: Path) -> None:
    """Print how two text files differ; a binary or absent one says enough by its name."""
    if old.suffix == ".py" and old.is_file() and new.is_file():
        lines = difflib.unified_diff(
            old.read_text().splitlines(), new.read_text().splitlines(), "committed", "generated", lineterm=""
        )
        print(*list(lines)[:40], sep="\n")


@nox.session
def docs(session: nox.Session) -> None:
    """Build site/: the reference from the source, and every page; a broken link or a missing page is an error."""
    session.install(*PROJECT["project"]["dependencies"], *group("docs"))
    options = ("--fail-on-warning", "--keep-going", "--fresh-env", "-q", "-b", "html")
    session.run("sphinx-build", *options, "docs", "site", env={"PYTHONPATH": "src"})


@nox.session
def man(session: nox.Session) -> None:
    """Write man/: a manual page for rnx, joblet and each of their commands."""
    session.install(*PROJECT["project"]["dependencies"])
    session.run("python", "docs/generate.py", "man", *(session.posargs or ["man"]), env={"PYTHONPATH": "src"})


@nox.session(python=PYTHONS[0])
def deb(session: nox.Session) -> None:
    """Write dist/joblet_VERSION_ARCH.deb for Debian 12, which installs without a network (needs dpkg-deb, binutils)."""
    session.install("pip", *PROJECT["project"]["dependencies"])  # which gathers what the package holds
    session.run("python", "deploy/deb/build.py", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests: all on the lowest Python present, some on the others too."""
    if session.python not in PRESENT:
        session.skip(f"Python {session.python} is not on this machine")
    session.install(".", *group("test"), *(group("fuzz") + group("compiler") if session.python == PRESENT[0] else []))
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    beside = ("pytest", "--numprocesses=4", "--dist=loadfile", "--no-loadscope-reorder")
    if session.python != PRESENT[0]:
        session.run(*beside, "-m", "not alone and not load", *ON_EACH)
        return
    session.run(*beside, "-m", "not alone")
    session.run("pytest", "-m", "alone")


@nox.session(python=PYTHONS[0])
def crash(session: nox.Session) -> None:
    """Kill the server at 200 random instants under load; `-- --seed N --cycles N` to choose (root, 5 minutes)."""
    session.install(".", *group("test"))
    session.run("python", "tests/fault/crash_loop.py", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(python=PYTHONS[0])
def fuzz(session: nox.Session) -> None:
    """Malformed TLS, HTTP/2, protobuf and files for an hour; `-- --minutes N --seed N` to choose (root)."""
    session.install(".", *group("test"), *group("fuzz"))
    session.run("python", "tests/fuzz/campaign.py", *session.posargs, env={"PYTHONPATH": "tests"})
    shim = ("tests/shim/test_fuzz.py", "-k", "no_bytes", "--timeout=0")
    session.run("pytest", *shim, env={"JOBLET_TEST_FUZZ_RUNS": "2000000"})


@nox.session(python=PYTHONS[0])
def bench(session: nox.Session) -> None:
    """Measure joblet beside its references; `-- --short` to see that all works, `-- --help` for more (root)."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs, env={"PYTHONPATH": f"{ROOT}:{ROOT}/tests"})


@nox.session(python=PYTHONS[0])
def soak(session: nox.Session) -> None:
    """An hour of everyday load, and what grows meanwhile; `-- --minutes N --out DIR` to choose (root)."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "benchmarks.soak", *session.posargs)


@nox.session(python=PYTHONS[0])
def flame(session: nox.Session) -> None:
    """Flame graphs of the server under launches and under readers of a log; `-- --out DIR` to choose (root)."""
    session.install(".", *group("bench"))
    session.run("python", "-m", "benchmarks.flame", *session.posargs)


@nox.session(venv_backend="none")
def vm(session: nox.Session) -> None:
    """The tests that depend on the machine, in a booted one with systemd and control groups v2 only (root, qemu)."""
    session.run("tests/vm/pytest", *session.posargs, external=True)


@nox.session(python=PYTHONS[0])
def install(session: nox.Session) -> None:
    """Install, upgrade, roll back and purge the Debian package in a booted machine (root, qemu, 6 minutes)."""
    session.install(".", "pip")
    session.run("python", "tests/vm/install", *session.posargs)


@nox.session(python=PYTHONS[0])
def machines(session: nox.Session) -> None:
    """`vm` and `install` side by side: to emulate a machine keeps hardly more than one processor busy."""
    session.install(".", "pip")
    command = [f"{session.bin}/python", "tests/vm/install"]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as installing,
    ):
        try:
            session.run("tests/vm/pytest", external=True)
        finally:
            installing.wait()
            said.seek(0)
            print(said.read(), flush=True)
    if installing.returncode:
        session.error(f"tests/vm/install ended with {installing.returncode}")


@nox.session(python=PYTHONS[0])
def power_loss(session: nox.Session) -> None:
    """Cut the power of a booted machine under load; `-- --seed N --cycles N` to choose (root, qemu, 8 minutes)."""
    session.install(".", *group("test"))
    session.run("python", "tests/vm/power_loss", *session.posargs)


@nox.session(venv_backend="none")
def chroot(session: nox.Session) -> None:
    """Both commands of the README in a clean Debian bookworm (root, mmdebstrap)."""
    session.run("tests/vm/chroot", *session.posargs, external=True)


if not PRESENT:
    raise SystemExit(f"none of Python {', '.join(PYTHONS)} is on this machine")
