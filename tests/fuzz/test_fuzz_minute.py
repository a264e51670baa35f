"""A minute of fuzzing, of the server and of the parsers half a minute each; `nox -s fuzz` is the long form."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from types import ModuleType

import campaign
import corpus
import pytest
from attacked import Attacked, Finding
from harness import poll_until
from parsers import PARSERS

SEED = 2024
SECONDS = 30


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_kept_harms_no_parser(name: str) -> None:
    assert len(corpus.files(name)) >= 2
    for data in corpus.kept(name):
        try:
            PARSERS[name](data)
        except Exception as error:
            raise AssertionError(data) from error


@pytest.mark.timeout(300)
def test_a_minute_of_malformed_bytes_finds_nothing(tmp_path: Path, stock: tuple[ModuleType, ModuleType]) -> None:
    guided = importlib.util.find_spec("atheris") is not None
    parsers = campaign.fuzz_parsers(SECONDS, SEED, tmp_path) if guided else None
    try:
        print(campaign.run(stock, tmp_path, SEED, SECONDS, names=campaign.NAMES))
        if parsers is not None:
            print(campaign.conclude_parsers(parsers, tmp_path))
    finally:
        if parsers is not None and parsers.poll() is None:
            parsers.kill()
            parsers.wait()
    if not guided:
        pytest.skip("the parsers were not fuzzed: atheris is not here")


def test_the_judge_notices(tmp_path: Path, certificates: Path, stock: tuple[ModuleType, ModuleType]) -> None:
    """What it is there for: a complaint in the server's log, a server that is silent, one that has ended."""
    target = Attacked(tmp_path, certificates, stock)
    try:
        target.check()
        target.server.lines.append("[2024-01-15T10:30:00Z] [ERROR] call failed: Traceback (most recent call last)")
        with pytest.raises(Finding, match=r"the server's log: .*call failed"):
            target.check()
        os.kill(target.server.pid, signal.SIGSTOP)
        target.silence = 0.5
        poll_until(lambda: target.pulse.slowest > target.silence)
        with pytest.raises(Finding, match="another client's answer took"):
            target.check()
        os.kill(target.server.pid, signal.SIGCONT)
        target.server.kill()
        with pytest.raises(Finding, match="the server has ended"):
            target.check()
    finally:
        target.close()
