"""What the audit log tells: of each call who, from where, what and whether it was allowed; and what needs no call.

A call that changes something, or lasts, has two lines: `call` before anything of it is done, `result` before its answer
leaves. Others have one, before their answer leaves. When the log cannot be written, what would change something is
refused, but for stopping; what has happened all the same is told later, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
from collections import deque
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any

import betterproto2
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from joblet import access, clock
from joblet.audit import Trail
from joblet.audit.chain import members
from joblet.audit.trail import RESERVE
from joblet.errors import AuditUnwritable, JobletError
from joblet.log import fields
from joblet.server import auth

if TYPE_CHECKING:
    import grpclib.server
    from grpclib._typing import IServerMethodFunc

    from joblet.job import Job
    from joblet.server.auth import Caller

log = logging.getLogger(__name__)

_LONGEST = 256
"""characters of a text that a client chooses"""
_LATE = 10_000
"""lines that are held while the log cannot be written"""
_SPARING_SECONDS = 10.0
"""between two lines of what anybody can cause, without a certificate"""
_DENIED_SECONDS = 1.0
"""for which a call that is denied is waited for to say what it wanted"""
_STOPPING = frozenset({"stop_job", "stop_workflow"})
"""what is possible though it cannot be recorded"""
_DELETING = frozenset({"delete_job", "delete_all_jobs", "delete_workflow"})
"""what makes room on a full disk"""
_SILENT = frozenset({"health"})
"""asked for again and again, and telling nothing"""
_DENIED = frozenset({Status.PERMISSION_DENIED, Status.UNAUTHENTICATED})
_ASKED = {
    "id": "job",
    "job_id": "job",
    "ids": "jobs",
    "workflow_id": "workflow",
    "workflow": "file",
    "job": "step",
    "command": "command",
    "name": "name",
    "key": "key",
    "path": "path",
    "signal": "signal",
}
"""what is recorded of a request, by betterproto2's names: no arguments, variables or contents"""


class Call:
    """One call, from its certificate to its end. The mutable state is how far it has come."""

    __slots__ = ("_asked", "_audit", "_begun", "_lasting", "_made", "_number", "_over", "_what", "_who", "operation")

    def __init__(self, audit: Audit, who: str, operation: str, what: str) -> None:
        self._audit = audit
        self._who = who
        self._what = what
        self.operation = operation
        self._asked = ""
        self._made = ""
        self._lasting = operation in access.WRITE
        self._begun = False
        self._number = 0
        self._over = False

    def made(self, kind: str, number: int) -> None:
        """A `job` or `workflow` has come of it."""
        self._made = f',"{kind}":"{number}"'

    def around(self, method: IServerMethodFunc) -> IServerMethodFunc:
        """The handler, with its call recorded. What it raises must be GRPCError."""

        async def recorded(stream: grpclib.server.Stream[Any, Any]) -> None:
            self._watch(stream)
            _current.set(self)
            try:
                await method(stream)
            except GRPCError as error:
                self._end(error.status, error.message)
                raise
            except BaseException:
                self._end(Status.CANCELLED, "the client has left, or its time was over")
                raise
            self._end(Status.OK, None)

        return recorded

    def denied(self, error: JobletError) -> IServerMethodFunc:
        """A handler that denies the call, with what it has asked for recorded, if it says so at once."""

        async def deny(stream: grpclib.server.Stream[Any, Any]) -> None:
            try:
                with contextlib.suppress(Exception):  # whatever it sends
                    async with asyncio.timeout(_DENIED_SECONDS):
                        self._asked = asked(await stream.recv_message())
            finally:
                self._end(error.status, str(error))
            raise error

        return deny

    def _watch(self, stream: grpclib.server.Stream[Any, Any]) -> None:
        """Look at what comes, before the handler sees it, and at the answer before it leaves."""
        receive, send = stream.recv_message, stream.send_message

        async def recv_message() -> Any:
            message = await receive()
            if not self._begun and message is not None:
                self._begin(message)
            return message

        async def send_message(message: Any) -> None:
            self._end(Status.OK, None)
            await send(message)

        stream.recv_message = recv_message  # type: ignore[method-assign]
        if stream._cardinality.server_streaming:
            self._lasting = True
        else:
            stream.send_message = send_message  # type: ignore[method-assign]

    def _begin(self, message: Any) -> None:
        """Raises AuditUnwritable."""
        self._begun = True
        self._asked = asked(message)
        if self._lasting and self._is_told():
            line = f'"event":"call",{self._who},{self._what},"allowed":true{self._asked}'
            self._number = self._audit.before(self.operation, line)

    def _end(self, status: Status, reason: str | None) -> None:
        if self._over:
            return
        self._over = True
        denied = status is not Status.OK and status in _DENIED
        if not (denied or self._is_told()):
            return
        event = f'"event":"result","call":{self._number}' if self._number else '"event":"call"'
        allowed, code = "false" if denied else "true", "OK" if status is Status.OK else status.name
        why = "," + members({"reason": clipped(reason)}) if reason else ""
        line = f'{event},{self._who},{self._what},"allowed":{allowed},"code":"{code}"{why}{self._made}{self._asked}'
        self._audit.after(self.operation, line, begun=self._number > 0)

    def _is_told(self) -> bool:
        return self.operation in access.WRITE or (self._audit.reads and self.operation not in _SILENT)


