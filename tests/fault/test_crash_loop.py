"""The crash loop in its short form; `nox -s crash` is the long one."""

from __future__ import annotations

import crash_loop
import pytest

SEED = 2024
CYCLES = 20


@pytest.mark.timeout(600)
def test_nothing_is_lost_when_the_server_is_killed_again_and_again(stock) -> None:
    counts = crash_loop.run(stock, SEED, CYCLES).counts
    for deed in (
        *("acknowledged", "killed under load", "killed while starting", "resumptions by offset", "stops"),
        *("workflows: acknowledged", "workflows: tried again", "workflows: stops", "resumptions by sequence"),
        "ended with workflows under way",
    ):
        assert counts[deed] > 0, f"the loop did not come to it: {deed}"
