"""What the client says when a connection cannot be made, is refused, or breaks: one sentence each, and a type."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest
from grpclib import GRPCError
from grpclib.const import Handler, Status
from grpclib.server import Server, Stream
from harness import bound_by_modes

from joblet import client as lib
from joblet import pki
from joblet.client import Client, ClientConfig
from joblet.proto import joblet as pb

PIECE = bytes(range(256)) * 256


class Service(pb.JobletServiceBase):
    """Answers by the id asked for."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = asyncio.Event()

    async def get_job_status(self, message: pb.GetJobStatusReq) -> pb.GetJobStatusRes:
        if message.id == "hang":
            await self.ended.wait()
        if message.id in Status.__members__:
            raise GRPCError(Status[message.id], f"text of {message.id}")
        return pb.GetJobStatusRes(id=message.id, status="RUNNING")

    async def list_jobs(self, message: pb.EmptyRequest) -> pb.Jobs:
        return pb.Jobs(jobs=[pb.Job(id="1", args=["a"], environment={"A": "b"})])

    async def get_job_logs(self, message: pb.GetJobLogsReq) -> AsyncIterator[pb.DataChunk]:
        yield pb.DataChunk(payload=b"first\n")
        if message.id == "fails":
            raise GRPCError(Status.INTERNAL, "log lost")
        if message.id == "hang":
            await self.ended.wait()
        while message.id == "endless":
            self.sent += len(PIECE)
            yield pb.DataChunk(payload=PIECE)

    def __mapping__(self) -> dict[str, Handler]:
        mapping = super().__mapping__()
        handler = mapping["/joblet.JobletService/GetJobLogs"]

        async def noticed(stream: Stream) -> None:
            try:
                await handler.func(stream)
            finally:
                self.ended.set()

        return {**mapping, "/joblet.JobletService/GetJobLogs": handler._replace(func=noticed)}


