"""Where the server is and which certificates to show: flags, environment, `rnx-config.yml`, defaults, in this order."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from joblet.client.errors import SettingsError

DEFAULT_PORT = 50051
DEFAULT_NODE = "default"
FILE_NAME = "rnx-config.yml"
SEARCH_PATH = (".", "config", "~/.rnx", "/etc/joblet", "/opt/joblet/config")

_DEFAULTS = {
    "server": f"localhost:{DEFAULT_PORT}",
    "cert": "certs/client-cert.pem",
    "key": "certs/client-key.pem",
    "ca": "certs/ca-cert.pem",
}
VARIABLES = {
    "server": "JOBLET_SERVER",
    "cert": "JOBLET_CERT_PATH",
    "key": "JOBLET_KEY_PATH",
    "ca": "JOBLET_CA_PATH",
}
"""the environment variable of each setting"""
_NODE_KEYS = {"server": "address", "cert": "cert", "key": "key", "ca": "ca"}


@dataclass(frozen=True)
class ClientConfig:
    """How to reach a server. Certificates and key are a path or the PEM text itself."""

    server: str = _DEFAULTS["server"]
    """host, host:port or [ipv6]:port"""
    cert: str = _DEFAULTS["cert"]
    key: str = field(default=_DEFAULTS["key"], repr=False)
    ca: str = _DEFAULTS["ca"]
    connect_timeout: float = 10.0
    """seconds until a connection must stand"""
    timeout: float = 30.0
    """seconds until a call must be answered, the connection included; none for logs, stop, delete and waiting"""
    patience: float = 60.0
    """seconds to try to reach a server again that has gone, in what can be repeated: keyed orders, reconnecting logs"""

    def __post_init__(self) -> None:
        parse_address(self.server)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return parse_address(self.server)

    @classmethod
    def resolve(
        cls,
        *,
        server: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        ca: str | None = None,
        config: str | Path | None = None,
        node: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Take each setting from the first source that has it: arguments, environment, file, defaults.

        The file is `config`, or the first `rnx-config.yml` of SEARCH_PATH. Raises SettingsError when the file or the
        node asked for is absent or malformed, or the address is not one.
        """
        given = {"server": server, "cert": cert, "key": key, "ca": ca}
        found = settings(given, config=config, node=node, environ=environ)
        return cls(found["server"].value, found["cert"].value, found["key"].value, found["ca"].value)


@dataclass(frozen=True)
class Setting:
    """A value, and whence it is."""

    value: str = field(repr=False)
    source: str
    """`--server`, `$JOBLET_SERVER`, `node NAME` or `default`"""


def settings(
    given: Mapping[str, str | None],
    *,
    config: str | Path | None = None,
    node: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Setting]:
    """`server`, `cert`, `key` and `ca` as ClientConfig.resolve takes them; `given` are its arguments of these names."""
    environ = os.environ if environ is None else environ
    chosen: dict[str, Setting] = {}
    for name, variable in VARIABLES.items():
        if value := given.get(name):
            chosen[name] = Setting(value, f"--{name}")
        elif value := environ.get(variable):
            chosen[name] = Setting(value, f"${variable}")
    if config or node or len(chosen) < len(VARIABLES):
        file, name = NodeFile.find(config), node or DEFAULT_NODE
        if file is None and node:
            raise SettingsError(f"node {node!r}: no {FILE_NAME} in {', '.join(SEARCH_PATH)}")
        from_file = file.settings(name) if file else {}
        chosen = {setting: Setting(value, f"node {name}") for setting, value in from_file.items()} | chosen
    return {name: chosen.get(name, Setting(default, "default")) for name, default in _DEFAULTS.items()}


@dataclass(frozen=True)
class NodeFile:
    """An `rnx-config.yml`."""

    path: Path
    nodes: Mapping[Any, object] = field(repr=False)
    """as they stand there"""

    @classmethod
    def find(cls, config: str | Path | None = None) -> Self | None:
        """The file `config`, or the first of SEARCH_PATH; None when there is none.

        Raises SettingsError when it cannot be read, or is malformed.
        """
        if config:
            path = Path(config).expanduser()
            return cls(path, _load(path))
        found = next((path for path in _candidates() if path.is_file()), None)
        return None if found is None else cls(found, _load(found))

    def settings(self, name: str) -> dict[str, str]:
        """Those that a node has, paths relative to the file. Raises SettingsError when there is no such node."""
        if name not in self.nodes:
            known = ", ".join(sorted(map(str, self.nodes))) or "none"
            raise SettingsError(f"{self.path}: no node {name!r} (nodes: {known})")
        return _settings(self.nodes[name], self.path, name)


def parse_address(text: str) -> tuple[str, int]:
    """Split `host`, `host:port`, `[ipv6]`, `[ipv6]:port` or a bare IPv6 address; the port defaults to 50051.

    Raises SettingsError when it is none of these.
    """
    address = text.strip()
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket or not _is_ipv6(host) or (rest and not rest.startswith(":")):
            raise _invalid(text, "expected [IPV6]:PORT")
        port = rest[1:] if rest else str(DEFAULT_PORT)
    elif address.count(":") > 1:
        if not _is_ipv6(address):
            raise _invalid(text, "expected HOST:PORT, or [IPV6]:PORT")
        host, port = address, str(DEFAULT_PORT)
    else:
        host, colon, port = address.partition(":")
        port = port if colon else str(DEFAULT_PORT)
    if not host or "/" in host or not host.isprintable() or " " in host:
        raise _invalid(text, "expected HOST:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise _invalid(text, "the port must be a number from 1 to 65535")
    return host, int(port)


def is_pem(value: str) -> bool:
    """Whether a setting is PEM text itself, not a path."""
    return "-----BEGIN " in value


def _invalid(text: str, reason: str) -> SettingsError:
    return SettingsError(f"invalid server address {text!r}: {reason}")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _candidates() -> list[Path]:
    paths = []
    for directory in SEARCH_PATH:
        try:
            paths.append(Path(directory).expanduser() / FILE_NAME)
        except RuntimeError:
            continue  # no home directory
    return paths


def _load(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text at byte {error.start}") from None
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise SettingsError(f"{path}:{line} not valid YAML: {problem}") from None
    nodes = data.get("nodes") if isinstance(data, dict) else None
    if not isinstance(nodes, dict):
        raise SettingsError(f"{path}: expected a section `nodes`")
    return nodes


def _settings(node: object, path: Path, name: str) -> dict[str, str]:
    if not isinstance(node, dict):
        raise SettingsError(f"{path}: node {name!r} must hold address, cert, key and ca")
    settings = {}
    for setting, key in _NODE_KEYS.items():
        value = node.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            raise SettingsError(f"{path}: nodes.{name}.{key}: expected text, not {value!r}")
        if setting != "server" and not is_pem(value):
            value = str(path.parent / Path(value).expanduser())
        settings[setting] = value
    return settings
