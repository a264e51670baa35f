"""The audit log as files: what is written is found intact, and whatever was changed is found."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from joblet.audit import Found, Trail, TrailError, files, head
from joblet.audit.chain import START, members, parse
from joblet.audit.query import Query, find
from joblet.audit.verify import Changed, Verified, verify, verify_log, verify_server

MANY = 1 << 30
SMALL = 2_000
"""bytes of a file, so that there are several"""


def line(number: int) -> str:
    return members({"event": "call", "client": f"client {number % 3}", "job": str(number), "allowed": bool(number % 5)})


def write(folder: Path, count: int, *, size: int = MANY, keep: int = 0, end: bool = True) -> Found:
    """A server's life that writes so many lines; what it has found. Without `end` it is as if it was killed."""

    async def live() -> Found:
        trail = Trail(folder / "audit.log", folder, size, keep)
        for number in range(count):
            trail.append(line(number))
        if end:
            await trail.close()
        assert trail.found is not None
        return trail.found

    return asyncio.run(live())


def check(folder: Path) -> Verified:
    """As `joblet audit verify` does. Raises Changed."""
    return verify_server(folder / "audit.log", folder)


def reboot(folder: Path, **changes: object) -> None:
    """Let the head be of another boot of the host."""
    key = (folder / head.KEY_FILE).read_bytes()
    mark = head.unseal((folder / head.HEAD_FILE).read_bytes(), key)
    assert mark is not None
    (folder / head.HEAD_FILE).write_bytes(head.seal(mark._replace(boot="another", **changes), key))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of several files, by two servers."""
    made = tmp_path_factory.mktemp("log")
    write(made, 20, size=SMALL)
    write(made, 20, size=SMALL)
    assert len(files.every(made / "audit.log")) > 3
    return made


def test_what_is_written_is_intact_over_all_files(written: Path) -> None:
    found = check(written)
    assert (found.first, found.unfinished, found.lost) == (1, 0, [])
    assert found.files == len(files.every(written / "audit.log"))
    assert found.last == 40 + found.files


def test_a_hash_is_what_anybody_can_compute(written: Path) -> None:
    """As the documents say it, without this program."""
    previous = START
    for path in files.every(written / "audit.log"):
        for raw in path.read_text().splitlines():
            body, _, rest = raw.rpartition(',"hash":"')
            assert hashlib.sha256((previous + body).encode()).hexdigest() == rest.removesuffix('"}')
            previous = rest.removesuffix('"}')


def test_one_that_cannot_be_begun_says_why(folder: Path) -> None:
    (folder / "audit.log").mkdir()
    with pytest.raises(TrailError, match=r"audit\.log: Is a directory"):
        write(folder, 1)


def test_no_two_servers_write_one(folder: Path) -> None:
    """Record locks are between processes."""
    path = folder / "audit.log"
    write(folder, 1)
    program = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, 2); print('held', flush=True); input()"
    held = [sys.executable, "-c", program, path]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TrailError, match=r"audit\.log: in use by another joblet server"):
            write(folder, 1)
        other.communicate("\n")
    write(folder, 1)
    check(folder)


def test_only_root_can_read_it(written: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in written.iterdir()} == {0o600}


def test_old_files_go_and_the_rest_is_intact(folder: Path) -> None:
    write(folder, 60, size=SMALL, keep=2)
    found = check(folder)
    assert found.files == 3
    assert found.first > 1
    assert found.first == found.oldest


Change = Callable[[list[bytes], Random], None]


def edit(contents: list[bytes], chance: Random) -> None:
    which = chance.randrange(len(contents))
    raw = bytearray(contents[which])
    raw[chance.randrange(len(raw))] ^= chance.randrange(1, 256)
    contents[which] = bytes(raw)


def of_lines(change: Callable[[list[bytes], Random], None]) -> Change:
    def changed(contents: list[bytes], chance: Random) -> None:
        which = chance.randrange(len(contents))
        lines = contents[which].splitlines(keepends=True)
        change(lines, chance)
        contents[which] = b"".join(lines)

    return changed


def remove(lines: list[bytes], chance: Random) -> None:
    first = chance.randrange(len(lines))
    del lines[first : first + chance.randint(1, 3)]


def swap(lines: list[bytes], chance: Random) -> None:
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


def repeat(lines: list[bytes], chance: Random) -> None:
    lines.insert(chance.randint(0, len(lines)), chance.choice(lines))


def forge(lines: list[bytes], chance: Random) -> None:
    """Another text with a hash that fits, on a line's place."""
    place = chance.randrange(len(lines))
    before = parse(lines[place - 1]) if place else None
    here = parse(lines[place])
    assert here
    body = here.body.replace(b"client", b"nobody").replace(b"opened", b"OPENED")
    text = hashlib.sha256((before.hash if before else START).encode() + body).hexdigest()
    lines[place] = body + f',"hash":"{text}"}}\n'.encode()