class Certificates:
    """Two authorities, and what they signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca, self.other = pki.create_ca(), pki.create_ca()
        pki.save(self.ca, folder, "ca")
        pki.save(self.other, folder, "other-ca")
        past = datetime.now(UTC) - timedelta(days=30)
        future = datetime.now(UTC) + timedelta(days=30)
        pki.save(pki.issue_server(self.ca), folder, "server")
        pki.save(pki.issue_server(self.ca, days=1, now=past), folder, "expired-server")
        pki.save(pki.issue_client(self.ca, "client", pki.Role.ADMIN), folder, "client")
        pki.save(pki.issue_client(self.ca, "old", pki.Role.ADMIN, days=1, now=past), folder, "old")
        pki.save(pki.issue_client(self.ca, "early", pki.Role.ADMIN, days=1, now=future), folder, "early")
        pki.save(pki.issue_client(self.other, "stranger", pki.Role.ADMIN), folder, "stranger")

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def text(self, name: str) -> str:
        return Path(self.path(name)).read_text()

    def config(self, port: int, name: str = "client", *, host: str = "127.0.0.1", ca: str = "ca", **more: float):
        return ClientConfig(
            f"{host}:{port}", self.path(f"{name}-cert"), self.path(f"{name}-key"), self.path(f"{ca}-cert"), **more
        )

    def server_context(self, name: str = "server", version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(f"{name}-cert"), self.path(f"{name}-key"))
        context.load_verify_locations(self.path("ca-cert"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["h2"])
        if version is not None:
            context.maximum_version = version
        return context


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@asynccontextmanager
async def serving(context: ssl.SSLContext, service: Service) -> AsyncIterator[tuple[int, Server]]:
    server = Server([service])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.start(sock=listener, ssl=context)
        try:
            yield listener.getsockname()[1], server
        finally:
            service.ended.set()
            server.close()
            await server.wait_closed()


async def sentence(config: ClientConfig, kind: type[lib.JobletError]) -> str:
    """The sentence of the error in which a call ends."""
    with pytest.raises(lib.JobletError) as caught:
        async with Client(config) as client:
            await client.list()
    assert type(caught.value) is kind
    assert str(caught.value) == caught.value.message
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def peer(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A peer on loopback, in a thread, that talks with one connection; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with closing(connection):
                    talk(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_calls_succeed(certs: Certificates) -> None:
    async with (
        serving(certs.server_context(), Service()) as (port, _),
        Client(certs.config(port)) as client,
    ):
        assert (await client.status("7")).status == "RUNNING"
        [job] = await client.list()
        assert (job.id, job.args, job.environment) == ("1", ("a",), {"A": "b"})
        assert [chunk async for chunk in client.logs("7")] == [b"first\n"]


async def test_a_server_that_knows_no_parts_of_logs_does_not_pass_for_one_that_does(certs: Certificates) -> None:
    async with (
        serving(certs.server_context(), Service()) as (port, _),
        Client(certs.config(port)) as client,
    ):
        for part in ({"tail": 1}, {"tail_bytes": 1}, {"since": timedelta(1)}, {"until": timedelta(0)}, {"grep": "a"}):
            with pytest.raises(lib.Unimplemented, match="too old"):
                await anext(aiter(client.logs("7", **part)))
        with pytest.raises(lib.Unimplemented, match="too old"):
            await anext(client.log_chunks("7"))


async def test_pem_text_in_place_of_paths(certs: Certificates, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    text = [certs.text(name) for name in ("client-cert", "client-key", "ca-cert")]
    async with (
        serving(certs.server_context(), Service()) as (port, _),
        Client(ClientConfig(f"localhost:{port}", *text)) as client,
    ):
        assert len(await client.list()) == 1
    assert os.listdir(tmp_path) == []


async def test_server_down(certs: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    expected = f"cannot connect to 127.0.0.1:{port}: connection refused"
    assert await sentence(certs.config(port), lib.ConnectionFailed) == expected
    expected = f"cannot connect to localhost:{port}: connection refused"
    assert await sentence(certs.config(port, host="localhost"), lib.ConnectionFailed) == expected


async def test_host_name_not_resolved(certs: Certificates) -> None:
    text = await sentence(certs.config(1, host="no-such-host.invalid"), lib.ConnectionFailed)
    assert text.startswith("cannot connect to no-such-host.invalid:1: host name not resolved (")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b"])
async def test_impossible_host_name(certs: Certificates, host: str) -> None:
    expected = f"cannot connect to {host}:1: not a valid host name"
    assert await sentence(certs.config(1, host=host), lib.ConnectionFailed) == expected


async def test_no_answer_to_the_connection(certs: Certificates) -> None:
    silence = threading.Event()
    with peer(lambda _: silence.wait() and None) as port:
        text = await sentence(certs.config(port, connect_timeout=0.2), lib.ConnectionFailed)
        silence.set()
    assert text == f"cannot connect to 127.0.0.1:{port}: no answer within 0.2 s"


async def test_server_of_another_authority(certs: Certificates) -> None:
    async with serving(certs.server_context(), Service()) as (port, _):
        text = await sentence(certs.config(port, ca="other-ca"), lib.CertificateRejected)
    authority = certs.path("other-ca-cert")
    assert text == (
        f"certificate verify failed: the server's certificate is not signed by the CA in {authority}: "
        "get the server's CA certificate"
    )


async def test_server_certificate_for_another_host(certs: Certificates) -> None:
    async with serving(certs.server_context(), Service()) as (port, _):
        text = await sentence(certs.config(port, host="127.0.0.2"), lib.ConnectionFailed)
        assert text == f"cannot connect to 127.0.0.2:{port}: connection refused"
    context = certs.server_context()
    with socket.create_server(("127.0.0.2", 0)) as listener:
        server = Server([Service()])
        await server.start(sock=listener, ssl=context)
        text = await sentence(certs.config(listener.getsockname()[1], host="127.0.0.2"), lib.CertificateRejected)
        server.close()
        await server.wait_closed()
    assert text == ("certificate verify failed: IP address mismatch, certificate is not valid for '127.0.0.2'")


async def test_expired_server_certificate(certs: Certificates) -> None:
    async with serving(certs.server_context("expired-server"), Service()) as (port, _):
        text = await sentence(certs.config(port), lib.CertificateRejected)
    assert text == (
        "certificate verify failed: certificate has expired (the server's): "
        "have it renewed there (joblet certs renew server)"
    )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("old", "certificate has expired"),
        ("early", "certificate is not yet valid"),
        (
            "stranger",
            "client certificate in {cert} is not signed by the CA in {ca}: have one issued by the server's CA",
        ),
    ],
)
async def test_client_certificate_refused(
    certs: Certificates, version: ssl.TLSVersion, name: str, expected: str
) -> None:
    async with serving(certs.server_context(version=version), Service()) as (port, _):
        text = await sentence(certs.config(port, name), lib.CertificateRejected)
    known = expected.format(cert=certs.path(f"{name}-cert"), ca=certs.path("ca-cert"))
    assert text == f"certificate verify failed: {known}"


async def test_client_certificate_refused_by_alert(certs: Certificates) -> None:
    """The client trusts both authorities, so that only the server's alert can tell what is wrong."""
    both = certs.folder / "both-cert.pem"
    both.write_bytes(certs.ca.certificate_pem + certs.other.certificate_pem)

    def handshake(connection: socket.socket) -> None:
        tls = certs.server_context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with closing(tls):
            with suppress(ssl.SSLError):
                tls.do_handshake()
            # Closing with the client's call unread would be a reset, and that may overtake the alert.
            tls.shutdown(socket.SHUT_WR)
            while tls.recv(4096):
                pass

    with peer(handshake) as port:
        text = await sentence(certs.config(port, "stranger", ca="both"), lib.CertificateRejected)
    assert text == (
        "certificate verify failed: the server does not know the CA of the client certificate: "
        "have another one issued by the server's CA"
    )


