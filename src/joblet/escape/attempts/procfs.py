"""Reaching the kernel, the host's processes and the job's own beginnings through /proc."""

from __future__ import annotations

import contextlib
import errno
import os
import struct

from joblet.escape.attempts.frame import Absent, Context, attempt, preparing, reached, read_some, try_each


def rewrite(path: str) -> str:
    """Write into it what it holds."""
    fd = os.open(path, os.O_RDWR)
    content = os.read(fd, 65536)
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, content)
    return f"wrote {path}"


def open_only(path: str, flags: int = os.O_RDONLY) -> str:
    """Open a file that is not to be read or written."""
    os.close(os.open(path, flags | os.O_NONBLOCK))
    return f"opened {path}"


@attempt("have the kernel start a program when one crashes (core_pattern)", "ENOENT")
def core_pattern(context: Context) -> str:
    return rewrite("/proc/sys/kernel/core_pattern")


@attempt("have the kernel start a program for a module (modprobe)", "absent")
def modprobe(context: Context) -> str:
    return try_each(["/proc/sys/kernel/modprobe", "/proc/sys/kernel/poweroff_cmd"], rewrite)


@attempt("choose the pid of the host's next process (ns_last_pid)", "ENOENT")
def last_pid(context: Context) -> str:
    return rewrite("/proc/sys/kernel/ns_last_pid")


@attempt("change a setting of the kernel (/proc/sys)", "ENOENT")
def sysctl(context: Context) -> str:
    return rewrite("/proc/sys/vm/overcommit_memory")


@attempt("press a magic key (sysrq-trigger)", "ENOENT")
def sysrq(context: Context) -> str:
    return open_only("/proc/sysrq-trigger", os.O_WRONLY)


@attempt("read the kernel's memory (kcore)", "ENOENT")
def kcore(context: Context) -> str:
    return read_some("/proc/kcore")


@attempt("read the kernel's addresses (kallsyms)", "ENOENT")
def kallsyms(context: Context) -> str:
    with open("/proc/kallsyms") as file:
        for line in file:
            if int(line.split()[0], 16):
                return "addresses are shown"
    raise Absent("every address is 0")


@attempt("open the kernel's log (kmsg)", "ENOENT")
def kmsg(context: Context) -> str:
    return open_only("/proc/kmsg")


@attempt("read the kernel's tables (iomem, timer_list, keys, slabinfo)", "absent")
def tables(context: Context) -> str:
    return try_each([f"/proc/{name}" for name in ("iomem", "timer_list", "keys", "slabinfo", "vmallocinfo")])


@attempt("route interrupts (/proc/irq)", "ENOENT")
def interrupts(context: Context) -> str:
    return rewrite("/proc/irq/default_smp_affinity")


@attempt("read the environment of process 1", "ENOENT")
def init_environment(context: Context) -> str:
    return open_only("/proc/1/environ")


@attempt("open the memory of process 1", "ENOENT")
def init_memory(context: Context) -> str:
    return open_only("/proc/1/mem", os.O_RDWR)


@attempt("enter the root directory of process 1", "ENOENT")
def init_root(context: Context) -> str:
    return f"it has {len(os.listdir('/proc/1/root/'))} entries"


@attempt("open the descriptors of process 1", "ENOENT")
def init_descriptors(context: Context) -> str:
    return f"it has {len(os.listdir('/proc/1/fd'))} descriptors"


@attempt("open the program of process 1 (CVE-2019-5736)", "ENOENT")
def init_program(context: Context) -> str:
    return open_only("/proc/1/exe")


@attempt("open the own program for writing (CVE-2019-5736)", "EACCES")
def own_program(context: Context) -> str:
    return reached([errno.ETXTBSY], lambda: os.open("/proc/self/exe", os.O_WRONLY))


@attempt("open a system file for writing through its descriptor", "EACCES")
def reopen(context: Context) -> str:
    with preparing("open a system file"):
        fd = os.open("/etc/passwd", os.O_RDONLY)
    return open_only(f"/proc/self/fd/{fd}", os.O_WRONLY)


@attempt("see processes that are not the job's", "absent")
def see_processes(context: Context) -> str:
    own = {1, os.getppid(), os.getpid()}
    others = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in own]
    if not others:
        raise Absent("none")
    return f"{len(others)} processes"


@attempt("learn the physical addresses of memory (pagemap)", "absent")
def pagemap(context: Context) -> str:
    with open("/proc/self/maps") as file, open("/proc/self/pagemap", "rb") as map_file:
        for line in file:
            start = int(line.split("-")[0], 16)
            if start >= 1 << 63:
                continue  # vsyscall
            map_file.seek(start // 4096 * 8)
            entry = map_file.read(8)
            if len(entry) == 8 and struct.unpack("Q", entry)[0] & ((1 << 55) - 1):
                return "page numbers are shown"
    raise Absent("every page number is 0")


@attempt("lower the own OOM score", "EACCES")
def oom_score(context: Context) -> str:
    with open("/proc/self/oom_score_adj") as file:
        before = int(file.read())
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(before - 1))
    return "lowered it by 1"


@attempt("find a descriptor that leaked into the job", "absent")
def leaked(context: Context) -> str:
    """The attempt's own are the pipe that it answers through, and the listing's."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if int(name) > 2:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
    if len(found) == 1 and found[0].startswith("pipe:"):
        raise Absent("only 0, 1 and 2 are open")
    return f"open: {found}"


@attempt("cut the log off through the own output", "EINVAL")
def truncate_log(context: Context) -> str:
    os.ftruncate(1, os.fstat(1).st_size)
    return "the output is the log itself"
