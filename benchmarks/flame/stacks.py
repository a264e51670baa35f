"""Sampled stacks: read, trimmed, and added up. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_THREAD = re.compile(r"thread \(\w+\): (?P<name>.*?)(_\d+)?$")
_PLACE = re.compile(r"^(?P<name>.*) \((?P<file>[^()]*?)(:\d+)?\)$")
_BEGINS = frozenset({"Runner.run (asyncio/runners.py)", "Thread.run (threading.py)"})
"""below these frames a thread's work begins"""

Stack = tuple[str, ...]
"""a thread's name, without its number, and then its frames, `NAME (FILE)`, the outermost first"""


def parse(text: str) -> Counter[Stack]:
    """Stacks as py-spy's raw format has them, one a line, with how often each was seen."""
    found: Counter[Stack] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if name := _THREAD.match(thread):
            thread = name["name"]
        frames = [_frame(frame) for frame in frames]
        begin = next((place + 1 for place, frame in enumerate(frames) if frame in _BEGINS), 0)
        found[(thread, *frames[begin:])] += int(count)
    return found


def _frame(text: str) -> str:
    place = _PLACE.match(text)
    return f"{place['name']} ({_short(place['file'])})" if place else text


def _short(file: str) -> str:
    """The part of a path that tells a package's modules apart."""
    parts = file.split("/")
    for folder in ("site-packages", "lib-dynload", "src", "python3.11", "python3.12", "python3.13"):
        if folder in parts:
            parts = parts[len(parts) - parts[::-1].index(folder) :]
            break
    return "/".join(parts[-4:])


@dataclass
class Node:
    """A frame in its place: below others, with what it was seen to call."""

    name: str
    count: int = 0
    """samples, those of its callees included"""
    callees: dict[str, Node] = field(default_factory=dict)


def tree(stacks: Mapping[Stack, int], least: float) -> Node:
    """All stacks in one; frames that were seen in less than this share of the samples are left out."""
    root = Node("all")
    for stack, count in stacks.items():
        root.count += count
        node = root
        for frame in stack:
            node = node.callees.setdefault(frame, Node(frame))
            node.count += count
    _trim(root, least * root.count)
    return root


def _trim(node: Node, least: float) -> None:
    node.callees = {name: callee for name, callee in node.callees.items() if callee.count >= least}
    for callee in node.callees.values():
        _trim(callee, least)


def shares(stacks: Mapping[Stack, int], names: Iterable[tuple[str, str]]) -> dict[str, float]:
    """How much of the samples is in each part: the first (part, pattern) that fits a frame, from the innermost out."""
    patterns = [(part, re.compile(pattern)) for part, pattern in names]
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        found[_part(stack, patterns)] += count
    total = sum(found.values())
    return {part: count / total for part, count in found.most_common()}


def _part(stack: Stack, patterns: list[tuple[str, re.Pattern[str]]]) -> str:
    for frame in reversed(stack):
        for part, pattern in patterns:
            if pattern.search(frame):
                return part
    return "other"


def inclusive(stacks: Mapping[Stack, int]) -> dict[str, float]:
    """How much of the samples has each frame somewhere in its stack."""
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        for frame in set(stack):
            found[frame] += count
    total = sum(stacks.values())
    return {frame: count / total for frame, count in found.most_common()}