async def test_connection_closed_before_any_answer(certs: Certificates) -> None:
    with peer(lambda connection: certs.server_context().wrap_socket(connection, server_side=True).close()) as port:
        text = await sentence(certs.config(port), lib.ConnectionLost)
    assert text == (
        f"connection to 127.0.0.1:{port} closed before any answer: the server may not accept the client certificate "
        "(if its CA is another one now, have another one issued)"
    )


async def test_connection_closed_in_the_handshake(certs: Certificates) -> None:
    with peer(lambda connection: connection.recv(4096) and None) as port:
        text = await sentence(certs.config(port), lib.ConnectionFailed)
    assert text == f"cannot connect to 127.0.0.1:{port}: connection closed during the TLS handshake"


async def test_plain_text_server(certs: Certificates) -> None:
    with peer(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")) as port:
        text = await sentence(certs.config(port), lib.ConnectionFailed)
    assert text.startswith(f"cannot connect to 127.0.0.1:{port}: TLS handshake failed: ")


async def test_tls_server_that_speaks_something_else(certs: Certificates) -> None:
    def greet(connection: socket.socket) -> None:
        context = certs.server_context()
        context.set_alpn_protocols(["http/1.1"])
        with context.wrap_socket(connection, server_side=True) as tls:
            while tls.recv(4096):
                pass

    with peer(greet) as port:
        text = await sentence(certs.config(port), lib.ConnectionFailed)
    assert text == f"cannot connect to 127.0.0.1:{port}: what answers there does not speak gRPC"


class Relay:
    """Between a client and the server: a connection that can be cut."""

    def __init__(self, onward: int) -> None:
        self._onward = onward
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    def cut(self, *, reset: bool = False) -> None:
        """End all connections: politely, or with a reset, as when a server's machine comes back from a crash."""
        for writer in self._writers:
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.write_eof()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._onward)
        self._writers += [writer, onward_writer]
        await asyncio.gather(_pump(reader, onward_writer), _pump(onward_reader, writer), return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@pytest.mark.parametrize(
    ("reset", "reason"), [(False, "closed by the server"), (True, "lost: connection reset by peer")]
)
async def test_connection_lost_during_a_stream(certs: Certificates, reset: bool, reason: str) -> None:
    async with (
        serving(certs.server_context(), Service()) as (port, _),
        Relay(port) as relay,
        Client(certs.config(relay.port)) as client,
    ):
        chunks = client.logs("hang")
        assert await anext(chunks) == b"first\n"
        relay.cut(reset=reset)
        with pytest.raises(lib.ConnectionLost) as caught:
            await anext(chunks)
        assert str(caught.value) == f"connection to 127.0.0.1:{relay.port} {reason}"


async def test_a_client_outlives_a_lost_connection(certs: Certificates) -> None:
    async with (
        serving(certs.server_context(), Service()) as (port, _),
        Relay(port) as relay,
        Client(certs.config(relay.port)) as client,
    ):
        await client.list()
        relay.cut()
        with suppress(lib.ConnectionLost):  # the news of the cut may or may not have arrived
            await client.list()
        assert len(await client.list()) == 1


async def test_a_task_whose_call_broke_off_can_be_cancelled(certs: Certificates) -> None:
    task = asyncio.current_task()
    assert task is not None
    async with (
        serving(certs.server_context(), Service()) as (port, _),
        Relay(port) as relay,
        Client(certs.config(relay.port, timeout=0.2)) as client,
    ):
        with pytest.raises(lib.DeadlineExceeded):
            await client.status("hang")
        assert task.cancelling() == 0
        chunks = client.logs("hang")
        await anext(chunks)
        relay.cut()
        with pytest.raises(lib.ConnectionLost):
            await anext(chunks)
        assert task.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.Event().wait()


async def test_a_cancelled_call_is_cancelled_though_it_breaks_off(certs: Certificates) -> None:
    async with (
        serving(certs.server_context(), Service()) as (port, _),
        Relay(port) as relay,
        Client(certs.config(relay.port)) as client,
    ):
        chunks = client.logs("hang", reconnect=True)
        await anext(chunks)
        waiting = asyncio.create_task(anext(chunks))
        await asyncio.sleep(0)
        channel = client._channel
        assert channel is not None
        channel.close()  # which ends the call, and
        waiting.cancel()  # in the same turn of the loop
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_deadline(certs: Certificates) -> None:
    async with (
        serving(certs.server_context(), Service()) as (port, _),
        Client(certs.config(port, timeout=0.2)) as client,
    ):
        with pytest.raises(lib.DeadlineExceeded, match=rf"^no answer from 127\.0\.0\.1:{port} within 0\.2 s$"):
            await client.status("hang")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("UNAUTHENTICATED", lib.Unauthenticated),
        ("PERMISSION_DENIED", lib.PermissionDenied),
        ("NOT_FOUND", lib.NotFound),
        ("INTERNAL", lib.Internal),
        ("CANCELLED", lib.Cancelled),
        ("INVALID_ARGUMENT", lib.InvalidArgument),
        ("FAILED_PRECONDITION", lib.FailedPrecondition),
        ("RESOURCE_EXHAUSTED", lib.ResourceExhausted),
        ("UNAVAILABLE", lib.Unavailable),
        ("UNIMPLEMENTED", lib.Unimplemented),
        ("DATA_LOSS", lib.CallError),
    ],
)
async def test_what_the_server_answers(certs: Certificates, code: str, kind: type[lib.CallError]) -> None:
    async with serving(certs.server_context(), Service()) as (port, _), Client(certs.config(port)) as client:
        with pytest.raises(lib.CallError) as caught:
            await client.status(code)
    assert (type(caught.value), caught.value.code, str(caught.value)) == (kind, Status[code], f"text of {code}")


