"""`joblet-config.yml`: API.md's sections and the three that wire.md adds, validated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from joblet.clock import parse_duration
from joblet.job import MAX_INT32

DEFAULT_PATH = Path("/opt/joblet/joblet-config.yml")


class ConfigError(Exception):
    """The configuration cannot be used; the message names file, key, value and bound, one line for each fault."""


def _duration(value: object) -> float:
    return parse_duration(str(value))


Duration = Annotated[float, BeforeValidator(_duration)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class JobletSection(_Section):
    """Limits and timeouts of jobs."""

    defaultCpuLimit: int = Field(default=100, ge=1, le=MAX_INT32)
    """percent of one core"""
    defaultMemoryLimit: int = Field(default=512, ge=1, le=MAX_INT32)
    """MB"""
    defaultIoLimit: int = Field(default=0, ge=0, le=MAX_INT32)
    """bytes per second, 0 is unlimited"""
    maxConcurrentJobs: int = Field(default=100, ge=1, le=4096)
    maxQueuedJobs: int = Field(default=1000, ge=0, le=1_000_000)
    """jobs that may wait for a slot; more are refused"""
    maxProcesses: int = Field(default=1024, ge=2, le=4_194_304)
    """processes and threads of one job"""
    jobTimeout: Duration = Field(default=3600.0, gt=0)
    cleanupTimeout: Duration = Field(default=5.0, gt=0, le=3600)


class GrpcSection(_Section):
    """Bounds of the wire."""

    maxRecvMsgSize: int = Field(default=524_288, ge=1024, le=MAX_INT32)
    """bytes"""
    maxSendMsgSize: int = Field(default=4_194_304, ge=131_072, le=MAX_INT32)
    """bytes"""
    keepAliveTime: Duration = Field(default=30.0, ge=1)


class ServerSection(_Section):
    """Where the server listens and keeps its state."""

    address: str = "0.0.0.0"
    port: int = Field(default=50051, ge=0, le=65535)
    stateDir: str = "/var/lib/joblet"


class SecuritySection(_Section):
    """Certificates: a path, or the PEM text itself."""

    caCert: str = "/opt/joblet/certs/ca-cert.pem"
    serverCert: str = "/opt/joblet/certs/server-cert.pem"
    serverKey: str = "/opt/joblet/certs/server-key.pem"
    minTlsVersion: Literal["1.2", "1.3"] = "1.3"


class LoggingSection(_Section):
    """What the server says of itself, on stderr."""

    level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class Config(_Section):
    """The whole file."""

    joblet: JobletSection = JobletSection()
    grpc: GrpcSection = GrpcSection()
    server: ServerSection = ServerSection()
    security: SecuritySection = SecuritySection()
    logging: LoggingSection = LoggingSection()

    def state_dir(self, base: Path) -> Path:
        """The state directory; a relative one is relative to the file in directory `base`."""
        return base / self.server.stateDir


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
        raise ConfigError(f"{path}:{line} not valid YAML: {getattr(error, 'problem', error)}") from None
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
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    message = str(fault["msg"]).removeprefix("Value error, ")
    try:
        return f"{key}: {message} (got {fault['input']!r})"
    except ValueError:  # more digits than Python writes (sys.set_int_max_str_digits)
        return f"{key}: {message} (got a number of thousands of digits)"
