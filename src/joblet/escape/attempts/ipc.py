"""Shared memory, semaphores and message queues that others have on this host."""

from __future__ import annotations

from joblet.escape.attempts.calls import call
from joblet.escape.attempts.frame import Context, attempt


@attempt("find the host's shared memory by its key (shmget)", "ENOENT")
def shared_memory(context: Context) -> str:
    return f"segment {call('shmget', context['host']['ipc_key'], 0, 0)}"


@attempt("attach the host's shared memory by its id (shmat)", "EINVAL")
def attach(context: Context) -> str:
    call("shmat", context["host"]["shm_id"], None, 0o10000)  # SHM_RDONLY
    return "attached"


@attempt("find another job's shared memory (shmget)", "ENOENT")
def job_memory(context: Context) -> str:
    return f"segment {call('shmget', context['job']['ipc_key'], 0, 0)}"


@attempt("find the host's semaphores (semget)", "ENOENT")
def semaphores(context: Context) -> str:
    return f"set {call('semget', context['host']['ipc_key'], 0, 0)}"


@attempt("find the host's message queue (msgget)", "ENOENT")
def messages(context: Context) -> str:
    return f"queue {call('msgget', context['host']['ipc_key'], 0)}"


@attempt("open the host's message queue by name (mq_open)", "ENOENT")
def named_messages(context: Context) -> str:
    call("mq_open", context["host"]["queue"].encode(), 0, 0, None)
    return "opened it"
