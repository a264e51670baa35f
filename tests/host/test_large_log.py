"""A large log goes through at flat memory on both sides, and of parts of it little goes over the wire.

`benchmarks/large_log.py` shows the same of 10 GB.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from harness import Server, Stock, memory_kb
from wire import read_log

SIZE = 96 << 20
LINE = "a line of output such as there are many, of eighty bytes with its newline......"
WRITE = (
    f"n={SIZE // 2}; yes '{LINE}' | head -c $n; echo; echo needle in the hay; yes '{LINE}' | head -c $n; echo; echo end"
)
FLAT_KB = 48 << 10
"""what may come on top of what there is without a log: windows and buffers of both sides"""


def test_a_large_log_at_flat_memory(make_server: Callable[..., Server], stock) -> None:
    server = make_server().start()
    with server.channel() as channel:
        client = Stock(channel, *stock)
        small = client.finish("echo", "x")[0].id
        job_id = client.run("bash", "-c", WRITE).id
        assert re.fullmatch(r"Job \d+ COMPLETED: exit code 0\n", server.rnx("wait", job_id).stdout)
    begin = read_log(server, small)

    whole = read_log(server, job_id)
    assert whole.written > SIZE
    assert whole.client_kb < begin.client_kb + FLAT_KB
    assert whole.server_kb < begin.server_kb + FLAT_KB

    tail = read_log(server, "--tail=10", "--follow=false", job_id)
    assert tail.last.endswith(b"\nend\n")
    assert tail.last.count(b"\n") == 11  # with the header
    found = read_log(server, "--grep=needle", "--follow=false", job_id)
    assert found.last.endswith(b":\nneedle in the hay\n")
    for part in (tail, found):
        assert part.received < 64 << 10
        assert part.server_kb < begin.server_kb + FLAT_KB
    assert memory_kb(server.pid) < begin.server_kb + FLAT_KB
