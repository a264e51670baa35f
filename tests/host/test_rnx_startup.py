"""What `rnx` loads to ask a server: what it needs, and nothing that takes long besides. By modules, never by time."""

from __future__ import annotations

import pytest
from harness import Server, Stock, modules_of

HEAVY = frozenset(
    {
        *("pydantic_core", "rich", "yaml", "cryptography", "google.protobuf", "uvloop"),
        *("joblet.workflow", "joblet.config", "joblet.order"),
    }
)


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "{id}"],
        ["log", "--tail=3", "{id}"],
        ["run", "--max-cpu=50", "--timeout=1m", "--env=A=1", "true"],
        ["complete", "bash", "--", "status", ""],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_asks_a_server_loads_no_more_than_that_takes(server: Server, client: Stock, arguments: list[str]) -> None:
    job_id = client.finish("true")[0].id
    folder = server.certificates
    loaded = modules_of(
        *(argument.format(id=job_id) for argument in arguments),
        JOBLET_SERVER=f"localhost:{server.port}",
        JOBLET_CERT_PATH=str(folder / "admin-cert.pem"),
        JOBLET_KEY_PATH=str(folder / "admin-key.pem"),
        JOBLET_CA_PATH=str(folder / "ca-cert.pem"),
    )
    assert "joblet.client" in loaded
    assert not loaded & HEAVY
