"""Certificates of a running server: changed, revoked, rotated and expired, over real TLS and with live streams."""

from __future__ import annotations

import os
import re
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from harness import PATIENCE, Server, Stock, make_certificates, poll_until

from joblet import pki, revocation
from joblet.authority import Authority

CHANGED = re.compile("certificates have changed")
WITHIN = 1.0
"""seconds until the stream of a client ends that is not to be served any more: what is promised"""


def refused(why: str) -> re.Pattern[str]:
    """The line on a file that cannot be used."""
    return re.compile(rf"certificates refused, those before stay in use \| error=.*{why}")


class Place:
    """A server with a directory of certificates of its own."""

    def __init__(self, folder: Path, stock: tuple[ModuleType, ModuleType]) -> None:
        self.folder = make_certificates(folder / "certs")
        self.authority = Authority(self.folder)
        (folder / "server").mkdir()
        self.server = Server(folder / "server", self.folder)
        self.stock = stock

    def client(self, name: str) -> grpc.Channel:
        return self.server.channel(name)

    def calls(self, channel: grpc.Channel) -> Stock:
        return Stock(channel, *self.stock)

    def issue(self, name: str, role: pki.Role = pki.Role.ADMIN) -> None:
        self.authority.issue(name, role, 1, force=True)

    def changed(self, change: Callable[[], object], pattern: re.Pattern[str] = CHANGED) -> re.Match[str]:
        """Do something, and wait for the line that the server writes about it."""
        start = len(self.server.lines)
        change()
        return self.server.wait_for_line(pattern, start)

    def served(self, name: str) -> str:
        """What a new connection of a client is told: nothing, or why it is not served."""
        with self.client(name) as channel:
            try:
                self.calls(channel).list()
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
        return ""


class Following:
    """The live log of a job that writes on, read in a thread."""

    def __init__(self, place: Place, name: str, job_id: str) -> None:
        self._channel = place.client(name)
        self._stream = place.calls(self._channel).stub.GetJobLogs(place.stock[0].GetJobLogsReq(id=job_id))
        self.began = threading.Event()
        self.ended = threading.Event()
        self.ended_at = 0.0
        self.error: Any = None
        self.text = b""
        threading.Thread(target=self._read, daemon=True).start()
        assert self.began.wait(PATIENCE)

    def _read(self) -> None:
        try:
            for chunk in self._stream:
                self.text += chunk.payload
                self.began.set()
        except grpc.RpcError as error:
            self.error = error
        self.ended_at = time.monotonic()
        self.ended.set()

    def end(self) -> str:
        """Wait for the end: the status and the sentence, or nothing."""
        assert self.ended.wait(PATIENCE)
        self._channel.close()
        return f"{self.error.code().name}: {self.error.details()}" if self.error else ""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, stock: tuple[ModuleType, ModuleType]) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("place"), stock)
    made.server.start()
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def writing(place: Place) -> Iterator[str]:
    """A job that writes numbers, from 1 on."""
    with place.client("admin") as channel:
        calls = place.calls(channel)
        job_id = calls.started("sh", "-c", "while :; do echo $((n += 1)); sleep 0.05; done").id
    yield job_id
    with place.client("admin") as channel:
        place.calls(channel).stop(job_id)


def test_the_live_stream_of_a_revoked_client_ends_within_a_second(place: Place, writing: str) -> None:
    place.issue("alice")
    alice, admin = Following(place, "alice", writing), Following(place, "admin", writing)
    began = time.monotonic()
    place.changed(lambda: place.authority.revoke("alice"))
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    sentence = f"UNAUTHENTICATED: client certificate of 'alice' was revoked on {today}: have another one issued"
    assert alice.end() == sentence
    assert alice.ended_at - began < WITHIN
    assert place.served("alice") == sentence
    assert not admin.ended.is_set()


