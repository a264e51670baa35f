"""The filter of both architectures, run over every call by an interpreter: against the kernel's own tables, by name."""

from __future__ import annotations

import errno
import itertools
import resource
import socket
import termios
from typing import NamedTuple

import bpf
import pytest
import syscalls
from bpf import ALLOW, ERRNO, KILL_PROCESS
from hypothesis import example, given
from hypothesis import strategies as st
from syscalls import AARCH64, ABSENT, ALLOWED, BY_ARGUMENTS, ONLY_X86_64, REFUSED, WITHOUT_CODE, X86_64, Architecture

EPERM, ENOSYS, DONE = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS, ERRNO
HIGHEST = 469
"""the youngest call that the filter knows"""

words = st.integers(0, 2**64 - 1)
small_words = st.integers(0, 300) | words
arguments = st.tuples(*[small_words] * 6)


class Filter(NamedTuple):
    architecture: Architecture
    program: list[bpf.Instruction]
    table: dict[str, int]

    def answer(self, number: int, *given: int) -> int:
        return self.run(number, *given).action

    def run(self, number: int, *given: int) -> bpf.Verdict:
        padded = (*given, 0, 0, 0, 0, 0, 0)[:6]
        return bpf.run(self.program, bpf.Call(number, self.architecture.audit, padded))

    def call(self, name: str, *given: int) -> int:
        return self.answer(self.table[name], *given)

    def names(self, wanted: frozenset[str]) -> frozenset[str]:
        return wanted & self.table.keys()


@pytest.fixture(scope="module", params=[X86_64, AARCH64], ids=lambda architecture: architecture.name)
def seccomp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Filter:
    architecture: Architecture = request.param
    lines = syscalls.print_filter(architecture, tmp_path_factory.mktemp("filter"))
    return Filter(architecture, [bpf.Instruction(*line) for line in lines], syscalls.read_table(architecture))


def test_the_kernel_would_take_it(seccomp: Filter) -> None:
    bpf.check(seccomp.program)


def test_the_lists_here_are_whole_and_do_not_overlap(seccomp: Filter) -> None:
    """No call of the kernel's table is left unjudged."""
    kinds = [REFUSED, ABSENT, BY_ARGUMENTS, ALLOWED, WITHOUT_CODE]
    assert sum(map(len, kinds)) == len(set().union(*kinds))
    younger = {name for name, number in seccomp.table.items() if number > HIGHEST}
    assert seccomp.table.keys() - younger <= set().union(*kinds)
    # A table read wrongly would hold few of them.
    assert len(seccomp.table) > 300
    assert len(seccomp.names(ALLOWED)) > 240


@given(arguments)
@example((0,) * 6)
@example((2**64 - 1,) * 6)
def test_what_no_job_needs_is_refused_whatever_the_arguments(seccomp: Filter, values: tuple[int, ...]) -> None:
    for name in seccomp.names(REFUSED):
        assert seccomp.call(name, *values) == EPERM, name
    for name in seccomp.names(ABSENT):
        assert seccomp.call(name, *values) == ENOSYS, name


@given(arguments)
@example((0,) * 6)
@example((2**64 - 1,) * 6)
def test_what_programs_need_is_allowed_whatever_the_arguments(seccomp: Filter, values: tuple[int, ...]) -> None:
    for name in seccomp.names(ALLOWED):
        assert seccomp.call(name, *values) == ALLOW, name


def test_every_refusal_of_the_issue_is_on_both_architectures(seccomp: Filter) -> None:
    """A name missing from a table would make the tests above say nothing about it."""
    assert seccomp.names(REFUSED) == (REFUSED if seccomp.architecture is X86_64 else REFUSED - ONLY_X86_64)
    assert seccomp.names(ABSENT | BY_ARGUMENTS) == ABSENT | BY_ARGUMENTS


def test_a_number_without_a_name_does_not_exist(seccomp: Filter) -> None:
    named = set(seccomp.table.values())
    for number in [*range(1000), 2**31 - 1, 2**31, 2**32 - 1]:
        if number not in named or number > HIGHEST:
            assert seccomp.answer(number) == ENOSYS, number


@given(st.integers(HIGHEST + 1, 2**32 - 1), arguments)
def test_the_future_does_not_exist(seccomp: Filter, number: int, values: tuple[int, ...]) -> None:
    assert seccomp.answer(number, *values) == ENOSYS


def test_the_x32_entry_does_not_exist(seccomp: Filter) -> None:
    """Neither the common numbers nor x32's own, 512 to 547: arch/x86/entry/syscalls/syscall_64.tbl."""
    for number in range(1000):
        assert seccomp.answer(0x40000000 | number) == ENOSYS


@given(st.integers(0, 2**32 - 1), st.integers(0, 600) | st.integers(0, 2**32 - 1), arguments)
@example(0x40000003, 1, (0,) * 6)  # i386
@example(0x40000028, 1, (0,) * 6)  # 32-bit ARM
@example(0x800000B7, 1, (0,) * 6)  # aarch64, big-endian
@example(0xC000003E, 1, (0,) * 6)
@example(0xC00000B7, 1, (0,) * 6)
def test_another_architecture_ends_the_process(
    seccomp: Filter, audit: int, number: int, values: tuple[int, ...]
) -> None:
    if audit != seccomp.architecture.audit:
        assert bpf.run(seccomp.program, bpf.Call(number, audit, values)).action == KILL_PROCESS