async def test_a_stream_that_ends_in_an_error(certs: Certificates) -> None:
    async with serving(certs.server_context(), Service()) as (port, _), Client(certs.config(port)) as client:
        chunks = client.logs("fails")
        assert await anext(chunks) == b"first\n"
        with pytest.raises(lib.Internal, match=r"^log lost$"):
            await anext(chunks)


async def test_a_reader_that_stalls_holds_little_and_stops_no_one(certs: Certificates) -> None:
    service = Service()
    async with serving(certs.server_context(), service) as (port, _), Client(certs.config(port)) as client:
        stalled = [client.logs("endless") for _ in range(4)]
        for chunks in stalled:
            assert await anext(chunks) == b"first\n"
        sent = -1
        while sent != service.sent:
            sent = service.sent
            for _ in range(20):
                await client.list()
        assert service.sent <= len(stalled) * 4 * 2**20
        await stalled[0].aclose()
        await service.ended.wait()


async def test_closing_a_stream_early_ends_it_on_the_server(certs: Certificates) -> None:
    service = Service()
    async with serving(certs.server_context(), service) as (port, _), Client(certs.config(port)) as client:
        chunks = client.logs("endless")
        await anext(chunks)
        await chunks.aclose()
        await service.ended.wait()
        assert len(await client.list()) == 1


