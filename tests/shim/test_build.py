"""How the shim is compiled: by every compiler here, without a warning, hardened as far as that compiler can."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from toolchain import find, load_build

build = load_build()
MACHINE = build.wanted_machine()
ZIG = f"{sys.executable} -m ziglang cc -target {MACHINE}-linux-musl -pie -fPIE"

pytestmark = pytest.mark.skipif(MACHINE is None, reason="there is no shim for this machine")


def require(command: str) -> None:
    """Skips where there is no such compiler."""
    if command is ZIG:
        if importlib.util.find_spec("ziglang") is None:
            pytest.skip("ziglang is not installed: pip install ziglang")
    else:
        find(command, "musl-tools" if command == "musl-gcc" else command)


class Segment(NamedTuple):
    kind: int
    flags: int
    content: bytes


DYNAMIC, INTERP, STACK, RELRO = 2, 3, 0x6474E551, 0x6474E552
EXECUTABLE = 1
DT_FLAGS, DT_FLAGS_1, DT_TEXTREL = 30, 0x6FFFFFFB, 22
DF_BIND_NOW, DF_1_NOW, DF_1_PIE = 8, 1, 0x08000000


def read_segments(program: Path) -> list[Segment]:
    """The program headers of a 64-bit ELF file and what they cover: elf(5)."""
    data = program.read_bytes()
    (start,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = []
    for i in range(count):
        kind, flags, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, start + i * size)
        segments.append(Segment(kind, flags, data[offset : offset + length]))
    return segments


def read_dynamic(segments: list[Segment]) -> dict[int, int]:
    (content,) = [segment.content for segment in segments if segment.kind == DYNAMIC]
    return dict(struct.iter_unpack("<QQ", content))


@pytest.fixture(params=["gcc", "clang", "musl-gcc", ZIG], ids=["gcc", "clang", "musl-gcc", "ziglang"])
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object:
    require(request.param)
    monkeypatch.setenv("CC", request.param)
    found = build.find_compiler(MACHINE)
    if found.command != tuple(request.param.split()):
        pytest.skip(f"{request.param} makes no static programs here: its C library lacks what that takes")
    return found


@pytest.mark.timeout(900)  # ziglang compiles its C library first
def test_it_compiles_without_a_warning_into_a_hardened_program(compiler: object, tmp_path: Path) -> None:
    assert "-Werror" in build.FLAGS
    program = tmp_path / "joblet-shim"
    assert build.compile_shim(program, compiler) == ""

    segments = read_segments(program)
    flags = {segment.kind: segment.flags for segment in segments}
    assert INTERP not in flags, "it needs a dynamic loader"
    assert not flags[STACK] & EXECUTABLE
    assert RELRO in flags
    dynamic = read_dynamic(segments)
    assert dynamic[DT_FLAGS] & DF_BIND_NOW
    assert dynamic[DT_FLAGS_1] & DF_1_NOW
    assert dynamic[DT_FLAGS_1] & DF_1_PIE, "its place in memory is not random"
    assert DT_TEXTREL not in dynamic

    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "joblet-shim is started by joblet: see PROTOCOL.md\n")


def test_what_a_compiler_lacks_is_left_out_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an old one does: here a real one that refuses some flags."""
    real = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if real is None:
        pytest.skip("neither gcc nor clang is installed")
    old = tmp_path / "old-cc"
    old.write_text(
        "#!/bin/sh\n"
        'for flag; do case "$flag" in -fstack-clash-protection|-D_FORTIFY_SOURCE=3)\n'
        '  echo "unknown flag $flag" >&2; exit 1;; esac; done\n'
        f'exec {real} "$@"\n'
    )
    old.chmod(0o755)
    monkeypatch.setenv("CC", real)
    best = build.find_compiler(MACHINE)
    monkeypatch.setenv("CC", str(old))
    reduced = build.find_compiler(MACHINE)
    if best.command != (real,):
        pytest.skip(f"{real} makes no static programs here: its C library lacks what that takes")
    assert reduced.command == (str(old),)
    assert reduced.linkage == best.linkage
    expected = [flag for flag in best.hardening if flag != "-fstack-clash-protection"]
    assert list(reduced.hardening) == [flag.replace("SOURCE=3", "SOURCE=2") for flag in expected]


def test_a_new_warning_fails_the_checks_but_not_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("gcc")
    monkeypatch.setenv("CC", "gcc -Wpadded")
    compiler = build.find_compiler(MACHINE)
    if compiler.command != ("gcc", "-Wpadded"):
        pytest.skip("gcc makes no static programs here: its C library lacks what that takes")
    with pytest.raises(RuntimeError, match="padded"):
        build.compile_shim(tmp_path / "strict", compiler)
    assert not (tmp_path / "strict").exists()
    assert "padded" in build.build_shim(tmp_path / "joblet-shim", compiler)
    assert (tmp_path / "joblet-shim").stat().st_mode & 0o111
