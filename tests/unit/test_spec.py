from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.executor.local.ranges import COUNT, IdRanges
from joblet.executor.local.spec import Group, View, encode, sealed_memfd
from joblet.job import Job, Limits, Part, State, Terminal

SINGLE = {
    *("version", "id", "hostname", "uid_base", "id_count", "grace_ms", "open_files", "log_limit", "tmp_bytes"),
    *("work", "outputs", "end"),
}
KEYS = SINGLE | {
    "cwd",
    "input",
    "terminal",
    "disk",
    "apart",
    "server",
    "ro",
    "rw",
    "shared",
    "mask",
    "cgroup2",
    "cgroup",
    "set",
    "lift",
    "kill",
    "oom",
    "stat",
    "env",
    "arg",
}

BASE = 1_879_048_192


def decode(data: bytes) -> list[tuple[str, bytes]]:
    """As shim/PROTOCOL.md says: `key=value` strings, each ended by one NUL."""
    assert data.endswith(b"\0")
    pairs = []
    for entry in data[:-1].split(b"\0"):
        key, equals, value = entry.partition(b"=")
        assert equals
        pairs.append((key.decode("ascii"), value))
    return pairs


def values(pairs: list[tuple[str, bytes]], key: str) -> list[bytes]:
    return [value for name, value in pairs if name == key]


def a_job(argv: list[str], *, disk: bool = False, **more: Any) -> Job:
    limits = Limits(100, 64, 0, max_open_files=1024, max_disk=int(disk))
    return Job(7, argv[0], tuple(argv[1:]), limits, State.INITIALIZING, "admin", 0, **more)


def encoded(
    job: Job, *, groups: list[Group] | None = None, view: View | None = None, shared: Path | None = None
) -> list[tuple[str, bytes]]:
    return decode(
        encode(
            job,
            uid_base=BASE,
            id_count=65536,
            grace_ms=5000,
            log_limit=0,
            view=view or View((), (), (), 1024),
            groups=groups or [],
            shared=shared,
        )
    )


def variables(job: Job) -> dict[str, str]:
    return dict(value.decode().split("=", 1) for value in values(encoded(job), "env"))


# Any byte but NUL, as it comes in a protobuf string.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
paths = texts.map(lambda text: Path("/", text))
groups_of_a_job = st.lists(
    st.builds(
        Group,
        paths,
        st.booleans(),
        st.lists(st.tuples(st.sampled_from(["cpu.max", "io.max"]), texts), max_size=3).map(tuple),
        st.lists(st.tuples(st.sampled_from(["oom_kill", "peak"]), texts), max_size=2).map(tuple),
        st.sampled_from(["", "cgroup.kill"]),
        st.sampled_from(["", "memory.oom_control"]),
        st.lists(st.tuples(st.just("io.max"), texts), max_size=2).map(tuple),
    ),
    max_size=3,
)


def test_a_job_that_takes_input_has_a_pipe_or_a_terminal() -> None:
    plain, piped = encoded(a_job(["cat"])), encoded(a_job(["cat"], stdin=True))
    assert values(plain, "input") == values(plain, "terminal") == values(piped, "terminal") == []
    assert values(piped, "input") == [b""]
    at_terminal = encoded(a_job(["sh"], stdin=True, terminal=Terminal(24, 80)))
    assert (values(at_terminal, "terminal"), values(at_terminal, "input")) == ([b"24 80"], [])


def test_a_terminal_has_a_kind() -> None:
    assert "TERM" not in variables(a_job(["sh"], stdin=True))
    assert variables(a_job(["sh"], stdin=True, terminal=Terminal(24, 80)))["TERM"] == "xterm"
    told = a_job(["sh"], stdin=True, terminal=Terminal(24, 80, "screen"))
    assert variables(told)["TERM"] == "screen"
    assert variables(replace(told, environment={"TERM": "dumb"}))["TERM"] == "dumb"


