"""What keeps jobs apart: namespaces, their /proc, the system call filter, Landlock, user ids."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterable
from pathlib import Path

from joblet.doctor import kernel
from joblet.doctor.child import Outcome, attempt
from joblet.doctor.context import Context, existing, read
from joblet.doctor.report import Checks, Row, Verdict, unknown
from joblet.executor.local import ranges

_NAMESPACES = {
    "user": kernel.CLONE_NEWUSER,
    "pid": kernel.CLONE_NEWPID,
    "mnt": kernel.CLONE_NEWNS,
    "uts": kernel.CLONE_NEWUTS,
    "ipc": kernel.CLONE_NEWIPC,
    "cgroup": kernel.CLONE_NEWCGROUP,
}
_SCOPES_ABI = 6
_USED_ABI = 2
"""the first forbids every rename between directories, so the shim does without it"""


def checks(context: Context) -> Checks:
    """The section's checks by name."""
    return {
        "namespaces": lambda: _namespaces(context),
        "namespace limits": lambda: _namespace_limits(context),
        "/proc": lambda: _proc(context),
        "seccomp": lambda: judge_seccomp(attempt(_filter_a_call)),
        "landlock": lambda: judge_landlock(attempt(lambda: str(kernel.landlock_abi()))),
        "id-mapped mounts": lambda: _id_mapped_mounts(context),
        "id pool": lambda: _id_pool(context),
    }


def _namespaces(context: Context) -> list[Row]:
    names = {**_NAMESPACES, "net": kernel.CLONE_NEWNET}
    made = {name: attempt(functools.partial(_unshare, context, flag)) for name, flag in names.items()}
    return judge_namespaces(context.root, made)


def _unshare(context: Context, flag: int) -> None:
    if not context.root:
        kernel.unshare(flag | kernel.CLONE_NEWUSER)
        return
    # In a chroot there is no user namespace to be had, and the shim leaves it as this does: user_namespaces(7).
    if flag == kernel.CLONE_NEWUSER:
        kernel.join_own_mount_namespace()
    kernel.unshare(flag)


def judge_namespaces(root: bool, made: dict[str, Outcome]) -> list[Row]:
    """One row for those that can be made, one for each that cannot."""
    use = "one of each for every job; net is the host's"
    fine = [name for name, outcome in made.items() if outcome.ok]
    rows = [Row("namespaces", f"{', '.join(fine)}: made" + ("" if root else " by a user too"), use)] if fine else []
    if not root and not made["user"].ok:
        return [unknown("namespaces", use)]
    for name, outcome in made.items():
        if outcome.ok:
            continue
        if name == "net":
            advice = "Use a kernel with network namespaces when jobs shall have networks of their own."
            rows.append(Row("net namespace", outcome.why, "not used yet", Verdict.NOTE, advice))
        else:
            advice = f"Use a kernel that has them, and let root make them: jobs need a {name} namespace."
            rows.append(Row(f"{name} namespace", outcome.why, "one for every job", Verdict.FAILS, advice))
    return rows


def _namespace_limits(context: Context) -> Row:
    limits = {name: read(f"/proc/sys/user/max_{name}_namespaces") for name in _NAMESPACES}
    numbers = {name: int(text) for name, text in limits.items() if text.isdigit()}
    return judge_namespace_limits(numbers, context.config.joblet.maxConcurrentJobs)


def judge_namespace_limits(limits: dict[str, int], jobs: int) -> Row:
    """The lowest of user.max_*_namespaces decides: namespaces(7)."""
    use = f"{jobs} jobs at a time"
    if not limits:
        return Row("namespace limits", "not readable", use, Verdict.NOTE, "Mount /proc whole.")
    name = min(limits, key=lambda key: limits[key])
    host = f"at most {limits[name]} {name} namespaces"
    if limits[name] < jobs:
        verdict = Verdict.GAP if limits[name] else Verdict.FAILS
        return Row("namespace limits", host, use, verdict, f"Raise user.max_{name}_namespaces by sysctl.")
    return Row("namespace limits", host, use)


def _proc(context: Context) -> Row:
    if not context.root:
        return judge_proc(None, context.release)
    outcome = attempt(lambda: kernel.make_proc({"subset": "pid", "hidepid": "invisible"}))
    return judge_proc(outcome, context.release)


def judge_proc(made: Outcome | None, release: tuple[int, int]) -> Row:
    use = "jobs see their own processes there and nothing of the host"
    if made is None:
        verdict = Verdict.OK if release >= (5, 8) else Verdict.FAILS
        advice = "" if verdict is Verdict.OK else "Use Linux 5.8 or newer."
        return Row("/proc", f"Linux {release[0]}.{release[1]}; 5.8 has subset=pid", use, verdict, advice)
    if made.ok:
        return Row("/proc", "subset=pid, hidepid=invisible", use)
    advice = "Use Linux 5.8 or newer, and let root mount a /proc of its own."
    return Row("/proc", f"subset=pid: {made.why}", use, Verdict.FAILS, advice)


def _filter_a_call() -> str:
    """Have a harmless call refused in a way that the kernel never does by itself."""
    unlikely = 77
    kernel.refuse_by_filter(kernel.CLOSE_RANGE, unlikely)
    try:
        kernel.syscall(kernel.CLOSE_RANGE, 1, 0, 0)
    except OSError as error:
        if error.errno == unlikely:
            return "filtered"
    return ""


