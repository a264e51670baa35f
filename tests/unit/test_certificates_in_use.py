"""Which certificates a server uses and whom it trusts, by real files and by handshakes in memory."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from harness import PATIENCE

from joblet import pki, revocation
from joblet.authority import Authority
from joblet.config import ConfigError, SecuritySection
from joblet.errors import JobletError
from joblet.server.certificates import Certificates, warnings
from joblet.server.clients import Clients
from joblet.server.trust import Chain, Trust, verified_chain
from joblet.server.watch import FileWatch, ways

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


def sections(folder: Path, **more: str) -> SecuritySection:
    return SecuritySection(
        caCert=str(folder / "ca-cert.pem"),
        serverCert=str(folder / "server-cert.pem"),
        serverKey=str(folder / "server-key.pem"),
        **more,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "certs"
    Authority(made).init(["localhost"], 825, force=False)
    Authority(made).issue("alice", pki.Role.ADMIN, 1, force=False)
    return made


class Connection:
    """Keeps the reason why it was ended."""

    @cached_property
    def ended(self) -> asyncio.Future[JobletError]:
        return asyncio.get_running_loop().create_future()

    def refuse(self, reason: JobletError) -> None:
        self.ended.set_result(reason)


def handshake(server: ssl.SSLContext, folder: Path, name: str) -> ssl.SSLObject:
    """The server's end of a connection of a client."""
    return ends_of(server, client_context(folder, name))[1]


