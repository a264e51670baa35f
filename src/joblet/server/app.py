"""`joblet serve`: wires the parts and runs them until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from grpclib.config import Configuration
from grpclib.health.service import Health
from grpclib.reflection.service import ServerReflection
from grpclib.server import Server

from joblet import __version__, config
from joblet import log as logs_of_server
from joblet.admission import Admission
from joblet.config import Config, ConfigError
from joblet.engine import Engine
from joblet.errors import HostUnable, StoreFailed
from joblet.executor.local import LocalExecutor
from joblet.job import Job
from joblet.log import fields
from joblet.logs import LogHub
from joblet.measures import CallMeasures, ConnectionMeasures
from joblet.retention import Janitor
from joblet.runner import Runner
from joblet.server import systemd
from joblet.server.audit import Audit
from joblet.server.certificates import Certificates
from joblet.server.descriptors import Descriptors
from joblet.server.exec_session import Commands
from joblet.server.figures import Parts
from joblet.server.files import FileService
from joblet.server.gate import Checks, Gate
from joblet.server.jobs import JobletService
from joblet.server.listener import Listener, most_connections, raise_descriptor_limit
from joblet.server.monitoring import MonitoringService
from joblet.server.rpc import Codec
from joblet.server.scope import Scope
from joblet.server.sessions import SessionService
from joblet.server.settings import executor_settings, policy, retention, roles
from joblet.server.state import (
    StartError,
    hold,
    instance,
    open_audit,
    open_store,
    settle_strange_workflows,
    settle_strangers,
    settle_uploads,
)
from joblet.server.system import System
from joblet.server.telling import tell_metrics, tell_traces
from joblet.server.workflows import JobService
from joblet.store import Events, Workflows
from joblet.upload_sessions import UploadSessions
from joblet.uploads import Uploads

if TYPE_CHECKING:
    from grpclib._typing import IServable

log = logging.getLogger(__name__)

_DRAIN_SECONDS = 5.0
_STEPS_PER_SLOT = 2
"""of one workflow that run or wait for a slot; more would only be more to hold"""
_STOCK_MESSAGE = 4 << 20
"""bytes that a client of stock gRPC takes in one message"""
_SWITCH_SECONDS = 0.0005
"""for which a thread may keep the interpreter from the event loop; of Python's 5 ms a call waits for several"""
_STREAM_WINDOW = 1 << 20
_CONNECTION_WINDOW = 4 << 20
"""bytes a client may send ahead of us; bounds the memory one can take"""


def serve(config_path: Path, on_serving: Callable[[], None]) -> int:
    """Run the server in the foreground until SIGTERM or SIGINT; the process's exit status.

    `on_serving` is called when all that it needs is there, right before it says so.
    """
    try:
        settings = config.load(config_path)
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"Error: {line}", file=sys.stderr)
        return 1
    faulthandler.enable()  # a watchdog that has this process aborted finds out where it was
    _keep_descriptors()
    sys.setswitchinterval(_SWITCH_SECONDS)
    listener = logs_of_server.start(settings.logging.level, settings.logging.format)
    try:
        uvloop.run(_serve(settings, config_path.absolute(), on_serving))
    except (ConfigError, HostUnable, StartError, StoreFailed) as error:
        log.error("server cannot start", extra=fields(error=str(error)))
        return 1
    finally:
        listener.stop()
    return 0


