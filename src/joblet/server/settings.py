"""What the configuration says, in the terms of the parts that it is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from joblet import access, config, job
from joblet.access import Quota, Role
from joblet.config import Config, ConfigError
from joblet.executor.local import Settings, View, ceiling
from joblet.order import Policy
from joblet.retention import Retention
from joblet.server.state import lock_file


def executor_settings(settings: Config, config_path: Path, state_dir: Path) -> Settings:
    """What jobs are given on this host, and what they see of it."""
    files = (settings.security.caCert, settings.security.serverCert, settings.security.serverKey)
    private = {(config_path.parent / value).resolve().parent for value in files if not config.is_pem(value)}
    return Settings(
        state_dir=state_dir,
        server_lock=lock_file(state_dir),
        private=(*sorted(private - _never_masked()), config_path.resolve()),
        grace=settings.joblet.cleanupTimeout,
        log_limit=settings.joblet.maxLogSize << 20,
        view=_view(settings.isolation),
        id_base=settings.isolation.idBase,
        id_ranges=settings.isolation.idRanges,
    )


def _view(section: config.IsolationSection) -> View:
    read_only, writable, masked = (
        tuple(map(Path, paths)) for paths in (section.readOnly, section.writable, section.masked)
    )
    return View(read_only, writable, masked, section.tmpSize << 20)


def _never_masked() -> set[Path]:
    """Directories that jobs need; keys that lie in one are protected by their mode alone."""
    return {Path(name).resolve() for name in ("/", "/etc", "/usr", "/usr/lib", "/usr/bin", "/usr/local", "/usr/share")}


def retention(settings: Config) -> Retention:
    """How much of what has ended is kept."""
    section = settings.retention
    return Retention(section.maxAge, section.maxJobs, section.maxSize << 20, section.maxWorkflows)


def roles(settings: Config) -> Mapping[str, Role]:
    """Every role that a client may have, by its name."""
    return {**access.ROLES, **{name: _role(name, section) for name, section in settings.access.roles.items()}}


def _role(name: str, section: config.RoleSection) -> Role:
    given = section.operations
    operations = access.ROLES[section.like or name].operations if given is None else frozenset(given)
    quota = Quota(**section.quota.model_dump())
    return Role(operations, section.scope == "own", quota)


def policy(settings: Config) -> Policy:
    """Limits and their ceilings. Raises ConfigError for a default that is more than the host has."""
    section = settings.joblet
    default = job.Limits(
        max_cpu=section.defaultCpuLimit,
        max_memory=section.defaultMemoryLimit,
        max_iobps=section.defaultIoLimit,
        max_processes=section.defaultProcessLimit,
        max_open_files=section.defaultOpenFilesLimit,
        max_disk=section.defaultDiskLimit,
    )
    most = ceiling()
    for key, value, bound in (
        ("defaultCpuLimit", default.max_cpu, most.max_cpu),
        ("defaultMemoryLimit", default.max_memory, most.max_memory),
    ):
        if value > bound:
            raise ConfigError(f"joblet.{key}: {value} is more than this host has ({bound})")
    most = _lower(most, settings.ceilings)
    lower = {role: _lower(most, section) for role, section in settings.ceilings.roles.items()}
    quotas = {name: role.quota for name, role in roles(settings).items()}
    return Policy(default, most, section.jobTimeout, lower, section.maxScheduledJobs, quotas)


def _lower(most: job.Limits, section: config.Ceilings) -> job.Limits:
    """The ceilings of `most`, those of the section where they are lower."""

    def lower(bound: int, asked: int | None) -> int:
        return bound if asked is None else min(bound, asked)

    return dataclasses.replace(
        most,
        max_cpu=lower(most.max_cpu, section.maxCPU),
        max_memory=lower(most.max_memory, section.maxMemory),
        max_iobps=lower(most.max_iobps, section.maxIOBPS),
        max_processes=lower(most.max_processes, section.maxProcesses),
        max_open_files=lower(most.max_open_files, section.maxOpenFiles),
        max_disk=lower(most.max_disk, section.maxDisk),
    )