@pytest.mark.parametrize("setting", ["cert", "key", "ca"])
async def test_missing_file(certs: Certificates, setting: str, tmp_path: Path) -> None:
    what = {"cert": "client certificate", "key": "client key", "ca": "CA certificate"}[setting]
    missing = str(tmp_path / "absent.pem")
    text = await sentence(_with(certs, setting, missing), lib.SettingsError)
    assert text == f"cannot read {what} {missing}: No such file or directory"
    text = await sentence(_with(certs, setting, str(tmp_path)), lib.SettingsError)
    assert text == f"cannot read {what} {tmp_path}: Is a directory"


@pytest.mark.parametrize("setting", ["cert", "key", "ca"])
@pytest.mark.parametrize("content", [b"", b"garbage\xff\0", b"-----BEGIN NONSENSE-----\nAA\n-----END NONSENSE-----\n"])
async def test_file_that_is_no_pem(certs: Certificates, setting: str, content: bytes, tmp_path: Path) -> None:
    what = {"cert": "client certificate", "key": "client key", "ca": "CA certificate"}[setting]
    path = tmp_path / "file.pem"
    path.write_bytes(content)
    assert await sentence(_with(certs, setting, str(path)), lib.SettingsError) == f"{what} {path} is not in PEM format"


@pytest.mark.parametrize("setting", ["cert", "key"])
async def test_malformed_pem(certs: Certificates, setting: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    lines = certs.text(f"client-{setting}").splitlines()
    path.write_text("\n".join([lines[0], "AAAA" * 8, *lines[2:]]) + "\n")
    text = await sentence(_with(certs, setting, str(path)), lib.SettingsError)
    assert text.endswith("is malformed or of an unsupported kind")
    assert str(path) in text


async def test_key_of_another_certificate(certs: Certificates) -> None:
    text = await sentence(_with(certs, "key", certs.path("old-key")), lib.SettingsError)
    assert text == f"client key {certs.path('old-key')} does not match client certificate {certs.path('client-cert')}"


async def test_encrypted_key(certs: Certificates, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s

    path = tmp_path / "key.pem"
    key = pki.load(certs.folder, "client").key
    path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"x")))
    text = await sentence(_with(certs, "key", str(path)), lib.SettingsError)
    assert text == f"client key {path} is encrypted; a key without a passphrase is needed"


async def test_unreadable_key(certs: Certificates, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("")
    path.chmod(0)
    with bound_by_modes():
        text = await sentence(_with(certs, "key", str(path)), lib.SettingsError)
    assert text == f"cannot read client key {path}: Permission denied"


async def test_arguments_that_the_wire_cannot_carry(certs: Certificates) -> None:
    async with Client(certs.config(1)) as client:
        with pytest.raises(lib.InvalidArgument, match="maxMemory: 2147483648 is not a 32-bit number"):
            await client.run("true", max_memory=2**31)
        with pytest.raises(lib.InvalidArgument, match="is not UTF-8 text"):
            await client.run("echo", "\udcff")


def _with(certs: Certificates, setting: str, value: str) -> ClientConfig:
    settings = {"cert": certs.path("client-cert"), "key": certs.path("client-key"), "ca": certs.path("ca-cert")}
    return ClientConfig("127.0.0.1:1", **{**settings, setting: value})
