"""Compiles the shim into every wheel for Linux: hatchling's custom build hook (pyproject.toml)."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # the tests compile shims without building a wheel
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).parent
SHIM = Path("src/joblet/_bin/joblet-shim")
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
WARNINGS = (
    *("-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wformat=2", "-Wvla", "-Wundef"),
    *("-Wcast-qual", "-Wcast-align", "-Wpointer-arith", "-Wwrite-strings", "-Wnull-dereference", "-Wswitch-enum"),
    *("-Wstrict-prototypes", "-Wmissing-prototypes", "-Wredundant-decls", "-Wdouble-promotion"),
)
FLAGS = (
    *("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-ffunction-sections", *WARNINGS),
    *("-fstack-protector-strong", "-fno-strict-overflow", "-fno-strict-aliasing", "-fno-delete-null-pointer-checks"),
)
# What not every compiler or C library has. Of each row the first that works.
HARDENING = (
    (("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"), ("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2")),
    (("-fstack-clash-protection",),),
    (("-ftrivial-auto-var-init=zero",),),
)
BRANCH_PROTECTION = {"x86_64": "-fcf-protection=full", "aarch64": "-mbranch-protection=standard"}
LINK_FLAGS = ("-Wl,-z,relro,-z,now,-z,noexecstack", "-Wl,--gc-sections", "-s")
# A position independent program where the compiler can make one that needs no dynamic loader. musl-gcc can, but takes
# -static-pie for -pie: the second way spells it out.
LINKAGES = (
    ("-static-pie", "-fPIE"),
    ("-static", "-fPIE", "-nostartfiles", "-Wl,-pie,--no-dynamic-linker,-l:rcrt1.o"),
    ("-static",),
)
PROBE = '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n'
ZIG = "ziglang"


class NoCompilerError(Exception):
    """No C compiler here makes static programs."""


class Compiler(NamedTuple):
    """A command that was seen to make static programs, and the flags it took for that."""

    command: tuple[str, ...]
    linkage: tuple[str, ...]
    hardening: tuple[str, ...] = ()

    def compile(self, sources: list[Path], output: Path, extra: tuple[str, ...] = ()) -> str:
        """What the compiler has to say about it."""
        flags = [*self.linkage, *FLAGS, *self.hardening, *extra]
        command = [*self.command, *flags, *map(str, sources), *LINK_FLAGS, "-o", str(output)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr

    def takes(self, flags: tuple[str, ...], source: Path, output: Path) -> bool:
        try:
            self.compile([source], output, flags)
        except subprocess.CalledProcessError:
            return False
        return True


def wanted_machine() -> str | None:
    """What the shim is to run on: this machine, or JOBLET_SHIM_MACHINE by ziglang. None: there is no shim for it."""
    return MACHINES.get(os.environ.get("JOBLET_SHIM_MACHINE", platform.machine()).lower())


def candidates(machine: str) -> Iterator[tuple[str, ...]]:
    """The compilers to try, best first."""
    if machine == MACHINES.get(platform.machine().lower()):
        if os.environ.get("CC"):
            yield tuple(shlex.split(os.environ["CC"]))
        yield from (("musl-gcc",), ("cc",), ("gcc",), ("clang",))
    yield (sys.executable, "-m", ZIG, "cc", "-target", f"{machine}-linux-musl", "-pie", "-fPIE")


def needs_loader(program: Path) -> bool:
    """Whether an ELF program is dynamically linked: some compilers take -static-pie for -pie. See elf(5)."""
    data = program.read_bytes()
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    return any(struct.unpack_from("<I", data, offset + i * size) == (3,) for i in range(count))


def find_compiler(machine: str) -> Compiler:
    """The first candidate that works, by trying. Raises NoCompilerError."""
    tried = []
    with tempfile.TemporaryDirectory() as directory:
        source, output = Path(directory, "probe.c"), Path(directory, "probe")
        source.write_text(PROBE)
        for command in candidates(machine):
            for linkage in LINKAGES:
                compiler = Compiler(command, linkage)
                try:
                    compiler.compile([source], output)
                except (OSError, subprocess.CalledProcessError) as error:
                    tried.append(f"{shlex.join((*command, *linkage))}: {explain(error)}")
                    continue
                if not needs_loader(output):
                    return compiler._replace(hardening=find_hardening(compiler, machine, source, output))
                tried.append(f"{shlex.join((*command, *linkage))}: the program needs a dynamic loader")
    raise NoCompilerError("\n  ".join(("no C compiler here makes static programs; tried:", *tried)))


def find_hardening(compiler: Compiler, machine: str, source: Path, output: Path) -> tuple[str, ...]:
    """The flags of HARDENING that this compiler takes: the best of all rows, or of each row by a trial of its own."""
    rows = (*HARDENING, ((BRANCH_PROTECTION[machine],),))
    best = tuple(flag for row in rows for flag in row[0])
    if compiler.takes(best, source, output):
        return best
    found: tuple[str, ...] = ()
    for row in rows:
        found += next((flags for flags in row if compiler.takes(flags, source, output)), ())
    return found


def explain(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    return str((error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1])


def compile_shim(output: Path, compiler: Compiler, extra: tuple[str, ...] = ()) -> str:
    """Compile shim/*.c; what the compiler said. The output changes by a rename: it may be running."""
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.with_name(f"{output.name}.{os.getpid()}")
    try:
        said = compiler.compile(sorted((ROOT / "shim").glob("*.c")), fresh, extra)
        fresh.replace(output)
        return said
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"the shim does not compile: {shlex.join(error.cmd)}\n{error.stderr}") from error
    finally:
        fresh.unlink(missing_ok=True)


def build_shim(output: Path, compiler: Compiler) -> str:
    """As compile_shim; but a younger compiler with a new warning does not keep anyone from installing."""
    try:
        return compile_shim(output, compiler)
    except RuntimeError:
        return compile_shim(output, compiler, ("-Wno-error",))


class ShimBuildHook(BuildHookInterface):  # type: ignore[type-arg,unused-ignore]
    """Puts the shim beside the package's source, for an editable install, and from there into the wheel.

    Anywhere but on Linux the package is pure Python: the client.
    """

    def dependencies(self) -> list[str]:
        """ziglang, a C compiler in a wheel, where there is no other."""
        machine = wanted_machine()
        if sys.platform != "linux" or machine is None or prebuilt() is not None:
            return []
        try:
            find_compiler(machine)
        except NoCompilerError:
            return [ZIG]
        return []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        machine = wanted_machine()
        if sys.platform != "linux" or machine is None:
            return
        output = Path(self.root) / SHIM
        given = prebuilt()
        if given is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(given, output)
        else:
            warnings = build_shim(output, find_compiler(machine))
            if warnings:
                self.app.display_warning(warnings)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{machine}"
        build_data["artifacts"].append(f"/{SHIM}")


def prebuilt() -> Path | None:
    """The shim to use as it is: JOBLET_SHIM_PREBUILT."""
    path = os.environ.get("JOBLET_SHIM_PREBUILT")
    return Path(path) if path else None
