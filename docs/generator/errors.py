"""The catalogue of errors: what the server answers and what the client raises, each with what to do about it."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

from grpclib.const import Status

from generator.markdown import code, prose
from generator.source import ROOT, raised, sentence
from joblet import errors as server
from joblet.client import errors as client

SOURCE = ROOT / "src/joblet"

_BY_CODE = {
    Status.INVALID_ARGUMENT: "Correct what the sentence names, to a value within the bounds that it gives.",
    Status.NOT_FOUND: (
        "Look for it (`rnx list --all`): it may have been deleted, by hand or by `retention`, or be of another "
        "server (`rnx nodes`)."
    ),
    Status.ALREADY_EXISTS: "Use another name, or repeat exactly what was asked for first.",
    Status.FAILED_PRECONDITION: "Look at its status (`rnx status ID`, `rnx why ID`), and ask again when it fits.",
    Status.PERMISSION_DENIED: "Use the certificate of a client whose role may do it.",
    Status.UNAUTHENTICATED: (
        "Give a certificate that the server's authority has issued (`rnx nodes` says which one is used)."
    ),
    Status.RESOURCE_EXHAUSTED: "Wait until there is room, or make room; the sentence names the bound and its key.",
    Status.OUT_OF_RANGE: "Begin again at a place that exists; the sentence names it.",
    Status.UNAVAILABLE: "Try again; what is safe to repeat, the client repeats by itself.",
    Status.DEADLINE_EXCEEDED: "Look whether it was done before it is asked for again; or allow more time.",
    Status.DATA_LOSS: "What is lost is lost; nothing else is.",
    Status.UNIMPLEMENTED: "Ask a server of a newer version.",
    Status.ABORTED: "Look at how it stands now, and ask again if it is still wanted.",
    Status.CANCELLED: "Nothing: somebody on this side wanted it so.",
    Status.INTERNAL: "See the server's own log (`journalctl -u joblet`), and what `joblet doctor` says of the host.",
    Status.UNKNOWN: "See the server's own log (`journalctl -u joblet`).",
}
"""what to do about an error of which nothing more is known"""

OF_SERVER = {
    "JobletError": "See the server's own log; it is a fault of the server or of its host.",
    "Unauthenticated": "Give a certificate: `--cert`, `--key`, or `rnx-config.yml`.",
    "CertificateRefused": (
        "Have another one made (`joblet certs issue` or `renew`); `joblet certs list` says what has become of this one."
    ),
    "PermissionDenied": (
        "Use the certificate of an admin; `joblet certs issue NAME --role admin` makes one. The role is the one "
        "OU in the certificate."
    ),
    "InvalidWorkflow": (
        "Correct the lines that it names; `rnx workflow validate FILE` tells all of it without a server."
    ),
    "WorkflowNotFound": "`rnx list --workflow --all` lists those that there are.",
    "WorkflowNotEnded": "Wait for its end (`rnx workflow follow ID`) or stop it first (`rnx workflow stop ID`).",
    "NothingToRetry": "Nothing; to run it once more, run its file again.",
    "JobOfWorkflow": "Delete the whole workflow when it has ended: `rnx workflow delete ID`.",
    "EventsGone": (
        "List the jobs and go on with the events from the oldest that is kept. How much that is, `retention` says."
    ),
    "NoSuchEvent": "The database was restored from a copy, or is another server's: begin with event 0.",
    "StreamsMerged": "Read it without `--stdout` and `--stderr`, or run it again with `rnx run --separate`.",
    "CannotPause": "See what the sentence says; of the host's control groups, `joblet doctor` tells.",
    "JobNotEnded": "Stop it first (`rnx stop ID`), or wait (`rnx wait ID`).",
    "KeyReused": "Use another key, or the same order. Deleting the job that has it frees the key.",
    "WorkflowKeyReused": "Use another key, or the same order. Deleting the workflow that has it frees the key.",
    "TooManyWorkflows": "Wait for one to end, stop one, or raise `joblet.maxWorkflows`.",
    "QuotaExceeded": "Wait for jobs of yours to end, or stop some; the quota is the operator's (`access.roles`).",
    "QueueFull": "Wait for jobs to end, or raise `joblet.maxConcurrentJobs` or `joblet.maxQueuedJobs`.",
    "HostUnable": "Run `joblet doctor` on the host; it names the gap and what to do about it.",
    "CannotExec": "Do what the sentence says; a job that an older joblet has started cannot be entered at all.",
    "TooManyCommands": "Wait until one of them has ended.",
    "JobTakesNoInput": "Run it again with `rnx run -i` or `-t`, in Python with `stdin=True` or a `terminal`.",
    "InputEnded": "Nothing more can be sent; what was sent before counts. Its output goes on (`rnx log ID`).",
    "TooManyScheduled": (
        "Stop a schedule that is not wanted any more (`rnx list --status=SCHEDULED`), or raise "
        "`joblet.maxScheduledJobs`."
    ),
    "NoFiles": "See the reason; the files of a job are there while it runs and until it is deleted.",
    "FileNotThere": "Look at what there is: `rnx exec ID ls` while it runs, `rnx cp ID: DIRECTORY` for all of it.",
    "UploadNotFound": "Send the files again; rnx and the client do so by themselves when the order is given again.",
    "UploadIncomplete": "Send what has still to come, which giving the order again does.",
    "UploadComplete": "Use it for a job, or send the files under another key.",
    "UploadBusy": "Wait for the other call to end, or give the order again: the client takes another key then.",
    "TooManyUploads": "Use them, or wait for `joblet.uploadTimeout` to remove them.",
    "StoreFailed": (
        "See the server's own log: the disk of `server.stateDir` has failed. Nothing was acknowledged, so the "
        "order may be given again."
    ),
    "StoreFull": "Make room on the disk of `server.stateDir`: `rnx delete`, `retention`.",
    "LogMissing": "Nothing brings it back; whoever removes files below the state directory takes them from jobs.",
    "AuditUnwritable": "Make room on the disk of `audit.file`, or repair it. Nothing needs a restart.",
    "NoRoom": "Make room on that disk: `rnx delete`, `retention`. Nothing needs a restart.",
    "DiskUnusable": "Stop the server, repair the disk (it may have become read-only), start the server.",
    "StoreDamaged": "Do what the sentence says; `joblet backup` makes such copies while the server runs.",
    "TransitionRefused": "It is a bug: please report it with the server's log.",
    "ShuttingDown": "Nothing: clients wait for the next server by themselves; jobs go on meanwhile.",
    "TooLarge": "Send less, or raise the key that it names.",
}
OF_CLIENT = {
    "OutputTooLong": "Allow more (`most`), or read the output as it comes: `job.exec(...)`.",
    "JobletError": "Catch it to catch all of them; `str(error)` is fit to be shown.",
    "CallError": "Catch one of its kinds, or look at `code`.",
    "SettingsError": "Correct the setting or the file that it names; `rnx nodes` says from where each is.",
    "ConnectionFailed": (
        "See that the server runs (`systemctl status joblet`), and that the address is its own (`rnx nodes --check`)."
    ),
    "CertificateRejected": (
        "Issue the certificate that it names anew (`joblet certs issue --force`, `joblet certs init --force`), or"
        " give the authority that has issued it."
    ),
    "ConnectionLost": "Look whether it was done; with a `key`, or `retry=True`, a job's order is repeated safely.",
    "ResourceExhausted": "See the server's error of which it tells, above.",
    "InvalidWorkflow": "Correct the lines in `faults`, each of which names its place.",
}
"""the same, where there is more to say of a class"""

_OF_TEXTS = 60
"""texts of one class that are shown at most"""


def classes(module: ModuleType) -> list[type[Exception]]:
    """Every class of errors that a module defines, in the order of its text."""
    found = [kind for kind in vars(module).values() if inspect.isclass(kind) and issubclass(kind, Exception)]
    return [kind for kind in found if kind.__module__ == module.__name__]


def page() -> str:
    """The catalogue."""
    text = (
        "# Errors\n\nEvery error is one sentence, with a gRPC code. rnx prints the sentence after `Error: `, and exits"
        " with status 1; the client raises an exception of which `str(error)` is the sentence and `error.code` the"
        " code. Names in braces stand for what the sentence names then.\n\n## Answers of the server\n\n"
    )
    text += "".join(map(_of_server, classes(server)))
    text += "## Exceptions of the client\n\nThe client raises these for an answer of the server, or for what has"
    text += " happened on its own side.\n\n"
    return text + "".join(map(_of_client, classes(client)))


def texts(kind: type[Exception]) -> list[str]:
    """The sentences of a class, with names in braces for what is known later."""
    own = kind.__dict__.get("__init__")
    if own is not None:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(own)))
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(attr="__init__"), args=[argument]) if text := sentence(argument):
                    return [text]
    ours = kind.__module__ == client.__name__
    found = raised(kind.__name__, SOURCE / "client") if ours else []
    if not ours:
        elsewhere = set(raised(kind.__name__, SOURCE / "client"))
        found = [text for text in raised(kind.__name__, SOURCE) if text not in elsewhere]
    return found[:_OF_TEXTS]


def remedy(kind: type[Exception], status: Status) -> str:
    """What to do about an error."""
    known = OF_CLIENT if kind.__module__ == client.__name__ else OF_SERVER
    return known.get(kind.__name__) or _BY_CODE.get(status, _BY_CODE[Status.UNKNOWN])


def _of_server(kind: type[Exception]) -> str:
    status: Status = kind.status  # type: ignore[attr-defined]
    raises = type(client.from_status(status, None)).__name__
    return _entry(kind, status, f"`{status.name}`, in the client `{raises}`.")


def _of_client(kind: type[Exception]) -> str:
    status: Status = kind.code  # type: ignore[attr-defined]
    base = kind.__bases__[0].__name__
    return _entry(kind, status, f"`{status.name}`; a kind of `{base}`.")


def _entry(kind: type[Exception], status: Status, codes: str) -> str:
    text = f"### {kind.__name__}\n\n{prose(' '.join((kind.__doc__ or '').split()))}\n\n"
    text += f"- Code: {codes}\n"
    found = texts(kind)
    if len(found) == 1:
        text += f"- Text: {code(' '.join(found[0].split()))}\n"
    elif found:
        text += "- Texts:\n" + "".join(f"  - {code(' '.join(each.split()))}\n" for each in found)
    return text + f"- What to do: {remedy(kind, status)}\n\n"
