"""The workflows of the crash loops: small random graphs of steps, each of which leaves a trace of every attempt."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

STEP_PROGRAM = r"""
my ($traces, $token, $pause, $linger, $codes, $required, @told) = @ARGV;
my ($workflow, $step, $attempt) = @ENV{"JOBLET_WORKFLOW_ID", "JOBLET_JOB_NAME", "JOBLET_ATTEMPT"};
sub content { my $text = ""; if (open(my $file, "<", $_[0])) { local $/; $text = <$file>; } return $text; }
sub put { open(my $file, ">", $_[0]) or die "$_[0]: $!"; print $file $_[1]; close($file) or die "$_[0]: $!"; }
my @got = map { "told:$_" } @told;
for my $name (split /,/, $required) {
    my $variable = $ENV{"JOBLET_OUTPUT_" . uc($name) . "__VALUE"};
    push @got, "variable:$name=" . (defined $variable ? $variable : "");
    push @got, "file:$name=" . content("$ENV{JOBLET_SHARED}/$name");
}
push @got, "upload=" . content("data"), "secret=$ENV{SECRET}";
# O_WRONLY | O_CREAT | O_APPEND | O_SYNC: that it ran is on the disk before it does anything else
sysopen(my $file, $traces, 0x101441, 0644) or die "$traces: $!";
syswrite($file, "begin $workflow $step $attempt $ENV{JOBLET_JOB_ID} @got\n");
my $value = "$token.$step.$attempt";
put("$ENV{JOBLET_SHARED}/$step", $value);
put($ENV{JOBLET_OUTPUT}, "value=$value\n");
print "$value\n";
select(undef, undef, undef, $pause) if $pause > 0;
sleep $linger if $linger;
my @codes = split /,/, $codes;
my $code = $codes[$attempt > @codes ? -1 : $attempt - 1];
syswrite($file, "end $workflow $step $attempt $ENV{JOBLET_JOB_ID}\n");
exit $code;
"""
"""what steps run: says in a file that it runs and what it was given, passes values on, and ends as it is told to"""

FOREVER = 100_000
_NAMES = "abcdefghijkl"
SECRET = "s3cret"
"""what the values of secrets begin with"""

Condition = tuple[Any, ...]
"""("is", step, wanted), ("not", condition), ("and", conditions...) or ("or", conditions...)"""


def meets(end: str, *, tolerated: bool) -> frozenset[str]:
    """What may be wanted of a step that has ended so."""
    as_completed = {"COMPLETED"} if tolerated and end in ("FAILED", "STOPPED") else set()
    return frozenset({end, "FINISHED"} | as_completed)


def holds(condition: Condition, ended: Mapping[str, frozenset[str]]) -> bool | None:
    """Whether a condition holds, given what those that have ended meet; None while that is open."""
    kind, *rest = condition
    if kind == "is":
        return rest[1] in ended[rest[0]] if rest[0] in ended else None
    values = [holds(part, ended) for part in rest]
    if kind == "not":
        return None if values[0] is None else not values[0]
    decisive = kind == "or"
    if decisive in values:
        return decisive
    return None if None in values else not decisive


def text_of(condition: Condition) -> str:
    """A condition as it stands in a workflow's file."""
    kind, *rest = condition
    if kind == "is":
        return f"{rest[0]}={rest[1]}"
    if kind == "not":
        return f"!({text_of(rest[0])})"
    return "(" + (" && " if kind == "and" else " || ").join(map(text_of, rest)) + ")"


def names_in(condition: Condition) -> set[str]:
    """The steps that a condition speaks of."""
    kind, *rest = condition
    return {rest[0]} if kind == "is" else set().union(*map(names_in, rest))


@dataclass(frozen=True)
class Step:
    """One step, and how its attempts end."""

    name: str
    requires: tuple[Condition, ...] = ()
    """all must hold; those of one step stand in the file as such, others as expressions"""
    codes: tuple[int, ...] = (0,)
    """exit codes of its attempts; the last is that of all further ones"""
    pause: float = 0
    linger: int = 0
    limit: int = 0
    backoff_ms: int = 0
    exit_codes: tuple[int, ...] = ()
    tolerated: bool = False
    timeout_ms: int = 0
    priority: int = 0
    uploads: bool = False
    told: tuple[str, ...] = ()
    """those whose output it is given as an argument: it cannot start without them"""

    @property
    def required(self) -> list[str]:
        return sorted(names_in(("and", *self.requires)))

    def code(self, attempt: int) -> int:
        return self.codes[min(attempt, len(self.codes)) - 1]

    def is_worth_another(self, status: str, code: int, reason: str) -> bool:
        """Whether an attempt that ended so is to be followed by another, if there is one left."""
        if status == "STOPPED":
            return not self.exit_codes and reason.startswith("timeout after")
        return status == "FAILED" and (not self.exit_codes or code in self.exit_codes)


