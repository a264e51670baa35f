"""A chain of short jobs: as one workflow, and one after another through RunJob by a client that waits for each end.

    python benchmarks/workflow_chain.py [--rounds N] [--steps N]

Needs root. A server of its own, stock grpcio on one channel. Every round does each variant once, in turn, so that
whatever else the machine does falls on all of them; a ratio is the median of the rounds' own ratios.

The client waits for the end of a job by following its log, which ends with the job, and in another variant by one
stream of all events. A step's own time is from exec to end, by its receipt; what a variant takes beyond that is its
overhead: launching, storing, and for RunJob the calls.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from harness import Server, compile_stock_client, make_certificates  # noqa: E402

COMMAND = "true"
FINAL = {"COMPLETED", "FAILED", "STOPPED"}


class Variants:
    """What a round does. Each returns seconds, and the ids of the jobs that it has run."""

    def __init__(self, channel: Any, stock: tuple[Any, Any], steps: int) -> None:
        self.pb, stubs = stock
        self.jobs = stubs.JobletServiceStub(channel)
        self.workflows = stubs.JobServiceStub(channel)
        self.steps = steps
        needs = ["", *(f", requires: [s{number}]" for number in range(steps - 1))]
        jobs = (f"  s{number}: {{command: {COMMAND}{need}}}" for number, need in enumerate(needs))
        self.text = "\n".join(["jobs:", *jobs])

    def workflow(self) -> tuple[float, list[str]]:
        """From the call to the end of the stream of its events."""
        start = time.perf_counter()
        request = self.pb.RunWorkflowRequest(workflow="chain.yaml", yamlContent=self.text)
        number = self.workflows.RunWorkflow(request).workflowId
        *_, last = self.workflows.WatchEvents(self.pb.WatchEventsRequest(workflowId=number))
        took = time.perf_counter() - start
        assert last.status == "COMPLETED", last
        status = self.workflows.GetWorkflowJobs(self.pb.GetWorkflowStatusRequest(workflowId=number))
        return took, [job.jobId for job in status.jobs]

    def by_logs(self) -> tuple[float, list[str]]:
        """RunJob, then its log to the end."""
        ids = []
        start = time.perf_counter()
        for _ in range(self.steps):
            ids.append(self.jobs.RunJob(self.pb.RunJobReq(command=COMMAND)).id)
            for _chunk in self.jobs.GetJobLogs(self.pb.GetJobLogsReq(id=ids[-1])):
                pass
        return time.perf_counter() - start, ids

    def by_events(self) -> tuple[float, list[str]]:
        """RunJob, then its final event in a stream that is open all the time."""
        ids = []
        newest = 0
        for event in self.workflows.WatchEvents(self.pb.WatchEventsRequest(noFollow=True)):
            newest = event.sequence
        events = self.workflows.WatchEvents(self.pb.WatchEventsRequest(after=newest))
        start = time.perf_counter()
        for _ in range(self.steps):
            ids.append(self.jobs.RunJob(self.pb.RunJobReq(command=COMMAND)).id)
            self.wait(events, ids[-1])
        took = time.perf_counter() - start
        events.cancel()
        return took, ids

    def wait(self, events: Any, number: str) -> None:
        """Take events up to the last one of a job."""
        for event in events:
            if event.jobId == number and event.status in FINAL:
                return

    def own_time(self, ids: list[str]) -> float:
        """Seconds from exec to end of these jobs together."""
        found = [self.jobs.GetJobStatus(self.pb.GetJobStatusReq(id=number)) for number in ids]
        assert len(found) == self.steps
        assert {job.status for job in found} == {"COMPLETED"}
        total: int = sum(job.receipt.wallUsec for job in found)
        return total / 1e6


def measure(variants: Variants, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(ms a step, ms of these that are its own) of every round."""
    kinds: dict[str, Callable[[], tuple[float, list[str]]]] = {
        "workflow": variants.workflow,
        "RunJob, log to its end": variants.by_logs,
        "RunJob, stream of events": variants.by_events,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for turn in range(rounds + 1):
        for name, run in kinds.items():
            took, ids = run()
            if turn:  # the first warms up
                own = variants.own_time(ids)
                found[name].append((took / variants.steps * 1000, own / variants.steps * 1000))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="joblet-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        (folder / "certs").mkdir()
        stock = compile_stock_client(folder / "stock", ROOT / "protos/joblet.proto")
        server = Server(folder, make_certificates(folder / "certs"))
        try:
            server.start()
            with server.channel() as channel:
                found = measure(Variants(channel, stock, options.steps), options.rounds)
        finally:
            server.close()
    print(f"chain of {options.steps} jobs of `{COMMAND}`, {options.rounds} rounds, ms a step\n")
    print(f"{'variant':<28}{'min':>7}{'median':>8}{'max':>7}{'own':>7}{'overhead':>10}   to workflow")
    base = [took for took, _ in found["workflow"]]
    for name, times in found.items():
        took = [total for total, _ in times]
        own = statistics.median(own for _, own in times)
        overhead = statistics.median(total - own for total, own in times)
        ratio = statistics.median(one / other for one, other in zip(took, base, strict=True))
        print(
            f"{name:<28}{min(took):7.2f}{statistics.median(took):8.2f}{max(took):7.2f}{own:7.2f}{overhead:10.2f}"
            f"{ratio:13.2f}x"
        )


if __name__ == "__main__":
    main()
