from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from joblet.access import ROLES, Quota, Role
from joblet.config import Config, ConfigError, is_pem, load
from joblet.server.settings import roles

SPECIFICATION = """\
joblet:
  defaultCpuLimit: 100        # Default CPU percentage
  defaultMemoryLimit: 512     # Default memory in MB
  defaultIoLimit: 0           # Default I/O limit (0=unlimited)
  maxConcurrentJobs: 100      # Maximum concurrent jobs
  jobTimeout: "1h"            # Maximum job runtime
  cleanupTimeout: "5s"        # Resource cleanup timeout
grpc:
  maxRecvMsgSize: 524288      # 512KB max receive message
  maxSendMsgSize: 4194304     # 4MB max send message
  keepAliveTime: "30s"        # Connection keep-alive
"""
"""The file of the specification, as it stands there."""

MORE_SECTIONS = """\
server:
  address: "0.0.0.0"
  port: 50051
  stateDir: /var/lib/joblet      # database, job directories, logs
security:                        # a path, or the PEM text itself
  caCert: /opt/joblet/certs/ca-cert.pem
  serverCert: /opt/joblet/certs/server-cert.pem
  serverKey: /opt/joblet/certs/server-key.pem
logging:
  level: INFO                    # DEBUG, INFO, WARN, ERROR
  format: text                   # text is API.md's format; json
"""
"""The sections that the contract adds, as they stand there."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "joblet-config.yml"


def read(file: Path, text: str) -> Config:
    file.write_text(text, encoding="utf-8")
    return load(file)


def faults(file: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        read(file, text)
    return str(refusal.value).splitlines()


def test_the_file_of_the_specification_is_read(file: Path) -> None:
    config = read(file, SPECIFICATION)
    assert config.joblet.model_dump(include=set(yaml.safe_load(SPECIFICATION)["joblet"])) == {
        "defaultCpuLimit": 100,
        "defaultMemoryLimit": 512,
        "defaultIoLimit": 0,
        "maxConcurrentJobs": 100,
        "jobTimeout": 3600.0,
        "cleanupTimeout": 5.0,
    }
    assert config.grpc.model_dump() == {
        "maxRecvMsgSize": 524288,
        "maxSendMsgSize": 4194304,
        "keepAliveTime": 30.0,
        "maxConnections": 10_000,
    }


def test_its_values_are_the_defaults(file: Path) -> None:
    assert read(file, SPECIFICATION + MORE_SECTIONS) == read(file, "") == Config()


def test_the_sections_of_the_contract_are_read(file: Path) -> None:
    config = read(file, MORE_SECTIONS)
    assert (config.server.address, config.server.port) == ("0.0.0.0", 50051)
    assert config.security.serverKey == "/opt/joblet/certs/server-key.pem"
    assert (config.logging.level, config.logging.format) == ("INFO", "text")


def test_a_section_with_all_its_keys_commented_out_means_its_defaults(file: Path) -> None:
    assert read(file, "joblet:\n  # defaultCpuLimit: 50\nserver:\n  port: 0\n").server.port == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("joblet: {defaultCpuLimt: 50}", "joblet.defaultCpuLimt: unknown key"),
        ("servers: {}", "servers: unknown key"),
        (
            "joblet: {maxConcurrentJobs: 0}",
            "joblet.maxConcurrentJobs: Input should be greater than or equal to 1 (got 0)",
        ),
        ("server: {port: 65536}", "server.port: Input should be less than or equal to 65535 (got 65536)"),
        ("server: {port: '50051'}", "server.port: Input should be a valid integer (got '50051')"),
        ("joblet: {defaultCpuLimit: true}", "joblet.defaultCpuLimit: Input should be a valid integer (got True)"),
        (
            "joblet: {jobTimeout: 3600}",
            'joblet.jobTimeout: not a duration: "3600" (write for example "5s", "1h30m" or "250ms") (got 3600)',
        ),
        (
            "logging: {level: WARNING}",
            "logging.level: Input should be 'DEBUG', 'INFO', 'WARN' or 'ERROR' (got 'WARNING')",
        ),
        ("security: {minTlsVersion: '1.1'}", "security.minTlsVersion: Input should be '1.2' or '1.3' (got '1.1')"),
    ],
)
def test_a_fault_names_file_key_value_and_bound(file: Path, text: str, fault: str) -> None:
    assert faults(file, text) == [f"{file}: {fault}"]


@pytest.mark.parametrize("value", ['"0s"', '"0ms"', '"0.0h"'])
def test_a_timeout_of_nothing_is_refused_with_its_bound(file: Path, value: str) -> None:
    (fault,) = faults(file, f"joblet: {{jobTimeout: {value}}}")
    assert fault.startswith(f"{file}: joblet.jobTimeout: Input should be greater than 0")


def test_all_faults_are_told_at_once_each_on_its_line(file: Path) -> None:
    told = faults(
        file, "joblet: {defaultCpuLimit: 0, nonsense: 1}\ngrpc: {keepAliveTime: 5}\nserver: {port: -1}\nx: 1\n"
    )
    assert [line.removeprefix(f"{file}: ").split(":")[0] for line in told] == [
        "joblet.defaultCpuLimit",
        "joblet.nonsense",
        "grpc.keepAliveTime",
        "server.port",
        "x",
    ]


def test_a_file_that_is_absent_is_told_by_its_name(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"joblet-config\.yml: No such file"):
        load(file)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_bytes_that_are_not_utf8_are_told_by_their_place(file: Path) -> None:
    file.write_bytes(b"joblet: \xff")
    with pytest.raises(ConfigError, match="not UTF-8 text at byte 8"):
        load(file)


def test_a_syntax_error_is_told_by_its_line(file: Path) -> None:
    assert faults(file, "joblet:\n  a: 1\n b: 2\n")[0].startswith(f"{file}: line 3: not valid YAML")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("joblet: 3\x03\n", "not valid YAML: special characters are not allowed"),
        ('"a\\nb": {}\n', r"'a\nb': unknown key"),
        (
            'joblet: {jobTimeout: "5\\n6"}\n',
            r'joblet.jobTimeout: not a duration: "5\n6" (write for example "5s", "1h30m" or "250ms") '
            r"(got '5\n6')",
        ),
    ],
)
def test_each_fault_is_one_line(file: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(file, text)
    assert str(refusal.value) == f"{file}: {said}"


@pytest.mark.parametrize("text", ["- a\n", "just words\n", "5\n"])
def test_what_holds_no_sections_is_refused(file: Path, text: str) -> None:
    assert "the file must hold sections" in faults(file, text)[0]


def test_deep_nesting_is_refused(file: Path) -> None:
    assert faults(file, "[" * 1000)


scalars = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=12).map(lambda text: yaml.safe_dump(text, allow_unicode=True).splitlines()[0]),
    st.text(alphabet="0123456789-:.xob_ TZ~!&*?|>'\"#,%@`{}[]aeflnrstuy", max_size=12),
    st.sampled_from(
        ["2024-13-45", "0x_", "0b_", "!!int a", "!!float b", "!!bool c", "!!timestamp d", "!!null e", "!!binary f",
         "9" * 5000, "0x" + "f" * 5000, ".inf", ".nan", "1:2:3", "*a", "&a [*a]", "<<", "=", "\u2028"]
    ),
)  # fmt: skip
keys = st.sampled_from(
    [f"{section}.{key}" for section, field in Config.model_fields.items() for key in field.annotation.model_fields]  # type: ignore[union-attr]
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(keys, scalars)
@example("server.address", "2024-13-45")
@example("joblet.defaultCpuLimit", "9" * 5000)
@example("joblet.defaultCpuLimit", "0x" + "f" * 5000)
@example("joblet.jobTimeout", "0x" + "f" * 5000)
@example("joblet.defaultCpuLimit", "0x_")
@example("joblet.defaultCpuLimit", "!!bool c")
@example("joblet.defaultCpuLimit", "!!timestamp d")
@example("joblet.defaultCpuLimit", '"\\ud800"')
def test_any_scalar_gives_a_configuration_or_a_fault_that_names_the_file(file: Path, key: str, scalar: str) -> None:
    section, name = key.split(".")
    try:
        config = read(file, f"{section}:\n  {name}: {scalar}\n")
    except ConfigError as error:
        assert str(error).startswith(f"{file}:")
    else:
        assert isinstance(config, Config)


def test_a_relative_state_directory_is_relative_to_the_file(file: Path) -> None:
    config = read(file, "server: {stateDir: state}")
    assert config.state_dir(Path("/etc/joblet")) == Path("/etc/joblet/state")
    assert Config().state_dir(Path("/etc/joblet")) == Path("/var/lib/joblet")


def test_pem_text_is_told_from_a_path() -> None:
    assert is_pem("\n -----BEGIN CERTIFICATE-----\n")
    assert not is_pem("certs/-----BEGIN.pem")
    assert not is_pem("")


def test_what_jobs_see_and_may_ask_for_is_read(file: Path) -> None:
    config = read(
        file,
        """