class Audit:
    """The mutable state is the log, the lines that it could not take yet, and what is told sparingly."""

    def __init__(self, trail: Trail | None, *, reads: bool) -> None:
        """Without a `trail` nothing is recorded."""
        self._trail = trail
        self.reads = reads
        self._late: deque[tuple[str, str]] = deque()
        self._dropped = 0
        self._failing = ""
        self._spared: dict[str, int] = {}

    def call(self, who: Caller | None, peer: str, method: str) -> Call | None:
        """A call of `method` by a client; None when it is not recorded."""
        if self._trail is None:
            return None
        operation = auth.OPERATIONS.get(method, "unknown")
        identity = _identity(who.name, who.role, who.serial, peer) if who else _identity("", "", "", peer)
        return Call(self, identity, operation, _naming(operation, method))

    def tell(self, event: str, **values: object) -> None:
        """Record what needs no call; None leaves a value out. It never fails: what cannot be written now is later."""
        if self._trail is not None:
            self._write_firmly(members({"event": event, **values}))

    def tell_sparingly(self, event: str, **values: object) -> None:
        """Record what anybody can cause, as often as he likes: one line at a time, and how many were left out."""
        if self._trail is None:
            return
        if event in self._spared:
            self._spared[event] += 1
            return
        self._spared[event] = 0
        self.tell(event, **values)
        asyncio.get_running_loop().call_later(_SPARING_SECONDS, self._tell_spared, event)

    def made(self, job: Job) -> None:
        """A job has been stored, and will run: what made it, and whose it is."""
        if self._trail is None:
            return
        part = job.part
        by = "workflow" if part else "retry" if job.retry_of else "schedule" if job.schedule_id else "order"
        line = f'"event":"made","by":"{by}","client":{_quoted(job.owner)},"job":"{job.id}"'
        if part:
            line += f',"workflow":"{part.workflow_id}"'
        if job.schedule_id:
            line += f',"schedule":"{job.schedule_id}"'
        if job.retry_of:
            line += f',"retryOf":"{job.retry_of}"'
        line += f',"command":{_quoted(clipped(job.command))}'
        if job.name:
            line += f',"name":{_quoted(clipped(job.name))}'
        self._write_firmly(line)

    def ended(self, job: Job) -> None:
        """A job has ended."""
        if self._trail is None:
            return
        line = f'"event":"ended","client":{_quoted(job.owner)},"job":"{job.id}"'
        if job.part:
            line += f',"workflow":"{job.part.workflow_id}"'
        line += f',"status":"{job.state}","exitCode":{job.exit_code}'
        if job.reason:
            line += f',"reason":{_quoted(clipped(job.reason))}'
        self._write_firmly(line)

    def deleted(self, kind: str, number: int) -> None:
        """Retention has deleted an ended `job` or `workflow`."""
        self.tell("deleted", by="retention", **{kind: str(number)})

    def refused(self, peer: str, reason: str) -> None:
        """A connection has ended in its handshake, for its certificate."""
        self.tell_sparingly("connection", allowed=False, peer=peer, reason=clipped(reason))

    async def close(self) -> None:
        """Tell what was left out, and wait until the disk has all lines."""
        for event in tuple(self._spared):
            self._tell_spared(event)
        if self._trail is not None:
            try:
                await self._trail.close()
            except OSError as error:
                log.error("audit log cannot be brought to the disk", extra=fields(error=error.strerror))

    def before(self, operation: str, line: str) -> int:
        """Record a call before it is done; the line's number, 0 for one that could not be written.

        Raises AuditUnwritable when nothing may be done for that.
        """
        changes = operation in access.WRITE
        spare = 0 if operation in _STOPPING | _DELETING else RESERVE // 2 if changes else RESERVE
        try:
            return self._write(line, spare)
        except OSError as error:
            self._fail(error)
            if operation in _STOPPING:
                self._keep(line)
            elif changes:
                raise AuditUnwritable(error.strerror or str(error)) from None
        return 0

    def after(self, operation: str, line: str, *, begun: bool) -> None:
        """Record what has come of a call; on a full disk one that was `begun` goes before what is only refused.

        What changes nothing is left out when it cannot be written.
        """
        if operation in access.WRITE:
            self._write_firmly(line, 0 if begun else RESERVE // 2)
            return
        try:
            self._write(line, RESERVE)
        except OSError as error:
            self._fail(error)

    def _write_firmly(self, line: str, spare: int = 0) -> None:
        try:
            self._write(line, spare)
        except OSError as error:
            self._fail(error)
            self._keep(line)

    def _write(self, line: str, spare: int = 0) -> int:
        assert self._trail is not None
        while self._late:
            at, late = self._late[0]
            self._trail.append(f'{late},"at":"{at}"')
            self._late.popleft()
        if self._dropped:
            self._trail.append(members({"event": "dropped", "lines": self._dropped}))
            self._dropped = 0
        number = self._trail.append(line, spare)
        if self._failing:
            self._failing = ""
            log.info("audit log is written again")
        return number

    def _keep(self, line: str) -> None:
        if len(self._late) < _LATE:
            self._late.append((clock.rfc3339(clock.now_ns()), line))
        else:
            self._dropped += 1

    def _fail(self, error: OSError) -> None:
        text = error.strerror or str(error)
        if text != self._failing:
            log.error(
                "audit log cannot be written: what changes something is refused, reads are not recorded",
                extra=fields(error=text),
            )
        self._failing = text

    def _tell_spared(self, event: str) -> None:
        if left_out := self._spared.pop(event, 0):
            self.tell(event, allowed=False, leftOut=left_out)


_current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("audited", default=None)


def note(kind: str, number: int) -> None:
    """Of the call that the current task handles: the `job` or `workflow` that has come of it."""
    if (call := _current.get()) is not None:
        call.made(kind, number)


def asked(message: object) -> str:
    """What a request asks for, as members of a line that follow others."""
    if not isinstance(message, betterproto2.Message):
        return ""
    found = ""
    for name, member in _members_of(type(message)):
        if value := getattr(message, name):
            found += member + _quoted(_text(value))
    return found


def clipped(text: str | None) -> str:
    """A text that a client chooses, bounded."""
    text = text or ""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _text(value: object) -> str:
    if isinstance(value, list):
        return clipped(",".join(clipped(str(each)) for each in value[:_LONGEST]))
    return clipped(str(value))


@functools.cache
def _members_of(kind: type[betterproto2.Message]) -> tuple[tuple[str, str], ...]:
    """The fields of such requests that are recorded, and how their members begin."""
    present: Mapping[str, Any] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return tuple((name, f',"{key}":') for name, key in _ASKED.items() if name in present)


@functools.lru_cache(maxsize=4096)
def _identity(client: str, role: str, serial: str, peer: str) -> str:
    return members({"client": clipped(client), "role": role, "serial": clipped(serial), "peer": peer})


@functools.cache
def _naming(operation: str, method: str) -> str:
    return members({"operation": operation, "method": method})