def cut(contents: list[bytes], chance: Random) -> None:
    which = chance.randrange(len(contents))
    contents[which] = contents[which][: chance.randrange(len(contents[which]))]


def lose_a_file(contents: list[bytes], chance: Random) -> None:
    del contents[chance.randrange(len(contents))]


def swap_files(contents: list[bytes], chance: Random) -> None:
    swap(contents, chance)


def add(contents: list[bytes], chance: Random) -> None:
    """A line behind the last, as the server would have written it."""
    last = parse(contents[-1].splitlines(keepends=True)[-1])
    assert last
    body = last.body.replace(f'"n":{last.number}'.encode(), f'"n":{last.number + 1}'.encode(), 1)
    text = hashlib.sha256(last.hash.encode() + body).hexdigest()
    contents[-1] += body + f',"hash":"{text}"}}\n'.encode()[: chance.choice((None, 20))]


CHANGES: list[Change] = [
    edit,
    cut,
    lose_a_file,
    swap_files,
    add,
    *map(of_lines, (remove, swap, repeat, forge)),
]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(CHANGES), st.randoms(use_true_random=False), st.booleans())
def test_any_change_is_found_also_when_a_server_has_gone_on(
    written: Path, tmp_path: Path, change: Change, chance: Random, goes_on: bool
) -> None:
    names = files.every(written / "audit.log")
    before = [path.read_bytes() for path in names]
    after = list(before)
    change(after, chance)
    assume(after != before)
    folder = tmp_path / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(written, folder)
    if len(after) < len(before):
        lost = next((number for number, raw in enumerate(after) if raw != before[number]), len(after))
        (folder / names[lost].name).unlink()
    else:
        for path, raw in zip(names, after, strict=True):
            (folder / path.name).write_bytes(raw)
    if goes_on:
        write(folder, 3, size=SMALL)
    with pytest.raises(Changed):
        check(folder)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([edit, *map(of_lines, (remove, swap, repeat, forge))]), st.randoms(use_true_random=False))
def test_a_change_before_the_end_is_found_in_copies_alone(
    written: Path, tmp_path: Path, change: Change, chance: Random
) -> None:
    names = files.every(written / "audit.log")
    contents = [path.read_bytes() for path in names]
    changed = contents[:-1]
    change(changed, chance)
    assume(changed != contents[:-1])
    for path, raw in zip(names, [*changed, contents[-1]], strict=True):
        (tmp_path / path.name).write_bytes(raw)
    with pytest.raises(Changed):
        verify([tmp_path / path.name for path in names])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([head.HEAD_FILE, head.KEY_FILE]), st.randoms(use_true_random=False), st.booleans())
