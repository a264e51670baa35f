"""The role table, cell by cell, and every way a certificate can be wrong."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from harness import Server, Stock, make_certificates

DAY = datetime.timedelta(days=1)
CALLS: dict[str, Callable[[Stock, str], Any]] = {
    "run_job": lambda client, _: client.run("true"),
    "get_job": lambda client, job_id: client.status(job_id),
    "stop_job": lambda client, job_id: client.stop(job_id),
    "list_jobs": lambda client, _: client.list(),
    "get_job_logs": lambda client, job_id: client.output(job_id),
}
ALLOWED = {
    "admin": {"run_job", "get_job", "stop_job", "list_jobs", "get_job_logs"},
    "viewer": {"get_job", "list_jobs", "get_job_logs"},
}
WORKFLOW_CALLS = {
    "RunWorkflow": "run_workflow",
    "GetWorkflowStatus": "get_workflow",
    "ListWorkflows": "list_workflows",
    "GetWorkflowJobs": "get_workflow",
    "StopWorkflow": "stop_workflow",
    "RetryWorkflow": "retry_workflow",
    "DeleteWorkflow": "delete_workflow",
    "WatchEvents": "watch_events",
}
"""the operation that each rpc about workflows is"""
SEEN_BY_VIEWERS = {"get_workflow", "list_workflows", "watch_events"}


@pytest.fixture(scope="module")
def ended_job(server: Server, stock) -> str:
    with server.channel() as channel:
        client = Stock(channel, *stock)
        job_id = client.run("true").id
        client.output(job_id)
        return job_id


@pytest.fixture
def connect(server: Server, stock, tmp_path: Path) -> Iterator[Callable[..., Stock]]:
    """Makes a client with a certificate of any subject, signed by the server's CA or by that of `ca`."""
    channels = []

    def make(*units: str, ca: Path | None = None, start: int = -1, end: int = 1) -> Stock:
        write_certificate(tmp_path, ca or server.certificates, units, start, end)
        channels.append(server.channel("odd", tmp_path))
        return Stock(channels[-1], *stock)

    yield make
    for channel in channels:
        channel.close()