@dataclass(frozen=True)
class WorkflowOrder:
    """One workflow that a client wants. Its token is its name in its file, so that it is known again without its id."""

    token: str
    steps: tuple[Step, ...]
    folder: Path
    """where the program is and the traces go"""
    key: str = ""
    timeout_ms: int = 0
    max_parallel: int = 0
    uploads: bool = False

    @property
    def secret(self) -> str:
        return f"{SECRET}-{self.token}"

    @property
    def endless(self) -> bool:
        """Whether it may never end by itself."""
        return not self.timeout_ms and any(step.linger and not step.timeout_ms for step in self.steps)

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def request(self, pb: Any) -> Any:
        files = [pb.FileUpload(path="data", content=self.token.encode())] if self.uploads else []
        return pb.RunWorkflowRequest(workflow="crash.yaml", yamlContent=self.yaml, workflowFiles=files, key=self.key)

    @property
    def yaml(self) -> str:
        content: dict[str, Any] = {
            "name": self.token,
            "secret_environment": {"SECRET": self.secret},
            "jobs": {step.name: self._job(step) for step in self.steps},
        }
        if self.timeout_ms:
            content["timeout"] = f"{self.timeout_ms}ms"
        if self.max_parallel:
            content["max_parallel"] = self.max_parallel
        return yaml.safe_dump(content, sort_keys=False)

    def _job(self, step: Step) -> dict[str, Any]:
        codes = ",".join(map(str, step.codes))
        numbers = [self.token, str(step.pause), str(step.linger), codes, ",".join(step.required)]
        told = [f"{name}=${{{{ jobs.{name}.outputs.value }}}}" for name in step.told]
        job: dict[str, Any] = {
            "command": "perl",
            "args": [str(self.folder / "step"), str(self.folder / "traces"), *numbers, *told],
            "requires": [_requirement(condition) for condition in step.requires],
            "resources": {"max_memory": 64, "max_processes": 16},
            "continue_on_failure": step.tolerated,
            "priority": step.priority,
        }
        if step.limit:
            job["retries"] = {"limit": step.limit, "backoff": f"{step.backoff_ms}ms"}
            if step.exit_codes:
                job["retries"]["exit_codes"] = list(step.exit_codes)
        if step.timeout_ms:
            job["timeout"] = f"{step.timeout_ms}ms"
        if step.uploads:
            job["uploads"] = {"files": ["data"]}
        return job


def _requirement(condition: Condition) -> Any:
    kind, *rest = condition
    if kind != "is":
        return {"expression": text_of(condition)}
    return rest[0] if rest[1] == "COMPLETED" else {rest[0]: rest[1]}


def draw_workflow(rng: random.Random, token: str, folder: Path) -> WorkflowOrder:
    """A workflow as it comes: chains, fan-out, fan-in, conditions, steps that fail, are tried again, or never end."""
    uploads = rng.random() < 0.5
    steps: list[Step] = []
    for name in _NAMES[: rng.choice((3, 3, 4, 5, 6, 8, 12))]:
        steps.append(_draw_step(rng, name, steps, uploads=uploads))
    return WorkflowOrder(
        token,
        tuple(steps),
        folder,
        key=f"key-{token}" if rng.random() < 0.5 else "",
        timeout_ms=rng.randint(500, 4000) if rng.random() < 0.08 else 0,
        max_parallel=rng.choice((0, 0, 0, 1, 2, 3)),
        uploads=uploads,
    )


def _draw_step(rng: random.Random, name: str, before: list[Step], *, uploads: bool) -> Step:
    count = min(len(before), rng.choices((0, 1, 2, 3, 12), (15, 50, 20, 10, 5))[0])
    # The one just before makes chains, any other fans.
    picked = before[-1:] if count == 1 and rng.random() < 0.6 else rng.sample(before, count)
    requires: list[Condition] = []
    told: list[str] = []
    while picked:
        first, *picked = picked
        if rng.random() < 0.15:
            requires.append(_draw_expression(rng, [first.name, *(step.name for step in picked[:2])]))
            picked = picked[2:]
            continue
        wanted = rng.choices(("COMPLETED", "FINISHED", "FAILED", "CANCELED"), (80, 12, 6, 2))[0]
        requires.append(("is", first.name, wanted))
        if wanted == "COMPLETED" and not first.tolerated and rng.random() < 0.7:
            told.append(first.name)
    details: dict[str, Any] = rng.choices(
        (
            {},
            {"codes": (1, 0), "limit": rng.randint(1, 2), "backoff_ms": rng.choice((0, 20, 300))},
            {"codes": (3, 4, 0), "limit": 3, "exit_codes": rng.choice(((3,), (3, 4)))},
            {"codes": (5,), "limit": rng.choice((0, 0, 1))},
            {"codes": (6, 0)},
            {"linger": FOREVER, "timeout_ms": rng.randint(100, 600), "limit": rng.choice((0, 1))},
            {"linger": FOREVER},
        ),
        (70, 10, 5, 4, 5, 3, 3),
    )[0]
    return Step(
        name,
        tuple(requires),
        pause=rng.choice((0, 0, round(rng.uniform(0, 0.15), 3))),
        tolerated=rng.random() < 0.12,
        priority=rng.choice((0, 0, 0, 3, -3)),
        uploads=uploads and rng.random() < 0.5,
        told=tuple(told),
        **details,
    )


def _draw_expression(rng: random.Random, names: list[str]) -> Condition:
    parts = [("is", name, rng.choice(("COMPLETED", "COMPLETED", "FINISHED", "FAILED", "STOPPED"))) for name in names]
    whole = (rng.choice(("and", "or")), *parts) if len(parts) > 1 else parts[0]
    return ("not", whole) if rng.random() < 0.2 else ("or", whole, ("not", parts[0])) if rng.random() < 0.2 else whole
