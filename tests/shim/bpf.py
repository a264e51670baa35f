"""Runs a seccomp filter as the kernel does, over calls that are only supposed: seccomp(2), kernel/seccomp.c."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
JUMPS = {JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY}
DATA_BYTES = 64
"""the length of struct seccomp_data"""
LENGTH_MAX = 4096


class Instruction(NamedTuple):
    code: int
    jump_true: int
    jump_false: int
    value: int


@dataclass(frozen=True, slots=True)
class Call:
    """What the kernel tells a filter of a system call."""

    number: int
    architecture: int
    arguments: tuple[int, ...] = (0, 0, 0, 0, 0, 0)

    def encode(self) -> bytes:
        return struct.pack("<II7Q", self.number, self.architecture, 0, *self.arguments)


class Verdict(NamedTuple):
    action: int
    steps: int


def check(program: Sequence[Instruction]) -> None:
    """What the kernel checks before it takes a filter; every path ends, because jumps only lead forward."""
    assert 0 < len(program) <= LENGTH_MAX
    assert program[-1].code == RETURN
    for place, instruction in enumerate(program):
        assert instruction.code in JUMPS | {LOAD, AND, RETURN}, (place, instruction)
        assert 0 <= instruction.value < 2**32
        if instruction.code == LOAD:
            assert instruction.value % 4 == 0, (place, instruction)
            assert instruction.value < DATA_BYTES, (place, instruction)
        if instruction.code in JUMPS:
            farthest = max(instruction.jump_true, instruction.jump_false)
            assert farthest <= 255
            assert place + 1 + farthest < len(program), (place, instruction)


def run(program: Sequence[Instruction], call: Call) -> Verdict:
    """The filter's answer to one call."""
    data = call.encode()
    accumulator, place, steps = 0, 0, 0
    while True:
        code, jump_true, jump_false, value = program[place]
        place += 1
        steps += 1
        if code == RETURN:
            return Verdict(value, steps)
        if code == LOAD:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == AND:
            accumulator &= value
        elif code == JUMP_EQUAL:
            place += jump_true if accumulator == value else jump_false
        elif code == JUMP_AT_LEAST:
            place += jump_true if accumulator >= value else jump_false
        elif code == JUMP_ANY:
            place += jump_true if accumulator & value else jump_false
        else:
            raise AssertionError(f"no such instruction: {code:#x}")