def write_certificate(folder: Path, ca: Path, units: tuple[str, ...], start: int, end: int) -> None:
    """`odd-cert.pem` and its key, valid from `start` to `end` days from now."""
    authority = x509.load_pem_x509_certificate((ca / "ca-cert.pem").read_bytes())
    authority_key = serialization.load_pem_private_key((ca / "ca-key.pem").read_bytes(), None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.NameAttribute(NameOID.COMMON_NAME, "odd")]
    names += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start * DAY)
        .not_valid_after(now + end * DAY)
        .sign(authority_key, hashes.SHA256())
    )
    (folder / "odd-cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "odd-key.pem").write_bytes(key.private_bytes(*form))


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("role", ALLOWED)
@pytest.mark.parametrize("operation", CALLS)
def test_role_table(server: Server, stock, ended_job: str, role: str, operation: str) -> None:
    with server.channel(role) as channel:
        client = Stock(channel, *stock)
        if operation not in ALLOWED[role]:
            text = f"role {role} is not allowed to perform operation {operation}"
            assert refusal(lambda: CALLS[operation](client, ended_job)) == (grpc.StatusCode.PERMISSION_DENIED, text)
        elif operation == "stop_job":
            # allowed, and then told that this job has ended
            code, _ = refusal(lambda: CALLS[operation](client, ended_job))
            assert code is grpc.StatusCode.FAILED_PRECONDITION
        else:
            CALLS[operation](client, ended_job)


def ask_about_workflow(channel: grpc.Channel, stock, rpc: str, workflow_id: str) -> Any:
    """Make a call of JobService; all that it answers."""
    messages, stubs = stock
    request = "WatchEventsRequest" if rpc == "WatchEvents" else f"{rpc}Request"
    fields = {"WatchEvents": {"noFollow": True}, "ListWorkflows": {}}.get(rpc, {"workflowId": workflow_id})
    if rpc == "RunWorkflow":
        fields = {"yamlContent": "jobs: {a: {command: 'true'}}"}
    answer = getattr(stubs.JobServiceStub(channel), rpc)(getattr(messages, request)(**fields))
    return list(answer) if rpc == "WatchEvents" else answer


@pytest.mark.parametrize("role", ALLOWED)
@pytest.mark.parametrize("rpc", WORKFLOW_CALLS)
def test_role_table_of_workflows(server: Server, stock, role: str, rpc: str) -> None:
    operation = WORKFLOW_CALLS[rpc]
    with server.channel(role) as channel:
        call = lambda: ask_about_workflow(channel, stock, rpc, "999999")  # noqa: E731
        if role == "viewer" and operation not in SEEN_BY_VIEWERS:
            text = f"role viewer is not allowed to perform operation {operation}"
            assert refusal(call) == (grpc.StatusCode.PERMISSION_DENIED, text)
        elif rpc in ("RunWorkflow", "ListWorkflows", "WatchEvents"):
            call()
        else:  # allowed, and then told that there is none
            assert refusal(call) == (grpc.StatusCode.NOT_FOUND, "workflow not found: 999999")


@pytest.mark.parametrize("rpc", WORKFLOW_CALLS)
def test_nobody_else_has_a_say_about_workflows(connect, server: Server, stock, tmp_path: Path, rpc: str) -> None:
    connect("admin", "viewer")
    text = f"role unknown is not allowed to perform operation {WORKFLOW_CALLS[rpc]}"
    with server.channel("odd", tmp_path) as channel:
        call = lambda: ask_about_workflow(channel, stock, rpc, "1")  # noqa: E731
        assert refusal(call) == (grpc.StatusCode.PERMISSION_DENIED, text)
    with server.channel(None) as channel:
        call = lambda: ask_about_workflow(channel, stock, rpc, "1")  # noqa: E731
        text = "failed to extract client role: no TLS information found"
        assert refusal(call) == (grpc.StatusCode.UNAUTHENTICATED, text)


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize(
    "units",
    [(), ("admin", "viewer"), ("admin", "admin"), ("root",), ("administrator",), (" admin",), ("admin,viewer",)],
)
def test_any_other_unit_may_do_nothing(connect, ended_job: str, units: tuple[str, ...], operation: str) -> None:
    client = connect(*units)
    text = f"role unknown is not allowed to perform operation {operation}"
    assert refusal(lambda: CALLS[operation](client, ended_job)) == (grpc.StatusCode.PERMISSION_DENIED, text)


@pytest.mark.parametrize("unit", ["admin", "Admin", "ADMIN"])
def test_case_of_the_unit_does_not_matter(connect, unit: str) -> None:
    assert int(connect(unit).run("true").id) > 0


@pytest.mark.parametrize("operation", CALLS)
def test_no_certificate(server: Server, stock, ended_job: str, operation: str) -> None:
    with server.channel(None) as channel:
        client = Stock(channel, *stock)
        text = "failed to extract client role: no TLS information found"
        assert refusal(lambda: CALLS[operation](client, ended_job)) == (grpc.StatusCode.UNAUTHENTICATED, text)


@pytest.mark.parametrize(("start", "end"), [(-3, -1), (1, 3)], ids=["expired", "not yet valid"])
def test_a_certificate_outside_its_time_fails_the_handshake(connect, ended_job: str, start: int, end: int) -> None:
    client = connect("admin", start=start, end=end)
    code, _ = refusal(lambda: client.status(ended_job))
    assert code is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_of_another_ca_fails_the_handshake(connect, ended_job: str, tmp_path: Path) -> None:
    client = connect("admin", ca=make_certificates(tmp_path / "other"))
    code, _ = refusal(lambda: client.status(ended_job))
    assert code is grpc.StatusCode.UNAVAILABLE


def test_a_self_signed_certificate_fails_the_handshake(connect, server: Server, ended_job: str, tmp_path: Path) -> None:
    """One that names our CA as its issuer, signed by another key."""
    forged = make_certificates(tmp_path / "forged")
    (forged / "ca-cert.pem").write_bytes((server.certificates / "ca-cert.pem").read_bytes())
    code, _ = refusal(lambda: connect("admin", ca=forged).status(ended_job))
    assert code is grpc.StatusCode.UNAVAILABLE


def test_plain_text_and_old_tls_are_refused(server: Server) -> None:
    import socket
    import ssl

    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert plain.recv(100)[:1] in (b"", b"\x15")  # closed, or a TLS alert
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", server.port)) as old, pytest.raises(ssl.SSLError):
        context.wrap_socket(old)


def test_who_may_do_nothing_does_not_fill_the_servers_log(make_server, stock) -> None:
    server = make_server().start()
    with server.channel("viewer") as channel:
        client = Stock(channel, *stock)
        for _ in range(50):
            with pytest.raises(grpc.RpcError) as caught:
                client.run("true")
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    summed = server.wait_for_line(re.compile(r"\[WARN\] call refused \| leftOut=(\d+) seconds=10$"))
    told = [line for line in server.lines if "call refused" in line and "leftOut" not in line]
    assert len(told) + int(summed[1]) == 50
    assert len(told) == 20
