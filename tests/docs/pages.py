"""Pages of the documents as tests see them: fenced blocks, and in `console` blocks commands with their output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import PATIENCE, ROOT, Server

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
TOOK = re.compile(r"\b\d+\.\d+ ?s\b")
SERIAL = re.compile(r"\b[0-9A-F]{40}\b")
DATE = re.compile(r"\d{4}-\d\d-\d\d")
ID = re.compile(r"(?<=\b[Jj]ob )\d+|(?<=\b[Ww]orkflow )\d+|(?<=\bID: )\d+|(?<=\bId: )\d+")

MEASURED = re.compile(r"^(\w+Time|MemoryPeak|IORead|IOWrite|ProcessesPeak|MaxOpenFiles): .+$", re.MULTILINE)
"""the host has a say in the limit of open files too"""

runs_jobs = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="isolation needs root on Linux")


class Page:
    """A file of Markdown, by its path in the repository."""

    def __init__(self, path: str | Path) -> None:
        self.path = ROOT / path
        self.text = self.path.read_text()

    def blocks(self, language: str) -> list[str]:
        """The texts of the fenced blocks of one language."""
        return re.findall(rf"^```{language}\n(.*?)^```$", self.text, flags=re.MULTILINE | re.DOTALL)

    def files(self) -> dict[str, str]:
        """The blocks of YAML, Python and shell that begin with the name of a file, by this name."""
        found = {}
        for language in ("yaml", "python", "sh"):
            for block in self.blocks(language):
                if name := re.match(r"# ([\w.-]+\.(?:yaml|yml|py|sh))\n", block):
                    found[name[1]] = block
        return found

    def dialogue(self) -> Iterator[tuple[str, str]]:
        """Each command of the console blocks, and the output shown below it."""
        for block in self.blocks("console"):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                yield command, output

    def perform(self, server: Server, folder: Path, alike: Callable[[str], str] | None = None) -> int:
        """Give every command of the page to a shell, and compare what it prints. Returns how many there were."""
        alike = alike or like_any_run
        environment = client_environment(server)
        for name, text in self.files().items():
            (folder / name).write_text(text)
        count = 0
        for command, output in self.dialogue():
            assert alike(shell(command, env=environment, cwd=folder)) == alike(output), command
            count += 1
        return count


def like_any_run(output: str) -> str:
    """Output without what differs from run to run; a job just started may be running already."""
    output = SERIAL.sub("SERIAL", MEASURED.sub(r"\1 MEASURED", output))
    output = TOOK.sub("TOOK", DATE.sub("DATE", TIME.sub("TIME", output)))
    return output.replace("INITIALIZING", "RUNNING")


def like_any_server(output: str) -> str:
    """The same, without the ids that a server with jobs of others gives."""
    return ID.sub("N", like_any_run(output))


def client_environment(server: Server) -> dict[str, str]:
    """By which rnx and the client find a server."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JOBLET_SERVER": f"localhost:{server.port}",
        "JOBLET_CERT_PATH": str(server.certificates / "admin-cert.pem"),
        "JOBLET_KEY_PATH": str(server.certificates / "admin-key.pem"),
        "JOBLET_CA_PATH": str(server.certificates / "ca-cert.pem"),
    }


def shell(command: str, **kwargs: object) -> str:
    """Standard output and error of a command that may fail."""
    done = subprocess.run(
        ["bash", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
        **kwargs,
    )
    return done.stdout
