"""What systemd is told, over a socket as it has."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest
from harness import PATIENCE

from joblet.server import systemd


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """systemd's end."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.settimeout(PATIENCE)
    channel.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    return channel


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "12"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "13"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_when_systemd_watches(environ: dict[str, str], seconds: float | None) -> None:
    assert systemd.watchdog_seconds(environ, 12) == seconds


def test_states_go_in_one_message(heard: socket.socket) -> None:
    systemd.notify("READY=1", "STATUS=well")
    assert heard.recv(100) == b"READY=1\nSTATUS=well"


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")


async def test_the_watchdog_is_fed_while_the_loop_goes_round(
    heard: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    async with systemd.watchdog():
        for _ in range(3):
            assert await asyncio.to_thread(heard.recv, 100) == b"WATCHDOG=1"
    drain(heard)
    await asyncio.sleep(0.05)
    with pytest.raises(BlockingIOError):
        heard.recv(100)


def drain(channel: socket.socket) -> None:
    channel.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while channel.recv(100):
            pass
