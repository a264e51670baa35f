from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

import joblet.server.auth as auth
from joblet import pki
from joblet.access import NO_QUOTA, ROLES, Quota, Role
from joblet.access import OPERATIONS as EVERY_OPERATION
from joblet.config import ConfigError, SecuritySection
from joblet.errors import PermissionDenied, Unauthenticated
from joblet.proto import joblet as pb
from joblet.server.auth import OPERATIONS, Caller, authorise, identify
from joblet.server.tls import server_context

Subject = list[list[tuple[str, str]]]


def certificate(*attributes: tuple[str, str]) -> dict[str, object]:
    """As `getpeercert` gives it: a sequence of names, each of one attribute."""
    return {"subject": tuple((attribute,) for attribute in attributes)}


def unit(value: str) -> tuple[str, str]:
    return ("organizationalUnitName", value)


@pytest.mark.parametrize("none", [None, {}])
def test_no_certificate_is_nobody(none: dict[str, object] | None) -> None:
    with pytest.raises(Unauthenticated, match=r"^failed to extract client role: no TLS information found$"):
        identify(none)


@pytest.mark.parametrize(
    ("units", "role"),
    [
        (["admin"], "admin"),
        (["viewer"], "viewer"),
        (["Admin"], "admin"),
        (["VIEWER"], "viewer"),
        ([], "unknown"),
        ([""], "unknown"),
        (["admins"], "unknown"),
        ([" admin"], "unknown"),
        (["admin "], "unknown"),
        (["admin\0"], "unknown"),
        (["admin,OU=viewer"], "unknown"),
        (["\u0430dmin"], "unknown"),
        (["ADM\u0130N"], "unknown"),
        (["unknown"], "unknown"),
        (["admin", "viewer"], "unknown"),
        (["viewer", "admin"], "unknown"),
        (["admin", "admin"], "unknown"),
        (["admin", "staff"], "unknown"),
    ],
)
def test_the_role_is_the_one_unit_and_anything_else_is_unknown(units: list[str], role: str) -> None:
    assert identify(certificate(("commonName", "alice"), *map(unit, units))) == Caller("alice", role)


def test_two_units_in_one_name_are_two_units() -> None:
    assert identify({"subject": (((unit("admin")), (unit("viewer"))),)}).role == "unknown"


def test_a_role_in_another_field_counts_for_nothing() -> None:
    who = identify(certificate(("commonName", "admin"), ("organizationName", "admin"), ("title", "admin")))
    assert who == Caller("admin", "unknown")


def test_a_certificate_without_a_subject_is_known_to_nobody() -> None:
    assert identify({"issuer": ((unit("admin"),),)}) == Caller("", "unknown")


words = st.one_of(
    st.sampled_from(["admin", "viewer", "ADMIN", "Viewer", "", "root", "developer", "intern"]), st.text(max_size=8)
)
kinds = st.sampled_from(["organizationalUnitName", "commonName", "organizationName", "2.5.4.11"])
subjects: st.SearchStrategy[Subject] = st.lists(st.lists(st.tuples(kinds, words), min_size=1, max_size=3), max_size=4)


@given(subjects)
def test_of_any_subject_only_exactly_one_unit_admin_or_viewer_gives_a_role(subject: Subject) -> None:
    units = [value for name in subject for kind, value in name if kind == "organizationalUnitName"]
    (matched,) = [re.fullmatch("(?ai:admin|viewer)", units[0])] if len(units) == 1 else [None]
    who = identify({"subject": subject})
    assert who.role == (matched.group().lower() if matched else "unknown")


@given(subjects, st.sampled_from([*OPERATIONS, "/joblet.JobletService/Other", ""]))
def test_of_any_subject_the_unknown_may_do_nothing(subject: Subject, method: str) -> None:
    who = identify({"subject": subject})
    if who.role == "unknown":
        with pytest.raises(PermissionDenied, match=r"^role unknown is not allowed to perform operation "):
            authorise(who, method)


def test_the_table_of_roles_is_that_of_the_specification() -> None:
    allowed = {
        rpc: [
            role for role in ("admin", "viewer") if OPERATIONS[f"/joblet.JobletService/{rpc}"] in ROLES[role].operations
        ]
        for rpc in ("RunJob", "GetJobStatus", "StopJob", "ListJobs", "GetJobLogs")
    }
    both = ["admin", "viewer"]
    assert allowed == {
        "RunJob": ["admin"],
        "GetJobStatus": both,
        "StopJob": ["admin"],
        "ListJobs": both,
        "GetJobLogs": both,
    }


def test_a_denial_is_told_in_the_specifications_words() -> None:
    with pytest.raises(PermissionDenied, match=r"^role viewer is not allowed to perform operation run_job$"):
        authorise(Caller("v", "viewer"), "/joblet.JobletService/RunJob")


