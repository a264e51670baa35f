"""`joblet-config.yml`: API.md's sections and the three that wire.md adds, validated."""

from __future__ import annotations

import ipaddress
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from joblet.access import OPERATIONS, ROLES, is_role_name
from joblet.clock import parse_duration
from joblet.order import LEAST_IOBPS, MAX_INT32, MAX_TIMEOUT_MS

DEFAULT_PATH = Path("/opt/joblet/joblet-config.yml")


class ConfigError(Exception):
    """The configuration cannot be used; the message names file, key, value and bound, one line for each fault."""


def _duration(value: object) -> float:
    return parse_duration(str(value))


Duration = Annotated[float, BeforeValidator(_duration)]

_OWN = tuple(map(PurePosixPath, ("/proc", "/dev", "/sys", "/tmp", "/work")))
"""what every job has of its own"""


def _view_path(value: str) -> str:
    path = PurePosixPath(value)
    if not path.is_absolute() or path == PurePosixPath("/") or ".." in path.parts or "\0" in value:
        raise ValueError("not an absolute path below /")
    if str(path) != value:
        raise ValueError(f"write {path}")
    for own in _OWN:
        if path.is_relative_to(own):
            raise ValueError(f"every job has a {own} of its own")
    return value


ViewPath = Annotated[str, AfterValidator(_view_path)]


def _role_name(value: str) -> str:
    if not is_role_name(value):
        raise ValueError("no name of a role (a-z, 0-9, _ and -, a letter first; not unknown)")
    return value


RoleName = Annotated[str, AfterValidator(_role_name)]


def _operation(value: str) -> str:
    if value not in OPERATIONS:
        raise ValueError(f"no operation (there are {', '.join(sorted(OPERATIONS))})")
    return value


Operation = Annotated[str, AfterValidator(_operation)]


def _io_limit(value: int) -> int:
    if 0 < value < LEAST_IOBPS:
        raise ValueError(f"0 is none, and the least is {LEAST_IOBPS}")
    return value