async def _serve(settings: Config, config_path: Path, on_serving: Callable[[], None]) -> None:
    base = config_path.parent
    certificates = Certificates(settings.security, base)
    descriptors = raise_descriptor_limit()
    stop = _stop_signals()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(systemd.watchdog())
        stack.push_async_callback(certificates.close)
        certificates.start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, certificates.reload)
        state_dir = stack.enter_context(hold(settings.state_dir(base)))
        audit = open_audit(settings, state_dir, config_path)
        stack.push_async_callback(audit.close)
        certificates.on_changed = lambda ends: audit.tell("certificates", **ends)
        stack.callback(audit.tell, "stop")
        store = open_store(state_dir)
        stack.push_async_callback(store.close)
        workflows, events = Workflows(store.database, store.sealer), Events(store.database)
        uploads = Uploads(state_dir)
        hub = LogHub()
        executor = LocalExecutor(executor_settings(settings, config_path, state_dir), instance(state_dir))
        stack.callback(executor.close)
        admission = Admission(settings.joblet.maxConcurrentJobs, settings.joblet.maxQueuedJobs)
        runner = Runner(store, executor, admission, hub, policy(settings))
        await events.skip_lost(executor.epoch)
        runner.on_made, runner.on_end = audit.made, audit.ended
        await settle_strangers(store, executor)
        await settle_strange_workflows(workflows, executor)
        upload_sessions = UploadSessions(
            state_dir,
            uploads,
            executor.epoch,
            most_bytes=settings.joblet.maxUploadSize,
            timeout=settings.joblet.uploadTimeout,
            check_room=executor.check_room,
        )
        await settle_uploads(workflows, uploads, upload_sessions)
        await runner.recover()
        await executor.clean_leftovers(runner.live_names())
        await runner.probe()
        stack.push_async_callback(runner.close)
        stack.push_async_callback(upload_sessions.close)
        janitor = Janitor(store, workflows, events, executor, uploads, hub, retention(settings))
        stack.push_async_callback(janitor.close)
        janitor.on_deleted = audit.deleted
        runner.on_end = _each(audit.ended, janitor.on_end)
        most_steps = _STEPS_PER_SLOT * settings.joblet.maxConcurrentJobs
        engine = Engine(workflows, runner, uploads, most=settings.joblet.maxWorkflows, most_steps=most_steps)
        stack.push_async_callback(engine.close)
        await engine.recover()
        most = min(settings.grpc.maxSendMsgSize, _STOCK_MESSAGE)
        job_service = JobService(engine, runner, workflows, events, janitor, upload_sessions, most)
        joblet_service = JobletService(runner, executor, uploads, upload_sessions, hub, most)
        file_service = FileService(runner, engine, workflows, executor, upload_sessions, hub, most)
        session_service = SessionService(runner, Commands(runner, executor))
        parts = Parts(
            runner, admission, engine, hub, store.database, CallMeasures(), ConnectionMeasures(), executor, state_dir
        )
        monitoring = MonitoringService(runner, executor, System(parts))
        server = _grpc_server(settings, [joblet_service, job_service, session_service, file_service, monitoring])
        scope = Scope(store, workflows)
        gate = Gate(server, Checks(roles(settings), scope, audit, parts.calls, settings.grpc.maxRecvMsgSize))
        if (end_traces := tell_traces(server, runner, os.environ)) is not None:
            stack.push_async_callback(end_traces)
        address = _listen(server, settings, certificates, descriptors, audit, parts.connections)
        if settings.metrics.listen != "none":
            stack.callback(tell_metrics(parts, settings, base, certificates.expiries))
        on_serving()
        log.info(
            "server accepting connections",
            extra=fields(address=address[0], port=address[1], version=__version__, stateDir=str(state_dir)),
        )
        systemd.notify("READY=1", f"STATUS=Accepting connections on {address[0]}:{address[1]}")
        await stop.wait()
        log.info("server is shutting down; jobs go on")
        systemd.notify("STOPPING=1", "STATUS=Shutting down; jobs go on")
        await hub.close()
        job_service.close()
        session_service.close()
        file_service.close()
        monitoring.close()
        await gate.drain(_DRAIN_SECONDS)
        server.close()
        await server.wait_closed()
        await session_service.closed()
    log.info("server stopped")


def _keep_descriptors() -> None:
    """Keep what this process inherited to itself; Python opens nothing that a child would get (PEP 446)."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.set_inheritable(int(name), False)


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.set_exception_handler(_on_loop_exception)
    return stop


def _grpc_server(settings: Config, services: Sequence[IServable]) -> Server:
    descriptors = Descriptors()
    server = Server(
        [*ServerReflection.extend(services, pool=descriptors.pool), Health()],
        codec=Codec(descriptors, settings.grpc.maxSendMsgSize),
        config=Configuration(
            _keepalive_time=settings.grpc.keepAliveTime,
            http2_connection_window_size=_CONNECTION_WINDOW,
            http2_stream_window_size=_STREAM_WINDOW,
        ),
    )
    # What we send is well-formed; h2 would look it over for a tenth of a small call's time.
    server._h2_config.validate_outbound_headers = server._h2_config.normalize_outbound_headers = False
    return server


def _each(*listeners: Callable[[Job], None]) -> Callable[[Job], None]:
    def tell(job: Job) -> None:
        for listener in listeners:
            listener(job)

    return tell


def _listen(
    server: Server,
    settings: Config,
    certificates: Certificates,
    descriptors: int,
    audit: Audit,
    measures: ConnectionMeasures,
) -> tuple[str, int]:
    host, port = settings.server.address, settings.server.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=4096)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    wanted = settings.grpc.maxConnections
    most = most_connections(wanted, descriptors, settings.joblet.maxConcurrentJobs)
    if most < wanted:
        log.warning(
            "the limit of open files allows fewer connections than grpc.maxConnections",
            extra=fields(connections=most, maxConnections=wanted, openFiles=descriptors),
        )
    Listener(server, listening, certificates, most, audit.refused, measures).start()
    name = listening.getsockname()
    return name[0], name[1]


def _on_loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    error = context.get("exception")
    if isinstance(error, (ConnectionError, OSError)):
        log.debug("connection ended", extra=fields(error=str(error)))
        return
    log.error(
        str(context.get("message")),
        extra=fields(error=repr(error)),
        exc_info=error if isinstance(error, Exception) else None,
    )
