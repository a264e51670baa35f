"""The shim's own tests once more, against shims that look for their own mistakes: in addresses, arithmetic, memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from toolchain import ROOT, SHIM, find_with, load_build

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="isolation needs root on Linux"),
]

COMPILERS = {"clang": "clang and libclang-rt-14-dev", "gcc": "gcc"}
ADDRESS, MEMORY = "address,undefined", "memory"
SMALL = "volatile char few[4]; for (volatile int i = 0; i <= 4; i++) few[i] = 0;"
TESTS = sorted((ROOT / "tests/host").glob("test_shim*.py"))


def compile_shim(sources: Path, directory: Path, kind: str) -> Path:
    """A shim that ends with SIGABRT at its first mistake. The libraries are loaded before it has a root of its own."""
    sanitizers = (f"-fsanitize={kind}", "-fno-sanitize-recover=all")
    compiler = find_with(sanitizers, directory, COMPILERS)
    # With overflow defined, which is right for users, the sanitizer would not look for it.
    flags = [flag for flag in load_build().FLAGS if flag not in ("-O2", "-fno-strict-overflow")]
    shim = directory / "joblet-shim"
    files = sorted(map(str, sources.glob("*.c")))
    subprocess.run([compiler, *flags, "-O1", "-g", *sanitizers, *files, "-o", str(shim)], check=True)
    return shim


def run_tests(shim: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Exit status and words of pytest, and what the sanitizers reported.

    Inside its own root a mistaken init cannot report, having no file of the host any more: it dies, and its job does
    not end as the test expects. What the parser allots lives as long as the monitor; so there is no look for leaks.
    """
    reports = shim.parent / "reports"
    reports.mkdir()
    options = f"abort_on_error=1:log_path={reports}/report"
    environment = {
        "JOBLET_TEST_SHIM": str(shim),
        "ASAN_OPTIONS": f"detect_leaks=0:detect_stack_use_after_return=1:strict_string_checks=1:{options}",
        "MSAN_OPTIONS": options,
        "UBSAN_OPTIONS": f"print_stacktrace=1:{options}",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    result = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    return result.returncode, result.stdout, [path.read_text() for path in sorted(reports.iterdir())]


@pytest.mark.parametrize("kind", [ADDRESS, MEMORY])
def test_the_shims_tests_pass_under_sanitizers(tmp_path: Path, kind: str) -> None:
    """All of them; none is left out."""
    status, output, reports = run_tests(compile_shim(SHIM, tmp_path, kind), *map(str, TESTS))
    assert reports == []
    assert status == 0, output[-8000:]
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None
    assert int(passed[1]) > 150


@pytest.mark.parametrize(
    ("kind", "file", "function", "mistake", "reported"),
    [
        (
            ADDRESS,
            "monitor.c",
            "monitor_conclude",
            "char *p = malloc(8); p[strlen(p) + 8] = 0;",
            "heap-buffer-overflow",
        ),
        (
            ADDRESS,
            "monitor.c",
            "monitor_conclude",
            "int i = INT_MAX; (void)(i + monitor->init);",
            "signed integer overflow",
        ),
        (ADDRESS, "init.c", "init_run", SMALL, "index 4 out of bounds"),
        (ADDRESS, "privileges.c", "drop_privileges", SMALL, None),
        (
            MEMORY,
            "monitor.c",
            "monitor_conclude",
            "if (*(int *)malloc(8)) monitor->init++;",
            "use-of-uninitialized-value",
        ),
    ],
)
def test_a_mistake_in_the_shim_would_be_found(
    tmp_path: Path, kind: str, file: str, function: str, mistake: str, reported: str | None
) -> None:
    sources = tmp_path / "shim"
    sources.mkdir()
    for path in SHIM.glob("*.[ch]"):
        (sources / path.name).write_bytes(path.read_bytes())
    text, count = re.subn(rf"(\n\w+ {function}\([^)]*\)\n{{\n)", rf"\1    {mistake}\n", (sources / file).read_text())
    assert count == 1
    (sources / file).write_text(f"#include <limits.h>\n#include <stdlib.h>\n{text}")
    one = f"{ROOT}/tests/host/test_shim.py::test_a_command_runs_and_its_exit_code_is_recorded"
    status, _, reports = run_tests(compile_shim(sources, tmp_path, kind), one)
    assert status == 1
    assert len(reports) == (reported is not None)
    assert reported is None or reported in reports[0]
