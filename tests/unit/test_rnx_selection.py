"""`rnx list`: which jobs, in which order, in which form."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import typer
from rich.console import Console

from joblet.client import JobInfo, JobList, Receipt
from joblet.command_line import Failure
from rnx import listing, main, render
from rnx.selection import Selection
from rnx.template import Template
from rnx.watch import picture


def job(number: int, status: str = "COMPLETED", **fields: Any) -> JobInfo:
    base = JobInfo(str(number), "c", ("a", "b c"), status, 100, 512, 0, f"2024-01-15T10:30:{number:02}Z", "", 0)
    return replace(base, **fields)


def select(*statuses: str, name: str = "", since: str = "", until: str = "", sort: str = "", **more: Any) -> Selection:
    return Selection.of(statuses, name, since, until, sort, **more)


JOBS = [
    job(2),
    job(3, "FAILED", name="nightly-1", labels={"team": "web", "tier": ""}),
    job(10, "STOPPED", name="nightly-2", priority=5, labels={"team": "data", "example.com/x": "a=b"}),
    job(11, "RUNNING", schedule_id="7", owner="alice"),
]


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (select(), "2 3 10 11"),
        (select("failed,STOPPED"), "3 10"),
        (select("running", "completed"), "2 11"),
        (select(name="nightly-*"), "3 10"),
        (select(name="nightly-[!1]", since="2h"), ""),
        (select(since="2024-01-15T10:30:03Z"), "3 10 11"),
        (select(until="2024-01-15T11:30:03+01:00"), "2 3"),
        (select(since="2024-01-15T10:30:03Z", until="2024-01-15T10:30:10Z"), "3 10"),
        (select(labels=["team=web"]), "3"),
        (select(labels=["team"]), "3 10"),
        (select(labels=["team", "tier="]), "3"),
        (select(labels=["example.com/x=a=b"]), "10"),
        (select(labels=["tea"]), ""),
        (select(schedule="7"), "11"),
        (select(schedule="1"), ""),
        (select(owner="alice"), "11"),
        (select(owner="ali"), ""),
        (select(sort="-id"), "11 10 3 2"),
        (select(sort="status"), "2 3 11 10"),
        (select(sort="-priority"), "10 2 3 11"),
    ],
)
def test_jobs_are_selected_and_sorted(selection: Selection, ids: str) -> None:
    assert [job.id for job in selection.sorted(filter(selection.takes, JOBS))] == ids.split()
    assert selection.takes_all is (ids.count(" ") == 3)


def test_a_job_that_has_not_started_is_new() -> None:
    waiting = job(1, "PENDING", start_time="")
    assert select(since="1h").takes(waiting)
    assert not select(until="0s").takes(waiting)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"statuses": ["odd"]}, "'ODD' is none of PENDING, "),
        ({"sort": "shoe"}, "no field 'shoe' "),
        ({"since": "soon"}, "'soon': expected a duration such as 2h, or a time"),
        ({"until": "9999999999d"}, "is before all time"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        Selection.of(**{"statuses": [], "name": "", "since": "", "until": "", "sort": "", **asked})


def test_a_template() -> None:
    template = Template(r"{id:>3}\t{status}: {command} {args} {{}} {environment}", render.JOB_FIELDS)
    assert template.text(job(7, environment={"A": "1", "B": "x\ny"})) == "  7\tCOMPLETED: c a b c {} A=1,B=x\\ny\n"
    template = Template("{wallUsec}/{memoryPeakBytes}", render.STATUS_FIELDS | render.RECEIPT_FIELDS)
    assert template.text(job(7), Receipt(5, *[None] * 7)) == "5/\n"
    assert template.text(job(7), None) == "/\n"
    with pytest.raises(Failure, match="--format: status: "):
        Template("{status:d}", render.JOB_FIELDS).text(job(7))


@pytest.mark.parametrize(
    "text", ["{shoe}", "{}", "{0}", "{id!r}", "{id.real}", "{args[0]}", "{id", "}", "{id:{status}}"]
)
def test_what_is_no_template(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        Template(text, render.JOB_FIELDS)


class Jobs:
    """Takes the place of the client."""

    async def list(self, *, limit: int, before: str) -> JobList:
        return JobList(JOBS, more=True)

    async def list_all(self, *, before: str) -> AsyncIterator[JobInfo]:
        for job in reversed(JOBS):
            yield job


@pytest.mark.parametrize(
    ("arguments", "output", "errors"),
    [
        (
            ["--format={id}", "--sort=-id"],
            "11\n10\n3\n2\n",
            "4 newest jobs listed; for older ones: rnx list --before=2",
        ),
        (["--format={id}", "--status=FAILED,STOPPED"], "3\n10\n", ""),
        (["--format={id}", "--name=nightly-*", "--limit=1"], "10\n", "1 newest jobs listed; "),
        (["--format={id}", "--all", "--since=2024-01-15T10:30:10Z"], "11\n10\n", ""),
        (["--status=running"], "11 RUNNING StartTime: 2024-01-15T10:30:11Z Command: c a b c\n", ""),
        (["--json", "--name=x"], "[]\n", ""),
    ],
)
def test_what_is_printed(
    arguments: list[str], output: str, errors: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "with_client", lambda ctx, call: asyncio.run(call(Jobs())))
    main.app(args=["list", *arguments], prog_name="rnx", standalone_mode=False)
    told = capsys.readouterr()
    assert told.out == output
    assert told.err.startswith(errors)
    assert bool(told.err) is bool(errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--workflow", "--status=FAILED"], "are of jobs, not of workflows"),
        (["list", "--all", "--sort=id"], "give either --all or --sort"),
        (["list", "--json", "--format={id}"], "give either --json or --format"),
        (["list", "--watch"], "--watch needs a terminal"),
        (["status", "1", "--format={id}", "--json"], "--format is of single jobs"),
        (["status", "1", "--format={shoe}"], "no field 'shoe'"),
    ],
)
def test_what_does_not_go_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["rnx", *arguments])
    with pytest.raises(SystemExit):
        main.main()
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("colour", [True, False])
def test_the_picture_has_no_colour_where_none_is_wanted(colour: bool) -> None:
    drawn = io.StringIO()
    environment = {"TERM": "xterm-256color"} | ({} if colour else {"NO_COLOR": "1"})
    console = Console(file=drawn, force_terminal=True, width=40, height=4, _environ=environment)
    console.print(picture(console, JOBS, render.list_line))
    lines = drawn.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("10 ")
    assert "4 jobs (2 above)" in lines[-1]
    assert ("\x1b[1;34m" in drawn.getvalue()) is colour
    assert ("34" in drawn.getvalue().replace("2024", "")) is colour