def test_the_answer_is_found_by_halving(seccomp: Filter) -> None:
    """The common answers cost a launch and its calls the logarithm of the list: 4 steps and one for each halving."""
    plain = [seccomp.run(number) for name, number in seccomp.table.items() if name not in BY_ARGUMENTS]
    assert max(verdict.steps for verdict in plain) <= 4 + 8
    assert len(seccomp.program) < 320


ENOMEM, EINVAL = ERRNO | errno.ENOMEM, ERRNO | errno.EINVAL


@given(arguments)
def test_huge_pages_that_no_limit_counts_are_not_given_out(seccomp: Filter, values: tuple[int, ...]) -> None:
    address, length, protection, flags, *rest = values
    plain = flags & ~0x40000
    assert seccomp.call("mmap", address, length, protection, plain, *rest) == ALLOW
    assert seccomp.call("mmap", address, length, protection, plain | 0x40000, *rest) == ENOMEM
    assert seccomp.call("memfd_create", address, flags & ~4) == ALLOW
    assert seccomp.call("memfd_create", address, flags | 4) == EINVAL


NAMESPACES = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]
"""CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET: <linux/sched.h>; CLONE_NEWTIME is for clone3 and unshare only"""


@given(words, st.sets(st.sampled_from(NAMESPACES)))
def test_clone_makes_processes_and_threads_but_no_namespaces(seccomp: Filter, flags: int, namespaces: set[int]) -> None:
    plain = flags & ~sum(NAMESPACES)
    assert seccomp.call("clone", plain) == ALLOW
    assert seccomp.call("clone", plain | sum(namespaces)) == (EPERM if namespaces else ALLOW)


PROTOCOLS = [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6, 262]
OTHER_PROTOCOLS = [2, 33, 115, 132, 136, 255, 256, 2**32 - 1]
"""IGMP, DCCP, L2TP, SCTP, UDP-Lite, raw, SMC; none"""
FAMILIES = [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK]
TYPE_FLAGS = [0, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK]


def may_open(family: int, kind: int, protocol: int) -> bool:
    """As seccomp.c promises: Unix, TCP, UDP, ping, and the routing table."""
    if family == socket.AF_UNIX:
        return True
    if family == socket.AF_NETLINK:
        return protocol == 0
    if family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return kind & 0xF in (socket.SOCK_STREAM, socket.SOCK_DGRAM) and protocol in PROTOCOLS


def test_sockets_are_for_ordinary_traffic(seccomp: Filter) -> None:
    for family, kind, flags, protocol in itertools.product(
        range(50), range(16), TYPE_FLAGS, OTHER_PROTOCOLS + PROTOCOLS
    ):
        expected = ALLOW if may_open(family, kind, protocol) else EPERM
        assert seccomp.call("socket", family, kind | flags, protocol) == expected, (family, kind, protocol)
    for family in range(50):
        assert seccomp.call("socketpair", family) == (ALLOW if family == socket.AF_UNIX else EPERM)


@given(*[st.integers(0, 2**32 - 1)] * 4)
def test_sockets_are_judged_by_what_the_kernel_reads(
    seccomp: Filter, family: int, kind: int, protocol: int, garbage: int
) -> None:
    """The kernel reads ints: what is above them in the registers counts for nothing."""
    high = garbage << 32
    for family_or, protocol_or in itertools.product([family, *FAMILIES], [protocol, 0]):
        expected = ALLOW if may_open(family_or, kind, protocol_or) else EPERM
        assert seccomp.call("socket", high | family_or, high | kind, high | protocol_or) == expected
        assert seccomp.call("socketpair", high | family_or) == (ALLOW if family_or == socket.AF_UNIX else EPERM)


@given(words, st.integers(0, 2**32 - 1))
@example(termios.TIOCSTI, 0)
@example(termios.TIOCLINUX, 1)
@example(termios.TIOCSETD, 0xFFFFFFFF)
@example(termios.TIOCGWINSZ, 0)
@example(termios.FIONREAD, 0)
def test_no_terminal_is_typed_into(seccomp: Filter, request: int, garbage: int) -> None:
    refused = {termios.TIOCSTI, termios.TIOCLINUX, termios.TIOCSETD}
    low = request % 2**32
    assert seccomp.call("ioctl", 1, garbage << 32 | low) == (EPERM if low in refused else ALLOW)


@given(words)
@example(0)
@example(0x0008)  # PER_LINUX32
@example(0x20000)  # UNAME26
@example(0x20008)
@example(0xFFFFFFFF)  # which is it?
@example(0x0040000)  # ADDR_NO_RANDOMIZE
@example(0x0400000)  # READ_IMPLIES_EXEC
@example(0x0100000)  # MMAP_PAGE_ZERO
def test_no_personality_weakens_a_program(seccomp: Filter, persona: int) -> None:
    harmless = {0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF}
    assert seccomp.call("personality", persona) == (ALLOW if persona % 2**32 in harmless else EPERM)


@given(st.integers(0, 20) | st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), words, words, words)
def test_the_limit_of_cores_can_be_read_but_not_changed(
    seccomp: Filter, kind: int, garbage: int, new: int, old: int, pid: int
) -> None:
    """A pointer counts in both halves, the number of the resource in the lower."""
    for kind_or, new_or in itertools.product([kind, resource.RLIMIT_CORE], [0, new, 8, 0x7FFF00000000, 0x7FFF00000008]):
        word = garbage << 32 | kind_or
        is_core = kind_or == resource.RLIMIT_CORE
        assert seccomp.call("setrlimit", word, new_or) == (DONE if is_core else ALLOW)
        assert seccomp.call("prlimit64", pid, word, new_or, old) == (DONE if is_core and new_or else ALLOW)
        assert seccomp.call("getrlimit", word, old) == ALLOW
