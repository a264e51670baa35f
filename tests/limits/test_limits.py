"""Every limit, measured in a real job, and what the receipt says of it; on whichever control groups the host has.

A busy machine can only give a job less than its limit, so the lower bounds of rates are asked of the best of some
tries, or of CPU time not at all when the machine had none left, and the upper ones of each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from harness import Server, Stock, poll_until

from joblet.executor.local import host
from joblet.order import parse_cores

Report = Any
TRIES = 6
SECONDS = "20" if "JOBLET_TEST_TIMEOUT" in os.environ else "5"
"""that a measurement of CPU time lasts: a slow machine's start of a job must weigh little in it"""
CORES = sorted(parse_cores(Path("/sys/devices/system/cpu/online").read_text().strip()))

BURN = """
import os, sys, time
seconds, processes = float(sys.argv[1]), int(sys.argv[2])
for _ in range(processes - 1):
    if os.fork() == 0:
        break
end = time.monotonic() + seconds
while time.monotonic() < end:
    pass
"""


def idle_seconds() -> float:
    """CPU time that nobody has wanted since the machine started, of all its cores."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("percent", [20, 50, 150])
def test_cpu_time_is_within_three_percent_of_the_limit(client: Stock, report: Report, percent: int) -> None:
    if percent > 100 * len(CORES):
        pytest.skip(f"this host has {len(CORES)} cores")
    shares, starved = [], True
    for _ in range(TRIES):
        idle = idle_seconds()
        # all have to end for their time to be counted: the command waits for nobody
        code = BURN + "while True:\n    try: os.wait()\n    except ChildProcessError: break\n"
        status, _ = client.finish("python3", "-c", code, SECONDS, str(-(-percent // 100)), maxCPU=percent)
        assert status.status == "COMPLETED"
        shares.append(100 * status.receipt.cpuUsec / status.receipt.wallUsec)
        assert shares[-1] <= percent * 1.03
        if shares[-1] >= percent * 0.97:
            assert status.receipt.throttledUsec > 0
            break
        lacked = (percent - shares[-1]) / 100 * status.receipt.wallUsec / 1e6
        # A tenth of the machine may be idle all the same, in moments and on cores that were of no use.
        unused = idle_seconds() - idle - status.receipt.wallUsec / 1e6 * len(CORES) / 10
        starved = starved and unused < lacked
    report("cpu", f"{percent} %", f"{shares[-1]:.2f} %")
    assert max(shares) >= percent * 0.97 or starved, f"{shares}: kept from time that nobody else wanted"


ALLOCATE = """
import mmap
size, step = 0, 1 << 18
while True:
    chunk = mmap.mmap(-1, step)
    for at in range(0, step, 4096):
        chunk[at] = 1
    size += step
    kept = globals().setdefault('kept', [])
    kept.append(chunk)
    print(size, flush=True)
"""


def test_memory_ends_at_the_limit_and_that_is_the_reason(client: Stock, report: Report) -> None:
    status, output = client.finish("python3", "-c", ALLOCATE, maxMemory=64)
    assert (status.status, status.exitCode, status.reason) == ("FAILED", 137, "out of memory")
    reached = int(output.split()[-1])
    report(
        "memory", "64 MB", f"killed at {reached / 2**20:.1f} MB, peak {status.receipt.memoryPeakBytes / 2**20:.1f} MB"
    )
    assert 48 << 20 <= reached <= 64 << 20
    assert status.receipt.memoryPeakBytes <= 64 << 20
    assert status.receipt.oomKills >= 1


def test_a_process_that_runs_out_of_memory_takes_the_whole_job_with_it(client: Stock, report: Report) -> None:
    status, _ = client.finish("sh", "-c", f'python3 -c "{ALLOCATE}" >/dev/null; sleep 1000', maxMemory=64)
    assert (status.status, status.exitCode, status.reason) == ("FAILED", 137, "out of memory")
    report("memory, of a child", "64 MB", f"job ended, {status.receipt.oomKills} killed for want of memory")


TRANSFER = """
import mmap, os, sys, time
way, total = sys.argv[1], int(sys.argv[2])
page = mmap.mmap(-1, 1 << 18)
try:
    fd = os.open('f', os.O_RDWR | os.O_CREAT | os.O_DIRECT)
except OSError as error:
    print('none', error.strerror); raise SystemExit
if way == 'read':
    # unlimited only when nothing was written before: holes are no disk I/O, so the file is made of data
    pass
start, done = time.monotonic(), 0
while done < total:
    if way == 'read':
        done += os.preadv(fd, [page], done % (1 << 20))
    else:
        done += os.pwritev(fd, [page], done % (1 << 20))