@pytest.mark.parametrize("method", ["/joblet.JobletService/Unheard", "/joblet.jobletservice/RunJob", "RunJob", ""])
@pytest.mark.parametrize("role", ["admin", "viewer", "unknown", ""])
def test_what_is_not_in_the_table_is_denied_to_everyone(role: str, method: str) -> None:
    with pytest.raises(PermissionDenied, match=r"operation unknown$"):
        authorise(Caller("a", role), method)


def test_every_rpc_that_is_served_has_an_operation() -> None:
    services = (
        pb.JobletServiceBase,
        pb.JobServiceBase,
        pb.SessionServiceBase,
        pb.FileServiceBase,
        pb.MonitoringServiceBase,
    )
    served = {path for service in services for path in service().__mapping__()}
    assert served == {path for path in OPERATIONS if path.startswith("/joblet.")}


def test_every_operation_can_be_had_by_an_admin_and_no_role_has_another() -> None:
    assert ROLES["admin"] == Role(frozenset(OPERATIONS.values())) == Role(EVERY_OPERATION)
    assert ROLES["viewer"].operations < ROLES["admin"].operations
    assert set(ROLES) == {"admin", "viewer"}
    assert not any(role.own or role.quota != NO_QUOTA for role in ROLES.values())


ROLES_HERE = {
    **ROLES,
    "kiosk": Role(frozenset({"list_jobs"})),
    "developer": Role(EVERY_OPERATION, own=True),
    "intern": Role(EVERY_OPERATION, quota=Quota(jobs=1)),
}


@pytest.mark.parametrize("role", ["developer", "intern"])
@pytest.mark.parametrize(
    "names",
    [
        [],
        [""],
        ["alice", "bob"],
        ["alice", "alice"],
        ["alice\n"],
        ["al\0ice"],
        [" alice"],
        ["alice "],
        ["al\u200bice"],
        ["\u202ealice"],
        ["\u00a0alice"],
        ["a" * 65],
    ],
)
def test_who_is_nobody_in_particular_has_no_role_that_goes_by_the_name(role: str, names: list[str]) -> None:
    who = identify(certificate(*(("commonName", name) for name in names), unit(role)), ROLES_HERE)
    assert who.role == "unknown"
    with pytest.raises(PermissionDenied, match=r"^role unknown is not allowed to perform operation list_jobs$"):
        authorise(who, "/joblet.JobletService/ListJobs", ROLES_HERE)


@pytest.mark.parametrize("name", ["alice", "Alice", "\u0430lice", "Jos\u00e9", "Jose\u0301", "a b", "a" * 64])
def test_a_client_is_its_name_to_the_letter(name: str) -> None:
    who = identify(certificate(("commonName", name), unit("Developer")), ROLES_HERE)
    assert who == Caller(name, "developer", own=True)
    assert who.sees == name
    assert identify(certificate(("commonName", name), unit("admin")), ROLES_HERE).sees is None


@pytest.mark.parametrize("units", [["\u212aiosk"], ["kio\u017fk"], ["developer", "admin"], ["developers"], ["unknown"]])
def test_a_configured_role_is_named_as_exactly_as_the_others(units: list[str]) -> None:
    assert identify(certificate(("commonName", "a"), *map(unit, units)), ROLES_HERE).role == "unknown"
    assert identify(certificate(("commonName", "a"), unit("KIOSK")), ROLES_HERE) == Caller("a", "kiosk")


@given(subjects, st.sampled_from([*OPERATIONS, ""]))
def test_of_any_subject_a_role_allows_what_it_says_and_no_more(subject: Subject, method: str) -> None:
    who = identify({"subject": subject}, ROLES_HERE)
    allowed = who.role in ROLES_HERE and OPERATIONS.get(method) in ROLES_HERE[who.role].operations
    if allowed:
        authorise(who, method, ROLES_HERE)
    else:
        with pytest.raises(PermissionDenied):
            authorise(who, method, ROLES_HERE)


def test_a_call_without_an_identified_caller_fails() -> None:
    with pytest.raises(LookupError):
        auth.caller.get()


# The server's side of TLS, by handshakes in memory.


@pytest.fixture(scope="module")
def ca() -> pki.KeyPair:
    return pki.create_ca()


def pem(pair: pki.KeyPair) -> tuple[str, str]:
    key = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pair.certificate.public_bytes(serialization.Encoding.PEM).decode(), key.decode()


@pytest.fixture(scope="module")
def security(ca: pki.KeyPair) -> SecuritySection:
    cert, key = pem(pki.issue_server(ca, ["localhost"]))
    return SecuritySection(caCert=pem(ca)[0], serverCert=cert, serverKey=key)


