"""The suite from begin to end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import groupby

from joblet.client import Client, InvalidArgument, JobletError
from joblet.escape import observed, program
from joblet.escape.attempts.frame import Attempt
from joblet.escape.observed import Scene, reported
from joblet.escape.runner import JobRunner, News, Runner
from joblet.escape.verdict import DONE, UNTRIED, Outcome, Result, judge
from joblet.escape.victims import HostContext, make_victims

OUT_OF_MEMORY = "out of memory"
LAUNCH_FAILED = "joblet: "
"""what the log of a job begins with that was never run: shim/PROTOCOL.md"""


async def run(client: Client, host: HostContext, tell: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Make every attempt, in jobs of the server that `client` is connected to, and `tell` of each as it ends.

    Raises EscapeError when the suite cannot be run, JobletError when the server cannot.
    """
    runner = JobRunner(client, host.state_dir)
    results = []
    async with make_victims(runner, host) as victims:
        scene = Scene(runner, victims, host.log_megabytes)
        async for attempt, outcome in make_attempts(scene, program.load_attempts()):
            results.append(judge(attempt, outcome))
            tell(results[-1])
    return results


async def make_attempts(scene: Scene, attempts: list[Attempt]) -> AsyncIterator[tuple[Attempt, Outcome]]:
    """Those that need nothing of their own in one program a category, the others each in one, in the same order."""
    for _, group in groupby(attempts, key=lambda one: (one.category, is_alone(one))):
        together = list(group)
        if is_alone(together[0]):
            for attempt in together:
                yield attempt, await _make_alone(scene, attempt)
        else:
            outcomes = await _make_together(scene, together)
            for attempt in together:
                yield attempt, outcomes[attempt.name]


def is_alone(attempt: Attempt) -> bool:
    """Whether it needs a job of its own."""
    return attempt.observed or bool(attempt.limits)


async def _make_together(scene: Scene, attempts: list[Attempt]) -> dict[str, Outcome]:
    names = [attempt.name for attempt in attempts]
    run = await scene.runner.start(program.arguments(attempts[0].category, names, scene.victims.context), {})
    told = {news["attempt"]: news async for news in run.news() if "attempt" in news}
    lost = Outcome("error", f"nothing is known of it; the job has ended: {await run.reason()}")
    return {one.name: _outcome_of(told[one.name], one) if one.name in told else lost for one in attempts}


async def _make_alone(scene: Scene, attempt: Attempt) -> Outcome:
    """In a job of its own; after that the server must answer, and run another."""
    try:
        outcome = await (observed.observe if attempt.observed else _make_limited)(scene, attempt)
    except InvalidArgument as error:  # its limits are beyond the server's ceilings
        outcome = Outcome(UNTRIED, str(error))
    if failure := await _fault_of(scene.runner):
        return Outcome(DONE, f"after it {failure}")
    return outcome


async def _make_limited(scene: Scene, attempt: Attempt) -> Outcome:
    run = await scene.start(attempt)
    told: News | None = None
    async for news in run.news():
        told = news
    reason = await run.reason()
    if OUT_OF_MEMORY in reason:
        return Outcome(OUT_OF_MEMORY, reason)
    if told is not None and str(told.get("noise")).startswith(LAUNCH_FAILED):
        return Outcome(UNTRIED, f"the job has not run: {reason}")
    return reported(told)


async def _fault_of(runner: Runner) -> str:
    """Why no other job can run; empty when it can."""
    try:
        run = await runner.start(["-I", "-c", "print('{\"well\": true}')"], {})
        async for news in run.news():
            if news.get("well"):
                return ""
        return f"another job fails: {await run.reason()}"
    except JobletError as error:
        return f"the server does not answer: {error}"


def _outcome_of(news: News, attempt: Attempt) -> Outcome:
    lacks = attempt.gap.feature if attempt.gap and news["lacks"] else ""
    return Outcome(news["outcome"], news["detail"], lacks)