def test_streams_of_other_clients_and_other_kinds_end_as_well_or_do_not(place: Place, writing: str) -> None:
    """By serial number and by file; the events of the same client end with its logs, on one connection."""
    place.issue("bob")
    place.issue("carol", pki.Role.VIEWER)
    serial = pki.load(place.folder, "bob").certificate.serial_number
    carol = Following(place, "carol", writing)
    with place.client("bob") as channel:
        pb, stubs = place.stock
        events = stubs.JobServiceStub(channel).WatchEvents(pb.WatchEventsRequest())
        place.calls(channel).list()
        place.changed(lambda: place.authority.revoke(f"{serial:x}"))
        with pytest.raises(grpc.RpcError) as ended:
            list(events)
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not carol.ended.is_set()
    place.changed(lambda: place.authority.revoke(str(place.folder / "carol-cert.pem")))
    assert carol.end().startswith("UNAUTHENTICATED: client certificate of 'carol' was revoked on ")


def test_a_client_that_does_not_read_is_ended_as_well(place: Place, stock: tuple[ModuleType, ModuleType]) -> None:
    place.issue("deaf")
    with place.client("admin") as channel:
        calls = place.calls(channel)
        loud = calls.started("sh", "-c", "yes | head -c 20000000; sleep 600").id
        deaf = place.client("deaf")
        stream = place.calls(deaf).logs(loud)
        next(stream)
        start = len(place.server.lines)
        place.authority.revoke("deaf")
        found = place.server.wait_for_line(re.compile(r"connection ended: client certificate refused \| (.*)"), start)
        calls.stop(loud)
        assert "'deaf' was revoked" in found[1]
        with pytest.raises(grpc.RpcError):
            list(stream)
        deaf.close()


def test_a_certificate_that_expires_while_its_client_is_connected_ends_its_stream(place: Place, writing: str) -> None:
    now = datetime.now(UTC)
    ca = pki.load(place.folder, "ca")
    brief = pki.issue_client(ca, "brief", pki.Role.VIEWER, days=1, now=now - timedelta(days=1) + timedelta(seconds=2.5))
    pki.save(brief, place.folder, "brief")
    until = brief.certificate.not_valid_after_utc
    following = Following(place, "brief", writing)
    assert following.end() == (
        f"UNAUTHENTICATED: client certificate of 'brief' expired at {until:%Y-%m-%d %H:%M:%S} UTC: have it renewed"
    )
    assert timedelta(0) <= datetime.now(UTC) - until < timedelta(seconds=WITHIN)
    assert place.served("brief").startswith("UNAVAILABLE: ")  # the handshake fails


def test_the_servers_certificate_is_renewed_under_live_streams(place: Place, writing: str) -> None:
    following = Following(place, "admin", writing)
    before = shown_by(place)
    place.authority.renew("server", None)
    after = pki.load(place.folder, "server").certificate.serial_number
    assert after != before
    poll_until(lambda: shown_by(place) == after)
    lines = following.text.count(b"\n")
    poll_until(lambda: following.text.count(b"\n") > lines)
    assert not following.ended.is_set()


