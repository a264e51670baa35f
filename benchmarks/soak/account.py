"""What a soak has shown, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from benchmarks import machine
from benchmarks.soak.judge import SERIES, Judgement, Series, judge
from benchmarks.soak.samples import Sample


@dataclass(frozen=True)
class Idle:
    """What a server holds that has nothing to do."""

    resident: int
    """bytes"""
    proportional: int
    """bytes"""
    descriptors: int


@dataclass(frozen=True)
class Account:
    """What a soak has shown."""

    minutes: float
    """of load, as asked for"""
    seconds: float
    """that it took"""
    jobs: int
    """short ones that have ended"""
    samples: list[Sample]
    wrong: list[str]
    """what was not as it should be"""
    before: Idle
    after: Idle
    """the same server, when all has ended"""
    restarted: Idle
    """another server with the same history"""

    def judgements(self) -> list[Judgement]:
        """Each series, judged."""
        return [self._judge(series) for series in SERIES]

    def _judge(self, series: Series) -> Judgement:
        values = [(sample.jobs, getattr(sample, series.name)) for sample in self.samples]
        known = [(jobs, value) for jobs, value in values if value is not None]
        return judge(series, [jobs for jobs, _ in known], [value for _, value in known])

    def text(self) -> str:
        """For people."""
        rows = [f"{self.jobs} jobs in {self.seconds:.0f} s, {len(self.samples)} samples; medians of the halves\n"]
        rows.append(f"{'':<14}{'first':>12}{'second':>12}{'per 1000 jobs':>16}")
        rows += (
            f"{found.name:<14}{_number(found.first, found.unit):>12}{_number(found.second, found.unit):>12}"
            f"{_number(found.per_job * 1000, found.unit):>16}  {found.verdict}"
            for found in self.judgements()
        )
        for name, held in (("before", self.before), ("after", self.after), ("restarted", self.restarted)):
            resident, proportional = _number(held.resident, "bytes"), _number(held.proportional, "bytes")
            rows.append(
                f"idle, {name}: {resident} resident, {proportional} proportional, {held.descriptors} descriptors"
            )
        history = _number(self.restarted.resident - self.before.resident, "bytes")
        own = _number(self.after.resident - self.restarted.resident, "bytes")
        rows.append(f"of the resident growth {history} is the history's (another server has it too), {own} is not")
        rows += (f"WRONG: {text}" for text in self.wrong)
        if not self.wrong:
            rows.append("nothing was wrong")
        return "\n".join(rows)

    def json(self) -> str:
        """All of it."""
        content = {"machine": machine.describe(), **dataclasses.asdict(self)}
        content["judgements"] = [dataclasses.asdict(found) for found in self.judgements()]
        return json.dumps(content, indent=1) + "\n"


def _number(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:.2f} MB"
    if unit == "s":
        return f"{value * 1000:.2f} ms"
    return f"{value:.3g}"
