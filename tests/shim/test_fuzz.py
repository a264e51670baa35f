"""The spec's parser under libFuzzer, with the address and undefined behaviour sanitizers: no input confuses it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from toolchain import ROOT, SHIM, find_with

from joblet.executor.local.spec import Group, View, encode
from joblet.job import Job, Limits, State, Terminal

HERE = Path(__file__).parent
SANITIZERS = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
RUNS = int(os.environ.get("JOBLET_TEST_FUZZ_RUNS", "200000"))
CRASHERS = sorted((HERE / "spec_crashers").glob("*"))
"""what once broke the parser, kept to stay mended"""


def build(directory: Path, parser: str | None = None) -> Path:
    """The fuzzer, of this parser or of another one."""
    compiler = find_with(("-fsanitize=fuzzer-no-link,address,undefined",), directory, {"clang": "clang"})
    runtime = directory / "runtime.c"
    runtime.write_text("int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return !d && n; }\n")
    probe = [compiler, *SANITIZERS, str(runtime), "-o", str(directory / "probe")]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("clang has no libFuzzer here: on Debian, apt-get install libclang-rt-14-dev")
    if parser is not None:
        (directory / "spec.c").write_text(parser)
    subprocess.run(
        [
            *(compiler, "-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", *SANITIZERS),
            *(f"-I{directory}", f"-I{SHIM}", str(HERE / "fuzz_spec.c"), str(SHIM / "die.c")),
            *("-o", str(directory / "fuzz")),
        ],
        check=True,
    )
    return directory / "fuzz"


def seeds() -> list[bytes]:
    """Specs as the server writes them: the smallest, one with all there is, one at the edge of what is allowed."""
    v2 = Group(
        Path("/sys/fs/cgroup/joblet.slice/job-7"),
        True,
        (("memory.max", "1"), ("io.max", "8:0 rbps=1 wbps=1")),
        (),
        "cgroup.kill",
        lifting=(("io.max", "8:0 rbps=max wbps=max"),),
    )
    v1 = Group(
        Path("/sys/fs/cgroup/memory/joblet.slice/job-7"),
        False,
        (("memory.limit_in_bytes", "1048576"),),
        (("oom_kills", "memory.oom_control:oom_kill"), ("memory_peak_bytes", "memory.max_usage_in_bytes")),
        oom="memory.oom_control",
    )
    shown = (Path("/usr"), Path("/etc"))
    small = View((), (), (), 1)
    full = View(shown, (Path("/srv/out"),), (Path("/etc/shadow"),), 2**40)
    edge = View((Path("/", "a" * 255),), (), (), 2**63 - 1)

    def spec(
        view: View,
        groups: list[Group],
        argv: list[str],
        uid_base: int = 1_879_048_192,
        most: int = 0,
        workdir: str = "",
        terminal: Terminal | None = None,
    ) -> bytes:
        limits = Limits(100, 64, 0, max_open_files=1024, max_disk=most >> 20)
        return encode(
            Job(
                *(7, argv[0], tuple(argv[1:]), limits, State.INITIALIZING, "admin", 0),
                workdir=workdir,
                stdin=bool(workdir or terminal),
                terminal=terminal,
                separate_streams=bool(workdir),
            ),
            uid_base=uid_base,
            id_count=65536,
            grace_ms=5000,
            log_limit=most,
            view=view,
            groups=groups,
            shared=Path("/var/lib/joblet/workflows/3/shared") if workdir else None,
        )

    return [
        spec(small, [], ["true"]),
        spec(full, [v2], ["sh", "-c", "echo = é"], most=2**30, workdir="src"),
        spec(edge, [v1, v1, v1], ["", "=", "end="], uid_base=2**32 - 1 - 65536, terminal=Terminal(1, 65535)),
    ]


def keys() -> list[str]:
    """Those of the protocol's page."""
    table = (SHIM / "PROTOCOL.md").read_text(encoding="utf-8").partition("## Spec")[2].partition("## Report")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [key for row in rows for key in re.findall("`([^`]+)`", row)]


def fuzz(program: Path, runs: int) -> subprocess.CompletedProcess[str]:
    """Inputs made of the seeds and the keys, or of every one that once crashed; what it finds is printed in base64."""
    corpus = program.parent / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    for crasher in CRASHERS:
        shutil.copy(crasher, corpus)
    dictionary = program.parent / "keys"
    words = [f"\\x00{key}=" for key in keys()] + ["/", "/..", "\\x00", "=", "18446744073709551615", "4294967294"]
    dictionary.write_text("".join(f'"{word}"\n' for word in words))
    return subprocess.run(
        [
            *(program, corpus, f"-dict={dictionary}", f"-runs={runs}", "-max_len=4096", "-print_final_stats=1"),
            f"-artifact_prefix={program.parent}/",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_no_bytes_confuse_the_parser(tmp_path: Path) -> None:
    result = fuzz(build(tmp_path), RUNS)
    assert result.returncode == 0, result.stderr[-8000:]
    executed = re.search(r"stat::number_of_executed_units: (\d+)", result.stderr)
    assert executed is not None
    assert int(executed[1]) >= RUNS


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("calloc(entries + 1, sizeof(char *))", "calloc(entries / 2, sizeof(char *))"),
        ("(length > 0 && text[length - 1] == '\\0')", "(length > 0)"),
        (" && !strchr(name, '/') && ", " && "),
        ('return refuse(reader, "missing key");', "continue;"),
        (" || length > 255 || ", " || "),
        ("digit > most || value > (most - digit) / 10", "digit > most"),
        (".set.at = reader->set.at + reader->set.count,", ".set.at = reader->set.at,"),
        ("uid_base > UINT32_MAX - reader->spec->id_count", "uid_base == 0"),
        ("length >= sizeof rows || text[length] != ' '", "text[length] != ' '"),
    ],
)
def test_a_mistake_in_the_parser_would_be_found(tmp_path: Path, right: str, wrong: str) -> None:
    parser = (SHIM / "spec.c").read_text()
    assert parser.count(right) == 1
    result = fuzz(build(tmp_path, parser.replace(right, wrong)), 1_000_000)
    assert re.search("^SUMMARY: (AddressSanitizer|UndefinedBehaviorSanitizer|libFuzzer): ", result.stderr, re.MULTILINE)