def test_a_change_of_what_tells_the_end_is_found(
    written: Path, tmp_path: Path, name: str, chance: Random, goes_on: bool
) -> None:
    folder = tmp_path / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(written, folder)
    contents = [(folder / name).read_bytes()]
    chance.choice((edit, cut, lose_a_file))(contents, chance)
    if contents:
        (folder / name).write_bytes(contents[0])
    else:
        (folder / name).unlink()
    if goes_on:
        write(folder, 1, size=SMALL)
    with pytest.raises(Changed):
        check(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: lines.__setitem__(7, lines[7].replace(b"client 0", b"client 9")), "line 8: edited: line 8 "),
        (lambda lines: lines.__delitem__(7), "line 8: missing: lines 8 to 8"),
        (lambda lines: lines.insert(3, lines.pop(7)), "line 4: reordered: line 8 comes before line 4"),
        (lambda lines: lines.insert(9, lines[7]), "line 10: reordered: line 8 comes after line 9, or again"),
        (lambda lines: lines.__delitem__(slice(-2, None)), "cut: lines 20 to 21 are missing at the end"),
        (lambda lines: lines.__delitem__(0), "line 1: missing: the file does not begin with its first line"),
        (lambda lines: lines.__setitem__(4, b"hello\n"), "line 5: edited: no line of an audit log"),
    ],
)
def test_the_first_line_that_is_not_intact_is_named(
    folder: Path, change: Callable[[list[bytes]], None], told: str
) -> None:
    write(folder, 20)
    path = folder / "audit.log"
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))
    with pytest.raises(Changed, match=told):
        check(folder)


def test_a_log_that_is_gone_whole_is_missed(folder: Path) -> None:
    write(folder, 5)
    (folder / "audit.log").unlink()
    with pytest.raises(Changed, match="cut: lines 1 to 6 are missing at the end"):
        check(folder)
    assert write(folder, 1).fault == "the log is missing (there were 6 lines)"
    with pytest.raises(Changed, match="the server found the log changed when it started: the log is missing"):
        check(folder)


def test_an_expected_line_proves_what_root_has_rewritten(folder: Path) -> None:
    write(folder, 20)
    known = check(folder)
    for path in folder.iterdir():
        path.unlink()
    write(folder, 30)
    check(folder)
    with pytest.raises(Changed, match=f"line {known.last} does not have the hash"):
        verify_log(folder / "audit.log", [(known.last, known.hash)])


def test_a_killed_server_leaves_what_is_intact(folder: Path) -> None:
    write(folder, 10, end=False)
    assert check(folder).last == 11
    assert write(folder, 1) == Found(torn=0, lost=0, fault="")
    assert check(folder).last == 12


@pytest.mark.parametrize("part", [1, 30, -1])
def test_a_torn_line_is_no_change(folder: Path, part: int) -> None:
    """As when the server is killed within write(2)."""
    write(folder, 10, end=False)
    path = folder / "audit.log"
    torn = path.read_bytes().splitlines(keepends=True)[-1][:part]
    with path.open("ab") as file:
        file.write(torn)
    found = check(folder)
    assert (found.last, found.unfinished) == (11, len(torn))
    assert write(folder, 1) == Found(torn=len(torn), lost=0, fault="")
    assert check(folder).last == 12


def test_a_line_that_is_cut_in_the_same_way_is_a_change(folder: Path) -> None:
    write(folder, 10, end=False)
    os.truncate(folder / "audit.log", (folder / "audit.log").stat().st_size - 1)
    with pytest.raises(Changed, match="cut: lines 11 to 11 are missing at the end"):
        check(folder)
    assert write(folder, 1).fault == "lines 11 to 11 are changed or missing"


def test_one_killed_between_line_and_head_has_written_it(folder: Path) -> None:
    write(folder, 10, end=False)
    before = (folder / head.HEAD_FILE).read_bytes()
    write(folder, 1, end=False)
    (folder / head.HEAD_FILE).write_bytes(before)
    assert check(folder).last == 12
    assert write(folder, 1) == Found(torn=0, lost=0, fault="")
    assert check(folder).last == 13