print(done / (time.monotonic() - start))
"""


@pytest.mark.parametrize("disk", [0, 64], ids=["", "with a disk limit"])
@pytest.mark.parametrize("way", ["write", "read"])
def test_disk_io_is_within_fifteen_percent_of_the_limit(
    client: Stock, server: Server, report: Report, way: str, disk: int
) -> None:
    """Direct I/O, which v1 limits as v2 does; what goes through the page cache v2 limits only (below)."""
    limit, seconds = 10_000_000, 3
    rates = []
    for _ in range(TRIES):
        code = TRANSFER if way == "write" else f"page = b'x' * (1 << 20)\nopen('f', 'wb').write(page)\n{TRANSFER}"
        arguments = ("python3", "-c", code, way, str(limit * seconds))
        status, output = client.finish(*arguments, maxIOBPS=limit, maxDisk=disk)
        if output.startswith(b"none") or "no disk behind" in status.reason:
            pytest.skip(f"no direct I/O to a disk below the state directory: {output.decode()}{status.reason}")
        assert status.status == "COMPLETED", output
        rates.append(float(output))
        counted = status.receipt.ioReadBytes if way == "read" else status.receipt.ioWriteBytes
        assert counted >= limit * seconds
        assert rates[-1] <= limit * 1.15
        if rates[-1] >= limit * 0.85:
            break
    name = f"{way} io" + (", with a disk limit" if disk else "")
    report(name, f"{limit / 1e6:.0f} MB/s", f"{rates[-1] / 1e6:.2f} MB/s")
    assert max(rates) >= limit * 0.85


@pytest.mark.skipif(host.find_cgroups("kind").name == "v1", reason="v1 throttles direct I/O only")
def test_writing_through_the_page_cache_is_limited_too(client: Stock, report: Report) -> None:
    limit, seconds = 10_000_000, 3
    code = (
        "import os, time\n"
        "start = time.monotonic()\n"
        "with open('f', 'wb') as file:\n"
        f"  for _ in range({seconds} * 10): file.write(bytes({limit // 10}))\n"
        "  file.flush(); os.fsync(file.fileno())\n"
        f"print({limit * seconds} / (time.monotonic() - start))"
    )
    status, output = client.finish("python3", "-c", code, maxIOBPS=limit)
    assert status.status == "COMPLETED"
    report("write io through the page cache", f"{limit / 1e6:.0f} MB/s", f"{float(output) / 1e6:.2f} MB/s")
    assert float(output) <= limit * 1.15


def test_processes_end_at_the_limit(client: Stock, report: Report) -> None:
    code = (
        "import errno, os, time\n"
        "made = 0\n"
        "try:\n"
        "  while True:\n"
        "    if os.fork() == 0: time.sleep(1000)\n"
        "    made += 1\n"
        "except OSError as error: print(errno.errorcode[error.errno], made)"
    )
    status, output = client.finish("python3", "-c", code, maxProcesses=20)
    # the init and the command are two of the twenty
    assert output == b"EAGAIN 18\n"
    peak = status.receipt.processesPeak if status.receipt.HasField("processesPeak") else "not counted by this kernel"
    report("processes", "20", f"{int(output.split()[1]) + 2}, peak {peak}")
    assert peak in (20, "not counted by this kernel")


def test_open_files_end_at_the_limit(client: Stock, report: Report) -> None:
    code = (
        "import errno, os, resource\n"
        "try:\n"
        "  while True: last = os.open('/dev/null', os.O_RDONLY)\n"
        "except OSError as error: print(errno.errorcode[error.errno], last + 1)\n"
        "try: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
        "except ValueError: print('not raised')"
    )
    _, output = client.finish("python3", "-c", code, maxOpenFiles=100)
    assert output == b"EMFILE 100\nnot raised\n"
    report("open files", "100", output.split()[1].decode())


@pytest.mark.skipif(len(CORES) < 2, reason="this host has one core")
def test_a_job_runs_on_its_cores_and_gets_to_no_other(client: Stock, report: Report) -> None:
    mine, other = CORES[-1], CORES[0]
    code = (
        "import errno, os, sys\n"
        "print(sorted(os.sched_getaffinity(0)))\n"
        "try: os.sched_setaffinity(0, {int(sys.argv[1])}); print(sorted(os.sched_getaffinity(0)))\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
        "seen = set()\n"
        "for _ in range(1000):\n"
        "  seen.add(int(open('/proc/self/stat').read().rpartition(')')[2].split()[36]))\n"
        "  os.sched_yield()\n"
        "print(sorted(seen))"
    )
    status, output = client.finish("python3", "-c", code, str(other), cpuCores=str(mine))
    assert status.cpuCores == str(mine)
    assert output.decode().splitlines() == [f"[{mine}]", "EINVAL", f"[{mine}]"]
    report("cores", str(mine), output.split(b"\n")[2].decode())


def test_the_work_directory_ends_at_its_limit_in_bytes_and_in_files(
    client: Stock, server: Server, report: Report
) -> None:
    code = (
        "import errno, os\n"
        "written = made = 0\n"
        "try:\n"
        "  with open('f', 'wb', buffering=0) as file:\n"
        "    while True: written += file.write(bytes(1 << 16))\n"
        "except OSError as error: print(errno.errorcode[error.errno], written)\n"
        "os.truncate('f', 0)\n"
        "try:\n"
        "  while made < 10_000_000: os.close(os.open(str(made), os.O_CREAT)); made += 1\n"
        "except OSError as error: print(errno.errorcode[error.errno], made)"
    )
    job = client.run("python3", "-c", code, maxDisk=64)
    first, second = client.output(job.id).decode().splitlines()
    (error, written), (other_error, made) = first.split(), second.split()
    assert (error, other_error) == ("ENOSPC", "ENOSPC")
    report("disk", "64 MB", f"{int(written) / 2**20:.1f} MB, or {made} files")
    assert 56 << 20 <= int(written) <= 64 << 20
    assert int(made) <= 20_000
    blocks = (server.state / "jobs" / job.id / "disk").stat().st_blocks * 512
    assert blocks <= 64 << 20


def test_shared_memory_and_tmp_count_as_the_jobs_memory(client: Stock, report: Report) -> None:
    code = "open('/dev/shm/f', 'wb').write(bytes(200 << 20))"
    status, _ = client.finish("python3", "-c", code, maxMemory=64)
    assert (status.status, status.reason) == ("FAILED", "out of memory")
    report("/dev/shm within memory", "64 MB", "out of memory")


def test_a_limit_over_its_ceiling_is_refused_by_name_value_and_bound(make_server: Any, stock: Any) -> None:
    import grpc

    server = make_server(
        ceilings={"maxMemory": 256, "maxProcesses": 64, "roles": {"admin": {"maxMemory": 128, "maxDisk": 32}}}
    ).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        for limit, value, text in (
            ("maxMemory", 129, "job creation failed: maxMemory exceeds system limits (129, allowed 0 to 128)"),
            ("maxProcesses", 65, "job creation failed: maxProcesses exceeds system limits (65, allowed 0 to 64)"),
            ("maxDisk", 33, "job creation failed: maxDisk exceeds system limits (33, allowed 0 to 32)"),
            ("maxOpenFiles", -1, "job creation failed: maxOpenFiles exceeds system limits (-1, allowed 0 to "),
            ("cpuCores", "9999", 'job creation failed: cpuCores exceeds system limits ("9999", allowed '),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                client.run("true", **{limit: value})
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert refused.value.details().startswith(text)
        assert list(client.list()) == []
        # what is not asked for is never above a ceiling either
        status, _ = client.finish("true")
        assert (status.maxMemory, status.maxProcesses, status.maxDisk) == (128, 64, 32)


def _used_by_all(server: Server) -> int:
    """Microseconds of CPU time of all jobs of a server, the ended ones included, by the group above theirs."""
    instance = (server.state / "instance").read_text().strip()
    if host.find_cgroups(instance).name == "v2":
        for base in Path("/sys/fs/cgroup").glob(f"**/joblet.slice/{instance}/cpu.stat"):
            return int(base.read_text().split()[1])
    (usage,) = Path("/sys/fs/cgroup").glob(f"*/joblet.slice/{instance}/cpuacct.usage")
    return int(usage.read_text()) // 1000


def test_every_one_of_a_thousand_short_jobs_has_a_receipt(make_server: Any, stock: Any, report: Report) -> None:
    count = 1000
    server = make_server(joblet={"maxConcurrentJobs": 8, "maxQueuedJobs": 1000}).start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        client.finish("true")
        before = _used_by_all(server)
        ids = [client.run("sleep", "0.005").id for _ in range(count)]
        poll_until(lambda: client.status(ids[-1]).status == "COMPLETED")
        poll_until(lambda: all(job.status == "COMPLETED" for job in client.list()))
        receipts = [client.status(job_id).receipt for job_id in ids]
        total = _used_by_all(server) - before
    counted = {field.name for field in receipts[0].DESCRIPTOR.fields}
    if not (server_counts_processes := receipts[0].HasField("processesPeak")):
        counted.remove("processesPeak")
    for receipt in receipts:
        assert {field.name for field, _ in receipt.ListFields()} == counted
        assert receipt.wallUsec >= 5000
        assert receipt.cpuUsec > 0
        assert 0 < receipt.memoryPeakBytes < 64 << 20
        assert receipt.oomKills == 0
        assert not server_counts_processes or receipt.processesPeak in (2, 3)  # vfork's child is a third
    charged = sum(receipt.cpuUsec for receipt in receipts)
    report("receipts of 5 ms jobs", f"{count} jobs", f"{len(receipts)} receipts, {charged} of {total} us of CPU time")
    assert abs(charged - total) <= max(total, charged) / 100