def client_context(folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca-cert.pem")
    context.load_cert_chain(*pki.paths(folder, name))
    return context


def ends_of(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> list[ssl.SSLObject]:
    """The client's and the server's end of a connection that has shaken hands."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname="localhost", session=session),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends


@asynccontextmanager
async def watching(security: SecuritySection, folder: Path) -> AsyncIterator[Certificates]:
    certificates = Certificates(security, folder)
    certificates.start()
    try:
        yield certificates
    finally:
        await certificates.close()


async def test_a_revoked_client_is_refused_new_and_connected(folder: Path) -> None:
    async with watching(sections(folder), folder) as certificates:
        connection = Connection()
        assert certificates.join(connection, handshake(certificates.context, folder, "alice")) is None
        Authority(folder).revoke("alice")
        async with asyncio.timeout(PATIENCE):
            reason = await connection.ended
        assert "'alice' was revoked on " in str(reason)
        again = certificates.join(Connection(), handshake(certificates.context, folder, "alice"))
        assert str(again) == str(reason)
        assert set(certificates.expiries()) == {"server", "ca", "revocationList"}
        certificates.leave(connection)
    another = Certificates(sections(folder), folder)
    assert str(another.join(Connection(), handshake(another.context, folder, "alice"))) == str(reason)


async def test_who_shook_hands_before_its_authority_was_retired_is_refused(folder: Path) -> None:
    authority = Authority(folder)
    authority.rotate()
    authority.renew("server", None)
    async with watching(sections(folder), folder) as certificates:
        late = handshake(certificates.context, folder, "alice")
        connection = Connection()
        assert certificates.join(connection, handshake(certificates.context, folder, "alice")) is None
        authority.retire(force=True)
        async with asyncio.timeout(PATIENCE):
            reason = await connection.ended
        assert str(reason) == "client certificate of 'alice' is of a retired authority: have it renewed"
        assert str(certificates.join(Connection(), late)) == str(reason)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_resumes_a_session_is_judged_by_its_certificate(folder: Path, version: ssl.TLSVersion) -> None:
    """TLS 1.3 resumes none; with 1.2 OpenSSL does, as long as the certificates do not change, and verifies nothing."""
    security = sections(folder, minTlsVersion="1.2")
    client = client_context(folder, "alice")
    client.maximum_version = version
    certificates = Certificates(security, folder)
    earlier, _ = ends_of(certificates.context, client)
    again, server = ends_of(certificates.context, client, earlier.session)
    assert again.session_reused == (version is ssl.TLSVersion.TLSv1_2)
    alice = pki.load(folder, "alice").certificate
    assert Chain.of(verified_chain(server)).certificates == [alice]
    Authority(folder).revoke("alice")
    changed = Certificates(security, folder)
    again, server = ends_of(changed.context, client, earlier.session)
    assert not again.session_reused
    assert "was revoked" in str(changed.join(Connection(), server))


def test_a_list_that_was_asked_for_must_be_there(folder: Path) -> None:
    Certificates(sections(folder), folder)
    with pytest.raises(ConfigError, match=r"^security\.revocationList: .*/crl\.pem: No such file or directory$"):
        Certificates(sections(folder, revocationList=str(folder / "crl.pem")), folder)


@pytest.mark.parametrize("cut", [slice(0, 100), slice(0, -100), slice(100, None), slice(0, 0)])
def test_with_a_damaged_list_the_server_does_not_start(folder: Path, cut: slice) -> None:
    Authority(folder).revoke("alice")
    path = folder / "crl.pem"
    path.write_bytes(path.read_bytes()[cut])
    with pytest.raises(ConfigError, match=rf"^security\.revocationList: {path}: "):
        Certificates(sections(folder), folder)


def test_a_list_that_takes_more_than_is_known_here_to_understand_is_refused(folder: Path) -> None:
    ca = pki.load(folder, "ca")
    delta = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(NOW)
        .next_update(NOW + timedelta(days=1))
        .add_extension(x509.DeltaCRLIndicator(1), critical=True)
        .sign(ca.key, hashes.SHA256())
    )
    pem = delta.public_bytes(revocation.serialization.Encoding.PEM)
    with pytest.raises(revocation.RevocationError, match=r"extension 2\.5\.29\.27, which joblet does not know"):
        revocation.read(pem, [ca.certificate])


def test_another_authority_of_the_same_name_signs_no_list(folder: Path) -> None:
    ca, other = pki.load(folder, "ca"), pki.create_ca()
    pem = revocation.sign(other, {5: NOW}, 1)
    assert revocation.read(pem, [other.certificate]).revoked
    with pytest.raises(revocation.RevocationError, match="not signed by an authority"):
        revocation.read(pem, [ca.certificate])


async def test_a_client_is_judged_when_its_certificate_ends_and_not_before(folder: Path) -> None:
    ca = pki.load(folder, "ca")
    trust = Trust([ca.certificate], revocation.Revocations())
    now = datetime.now(UTC)
    chain, ends = [], [now + timedelta(days=3), now + timedelta(seconds=1.5)]
    for end in ends:
        one = pki.issue_client(ca, "a", pki.Role.VIEWER, days=4, now=end - timedelta(days=4)).certificate
        chain.append((one.public_bytes(revocation.serialization.Encoding.DER),))
    clients = Clients(trust)
    connections = [Connection(), Connection(), Connection()]
    for connection, verified in zip(connections, [*chain, chain[1]], strict=True):
        assert clients.join(connection, verified, known=True) is None
    async with asyncio.timeout(PATIENCE):
        reasons = [await connection.ended for connection in connections[1:]]
    assert all("expired at" in str(reason) for reason in reasons)
    assert datetime.now(UTC) >= Chain.of(chain[1]).until
    assert not connections[0].ended.done()
    assert "expired at" in str(clients.join(Connection(), chain[1], known=True))
    clients.close()


def test_a_certificate_ends_with_what_it_hangs_on() -> None:
    root = pki.create_ca(days=100, now=NOW)
    own = pki.issue_client(root, "a", pki.Role.ADMIN, days=50, now=NOW).certificate
    chain = Chain([own, pki.create_ca(days=10, now=NOW).certificate])
    trust = Trust([root.certificate], revocation.Revocations())
    assert trust.refusal(chain, NOW) is None
    expired = str(trust.refusal(chain, NOW + timedelta(days=10)))
    assert expired == "client certificate of 'a' expired at 2026-01-25 10:30:00 UTC: have it renewed"


def test_what_ends_is_told_in_time_and_then_louder() -> None:
    ends = {"server": NOW + timedelta(days=30), "ca": NOW + timedelta(days=29, hours=1)}
    assert list(warnings(ends, NOW)) == [
        (logging.WARNING, "an authority's certificate (security.caCert) expires in 29 days, on 2026-02-13")
    ]
    ends = {"server": NOW + timedelta(days=6), "ca": NOW + timedelta(hours=30), "revocationList": NOW}
    told = list(warnings(ends, NOW))
    assert {level for level, _ in told} == {logging.ERROR}
    assert [text.split(")")[1] for _, text in told] == [
        " expires in 6 days, on 2026-01-21",
        " expires within two days, on 2026-01-16",
        " has expired, on 2026-01-15",
    ]


# How files are replaced


async def noticed(files: list[Path], change: object) -> None:
    """That a change of files is noticed, by whatever way it is done."""
    told = asyncio.Event()
    watch = FileWatch(told.set)
    try:
        watch.look_at(ways(files))
        change()  # type: ignore[operator]
        async with asyncio.timeout(PATIENCE):
            await told.wait()
        watch.look_at(ways(files))
    finally:
        watch.close()


async def test_a_rename_over_a_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("1")
    (tmp_path / "b").write_text("2")
    await noticed([tmp_path / "a.pem"], lambda: os.rename(tmp_path / "b", tmp_path / "a.pem"))


async def test_a_file_written_in_place_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("1")
    await noticed([tmp_path / "a.pem"], lambda: (tmp_path / "a.pem").write_text("2"))


async def test_a_file_that_comes_is_noticed_also_with_its_directory(tmp_path: Path) -> None:
    await noticed([tmp_path / "a.pem"], lambda: (tmp_path / "a.pem").write_text("2"))
    await noticed([tmp_path / "certs/a.pem"], (tmp_path / "certs").mkdir)


async def test_certbots_link_is_noticed(tmp_path: Path) -> None:
    for folder in ("live", "archive"):
        (tmp_path / folder).mkdir()
    link = tmp_path / "live/cert.pem"
    link.symlink_to("../archive/cert1.pem")
    (tmp_path / "live/new").symlink_to("../archive/cert2.pem")
    await noticed([link], lambda: os.rename(tmp_path / "live/new", link))


async def test_the_directory_of_a_kubernetes_secret_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1/tls.crt").write_text("1")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    (tmp_path / "..data_tmp").symlink_to("..2")
    await noticed([tmp_path / "tls.crt"], lambda: os.rename(tmp_path / "..data_tmp", tmp_path / "..data"))


async def test_a_directory_that_takes_anothers_place_is_noticed_and_then_watched(tmp_path: Path) -> None:
    for folder in ("certs", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.pem").write_text("1")
    file = tmp_path / "certs/a.pem"
    told = asyncio.Event()
    watch = FileWatch(told.set)
    watch.look_at(ways([file]))
    os.rename(tmp_path / "certs", tmp_path / "old")
    os.rename(tmp_path / "new", tmp_path / "certs")
    async with asyncio.timeout(PATIENCE):
        await told.wait()
        watch.look_at(ways([file]))
        told.clear()
        file.write_text("2")
        await told.wait()
    watch.close()


async def test_other_files_are_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("1")
    told: list[int] = []
    done = asyncio.Event()
    watch, other = FileWatch(lambda: told.append(1)), FileWatch(done.set)
    watch.look_at(ways([tmp_path / "a.pem"]))
    other.look_at(ways([tmp_path / "b.pem"]))
    (tmp_path / "b.pem").write_text("1")
    async with asyncio.timeout(PATIENCE):
        await done.wait()
    await asyncio.sleep(0)  # both have had their events by now: the first was asked to be told first
    assert not told
    watch.close()
    other.close()


def test_links_that_go_in_circles_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert ways([tmp_path / "a"])[tmp_path] == {"a", "b"}