def judge_seccomp(filtered: Outcome) -> Row:
    use = "closes dangerous system calls to jobs"
    if filtered.ok and filtered.value:
        return Row("seccomp", "filters work", use)
    host = "a filter was installed and did not filter" if filtered.ok else f"no filter: {filtered.why}"
    advice = "Use a kernel with CONFIG_SECCOMP_FILTER: jobs do not run without."
    return Row("seccomp", host, use, Verdict.FAILS, advice)


def judge_landlock(answer: Outcome) -> Row:
    without = "does without: mounts alone say what a job may write, and it reaches the host's abstract unix sockets"
    if not answer.ok:
        if answer.errno == errno.EOPNOTSUPP:
            advice = "Add landlock to the boot parameter lsm=."
            return Row("landlock", "switched off at boot", without, Verdict.GAP, advice)
        host = "not in this kernel" if answer.errno == errno.ENOSYS else answer.why
        return Row("landlock", host, without, Verdict.GAP, "Use Linux 6.12 or newer with Landlock.")
    abi = int(answer.value)
    if abi < _USED_ABI:
        return Row("landlock", f"ABI {abi}", without, Verdict.GAP, "Use Linux 6.12 or newer.")
    if abi < _SCOPES_ABI:
        use = "writing bounded twice; jobs reach the host's abstract unix sockets (ABI 6 closes them)"
        return Row("landlock", f"ABI {abi}", use, Verdict.GAP, "Use Linux 6.12 or newer.")
    return Row("landlock", f"ABI {abi}", "writing bounded twice; abstract unix sockets and signals kept in the job")


def _id_mapped_mounts(context: Context) -> list[Row]:
    state = existing(context.state_dir)
    uses = {
        Path(path): "host paths that isolation.writable shows to jobs" for path in context.config.isolation.writable
    }
    uses[state] = "the directory that the jobs of a workflow share"
    if not context.root:
        return [unknown("id-mapped mounts", use) for use in uses.values()]
    base = context.config.isolation.idBase
    return [
        judge_id_mapped_mounts(path, attempt(functools.partial(_map_ids, str(path), base)), use, state=path == state)
        for path, use in uses.items()
    ]


def _map_ids(directory: str, base: int) -> None:
    """In a child: the user namespace is a grandchild's, which waits until it has been used."""
    kernel.join_own_mount_namespace()
    ready, made = os.pipe()
    held, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(done)
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(made, b"x")
            os.read(held, 1)
        finally:
            os._exit(0)
    os.close(made)
    try:
        if not os.read(ready, 1):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(f"0 {base} {ranges.COUNT}", encoding="ascii")
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        kernel.map_ids_of_mount(directory, namespace)
    finally:
        os.close(done)
        os.waitpid(pid, 0)


def judge_id_mapped_mounts(path: Path, made: Outcome, use: str, *, state: bool) -> Row:
    """`state`: the path is where the state directory is or will be."""
    if made.ok:
        return Row("id-mapped mounts", f"made at {path}", use)
    host = f"{path}: {made.why}"
    if state:
        advice = "Keep the state directory on a file system such as ext4, xfs or btrfs."
        return Row("id-mapped mounts", host, "no job of a workflow starts", Verdict.GAP, advice)
    advice = f"Take {path} out of isolation.writable, or move it to a file system such as ext4, xfs or btrfs."
    return Row("id-mapped mounts", host, "no job starts", Verdict.FAILS, advice)


def _id_pool(context: Context) -> Row:
    section = context.config.isolation
    texts = {name: read(f"/etc/{name}") for name in ("passwd", "group", "subuid", "subgid")}
    return judge_id_pool(section.idBase, section.idRanges * ranges.COUNT, taken_ids(texts), read("/proc/self/uid_map"))


def taken_ids(texts: dict[str, str]) -> list[tuple[str, int, int]]:
    """(who, first id, number of ids) of the files of /etc: passwd(5), group(5), subuid(5), subgid(5)."""
    taken = []
    for name, text in texts.items():
        for line in text.splitlines():
            fields = line.split(":")
            numbers = fields[1:3] if name.startswith("sub") else [*fields[2:3], "1"]
            if len(numbers) == 2 and all(number.isdigit() for number in numbers):
                taken.append((f"{fields[0]} in /etc/{name}", int(numbers[0]), int(numbers[1])))
    return taken


def judge_id_pool(first: int, count: int, taken: Iterable[tuple[str, int, int]], uid_map: str) -> Row:
    host = f"{first} to {first + count - 1}"
    use = "user and group ids of jobs, which nobody else may have"
    others = [who for who, start, number in taken if start < first + count and first < start + number]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        advice = "Set isolation.idBase and idRanges to ids that are free."
        return Row("id pool", f"{host}: also {others[0]}{more}", use, Verdict.FAILS, advice)
    mapped = [tuple(map(int, line.split())) for line in uid_map.splitlines() if len(line.split()) == 3]
    if mapped and not any(start <= first and first + count <= start + number for start, _, number in mapped):
        advice = "Run the server outside of the user namespace, or set isolation.idBase to ids that it has."
        return Row("id pool", f"{host}: not in this user namespace", use, Verdict.FAILS, advice)
    return Row("id pool", f"{host}: free", use)