joblet: {maxConcurrentJobs: 8, defaultProcessLimit: 100, defaultOpenFilesLimit: 256, defaultDiskLimit: 64}
ceilings: {maxCPU: 200, maxMemory: 1024, roles: {admin: {maxMemory: 512, maxDisk: 100}}}
isolation: {idBase: 100000, idRanges: 10, readOnly: [/opt/models], writable: [/srv/data], masked: [/etc/x], tmpSize: 16}
""",
    )
    assert (config.ceilings.maxCPU, config.ceilings.maxDisk) == (200, None)
    assert config.ceilings.roles["admin"].maxMemory == 512
    assert config.isolation.readOnly == ["/opt/models"]
    assert (config.isolation.idBase, config.isolation.idRanges) == (100000, 10)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("isolation: {readOnly: [opt]}", "isolation.readOnly.0: not an absolute path below / (got 'opt')"),
        ("isolation: {writable: [/]}", "isolation.writable.0: not an absolute path below / (got '/')"),
        ("isolation: {writable: [/a/../b]}", "isolation.writable.0: not an absolute path below / (got '/a/../b')"),
        ("isolation: {masked: [/a//b/]}", "isolation.masked.0: write /a/b (got '/a//b/')"),
        (
            "isolation: {readOnly: [/proc/sys]}",
            "isolation.readOnly.0: every job has a /proc of its own (got '/proc/sys')",
        ),
        ("isolation: {writable: [/tmp/x]}", "isolation.writable.0: every job has a /tmp of its own (got '/tmp/x')"),
        ("isolation: {tmpSize: 0}", "isolation.tmpSize: Input should be greater than or equal to 1 (got 0)"),
        ("isolation: {idBase: 1000}", "isolation.idBase: Input should be greater than or equal to 65536 (got 1000)"),
        ("ceilings: {roles: {tester: {}}}", "ceilings.roles.tester: not in access.roles"),
        (
            "ceilings: {roles: {Tester: {}}}",
            "ceilings.roles.Tester.[key]: no name of a role (a-z, 0-9, _ and -, a letter first; not unknown)"
            " (got 'Tester')",
        ),
        ("ceilings: {maxMemory: 0}", "ceilings.maxMemory: Input should be greater than or equal to 1 (got 0)"),
        ("ceilings: {maxIOBPS: 1}", "ceilings.maxIOBPS: Input should be greater than or equal to 2 (got 1)"),
        ("joblet: {defaultIoLimit: 1}", "joblet.defaultIoLimit: 0 is none, and the least is 2 (got 1)"),
        (
            "joblet: {jobTimeout: 3651d}",
            "joblet.jobTimeout: Input should be less than or equal to 315360000 (got 315446400.0)",
        ),
        ("joblet: {maxLogSize: -1}", "joblet.maxLogSize: Input should be greater than or equal to 0 (got -1)"),
    ],
)
def test_a_fault_in_what_jobs_see_is_named(file: Path, line: str, fault: str) -> None:
    assert faults(file, line) == [f"{file}: {fault}"]


def test_roles_are_read(file: Path) -> None:
    config = read(
        file,
        """
