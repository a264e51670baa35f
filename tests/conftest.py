"""Fixtures: certificates, one server for many tests, stock clients."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest
from harness import ROOT, Server, Stock, compile_stock_client, make_certificates

ROOTS = {"host", "fault", "limits", "escape", "fuzz"}
"""folders whose tests run jobs"""
ALONE = {"fault", "limits", "escape"}
"""folders whose tests measure the machine, fill it, or look at all that runs on it"""
SOCIABLE = {
    *("test_audit_faults.py", "test_bad_clients.py", "test_bad_clock.py", "test_bad_database.py"),
    *("test_bad_directory.py", "test_bad_disk.py", "test_clients.py", "test_crash_loop.py", "test_found_again.py"),
    *("test_monitor_killed.py", "test_restart.py", "test_schedule_killed.py", "test_upgrade.py"),
    *("test_workflow_disk.py", "test_workflow_killed.py", "test_workflow_scale.py", "test_workflow_upgrade.py"),
}
"""files of those that look at a server of their own only"""

hypothesis.settings.register_profile("joblet", deadline=None)  # a test is no measure of speed
hypothesis.settings.load_profile("joblet")


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    able = sys.platform == "linux" and os.geteuid() == 0
    for item in items:
        folder = item.path.parent.name
        if folder in ALONE and item.path.name not in SOCIABLE:
            item.add_marker(pytest.mark.alone)
        if folder in ROOTS and not able:
            item.add_marker(pytest.mark.skip(reason="isolation needs root on Linux"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, the server's certificate, and clients `admin` and `viewer`."""
    return make_certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, ModuleType]:
    """Messages and stubs that stock grpc_tools makes of protos/joblet.proto."""
    return compile_stock_client(tmp_path_factory.mktemp("stock"), ROOT / "protos/joblet.proto")


@pytest.fixture
def make_server(tmp_path: Path, certificates: Path) -> Iterator[Callable[..., Server]]:
    """Makes servers with sections of configuration of their own; not yet started."""
    servers: list[Server] = []

    def make(**sections: dict[str, object]) -> Server:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, certificates, **sections))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Server]:
    """A server that tests share; its jobs' ids are as they come."""
    shared = Server(tmp_path_factory.mktemp("server"), certificates, joblet={"cleanupTimeout": "2s"})
    shared.start()
    yield shared
    shared.close()


@pytest.fixture
def client(server: Server, stock: tuple[ModuleType, ModuleType]) -> Iterator[Stock]:
    """A stock client of the shared server, as admin."""
    with server.channel() as channel:
        yield Stock(channel, *stock)
