"""Count the words of a file of any size with many jobs: pieces go out, counts come back, and never many at a time.

python3 big_file.py FILE
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from joblet.client import Client

PIECE = 256 * 1024
"""bytes; small enough that all hands are busy to the end, and that an order with one fits into a message"""
AT_ONCE = 4
"""jobs, and pieces in memory"""
COUNT = """
import collections, json, pathlib
print(json.dumps(collections.Counter(pathlib.Path("piece").read_text().split())))
"""


def pieces(path: Path) -> Iterator[bytes]:
    """The file in pieces that end with a line; a line longer than a piece is cut."""
    rest = b""
    with path.open("rb") as file:
        while chunk := file.read(PIECE - len(rest)):
            chunk = rest + chunk
            end = chunk.rfind(b"\n") + 1 or len(chunk)
            yield chunk[:end]
            rest = chunk[end:]
    if rest:
        yield rest


async def count(client: Client, piece: bytes) -> Counter[str]:
    """The words of one piece, by a job."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "piece")
        await asyncio.to_thread(path.write_bytes, piece)
        job = await client.run("python3", "-c", COUNT, uploads=[path], max_memory=128, retry=True)
    output = b"".join([chunk async for chunk in job.logs(reconnect=True)])
    if (await job.wait()).status != "COMPLETED":
        raise SystemExit(f"job {job.id} failed: {output.decode(errors='replace')}")
    return Counter(json.loads(output))


async def count_all(path: Path) -> Counter[str]:
    """The words of the file. Work is taken as there are hands for it, so that memory stays flat."""
    total: Counter[str] = Counter()
    waiting = pieces(path)

    async def work(client: Client) -> None:
        for piece in waiting:  # each takes the next that nobody has
            total.update(await count(client, piece))

    async with Client.from_env() as client, asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work(client))
    return total


if __name__ == "__main__":
    words = asyncio.run(count_all(Path(sys.argv[1])))
    print(f"{words.total()} words, {len(words)} different")
    for word, times in words.most_common(3):
        print(f"{times} {word}")