def test_a_faulty_file_is_refused_until_it_is_right(place: Place) -> None:
    cert, key = pki.paths(place.folder, "server")
    serial = shown_by(place)
    malformed = refused("security.serverCert: not a certificate in PEM format, or a damaged one")
    place.changed(lambda: cert.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n"), malformed)
    assert shown_by(place) == serial
    other = pki.issue_server(pki.load(place.folder, "ca"))
    place.changed(lambda: pki.write(cert, other.certificate_pem, 0o644, force=True), refused("key values mismatch"))
    pki.write(key, other.key_pem, 0o600, force=True)
    poll_until(lambda: shown_by(place) == other.certificate.serial_number)
    past = pki.issue_server(pki.load(place.folder, "ca"), days=1, now=datetime.now(UTC) - timedelta(days=2))
    expired = refused("security.serverCert: expired on ")
    place.changed(lambda: pki.save(past, place.folder, "server", force=True), expired)
    assert shown_by(place) == other.certificate.serial_number
    pki.save(other, place.folder, "server", force=True)


@pytest.mark.parametrize("fault", ["damaged", "of another authority", "gone", "older"])
def test_a_list_that_cannot_be_used_changes_nothing(place: Place, fault: str) -> None:
    place.issue("mallory")
    place.changed(lambda: place.authority.revoke("mallory"))
    older = (place.folder / "crl.pem").read_bytes()
    place.issue("eve")
    place.changed(lambda: place.authority.revoke("eve"))
    path = place.folder / "crl.pem"
    good = path.read_bytes()
    if fault == "damaged":
        place.changed(lambda: path.write_bytes(good[:200]), refused("not a list of revoked certificates"))
    elif fault == "older":
        place.changed(lambda: path.write_bytes(older), refused("is older than the one in use"))
    elif fault == "gone":
        place.changed(path.unlink, refused("No such file or directory"))
    else:
        wrong = revocation.sign(pki.create_ca(), {}, 99)
        place.changed(lambda: path.write_bytes(wrong), refused("not signed by an authority of security.caCert"))
    assert "revoked" in place.served("eve")
    start = len(place.server.lines)
    path.write_bytes(good)
    os.kill(place.server.pid, signal.SIGHUP)
    assert "revoked" in place.served("eve")
    assert place.served("admin") == ""
    assert not [line for line in place.server.lines[start:] if CHANGED.search(line)]


def test_another_authority_takes_over_under_twenty_streams(place: Place, writing: str) -> None:
    names = [f"client{number}" for number in range(20)]
    for name in names:
        place.issue(name)
    followings = [Following(place, name, writing) for name in names]
    place.changed(place.authority.rotate)
    assert [place.served(name) for name in names[:3]] == [""] * 3  # of the former authority, by a server of it
    for name in (*names[1:], "admin"):
        place.authority.renew(name, None)
    place.authority.renew("server", None)
    poll_until(lambda: shown_by(place) == pki.load(place.folder, "server").certificate.serial_number)
    assert [place.served(name) for name in ("client0", "client1")] == ["", ""]
    assert not any(following.ended.is_set() for following in followings)
    renewed = [Following(place, name, writing) for name in names[1:]]
    with pytest.raises(pki.PkiError, match=r"still with certificates of the former authority: .*client0, ") as behind:
        place.authority.retire(force=False)
    assert "client1" not in str(behind.value)
    place.changed(lambda: place.authority.retire(force=True))
    sentences = {following.end() for following in followings}  # they showed certificates of the former one
    assert sentences == {
        f"UNAUTHENTICATED: client certificate of {name!r} is of a retired authority: have it renewed" for name in names
    }
    assert place.served("client0").startswith("UNAVAILABLE: ")
    assert not any(following.ended.is_set() for following in renewed)
    so_far = [following.text for following in renewed]
    poll_until(lambda: all(len(one.text) > len(text) for one, text in zip(renewed, so_far, strict=True)))
    for following in (*followings, *renewed):
        numbers = [int(line) for line in following.text.split(b"\n")[:-1]]
        assert numbers == list(range(1, len(numbers) + 1))


def show(place: Place, server: pki.KeyPair) -> None:
    """Give the server a certificate, and wait until it shows that."""
    pki.save(server, place.folder, "server", force=True)
    poll_until(lambda: shown_by(place) == server.certificate.serial_number)


def shown_by(place: Place) -> int:
    """The serial number of what the server shows to a new connection."""
    pem = ssl.get_server_certificate(("127.0.0.1", place.server.port), timeout=PATIENCE)
    return pki.read_certificate(pem).serial_number


def test_rnx_tells_of_certificates_that_end_soon_and_of_none_that_does_not(place: Place) -> None:
    ca = pki.load(place.folder, "ca")
    show(place, pki.issue_server(ca, days=365))
    place.issue("long")
    pki.save(pki.issue_client(ca, "long", pki.Role.VIEWER, 30), place.folder, "long", force=True)
    done = place.server.rnx("list", "--json", name="long")
    assert (done.returncode, done.stderr) == (0, "")
    pki.save(pki.issue_client(ca, "soon", pki.Role.VIEWER, 10), place.folder, "soon")
    show(place, pki.issue_server(ca, days=5))
    done = place.server.rnx("status", "no-such-job", name="soon")
    cert = place.folder / "soon-cert.pem"
    assert re.fullmatch(
        r"Error: job not found: .*\n"
        rf"Warning: client certificate {cert} expires in 9 days, on \S+: have it renewed \(joblet certs renew\)\n"
        r"Warning: the server's certificate expires in 4 days, on \S+: have it renewed there \(.*\)\n",
        done.stderr,
    )
    place.server.wait_for_line(
        re.compile(r"\[ERROR\] the server's certificate \(security\.serverCert\) expires in 4 days, on ")
    )