@pytest.mark.parametrize("left", [4, 7, 11])
@pytest.mark.parametrize("garbage", [b"", b"\0" * 300, b'{"n":9,"time":"'])
def test_what_a_power_failure_took_of_what_was_not_flushed_is_told(folder: Path, left: int, garbage: bytes) -> None:
    write(folder, 10, end=False)
    path = folder / "audit.log"
    lines = path.read_bytes().splitlines(keepends=True)
    fourth = parse(lines[3])
    assert fourth
    reboot(folder, flushed=4, flushed_hash=fourth.hash)
    path.write_bytes(b"".join(lines[:left]) + garbage)
    assert write(folder, 2) == Found(torn=len(garbage), lost=11 - left, fault="")
    assert check(folder).last == left + 2


def test_what_was_flushed_no_power_failure_takes(folder: Path) -> None:
    write(folder, 10, end=False)
    path = folder / "audit.log"
    lines = path.read_bytes().splitlines(keepends=True)
    fifth = parse(lines[4])
    assert fifth
    reboot(folder, flushed=5, flushed_hash=fifth.hash)
    path.write_bytes(b"".join(lines[:4]))
    with pytest.raises(Changed, match="cut: lines 5 to 5 are missing at the end"):
        check(folder)
    assert write(folder, 1).fault == "lines 5 to 5 are missing"
    with pytest.raises(Changed):
        check(folder)


def test_a_head_older_than_the_log_after_a_power_failure(folder: Path) -> None:
    """Also when another file was begun meanwhile."""
    write(folder, 2, size=SMALL, end=False)
    older = (folder / head.HEAD_FILE).read_bytes()
    write(folder, 20, size=SMALL, end=False)
    (folder / head.HEAD_FILE).write_bytes(older)
    reboot(folder)
    assert write(folder, 1, size=SMALL) == Found(torn=0, lost=0, fault="")
    check(folder)


@pytest.mark.parametrize("stage", ["made", "moved", "emptied"])
def test_a_new_file_is_begun_whole_or_not_at_all(folder: Path, stage: str) -> None:
    """Killed, or without power, between two steps of it."""
    write(folder, 1, size=1, end=False)
    path = folder / "audit.log"
    ((_, former),) = files.formers(path)
    last = parse(former.read_bytes().splitlines(keepends=True)[-1])
    assert last
    reboot(folder, n=last.number, hash=last.hash, flushed=last.number, flushed_hash=last.hash)
    if stage == "made":
        path.rename(files.fresh(path))
        former.rename(path)
    elif stage == "moved":
        path.rename(files.fresh(path))
    else:
        path.write_bytes(b"")
    assert write(folder, 1, size=SMALL) == Found(torn=0, lost=0, fault="")
    check(folder)


def test_lines_are_found_over_all_files_one_at_a_time(written: Path) -> None:
    names = files.every(written / "audit.log")

    def jobs(query: Query) -> list[object]:
        return [values.get("job") for _, values in find(names, query)]

    assert jobs(Query(client="client 1")) == [str(number) for _ in range(2) for number in range(1, 20, 3)]
    assert jobs(Query(job="7")) == ["7", "7"]
    assert jobs(Query(denied=True)) == ["0", "5", "10", "15"] * 2
    everything = list(find(names, Query()))
    times = [values["time"] for _, values in everything]
    assert jobs(Query(since=times[25])) == [values.get("job") for _, values in everything[25:]]
    assert isinstance(find(names, Query()), Iterator)


def test_a_log_is_intact_while_it_is_written(folder: Path) -> None:
    """And while files are begun and go."""

    async def live() -> None:
        trail = Trail(folder / "audit.log", folder, SMALL, 3)
        checked = 0
        looking = asyncio.create_task(asyncio.to_thread(check, folder))
        for number in itertools.count():
            trail.append(line(number))
            if looking.done():
                looking.result()
                checked += 1
                if checked >= 20 and number > 200:  # in which it had dozens of files
                    break
                looking = asyncio.create_task(asyncio.to_thread(check, folder))
            # A new file every few milliseconds: faster than any server, and slow enough for a thread of this process.
            await asyncio.sleep(0.001)
        await trail.close()

    asyncio.run(live())
    assert check(folder).files == 4
