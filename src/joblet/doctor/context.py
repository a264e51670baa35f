"""What every part of the examination has to know first: who asks, which kernel, which configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from joblet import config
from joblet.config import Config, ConfigError


@dataclass(frozen=True, slots=True)
class Context:
    """The facts that are shared."""

    root: bool
    capabilities: int
    """effective ones, a bit each: capabilities(7)"""
    release: tuple[int, int]
    """of the kernel"""
    config_path: Path
    config: Config
    """the defaults where the file cannot be used"""
    config_error: str
    """why it cannot; empty when it can"""

    @property
    def configured(self) -> bool:
        """Whether there is a configuration that can be used."""
        return not self.config_error

    @property
    def state_dir(self) -> Path:
        """The server's state directory, there or not."""
        return self.config.state_dir(self.config_path.absolute().parent)


def look(config_path: Path) -> Context:
    """Read the facts. A configuration that cannot be used is one of them."""
    settings, trouble = Config(), ""
    try:
        settings = config.load(config_path)
    except ConfigError as error:
        trouble = str(error)
    return Context(
        root=os.geteuid() == 0,
        capabilities=parse_capabilities(Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")),
        release=parse_release(os.uname().release),
        config_path=config_path,
        config=settings,
        config_error=trouble,
    )


def parse_release(text: str) -> tuple[int, int]:
    """Major and minor number of a kernel's release; (0, 0) when there are none."""
    numbers = text.split("-")[0].split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (ValueError, IndexError):
        return 0, 0


def parse_capabilities(status: str) -> int:
    """The effective capabilities in the text of /proc/PID/status: proc_pid_status(5)."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def read(path: str | Path) -> str:
    """The text of a small file without its last newline; empty when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError:
        return ""


def existing(path: Path) -> Path:
    """`path`, or the nearest directory above it that exists and may be looked at."""
    for candidate in (path, *path.parents):
        try:
            candidate.stat()
        except OSError:
            continue
        return candidate
    return Path("/")
