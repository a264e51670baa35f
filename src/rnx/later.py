"""Options of `rnx run` for jobs that run later and again, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from joblet.command_line import Failure
from rnx.jobs import seconds

if TYPE_CHECKING:
    from joblet.client import Schedule

OVERLAPS = ("skip", "queue", "allow", "replace")
CATCH_UPS = ("last", "none", "all")

Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="Label to find the job by (rnx list --label)."),
]
When = Annotated[
    str,
    typer.Option(
        "--schedule",
        metavar="WHEN",
        help="Run it later: at a time (2024-01-15T10:30:00Z) or in a while (1h30m); or again and again, by a cron"
        " expression ('30 3 * * 1-5', @hourly, @daily, @weekly, @monthly, @yearly), as a new job each time.",
        show_default=False,
    ),
]
Timezone = Annotated[
    str,
    typer.Option(
        metavar="ZONE", help="Of the cron expression, such as Europe/Berlin (default: UTC).", show_default=False
    ),
]
Overlap = Annotated[
    str,
    typer.Option(
        metavar="POLICY",
        help="When the last job has not ended at the next time: skip that (default), queue one, allow both, or replace"
        " the last.",
        show_default=False,
    ),
]
Jitter = Annotated[
    float,
    typer.Option(
        parser=seconds, metavar="DURATION", help="Start up to so much later each time, at random.", show_default=False
    ),
]
CatchUp = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="Of the times that passed while the server was away, make up for the last (default), none, or all.",
        show_default=False,
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Run it again so often when it fails or takes too long, as a new job each time (default: 0).",
        show_default=False,
    ),
]
RetryDelay = Annotated[
    float,
    typer.Option(
        parser=seconds,
        metavar="DURATION",
        help="Before it is run again, twice as long each time (default: 1s).",
        show_default=False,
    ),
]

OF_SCHEDULES = ("timezone", "overlap", "jitter", "catch_up")
"""options that are nothing without --schedule"""


def labels_of(texts: Sequence[str] | None) -> dict[str, str]:
    """The labels of `NAME=VALUE` or `NAME`, which has an empty value. Raises BadParameter."""
    labels: dict[str, str] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        if not name:
            raise typer.BadParameter("expected NAME=VALUE", param_hint="--label")
        if name in labels:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--label")
        labels[name] = value
    return labels


def schedule_of(when: str, timezone: str, overlap: str, jitter: float, catch_up: str) -> Schedule | str:
    """What the options say, for Client.run. Raises BadParameter."""
    from joblet.client import Schedule

    for option, value, known in (("--overlap", overlap, OVERLAPS), ("--catch-up", catch_up, CATCH_UPS)):
        if value and value not in known:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(known)}", param_hint=option)
    return Schedule(when, timezone, overlap, round(jitter * 1000), catch_up) if when else ""


def check_waiting(schedule: Schedule | str, option: str) -> None:
    """Raise Failure where `option`, such as --wait, would wait for what does not end by itself."""
    if not isinstance(schedule, str) and schedule.recurring:
        raise Failure(
            f"{option} is not for a recurring schedule, which does not end by itself; its jobs: rnx list --schedule=ID"
        )
