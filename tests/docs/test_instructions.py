"""A launch takes no more instructions than on record. Machines that are slow or busy do not change that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.instructions import record, server, shim, valgrind

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="isolation needs root on Linux"),
    pytest.mark.alone,
    pytest.mark.timeout(300),  # valgrind takes its time on a busy machine
]


def judge(part: str, now: record.Counts) -> None:
    then = record.load()[part]
    if reasons := record.differences(part, now, then):
        pytest.skip(f"not comparable: {'; '.join(reasons)}")
    found = record.compare(part, now, then)
    print(*found, sep="\n")
    for one in found:
        if one.better:
            warnings.warn(str(one), stacklevel=1)
    assert not [str(one) for one in found if one.worse]


def need(tools: Sequence[str]) -> None:
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"needs {', '.join(missing)}")


def test_the_shim_takes_no_more_instructions_than_on_record() -> None:
    need(["cc", shim.COMPILER])
    judge("shim", shim.count())


async def test_the_server_takes_no_more_instructions_than_on_record() -> None:
    need(valgrind.TOOLS)
    judge("server", await server.count())


def test_each_instruction_is_counted_once(tmp_path: Path) -> None:
    need(["cc"])
    subprocess.run(["cc", "-O2", "-o", tmp_path / "step", shim.STEP], check=True)
    (tmp_path / "loop.c").write_text(
        "#include <stdlib.h>\n#include <unistd.h>\n"
        "int main(int argc, char **argv)\n{\n"
        '    for (int i = 0; argc > 1 && i < atoi(argv[1]); i++)\n        __asm__ volatile("nop");\n'
        '    return execl("/bin/true", "true", (char *)0);\n}\n'
    )
    subprocess.run(["cc", "-O2", "-static", "-o", tmp_path / "loop", tmp_path / "loop.c"], check=True)
    counts = []
    for rounds in ("101", "102", "104"):
        subprocess.run([tmp_path / "step", tmp_path / "counts", tmp_path / "loop", rounds], check=True)
        counts.append(int((tmp_path / "counts").read_text()))
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0]) > 2