@given(
    st.lists(texts, min_size=1, max_size=5),
    groups_of_a_job,
    st.builds(View, *(st.lists(paths, max_size=3).map(tuple) for _ in range(3)), st.integers(0, 2**40)),
    st.booleans(),
)
def test_what_is_encoded_is_decoded(argv: list[str], groups: list[Group], view: View, disk: bool) -> None:
    pairs = encoded(a_job(argv, disk=disk), groups=groups, view=view)
    assert pairs[0] == ("version", b"5")
    assert values(pairs, "disk") == ([b""] if disk else [])
    assert values(pairs, "apart") == values(pairs, "server") == []
    apart = encoded(a_job(argv, disk=disk, separate_streams=True), groups=groups, view=view)
    assert [pair for pair in apart if pair not in pairs] == [("apart", b"")]
    assert values(pairs, "rw") == [str(path).encode() for path in view.writable]
    assert values(pairs, "shared") == values(pairs, "cwd") == []
    assert values(pairs, "outputs") == [b".joblet-output"]
    assert pairs[-1] == ("end", b"")
    keys = [key for key, _ in pairs]
    assert set(keys) <= KEYS
    assert all(keys.count(key) == 1 for key in SINGLE)
    assert values(pairs, "arg") == [arg.encode() for arg in argv]
    assert values(pairs, "ro") == [str(path).encode() for path in view.read_only]
    assert values(pairs, "mask") == [str(path).encode() for path in view.masked]
    assert int(values(pairs, "tmp_bytes")[0]) == view.tmp_bytes
    told: list[tuple[bytes, bool, list[bytes], list[bytes], list[bytes], list[bytes], list[bytes]]] = []
    for key, value in pairs:
        if key in ("cgroup", "cgroup2"):
            told.append((value, key == "cgroup2", [], [], [], [], []))
        elif key in (of_groups := ("set", "lift", "stat", "kill", "oom")):
            told[-1][of_groups.index(key) + 2].append(value)  # type: ignore[union-attr]
    assert told == [
        (
            str(group.path).encode(),
            group.unified,
            [f"{file}={value}".encode() for file, value in group.settings],
            [f"{file}={value}".encode() for file, value in group.lifting],
            [f"{name}={source}".encode() for name, source in group.stats],
            [group.kill.encode()] if group.kill else [],
            [group.oom.encode()] if group.oom else [],
        )
        for group in groups
    ]


def test_the_orders_of_a_job_name_it_and_its_ids() -> None:
    pairs = encoded(a_job(["true"]))
    assert [values(pairs, key) for key in ("id", "hostname", "uid_base", "id_count", "grace_ms", "work")] == [
        [b"7"],
        [b"job-7"],
        [b"1879048192"],
        [b"65536"],
        [b"5000"],
        [b"/work"],
    ]


USUAL = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/work",
    "PWD": "/work",
    "JOBLET_OUTPUT": "/work/.joblet-output",
    "LANG": "C.UTF-8",
    "HOSTNAME": "job-7",
    "JOBLET_JOB_ID": "7",
}


def test_the_environment_is_the_same_for_every_job_that_asks_for_none() -> None:
    assert variables(a_job(["true"])) == USUAL


def test_a_job_is_told_its_name() -> None:
    assert variables(a_job(["true"], name="train[lr=0.1]")) == USUAL | {"JOBLET_JOB_NAME": "train[lr=0.1]"}


def test_a_job_of_a_workflow_is_told_which_part_of_which_it_is() -> None:
    told = {"JOBLET_WORKFLOW_ID": "3", "JOBLET_ATTEMPT": "2", "JOBLET_SHARED": "/workflow"}
    assert variables(a_job(["true"], part=Part(3, 1, 2))) == USUAL | told


@pytest.mark.parametrize(
    ("workdir", "start"), [("src", "/work/src"), ("a/b", "/work/a/b"), ("/tmp", "/tmp"), ("/work/x", "/work/x")]
)
def test_a_job_starts_where_it_asked_to(workdir: str, start: str) -> None:
    job = a_job(["true"], workdir=workdir)
    assert values(encoded(job), "cwd") == [start.encode()]
    assert variables(job)["PWD"] == start


def test_what_a_job_shares_is_named_by_its_place_on_the_host() -> None:
    assert values(encoded(a_job(["true"]), shared=Path("/srv/3/shared")), "shared") == [b"/srv/3/shared"]


