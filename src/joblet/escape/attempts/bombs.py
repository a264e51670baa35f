"""Using up the host. Each runs in a job of its own with small limits, and stops by itself at a few times as much, so
that without limits it does no harm."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import signal
import time

from joblet.escape.attempts.calls import call
from joblet.escape.attempts.frame import Absent, Context, Gap, attempt, preparing

MEGABYTE = 1 << 20
PROCESSES = 32
FILES = 256
DISK = 16
"""megabytes"""
MEMORY = 64
"""megabytes"""
SCRATCH = 256
"""megabytes that /tmp and /dev/shm have, if the server's configuration does not say otherwise"""
MAP_HUGETLB = 0x40000


@attempt("make processes without end", "EAGAIN", limits={"max_processes": PROCESSES})
def fork_bomb(context: Context) -> str:
    for _ in range(4 * PROCESSES):
        if os.fork() == 0:
            signal.pause()
    return f"made {4 * PROCESSES} processes"


@attempt("open files without end", "EMFILE", limits={"max_open_files": FILES})
def descriptor_bomb(context: Context) -> str:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for _ in range(2 * FILES):
        os.open("/dev/null", os.O_RDONLY)
    return f"opened {2 * FILES} files"


@attempt("use memory without end", "out of memory", limits={"max_memory": MEMORY})
def memory_bomb(context: Context) -> str:
    place = mmap.mmap(-1, 4 * MEMORY * MEGABYTE)
    for page in range(0, len(place), mmap.PAGESIZE):
        place[page] = 1
    return f"used {4 * MEMORY} MB"


@attempt("use memory without end by files in it (/dev/shm)", "out of memory", limits={"max_memory": MEMORY})
def shared_memory_bomb(context: Context) -> str:
    return fill("/dev/shm", 2 * MEMORY, context)


@attempt("use memory without end by shared segments (shmget)", "out of memory", limits={"max_memory": MEMORY})
def segment_bomb(context: Context) -> str:
    shm = call("shmget", 0, 4 * MEMORY * MEGABYTE, 0o1600)
    address = call("shmat", shm, None, 0)
    ctypes.CDLL(None).shmctl(shm, 0, None)  # IPC_RMID: it goes with this process
    ctypes.memset(address, 1, 4 * MEMORY * MEGABYTE)
    return f"used {4 * MEMORY} MB"


@attempt("use huge pages that the memory limit does not count", "ENOMEM", limits={"max_memory": MEMORY})
def huge_pages(context: Context) -> str:
    """Where the host keeps none there is nothing to be taken, which is no less a refusal."""
    place = mmap.mmap(-1, 2 * MEGABYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
    place[0] = 1
    return "have one of the host's"


@attempt("fill /tmp", "ENOSPC", limits={"max_memory": 4 * SCRATCH})
def fill_tmp(context: Context) -> str:
    return fill("/tmp", context["scratch_megabytes"] + DISK, context)


@attempt("make files in /tmp without end", "ENOSPC", limits={"max_memory": 4 * SCRATCH}, seconds=300)
def inode_bomb_tmp(context: Context) -> str:
    return make_files("/tmp", context["scratch_megabytes"] * 256 + 16384 + 1000, context)


@attempt("fill the disk from the work directory", "ENOSPC", limits={"max_disk": DISK})
def fill_work(context: Context) -> str:
    return fill(".", 4 * DISK, context)


@attempt("fill the disk by reserving space", "ENOSPC", limits={"max_disk": DISK})
def reserve_work(context: Context) -> str:
    path = context["marker"] + ".reserved"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.unlink(path)
    os.posix_fallocate(fd, 0, 4 * DISK * MEGABYTE)
    return f"reserved {4 * DISK} MB"


@attempt("make files in the work directory without end", "ENOSPC", limits={"max_disk": DISK}, seconds=300)
def inode_bomb_work(context: Context) -> str:
    return make_files(".", 64 * DISK * 4, context)


@attempt("use the processors without end", "absent", limits={"max_cpu": 10})
def cpu_bomb(context: Context) -> str:
    """Four busy processes, until they got a second of processor time or five have passed, of which 10% are half a
    second. A busy machine gives less, never more."""
    begin = time.monotonic()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            while time.process_time() < 0.25 and time.monotonic() < begin + 5:
                pass
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    got = f"got {use.ru_utime + use.ru_stime:.2f} s of processor time in {time.monotonic() - begin:.1f} s"
    if use.ru_utime + use.ru_stime < 0.75:
        raise Absent(got)
    return got


def fill(folder: str, megabytes: int, context: Context) -> str:
    """Write a file of so many megabytes, which has no name."""
    path = f"{folder}/{context['marker']}.filled"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.unlink(path)
    block = bytes(MEGABYTE)
    for _ in range(megabytes):
        left = len(block)
        while left:
            left -= os.write(fd, block[:left])
    return f"wrote {megabytes} MB"


def make_files(folder: str, count: int, context: Context) -> str:
    """Make so many empty files, and remove them."""
    place = f"{folder}/{context['marker']}.files"
    with preparing("make a directory"):
        os.mkdir(place)
    made = 0
    try:
        for made in range(count):
            os.close(os.open(f"{place}/{made}", os.O_WRONLY | os.O_CREAT))
    finally:
        for name in range(made + 1):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{place}/{name}")
        os.rmdir(place)
    return f"made {count} files"


LOG_LIMIT = Gap("joblet.maxLogSize in the server's configuration", "set it, or watch the state directory's disk")


@attempt("fill the server's disk with output", "cut off", observed=True, gap=LOG_LIMIT)
def log_flood(context: Context) -> str:
    """The observer counts what arrives."""
    block = (b"x" * 79 + b"\n") * (MEGABYTE // 80)
    for _ in range(context["flood_megabytes"]):
        left = block
        while left:
            left = left[os.write(1, left) :]
    return "wrote it all"