def client_context(ca: pki.KeyPair, tmp_path: Path, own: pki.KeyPair | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=pem(ca)[0])
    context.set_alpn_protocols(["h2"])
    if own is not None:
        for name, text in zip(("cert.pem", "key.pem"), pem(own), strict=True):
            (tmp_path / name).write_text(text)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """The server's end of a connection; raises what either side's handshake raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname="localhost"),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1]


@pytest.mark.parametrize("role", list(pki.Role))
def test_a_client_is_who_its_certificate_says(
    ca: pki.KeyPair, security: SecuritySection, tmp_path: Path, role: pki.Role
) -> None:
    pair = pki.issue_client(ca, "alice", role)
    client = client_context(ca, tmp_path, pair)
    connection = handshake(server_context(security, tmp_path), client)
    serial = f"{pair.certificate.serial_number:X}"
    serial = serial.zfill(len(serial) + len(serial) % 2)  # whole bytes
    assert identify(connection.getpeercert()) == Caller("alice", role.value, serial=serial)
    assert connection.version() == "TLSv1.3"
    assert connection.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize(
    ("names", "units", "role"),
    [
        (["alice"], ["developer"], "developer"),
        (["alice", "bob"], ["developer"], "unknown"),
        (["alice\nbob"], ["developer"], "unknown"),
        (["alice\0"], ["developer"], "unknown"),
        ([], ["developer"], "unknown"),
        (["alice"], ["developer", "viewer"], "unknown"),
        (["alice"], ["\u212aiosk"], "unknown"),
        (["alice\n"], ["viewer"], "viewer"),  # as ever: it does not matter who that is
    ],
)
def test_a_name_that_tries_tricks_comes_through_tls_as_it_is(
    ca: pki.KeyPair, security: SecuritySection, tmp_path: Path, names: list[str], units: list[str], role: str
) -> None:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
    attributes += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    own = pki._issue(ca, x509.Name(attributes), 1, None, [usage])
    connection = handshake(server_context(security, tmp_path), client_context(ca, tmp_path, own))
    assert identify(connection.getpeercert(), ROLES_HERE).role == role


def test_a_client_without_a_certificate_connects_and_is_nobody(
    ca: pki.KeyPair, security: SecuritySection, tmp_path: Path
) -> None:
    connection = handshake(server_context(security, tmp_path), client_context(ca, tmp_path, None))
    with pytest.raises(Unauthenticated):
        identify(connection.getpeercert())


def test_a_client_of_another_ca_fails_the_handshake(ca: pki.KeyPair, security: SecuritySection, tmp_path: Path) -> None:
    stranger = pki.issue_client(pki.create_ca(), "mallory", pki.Role.ADMIN)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(security, tmp_path), client_context(ca, tmp_path, stranger))


def test_a_servers_certificate_is_no_clients(ca: pki.KeyPair, security: SecuritySection, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(security, tmp_path), client_context(ca, tmp_path, pki.issue_server(ca)))


def test_an_older_tls_is_refused_unless_configured(ca: pki.KeyPair, security: SecuritySection, tmp_path: Path) -> None:
    client = client_context(ca, tmp_path, None)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
        handshake(server_context(security, tmp_path), client)
    relaxed = security.model_copy(update={"minTlsVersion": "1.2"})
    assert handshake(server_context(relaxed, tmp_path), client).version() == "TLSv1.2"


def test_certificates_may_be_files_relative_to_the_configuration(security: SecuritySection, tmp_path: Path) -> None:
    values = {key: getattr(security, key) for key in ("caCert", "serverCert", "serverKey")}
    for key, text in values.items():
        (tmp_path / f"{key}.pem").write_text(text)
    context = server_context(SecuritySection(**{key: f"{key}.pem" for key in values}), tmp_path)
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("key", ["caCert", "serverCert", "serverKey"])
def test_a_file_that_is_absent_is_told_by_key_and_name(security: SecuritySection, tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^security\.{key}: .*gone\.pem: No such file or directory$"):
        server_context(security.model_copy(update={key: "gone.pem"}), tmp_path)


@pytest.mark.parametrize("key", ["caCert", "serverCert", "serverKey"])
def test_text_that_holds_no_certificate_is_told_by_its_key(security: SecuritySection, tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^security\..*{key}.*: .*PEM text"):
        server_context(security.model_copy(update={key: "-----BEGIN NOTHING-----\nx\n"}), tmp_path)


def test_a_key_of_another_certificate_is_told(ca: pki.KeyPair, security: SecuritySection, tmp_path: Path) -> None:
    _, other = pem(pki.issue_server(ca))
    with pytest.raises(ConfigError, match="key values mismatch"):
        server_context(security.model_copy(update={"serverKey": other}), tmp_path)


def test_an_encrypted_key_is_told_and_not_asked_for(ca: pki.KeyPair, security: SecuritySection, tmp_path: Path) -> None:
    pair = pki.issue_server(ca)
    locked = pair.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    update = {"serverCert": pem(pair)[0], "serverKey": locked.decode()}
    with pytest.raises(ConfigError, match="the key is encrypted; joblet needs one without a passphrase"):
        server_context(security.model_copy(update=update), tmp_path)