access:
  roles:
    developer: {like: admin, scope: own, quota: {jobs: 10, cpu: 400, memory: 4096}}
    ci: {operations: [run_job, get_job]}
    viewer: {scope: own}
ceilings: {roles: {developer: {maxMemory: 512}, admin: {maxCPU: 100}}}
""",
    )
    assert roles(config) == {
        "admin": ROLES["admin"],
        "viewer": Role(ROLES["viewer"].operations, own=True),
        "developer": Role(ROLES["admin"].operations, own=True, quota=Quota(10, 400, 4096)),
        "ci": Role(frozenset({"run_job", "get_job"})),
    }
    assert roles(Config()) == ROLES


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("access: {roles: {ci: {}}}", "access.roles.ci: give either like or operations"),
        ("access: {roles: {ci: {like: admin, operations: []}}}", "access.roles.ci: give either like or operations"),
        (
            "access: {roles: {viewer: {like: admin}}}",
            "access.roles.viewer: has operations of its own: give neither like nor operations",
        ),
        (
            "access: {roles: {unknown: {like: admin}}}",
            "access.roles.unknown.[key]: no name of a role (a-z, 0-9, _ and -, a letter first; not unknown)"
            " (got 'unknown')",
        ),
        (
            "access: {roles: {ci: {like: root}}}",
            "access.roles.ci.like: Input should be 'admin' or 'viewer' (got 'root')",
        ),
        (
            "access: {roles: {ci: {like: viewer, scope: mine}}}",
            "access.roles.ci.scope: Input should be 'own' or 'all' (got 'mine')",
        ),
        (
            "access: {roles: {ci: {like: viewer, quota: {jobs: 0}}}}",
            "access.roles.ci.quota.jobs: Input should be greater than or equal to 1 (got 0)",
        ),
        ("access: {roles: {ci: {like: viewer, quota: {disk: 1}}}}", "access.roles.ci.quota.disk: unknown key"),
    ],
)
def test_a_fault_in_a_role_is_named(file: Path, line: str, fault: str) -> None:
    assert faults(file, line) == [f"{file}: {fault}"]


def test_an_operation_that_is_none_is_told_with_those_that_are(file: Path) -> None:
    (fault,) = faults(file, "access: {roles: {ci: {operations: [run_job, fly]}}}")
    assert fault.startswith(f"{file}: access.roles.ci.operations.1: no operation (there are delete_all_jobs, ")
    assert fault.endswith(" (got 'fly')")


def test_more_jobs_than_ranges_of_ids_are_refused(file: Path) -> None:
    assert faults(file, "joblet: {maxConcurrentJobs: 5000}") == [
        f"{file}: joblet.maxConcurrentJobs 5000 is more than isolation.idRanges 4096"
    ]
    config = read(file, "joblet: {maxConcurrentJobs: 32000}\nisolation: {idBase: 65536, idRanges: 32000}")
    assert config.joblet.maxConcurrentJobs == 32_000


def test_a_pool_that_ends_beyond_the_last_id_is_refused(file: Path) -> None:
    (fault,) = faults(file, "isolation: {idBase: 2147418112, idRanges: 2}")
    assert fault.startswith(f"{file}: isolation: idBase 2147418112 and 2 idRanges of 65536 ids end beyond 2147483648")
