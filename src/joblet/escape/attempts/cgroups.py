"""Control groups, and what else /sys would change."""

from __future__ import annotations

import glob
import os

from joblet.escape.attempts.frame import Absent, Context, attempt, try_each
from joblet.escape.attempts.procfs import rewrite

ROOT = "/sys/fs/cgroup"


@attempt("have the kernel start a program for an empty group (release_agent)", "absent")
def release_agent(context: Context) -> str:
    return try_each(glob.glob(ROOT + "/*/release_agent") + glob.glob(ROOT + "/release_agent"), rewrite)


@attempt("leave the own control group", "absent")
def leave(context: Context) -> str:
    def enter(path: str) -> str:
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        return f"entered by {path}"

    return try_each([f"{ROOT}/cgroup.procs", *glob.glob(ROOT + "/*/cgroup.procs")], enter)


@attempt("make a control group", "absent")
def make(context: Context) -> str:
    def try_in(parent: str) -> str:
        path = f"{parent}/{context['marker']}"
        os.mkdir(path)
        os.rmdir(path)
        return f"made {path}, and removed it"

    return try_each([ROOT + "/unified", ROOT + "/pids", ROOT], try_in)


@attempt("read other groups' use of the host", "absent")
def read_groups(context: Context) -> str:
    for folder, _, names in os.walk(ROOT):
        if "cgroup.procs" in names:
            return f"found {folder}"
    raise Absent("no group is shown")


@attempt("have the kernel start a program for a device (uevent_helper)", "ENOENT")
def uevent_helper(context: Context) -> str:
    return rewrite("/sys/kernel/uevent_helper")


@attempt("change a setting of the kernel (/sys)", "EACCES")
def settings(context: Context) -> str:
    return rewrite("/sys/kernel/mm/transparent_hugepage/use_zero_page")


@attempt("take a processor away (/sys)", "EACCES")
def processor(context: Context) -> str:
    return rewrite("/sys/devices/system/cpu/cpu1/online")


@attempt("trace the kernel (/sys/kernel/tracing, /sys/kernel/debug)", "absent")
def tracing(context: Context) -> str:
    return try_each(["/sys/kernel/tracing", "/sys/kernel/debug"], lambda path: f"{len(os.listdir(path))} entries")


@attempt("unbind a device from its driver (/sys)", "absent")
def drivers(context: Context) -> str:
    def probe(path: str) -> str:
        os.close(os.open(path, os.O_WRONLY))
        return f"opened {path}"

    return try_each(sorted(glob.glob("/sys/bus/*/drivers/*/unbind")), probe)