def test_a_jobs_own_variables_go_over_the_usual_ones_and_secret_ones_over_both() -> None:
    job = a_job(["true"], environment={"LANG": "C", "MODE": "a=b\n"}, secret_environment={"TOKEN": "x", "MODE": "s"})
    assert variables(job) == USUAL | {"LANG": "C", "MODE": "s", "TOKEN": "x"}


def test_no_variable_of_a_job_tells_it_otherwise_what_it_is() -> None:
    forged = {"JOBLET_JOB_ID": "8", "PWD": "/"}
    assert variables(a_job(["true"], environment=forged, secret_environment=forged)) == USUAL


def test_an_argument_that_looks_like_an_order_stays_an_argument() -> None:
    pairs = encoded(a_job(["sh", "end=", "mask=/", "version=1"]))
    assert values(pairs, "arg") == [b"sh", b"end=", b"mask=/", b"version=1"]
    assert values(pairs, "mask") == []


def test_every_key_of_the_protocol_page_is_known_here_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "shim" / "PROTOCOL.md").read_text(encoding="utf-8")
    table = page.partition("## Spec")[2].partition("## Report")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall("`([^`]+)`", row)} == KEYS


@given(st.binary(max_size=300_000))
def test_a_sealed_file_holds_the_orders_from_its_start(data: bytes) -> None:
    fd = sealed_memfd(data)
    try:
        assert os.read(fd, len(data) + 1) == data
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_sealed_file_cannot_be_changed_by_anyone() -> None:
    fd = sealed_memfd(b"version=1\0")
    try:
        for change in (
            lambda: os.pwrite(fd, b"x", 0),
            lambda: os.ftruncate(fd, 0),
            lambda: os.ftruncate(fd, 100),
            lambda: os.pwrite(fd, b"more", 10),
        ):
            with pytest.raises(PermissionError):
                change()
        assert os.pread(fd, 100, 0) == b"version=1\0"
    finally:
        os.close(fd)


def test_a_job_gets_a_range_that_no_other_has() -> None:
    ranges = IdRanges(BASE, 4096)
    taken = [ranges.take() for _ in range(4096)]
    assert len(set(taken)) == 4096
    assert all(base >= BASE and (base - BASE) % COUNT == 0 and base + COUNT <= 2**31 for base in taken)
    with pytest.raises(IndexError):
        ranges.take()


def test_the_range_given_back_is_the_last_to_be_given_out_again() -> None:
    ranges = IdRanges(BASE, 4096)
    first = ranges.take()
    ranges.give_back(first)
    assert [ranges.take() for _ in range(4096)][-1] == first


def test_the_range_of_a_job_found_again_is_not_given_out() -> None:
    ranges = IdRanges(BASE, 4096)
    ranges.claim(BASE)
    ranges.claim(1000)
    assert BASE not in [ranges.take() for _ in range(4095)]
    ranges.give_back(1000)
    with pytest.raises(IndexError):
        ranges.take()
    ranges.give_back(BASE)
    assert ranges.take() == BASE


@given(st.lists(st.tuples(st.sampled_from(["take", "give"]), st.integers(0, 100)), max_size=60), st.integers(-9, 9))
def test_no_two_live_jobs_share_an_id_even_after_the_pool_has_been_moved(
    steps: list[tuple[str, int]], offset: int
) -> None:
    """Jobs found again have ranges of the old pool; what is given out never overlaps with what lives."""
    old = [BASE + offset * 9973 + index * COUNT for index in range(3)]
    ranges = IdRanges(BASE, 6)
    live = list(old)
    for base in old:
        ranges.claim(base)
    for step, number in steps:
        if step == "give" and live:
            ranges.give_back(live.pop(number % len(live)))
        elif step == "take":
            try:
                first = ranges.take()
            except IndexError:
                continue
            assert all(abs(first - other) >= COUNT for other in live)
            live.append(first)
    for base in live:
        ranges.give_back(base)
    assert sorted(ranges.take() for _ in range(6)) == [BASE + index * COUNT for index in range(6)]
