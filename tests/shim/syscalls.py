"""Every system call by name: what a job may do with it, and its number, from the kernel's headers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Architecture(NamedTuple):
    """One whose filter is looked at. Its headers need not be this machine's."""

    name: str
    audit: int
    """AUDIT_ARCH_*, <linux/audit.h>"""
    header: str
    defines: tuple[str, ...]


X86_64 = Architecture("x86_64", 0xC000003E, "asm/unistd_64.h", ())
# arch/arm64/include/uapi/asm/unistd.h asks for these of the generic table.
AARCH64 = Architecture(
    "aarch64",
    0xC00000B7,
    "asm-generic/unistd.h",
    ("RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3", "MEMFD_SECRET"),
)

# Younger than Debian 12's headers; the same everywhere but for the first line.
NEWER = {
    **dict(enumerate(["cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue"], 451)),
    **dict(enumerate(["statmount", "listmount", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules"], 457)),
    **dict(enumerate(["mseal", "setxattrat", "getxattrat", "listxattrat", "removexattrat", "open_tree_attr"], 462)),
    **dict(enumerate(["file_getattr", "file_setattr"], 468)),
}
NEWER_X86_64 = {335: "uretprobe", 336: "uprobe"}


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


REFUSED = names(
    """
    mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr
    unshare setns
    ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp
    bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
    add_key request_key keyctl
    kexec_load kexec_file_load reboot init_module finit_module delete_module
    create_module query_module get_kernel_syms
    settimeofday clock_settime clock_adjtime adjtimex
    swapon swapoff quotactl quotactl_fd acct nfsservctl
    sethostname setdomainname syslog vhangup iopl ioperm modify_ldt
    fanotify_init fanotify_mark name_to_handle_at open_by_handle_at lookup_dcookie
    migrate_pages move_pages
    uselib ustat sysfs _sysctl remap_file_pages
    """
)
"""These fail with EPERM."""

ABSENT = names("clone3 memfd_secret io_setup")
"""These fail with ENOSYS, as if the kernel were older: programs know what to do then."""

BY_ARGUMENTS = names("mmap memfd_create ioctl socket socketpair clone personality setrlimit prlimit64")

ALLOWED = names(
    """
    read write open close stat fstat lstat newfstatat poll lseek mprotect munmap brk pread64 pwrite64 readv writev
    access pipe select sched_yield mremap msync mincore madvise dup dup2 dup3 pause nanosleep alarm getitimer setitimer
    getpid sendfile connect accept accept4 sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown bind listen
    getsockname getpeername setsockopt getsockopt fork vfork execve execveat exit exit_group wait4 waitid kill tkill
    tgkill uname fcntl flock fsync fdatasync syncfs sync sync_file_range truncate ftruncate fallocate getdents
    getdents64 getcwd chdir fchdir rename renameat renameat2 mkdir mkdirat rmdir creat link linkat unlink unlinkat
    symlink symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask mknod
    mknodat openat openat2 faccessat faccessat2 statx statfs fstatfs utime utimes utimensat futimesat close_range
    copy_file_range fadvise64 readahead splice tee vmsplice preadv pwritev preadv2 pwritev2 cachestat
    setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
    fremovexattr setxattrat getxattrat listxattrat removexattrat file_getattr file_setattr
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 pselect6 ppoll
    eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime pipe2
    io_destroy io_getevents io_pgetevents io_submit io_cancel
    gettimeofday time times clock_gettime clock_getres clock_nanosleep getrandom
    timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    getrlimit getrusage sysinfo getcpu getpriority setpriority ioprio_get ioprio_set
    sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval sched_setaffinity sched_getaffinity sched_setattr sched_getattr
    getuid getgid geteuid getegid getppid getpgrp getpgid setpgid getsid setsid gettid setuid setgid setreuid setregid
    setresuid setresgid getresuid getresgid setfsuid setfsgid getgroups setgroups capget capset
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend
    rt_tgsigqueueinfo sigaltstack restart_syscall pidfd_open pidfd_send_signal process_mrelease
    set_tid_address set_robust_list get_robust_list futex futex_waitv futex_wake futex_wait futex_requeue
    rseq membarrier mlock mlock2 munlock mlockall munlockall pkey_mprotect pkey_alloc pkey_free mseal map_shadow_stack
    mbind set_mempolicy get_mempolicy set_mempolicy_home_node
    prctl arch_prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
    lsm_get_self_attr lsm_set_self_attr lsm_list_modules statmount listmount
    shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl
    mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
    """
)

ONLY_X86_64 = names("create_module query_module get_kernel_syms iopl ioperm modify_ldt uselib ustat sysfs _sysctl")
"""Those of the refused that aarch64 never had."""

WITHOUT_CODE = names(
    """
    getpmsg putpmsg afs_syscall tuxcall security vserver set_thread_area get_thread_area epoll_ctl_old epoll_wait_old
    uretprobe uprobe
    """
)
"""Numbers behind which the kernel has nothing for a program; the filter leaves it to the kernel to say so."""


def read_table(architecture: Architecture) -> dict[str, int]:
    """Name and number of every call: the kernel's headers, and what is younger than they are."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C preprocessor: neither cc nor clang")
    command = [compiler, "-E", "-dM", "-x", "c", *(f"-D__ARCH_WANT_{name}" for name in architecture.defines), "-"]
    source = f"#include <{architecture.header}>\n"
    result = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if result.returncode != 0 and architecture.header in result.stderr:
        pytest.skip(f"no kernel header <{architecture.header}> here: on Debian, linux-libc-dev on amd64")
    assert result.returncode == 0, result.stderr
    macros = dict(re.findall(r"^#define (__NR\w+) (\w+)$", result.stdout, re.MULTILINE))
    table = {}
    for name, value in macros.items():
        while value in macros:
            value = macros[value]
        if name.startswith("__NR_") and value.isdigit():
            table[name.removeprefix("__NR_")] = int(value)
    for name in ("syscalls", "arch_specific_syscall"):  # not calls: how many there are, where others' own begin
        table.pop(name, None)
    newer = NEWER | NEWER_X86_64 if architecture is X86_64 else NEWER
    for number, name in newer.items():
        assert table.setdefault(name, number) == number
    return table


def print_filter(architecture: Architecture, directory: Path) -> list[tuple[int, ...]]:
    """The filter that shim/seccomp.c makes for the architecture, by compiling it for this machine."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler: neither cc nor clang")
    program = directory / f"print-filter-{architecture.name}"
    here = Path(__file__).parent
    subprocess.run(
        [
            *(compiler, "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
            *(f"-DJOBLET_SECCOMP_ARCH={architecture.audit:#x}", f"-I{here.parents[1] / 'shim'}"),
            *(str(here / "print_filter.c"), "-o", str(program)),
        ],
        check=True,
    )
    text = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return [tuple(map(int, line.split())) for line in text.splitlines()]
