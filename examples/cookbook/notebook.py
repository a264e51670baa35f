"""Cells of a notebook (or of an editor that knows `# %%`): the client without await, one cell an idea."""

# %% Connect once; every cell uses it.
from __future__ import annotations

import json
import statistics
from contextlib import ExitStack

from joblet.client import sync

cells = ExitStack()
client = cells.enter_context(sync.Client.from_env())

# %% Start several jobs; none of these lines waits.
DICE = "import json, random; random.seed({seed}); print(json.dumps([random.randint(1, 6) for _ in range(1000)]))"
jobs = [client.run("python3", "-c", DICE.format(seed=seed), name=f"dice {seed}", max_memory=64) for seed in range(4)]

# %% Wait for all, and look at what they say.
ended = client.wait(job.id for job in jobs)
print([job.status for job in ended])

# %% Bring the results here, as data.
throws = [json.loads(b"".join(job.logs())) for job in jobs]
print(f"mean {statistics.mean(value for row in throws for value in row):.3f}")

# %% What did they cost?
receipts = [receipt for job in jobs if (receipt := job.status().receipt) is not None]
peaks = [receipt.memory_peak_bytes or 0 for receipt in receipts]
print(f"{len(peaks)} receipts; 64 MB were enough: {max(peaks) <= 64 << 20}")

# %% And close.
cells.close()