IoLimit = Annotated[int, AfterValidator(_io_limit)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class JobletSection(_Section):
    """Limits and timeouts of jobs."""

    defaultCpuLimit: int = Field(default=100, ge=1, le=MAX_INT32)
    """percent of one core"""
    defaultMemoryLimit: int = Field(default=512, ge=1, le=MAX_INT32)
    """MB"""
    defaultIoLimit: IoLimit = Field(default=0, ge=0, le=MAX_INT32)
    """bytes per second, 0 is unlimited"""
    maxConcurrentJobs: int = Field(default=100, ge=1, le=32_768)
    """jobs that run at a time, at most isolation.idRanges; more wait as PENDING"""
    maxQueuedJobs: int = Field(default=1000, ge=0, le=1_000_000)
    """jobs that may wait for a slot; more are refused"""
    maxWorkflows: int = Field(default=1000, ge=1, le=100_000)
    """workflows that have not ended; more are refused"""
    maxScheduledJobs: int = Field(default=1000, ge=0, le=100_000)
    """jobs that wait for their time or for another attempt; more that would, or might, are refused"""
    defaultProcessLimit: int = Field(default=1024, ge=2, le=4_194_304)
    """processes and threads"""
    defaultOpenFilesLimit: int = Field(default=65_536, ge=16, le=MAX_INT32)
    """open files of a process"""
    defaultDiskLimit: int = Field(default=0, ge=0, le=MAX_INT32)
    """MB in the work directory, 0 is unlimited"""
    maxLogSize: int = Field(default=0, ge=0, le=MAX_INT32)
    """MB of output that a job's log keeps, 0 is unlimited"""
    maxUploadSize: int = Field(default=16 << 30, ge=1, le=2**63 - 1)
    """bytes of files that come along with one order"""
    uploadTimeout: Duration = Field(default=3600.0, ge=0.1)
    """after which an upload is removed that nobody goes on with, or uses"""
    jobTimeout: Duration = Field(default=3600.0, gt=0, le=MAX_TIMEOUT_MS // 1000)
    """a job that runs longer is stopped"""
    cleanupTimeout: Duration = Field(default=5.0, gt=0, le=3600)
    """from SIGTERM to SIGKILL when a job is stopped"""


class Ceilings(_Section):
    """The most that a job may ask for; absent is what the host has."""

    maxCPU: int | None = Field(default=None, ge=1, le=MAX_INT32)
    """percent of one core"""
    maxMemory: int | None = Field(default=None, ge=1, le=MAX_INT32)
    """MB"""
    maxIOBPS: int | None = Field(default=None, ge=LEAST_IOBPS, le=MAX_INT32)
    """bytes per second"""
    maxProcesses: int | None = Field(default=None, ge=2, le=MAX_INT32)
    """processes and threads"""
    maxOpenFiles: int | None = Field(default=None, ge=16, le=MAX_INT32)
    """open files of a process"""
    maxDisk: int | None = Field(default=None, ge=1, le=MAX_INT32)
    """MB in the work directory"""


class CeilingsSection(Ceilings):
    """For every job, and lower ones for those of a role."""

    roles: dict[RoleName, Ceilings] = {}
    """lower ceilings for a role: `{admin: {maxMemory: 4096}}`"""


class QuotaSection(_Section):
    """What the jobs and workflows of one client that have not ended may come to together; absent is any number."""

    jobs: int | None = Field(default=None, ge=1, le=MAX_INT32)
    """how many"""
    cpu: int | None = Field(default=None, ge=1, le=MAX_INT32)
    """percent of one core, the sum of their limits"""
    memory: int | None = Field(default=None, ge=1, le=MAX_INT32)
    """MB, the sum of their limits"""
    workflows: int | None = Field(default=None, ge=1, le=MAX_INT32)
    """how many, whose jobs count when they are started"""


class RoleSection(_Section):
    """What the clients of a role may do."""

    like: Literal["admin", "viewer"] | None = None
    """the operations of that role"""
    operations: list[Operation] | None = None
    """these, instead of `like`"""
    scope: Literal["own", "all"] = "all"
    """own: only with what a client of the same name has ordered"""
    quota: QuotaSection = QuotaSection()
    """of each of its clients"""


class AccessSection(_Section):
    """Who may do what, beyond the roles admin and viewer."""

    roles: dict[RoleName, RoleSection] = {}
    """further ones, and what else holds for admin and viewer: `{developer: {like: admin, scope: own}}`"""


class IsolationSection(_Section):
    """Who jobs are on this host, and what they see of it."""

    idBase: int = Field(default=0x70000000, ge=65_536, le=MAX_INT32)
    """first user and group id of the pool; the default is above what systemd gives to its containers"""
    idRanges: int = Field(default=4096, ge=1, le=32_768)
    """ranges of 65536 ids in the pool, one for each live job"""
    readOnly: list[ViewPath] = []
    """host paths that jobs see beside the system directories"""
    writable: list[ViewPath] = Field(default=[], max_length=32)
    """host paths where jobs may do what the path's owner may"""
    masked: list[ViewPath] = []
    """host paths hidden from jobs beside the host's secrets"""
    tmpSize: int = Field(default=256, ge=1, le=MAX_INT32)
    """MB in /tmp and, apart, in /dev/shm; in memory, within the job's memory limit"""

    @model_validator(mode="after")
    def _pool_ends_in_time(self) -> Self:
        most = 2**31
        if self.idBase + self.idRanges * 65_536 > most:
            raise ValueError(f"idBase {self.idBase} and {self.idRanges} idRanges of 65536 ids end beyond {most}")
        return self


class RetentionSection(_Section):
    """How much of what has ended is kept; 0 is all of it."""

    maxAge: Duration = Field(default=30 * 86_400.0, ge=0)
    """ended jobs and workflows and their logs are removed after this time"""
    maxJobs: int = Field(default=100_000, ge=0, le=MAX_INT32)
    """ended jobs, the newest"""
    maxSize: int = Field(default=0, ge=0, le=MAX_INT32)
    """MB of logs and work directories together"""
    maxWorkflows: int = Field(default=10_000, ge=0, le=MAX_INT32)
    """ended workflows, the newest, with all their jobs and files"""


class GrpcSection(_Section):
    """Bounds of the wire."""

    maxRecvMsgSize: int = Field(default=524_288, ge=1024, le=MAX_INT32)
    """bytes; larger requests are refused"""
    maxSendMsgSize: int = Field(default=4_194_304, ge=131_072, le=MAX_INT32)
    """bytes"""
    keepAliveTime: Duration = Field(default=30.0, ge=1)
    """between pings on an idle connection"""
    maxConnections: int = Field(default=10_000, ge=1, le=1_000_000)
    """more are closed at once"""


class ServerSection(_Section):
    """Where the server listens and keeps its state."""

    address: str = "0.0.0.0"
    """where it listens"""
    port: int = Field(default=50051, ge=0, le=65535)
    """0 takes a free one"""
    stateDir: str = "/var/lib/joblet"
    """database, job directories, logs"""


class SecuritySection(_Section):
    """Certificates: a path, or the PEM text itself."""

    caCert: str = "/opt/joblet/certs/ca-cert.pem"
    """of the authority that issues the clients' certificates"""
    serverCert: str = "/opt/joblet/certs/server-cert.pem"
    """the server's own"""
    serverKey: str = "/opt/joblet/certs/server-key.pem"
    """its private key"""
    revocationList: str | None = None
    """of clients' certificates that are not accepted any more; the default is crl.pem beside caCert, if it is there"""
    minTlsVersion: Literal["1.2", "1.3"] = "1.3"
    """connections of an older version are refused"""
    hosts: list[str] = []
    """names and addresses beside this machine's own that `joblet init` makes the server's certificate for"""


class LoggingSection(_Section):
    """What the server says of itself, on stderr."""

    level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = "INFO"
    """the least of what is said"""
    format: Literal["text", "json"] = "text"
    """lines for people, or a JSON object each"""


class AuditSection(_Section):
    """Who asked for what, and what came of it: a log whose lines are chained, so that none is changed unseen."""

    file: str = "audit.log"
    """relative to `server.stateDir`; empty for none"""
    reads: bool = True
    """whether calls are recorded that change nothing; those that are denied always are"""
    maxSize: int = Field(default=64, ge=1, le=MAX_INT32)
    """MB, after which another file is begun"""
    keep: int = Field(default=16, ge=0, le=MAX_INT32)
    """former files, the newest; 0 is all"""


class MetricsSection(_Section):
    """Figures for Prometheus."""

    listen: str = "none"
    """where they are told: 127.0.0.1:9464, or unix:/run/joblet/metrics.sock"""

    @field_validator("listen")
    @classmethod
    def _for_this_host(cls, value: str) -> str:
        if value == "unix:":
            raise ValueError("a path has to follow unix:")
        if value != "none" and not value.startswith("unix:"):
            host_and_port(value)
        return value


def host_and_port(value: str) -> tuple[str, int]:
    """The two of `HOST:PORT` or `[HOST]:PORT`, an address of this host only. Raises ValueError."""
    host, _, port = value.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError("write ADDRESS:PORT, such as 127.0.0.1:9464, unix:PATH, or none") from None
    if not address.is_loopback:
        raise ValueError("only an address of this host alone, such as 127.0.0.1: nobody is asked there who he is")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError("the port is 0 (a free one) to 65535")
    return str(address), int(port)


class Config(_Section):
    """The whole file."""

    joblet: JobletSection = JobletSection()
    ceilings: CeilingsSection = CeilingsSection()
    access: AccessSection = AccessSection()
    isolation: IsolationSection = IsolationSection()
    retention: RetentionSection = RetentionSection()
    grpc: GrpcSection = GrpcSection()
    server: ServerSection = ServerSection()
    security: SecuritySection = SecuritySection()
    logging: LoggingSection = LoggingSection()
    audit: AuditSection = AuditSection()
    metrics: MetricsSection = MetricsSection()

    @model_validator(mode="after")
    def _roles_are_whole(self) -> Self:
        for name, role in self.access.roles.items():
            told = (role.like is not None) + (role.operations is not None)
            if name in ROLES and told:
                raise ValueError(f"access.roles.{name}: has operations of its own: give neither like nor operations")
            if name not in ROLES and told != 1:
                raise ValueError(f"access.roles.{name}: give either like or operations")
        for name in self.ceilings.roles:
            if name != "admin" and name not in self.access.roles:
                raise ValueError(f"ceilings.roles.{name}: not in access.roles")
        return self

    @model_validator(mode="after")
    def _a_range_for_each_job(self) -> Self:
        jobs, ranges = self.joblet.maxConcurrentJobs, self.isolation.idRanges
        if jobs > ranges:
            raise ValueError(f"joblet.maxConcurrentJobs {jobs} is more than isolation.idRanges {ranges}")
        return self

    def state_dir(self, base: Path) -> Path:
        """The state directory; a relative one is relative to the file in directory `base`."""
        return base / self.server.stateDir

    def audit_file(self, state_dir: Path) -> Path | None:
        """The audit log that is written, if any."""
        return state_dir / self.audit.file if self.audit.file else None


def is_pem(value: str) -> bool:
    """Whether a security value is the PEM text itself, not a path."""
    return value.lstrip().startswith("-----BEGIN")


def load(path: Path) -> Config:
    """Read and validate the file at `path`.

    Raises ConfigError when it is absent, unreadable, not YAML, or holds an unknown key or a value out of bounds.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from None
    try:
        data = yaml.safe_load(text)
    except Exception as error:  # yaml's constructors raise whatever their conversions do
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}:" if where else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{path}:{line} not valid YAML: {problem}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: the file must hold sections, not a {type(data).__name__}")
    # A section with all its keys commented out reads as null and means its defaults.
    data = {key: {} if value is None else value for key, value in data.items()}
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_explain(fault)}" for fault in error.errors())) from None


def _explain(fault: Any) -> str:
    key = ".".join(map(str, fault["loc"]))
    key = key if key.isprintable() else repr(key)
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not message.isprintable():  # it shows a value, which is not to make lines of its own
        message = message.encode("unicode_escape").decode()
    if not key:  # of several sections together; it names them
        return message
    try:
        return f"{key}: {message} (got {fault['input']!r})"
    except ValueError:  # more digits than Python writes (sys.set_int_max_str_digits)
        return f"{key}: {message} (got a number of thousands of digits)"
