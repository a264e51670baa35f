"""Launch until reaped: the shim as the server starts it against bubblewrap with the same namespaces and mounts.

    python benchmarks/shim_launch.py [--rounds N]

Needs root, a C compiler and bwrap. Every round launches each variant once, in turn, so that whatever else the machine
does falls on all of them; a ratio is the median of the rounds' own ratios to bubblewrap.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import shims
from joblet.executor.local import disk, host, spec
from joblet.executor.local.spec import Group, View

ROOT = Path(__file__).parents[1]
NOTHING = View((), (), (), 256 << 20)
COMMAND = "/bin/true"


def compile_shim(target: Path, without: Sequence[str] = ()) -> Path:
    """The shim of this source; `without` names calls of its init to leave out."""
    found = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert found is not None
    assert found.loader is not None
    build = importlib.util.module_from_spec(found)
    sys.modules["hatch_build"] = build
    found.loader.exec_module(build)
    machine = build.wanted_machine()
    sources = Path(tempfile.mkdtemp(prefix="shim-"))
    shutil.copytree(ROOT / "shim", sources / "shim")
    init = sources / "shim/init.c"
    text = init.read_text()
    for call in without:
        assert text.count(f"    {call};\n") == 1, call
        text = text.replace(f"    {call};\n", "")
    init.write_text(text)
    build.ROOT = sources
    build.compile_shim(target, build.find_compiler(machine))
    shutil.rmtree(sources)
    return target


class Launches:
    """Each launch has a directory of its own, made before its time is taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.cgroups = host.find_cgroups(f"bench{os.getpid()}")
        self.cgroups.prepare()

    def groups(self, name: str) -> list[Group]:
        return self.cgroups.groups(name, shims.LIMITS, ())

    def shim(
        self, binary: Path, view: View, *, groups: bool = True, megabytes: int = 0, through: Sequence[Path] = ()
    ) -> Callable[[], tuple[float, int]]:
        def launch() -> tuple[float, int]:
            self._count += 1
            job = self._folder / str(self._count)
            shims.prepare(job)
            if megabytes:
                disk.make(job / "disk", megabytes)
            own = self.groups(str(self._count)) if groups else []
            order = shims.order(self._count, [COMMAND], view, own, replace(shims.LIMITS, max_disk=megabytes))
            directory = os.open(job, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            lock = os.open(job / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            orders = spec.sealed_memfd(order)
            report, report_end = os.pipe2(os.O_CLOEXEC)
            sources = [self._null, self._null, self._null, orders, directory, report_end, lock]
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in sources]
            actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(high)]
            try:
                start = time.perf_counter()
                argv = [*map(str, through), str(binary), str(self._count)]
                pid = os.posix_spawn(argv[0], argv, {}, file_actions=actions, setsid=True)
                os.waitpid(pid, 0)
                took = time.perf_counter() - start
                text = (job / "exit").read_text()
                assert "outcome=exited\ncode=0\n" in text, (text, (job / "log").read_text())
                return took, 0
            finally:
                for fd in (*high, directory, lock, orders, report, report_end):
                    os.close(fd)
                shutil.rmtree(job)

        return launch

    def command(self, *argv: str) -> Callable[[], tuple[float, int]]:
        program = shutil.which(argv[0])
        assert program, f"needs {argv[0]}"
        actions = [(os.POSIX_SPAWN_DUP2, self._null, target) for target in range(3)]

        def launch() -> tuple[float, int]:
            start = time.perf_counter()
            pid = os.posix_spawn(program, argv, {"PATH": spec.PATH}, file_actions=actions)
            _, status = os.waitpid(pid, 0)
            took = time.perf_counter() - start
            assert status == 0, argv
            return took, status

        return launch


def bwrap(view: View, work: Path) -> list[str]:
    """The same view and namespaces, as an unprivileged root of a user namespace, without control groups or limits."""
    words = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-uts", "--unshare-ipc", "--unshare-cgroup"]
    words += [
        "--hostname",
        "job",
        "--uid",
        "0",
        "--gid",
        "0",
        "--cap-drop",
        "ALL",
        "--die-with-parent",
        "--new-session",
    ]
    words += ["--tmpfs", "/tmp"]
    for path in view.read_only:
        words += (
            ["--symlink", os.readlink(path), str(path)] if path.is_symlink() else ["--ro-bind", str(path), str(path)]
        )
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm", "--bind", str(work), "/work"]
    for path in view.masked:
        if path.exists():
            words += ["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", os.devnull, str(path)]
    return [*words, "--chdir", "/work", COMMAND]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds

    with tempfile.TemporaryDirectory(prefix="joblet-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        view = host.view(NOTHING, [])
        plain = View(
            tuple(path for path in view.read_only if not path.is_relative_to("/sys")), (), view.masked, view.tmp_bytes
        )
        bare = View(plain.read_only, (), (), view.tmp_bytes)
        (folder / "shared").mkdir()
        os.chown(folder / "shared", 12345, 12345)
        subprocess.run(["mount", "-o", "bind,nosuid", folder / "shared", folder / "shared"], check=True)
        shared = View(view.read_only, (folder / "shared",), view.masked, view.tmp_bytes)
        (folder / "work").mkdir()

        full = compile_shim(folder / "shim")
        no_landlock = compile_shim(folder / "shim-landlock", ["confine_to_writable(spec)"])
        no_filter = compile_shim(folder / "shim-seccomp", ["filter_system_calls()"])
        launches = Launches(folder)
        kind = launches.cgroups.name
        variants = {
            "bwrap": launches.command(*bwrap(view, folder / "work")),
            "plain fork and exec": launches.command(COMMAND),
            "shim": launches.shim(full, view),
            "shim without control groups": launches.shim(full, view, groups=False),
            "shim without landlock": launches.shim(no_landlock, view),
            "shim without seccomp": launches.shim(no_filter, view),
            "shim without /sys": launches.shim(full, plain),
            "shim without /sys, secrets not masked": launches.shim(full, bare),
            "shim with a writable host path": launches.shim(full, shared),
            "shim with a disk limit (mkfs not counted)": launches.shim(full, view, megabytes=64),
        }
        times: dict[str, list[float]] = {name: [] for name in variants}
        for turn in range(rounds + 10):
            for name, launch in variants.items():
                took, _ = launch()
                if turn >= 10:  # what comes before warms up
                    times[name].append(took * 1000)
        launches.cgroups.remove()
        subprocess.run(["umount", folder / "shared"], check=True)

    version = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"launch until reaped, {rounds} rounds, {version}, control groups {kind}, Linux {os.uname().release}\n")
    print(f"{'variant':<44}{'min ms':>8}{'median':>8}{'max':>8}   to bwrap   to shim")
    for name, found in times.items():
        to_bwrap = statistics.median(one / other for one, other in zip(found, times["bwrap"], strict=True))
        to_shim = statistics.median(one - other for one, other in zip(found, times["shim"], strict=True))
        middle = statistics.median(found)
        print(f"{name:<44}{min(found):8.2f}{middle:8.2f}{max(found):8.2f}{to_bwrap:10.2f}x{to_shim:+8.2f} ms")


if __name__ == "__main__":
    main()
