"""Getting back what a job has given up: ids, capabilities, setuid programs, limits."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import struct
import subprocess

from joblet.escape.attempts.calls import CAP_SYS_ADMIN, call, capabilities
from joblet.escape.attempts.frame import Absent, Context, NotTried, attempt, leave_session, preparing

PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 28, 47, 2
ADDR_NO_RANDOMIZE = 0x0040000


@attempt("become another user of the job (setuid)", "EPERM")
def set_user(context: Context) -> str:
    os.setresuid(1, 1, 1)
    return "is user 1"


@attempt("become a user outside of the job's range (setuid)", "EINVAL")
def set_foreign_user(context: Context) -> str:
    os.setresuid(1 << 20, 1 << 20, 1 << 20)
    return "is a user of the host"


@attempt("become another group (setgid)", "EPERM")
def set_group(context: Context) -> str:
    os.setresgid(6, 6, 6)
    return "is in the group of disks"


@attempt("join more groups (setgroups)", "EPERM")
def set_groups(context: Context) -> str:
    os.setgroups([6])
    return "is in the group of disks too"


@attempt("give a file away (chown)", "EPERM")
def give_away(context: Context) -> str:
    path = context["marker"] + ".given"
    with preparing("make a file"):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    try:
        os.chown(path, 1, 1)
    finally:
        os.unlink(path)
    return "it belongs to user 1"


@attempt("take capabilities (capset)", "EPERM")
def take_capabilities(context: Context) -> str:
    capabilities(1 << CAP_SYS_ADMIN)
    return "has CAP_SYS_ADMIN"


@attempt("pass capabilities on (ambient)", "EPERM")
def raise_ambient(context: Context) -> str:
    with contextlib.suppress(PermissionError):  # inheritable first, as the call wants it
        low = 1 << CAP_SYS_ADMIN
        header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
        call("capset", header, ctypes.create_string_buffer(struct.pack("6I", low, low, low, 0, 0, 0)))
    call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0)
    return "raised CAP_SYS_ADMIN"


@attempt("unlock the rules for capabilities (securebits)", "EPERM")
def secure_bits(context: Context) -> str:
    call("prctl", PR_SET_SECUREBITS, 0, 0, 0, 0)
    return "set them to 0"


@attempt("get capabilities by executing a program as root", "absent")
def execute_as_root(context: Context) -> str:
    text = subprocess.run(["cat", "/proc/self/status"], stdout=subprocess.PIPE, check=True).stdout.decode()
    values = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    if int(values["CapPrm"], 16) | int(values["CapEff"], 16) | int(values["CapBnd"], 16):
        return f"CapPrm is {values['CapPrm']}"
    raise Absent("no capability")


@attempt("get another user id by a setuid program of the host", "absent")
def setuid_program(context: Context) -> str:
    """The dynamic linker shows the auxiliary vector, unless the program is setuid in earnest: ld.so(8)."""
    with preparing("find a setuid program"):
        programs = [path for path in map(shutil.which, ("su", "passwd", "mount", "newgrp")) if path]
        program = next((path for path in programs if os.stat(path).st_mode & 0o4000), None)
        if program is None:
            raise FileNotFoundError("none of su, passwd, mount, newgrp")
    with contextlib.suppress(PermissionError):  # as an ordinary user, where that can be had
        os.setresuid(65534, 65534, 65534)

    def auxiliary(path: str) -> str:
        command = subprocess.run(
            [path, "--help"], env={"LD_SHOW_AUXV": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return command.stdout.decode(errors="replace")

    if "AT_SECURE" not in auxiliary("/usr/bin/env"):
        raise RuntimeError("this C library does not show the auxiliary vector")
    if "AT_SECURE" not in auxiliary(program):
        return f"{program} ran as its owner"
    raise Absent(f"{program} ran without its owner's id")


@attempt("make a setuid program for another user", "EPERM")
def make_setuid(context: Context) -> str:
    path = context["marker"] + ".setuid"
    with preparing("copy a program"):
        shutil.copy("/usr/bin/env", path)
    try:
        os.chown(path, 1, 1)
        os.chmod(path, 0o4755)
    finally:
        os.unlink(path)
    return "it runs as user 1"


@attempt("leave a setuid program where the host shows it", "absent")
def leave_setuid(context: Context) -> str:
    """On a path that the configuration makes writable, where what a job makes belongs to the path's owner."""
    if not context["writable"]:
        raise NotTried("the configuration makes no path writable")
    path = f"{context['writable'][0]}/{context['marker']}.setuid"
    with preparing("copy a program"):
        shutil.copy("/usr/bin/env", path)
    try:
        os.chmod(path, 0o4755)
    finally:
        os.unlink(path)
    if context["writable"][0] in context["nosuid"]:
        raise Absent("the host's mount of it is nosuid")
    return f"{path} ran as its owner for whoever executed it"


@attempt("give a program capabilities (security.capability)", "EPERM")
def file_capabilities(context: Context) -> str:
    path = context["marker"] + ".capable"
    with preparing("copy a program"):
        shutil.copy("/usr/bin/env", path)
    try:
        os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << CAP_SYS_ADMIN, 0, 0, 0))
    finally:
        os.unlink(path)
    return "it has CAP_SYS_ADMIN"


def set_limit(which: int, value: int) -> None:
    """setrlimit(2), whose refusal Python would turn into another error."""
    call("prlimit64", 0, which, ctypes.create_string_buffer(struct.pack("2Q", value, value)), None)


@attempt("raise a limit of open files (setrlimit)", "EPERM")
def raise_files(context: Context) -> str:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    set_limit(resource.RLIMIT_NOFILE, hard + 1)
    return f"raised {hard} by 1"


@attempt("let core dumps be written (RLIMIT_CORE)", "absent")
def raise_core(context: Context) -> str:
    """A job is told that it is done, for the sake of programs that insist on it."""
    set_limit(resource.RLIMIT_CORE, 1 << 40)
    now = resource.getrlimit(resource.RLIMIT_CORE)
    if now == (1 << 40, 1 << 40):
        return "raised it to a terabyte"
    raise Absent(f"it stays {now}")


@attempt("leave a core dump", "absent")
def dump_core(context: Context) -> str:
    child = os.fork()
    if child == 0:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        os.kill(os.getpid(), signal.SIGABRT)
    _, status = os.waitpid(child, 0)
    for name in ("core", f"core.{child}"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    if os.WCOREDUMP(status):
        return "the kernel says that it wrote one"
    raise Absent("the kernel wrote none")


@attempt("switch the randomisation of addresses off (personality)", "EPERM")
def personality(context: Context) -> str:
    call("personality", ADDR_NO_RANDOMIZE)
    return "it is off for what is executed next"


@attempt("rename the host (sethostname)", "EPERM")
def rename_host(context: Context) -> str:
    name = os.uname().nodename.encode()
    call("sethostname", name, len(name))
    return "set the name that it had"


@attempt("hang the terminal up (vhangup)", "EPERM")
def hang_up(context: Context) -> str:
    leave_session()
    call("vhangup")
    return "it would be, had the session one"
