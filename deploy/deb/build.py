"""Build the Debian package from this work tree: a program for the machine's Python that needs no network to install.

    python deploy/deb/build.py [--out DIR] [--cache DIR]     prints the package's path

Runs by the version of Python that the target has, Debian 12's 3.11, with joblet's own dependencies and pip, and by
dpkg-deb and strip. It needs no root: the files in the package are root's. The same tree and the same dependencies give
the same bytes.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import hashlib
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VENV = Path("opt/joblet/venv")
SITE = VENV / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
PROGRAMS = {"joblet": "joblet.cli", "rnx": "rnx.main"}
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/rnx",
    "zsh": "usr/share/zsh/vendor-completions/_rnx",
    "fish": "usr/share/fish/vendor_completions.d/rnx.fish",
}
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")
EPOCH = "1735689600"
"""the time of files, where SOURCE_DATE_EPOCH says no other"""
_LEFT_OUT = ("bin", "tzdata*", "**/*.pyi", "**/*.pyx", "**/*.pxd", "**/*.h")
"""of the dependencies: programs, what Debian has itself, and what only compilers read"""
_LEFT_BEHIND = shutil.ignore_patterns(".*", "__pycache__", "_bin", "tests", "*.o", "dist", "site")


def build(source: Path, out: Path, cache: Path) -> Path:
    """Write the package of the work tree `source` into directory `out`; its path. `cache` keeps the dependencies."""
    with tempfile.TemporaryDirectory(prefix="joblet-deb.") as folder:
        stage = Path(folder, "stage")
        shutil.copytree(dependencies(source, cache), stage / SITE)
        install(source, stage, Path(folder))
        place_files(source, stage)
        version = re.search(r'"(.+)"', (source / "src/joblet/__init__.py").read_text().partition("__version__")[2])[1]
        return pack(source, stage, out, version)


def dependencies(source: Path, cache: Path) -> Path:
    """A directory with all that joblet imports, compiled; made once for what pyproject.toml asks for."""
    wanted = tomllib.loads((source / "pyproject.toml").read_text())["project"]["dependencies"]
    key = hashlib.sha256(json.dumps([sys.version, wanted, _LEFT_OUT, "stripped"]).encode()).hexdigest()[:12]
    made = cache / f"deb-{key}"
    if not made.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".making.") as folder:
            fresh = Path(folder, "site")
            pip("install", "--only-binary=:all:", "--target", fresh, *wanted)
            for path in [found for pattern in _LEFT_OUT for found in fresh.glob(pattern)]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for library in fresh.rglob("*.so"):  # half of their bytes are for debuggers
                command("strip", "--strip-unneeded", str(library))
            compile_all(fresh)
            fresh.rename(made)
    return made


def install(source: Path, stage: Path, folder: Path) -> None:
    """Put joblet itself into the virtual environment, which venv would make only where it is to stay."""
    shutil.copytree(source, folder / "source", symlinks=True, ignore=_LEFT_BEHIND)
    pip("install", "--no-deps", "--target", folder / "joblet", folder / "source")
    shutil.rmtree(folder / "joblet/bin")
    for recorded in (folder / "joblet").glob("*.dist-info/direct_url.json"):
        recorded.unlink()  # the directory of this build
    compile_all(folder / "joblet")
    shutil.copytree(folder / "joblet", stage / SITE, dirs_exist_ok=True)
    write(stage / VENV / "pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python()}\n")
    link(stage / VENV / "bin/python3", "/usr/bin/python3")
    for name, module in PROGRAMS.items():
        program = f"#!/{VENV}/bin/python3 -I\nfrom {module} import main\n\nmain()\n"
        write(stage / VENV / "bin" / name, program, 0o755)
        link(stage / "usr/bin" / name, f"/{VENV}/bin/{name}")


def place_files(source: Path, stage: Path) -> None:
    """Units, configuration, manual pages, completion and what the policy asks for, from where each is at home."""
    for unit in ("joblet.service", "joblet.slice"):
        write(stage / "lib/systemd/system" / unit, (source / "deploy" / unit).read_text())
    write(stage / "etc/joblet/joblet-config.yml", (source / "deploy/joblet-config.yml").read_text())
    (stage / "etc/joblet/certs").mkdir()
    for name in ("joblet-config.yml", "certs"):
        link(stage / "opt/joblet" / name, f"/etc/joblet/{name}")
    with tempfile.TemporaryDirectory() as pages:
        run_here(stage, source / "docs/generate.py", "man", pages)
        for page in Path(pages).iterdir():
            write(stage / "usr/share/man/man1" / f"{page.name}.gz", compressed(page.read_text()))
    for shell, path in COMPLETIONS.items():
        write(stage / path, run_here(stage, "-m", "rnx", "completion", shell))
    about = stage / "usr/share/doc/joblet"
    write(about / "copyright", (source / "LICENSE").read_text())
    write(about / "changelog.gz", compressed((source / "CHANGELOG.md").read_text()))
    write(stage / "usr/share/lintian/overrides/joblet", (HERE / "lintian-overrides").read_text())


def pack(source: Path, stage: Path, out: Path, version: str) -> Path:
    """Add what dpkg reads, and write the package."""
    architecture = command("dpkg", "--print-architecture").strip()
    values = {
        "VERSION": version,
        "ARCHITECTURE": architecture,
        "SIZE": str(sum(path.lstat().st_size for path in stage.rglob("*") if path.is_file()) >> 10),
        "PYTHON": python(),
        "NEXT_PYTHON": f"{sys.version_info.major}.{sys.version_info.minor + 1}",
        "SCHEMA": str(len(list((source / "src/joblet/store/sql").glob("*.sql")))),
    }
    sums = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(stage)}\n"
        for path in sorted(stage.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
    control = stage / "DEBIAN"
    for name in ("control", *SCRIPTS, "templates"):
        text = re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], (HERE / name).read_text())
        write(control / name, text, 0o755 if name in SCRIPTS else 0o644)
    write(control / "conffiles", "/etc/joblet/joblet-config.yml\n")
    write(control / "md5sums", "".join(sums))
    settle_modes(stage)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"joblet_{version}_{architecture}.deb"
    environment = {"SOURCE_DATE_EPOCH": EPOCH, **os.environ}
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z9", "--build", stage, target],
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return target


def settle_modes(stage: Path) -> None:
    """Modes and times that do not depend on who builds, and when."""
    scripts = {stage / "DEBIAN" / name for name in SCRIPTS}
    times = (int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH)),) * 2
    for path in (stage, *stage.rglob("*")):
        if not path.is_symlink():
            program = path.parent.name in ("bin", "_bin") or path in scripts
            path.chmod(0o755 if path.is_dir() or program else 0o644)
        os.utime(path, times, follow_symlinks=False)
    (stage / "etc/joblet/certs").chmod(0o700)


def compile_all(folder: Path) -> None:
    """Compile every module as it will be imported, once and for all: programs of root's write nothing beside them."""
    compileall.compile_dir(
        folder,
        quiet=2,
        stripdir=str(folder),
        prependdir=f"/{SITE}",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        workers=os.cpu_count() or 1,
    )


def run_here(stage: Path, *arguments: str | Path) -> str:
    """Run the staged joblet by this Python; what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(stage / SITE), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True
    ).stdout


def pip(*arguments: str | Path) -> None:
    options = ("--quiet", "--disable-pip-version-check", "--no-compile", "--no-input", "--root-user-action=ignore")
    subprocess.run([sys.executable, "-m", "pip", arguments[0], *options, *arguments[1:]], check=True)


def command(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def compressed(text: str) -> bytes:
    return gzip.compress(text.encode(), 9, mtime=0)


def python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="directory of the package (dist)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "joblet-deb")
    parser.add_argument("--cache", type=Path, default=cache, help=f"where dependencies are kept ({cache})")
    options = parser.parse_args()
    print(build(ROOT, options.out, options.cache))
    return 0


if __name__ == "__main__":
    sys.exit(main())
