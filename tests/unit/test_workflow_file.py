"""A workflow's file: what it means, what is shown of it, and what editors are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from joblet.errors import InvalidWorkflow
from joblet.job import Limits
from joblet.workflow import source
from joblet.workflow.build import parse
from joblet.workflow.condition import NOTHING, All, Is, Not, Wanted
from joblet.workflow.condition import Any as AnyOf
from joblet.workflow.faults import Faults
from joblet.workflow.plan import Plan, Retry, Step
from joblet.workflow.schema import SHIPPED, json_schema

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests/data/workflows"
GOOD = sorted((FILES / "good").glob("*.yaml"))
PAGE = (ROOT / "docs/workflow-file.md").read_text(encoding="utf-8")


def plan(text: str, **how: Any) -> Plan:
    return parse(text, file="w.yaml", **how).plan


def step(text: str, **how: Any) -> Step:
    """The only step of a job, of which the text is all but its command."""
    return plan("jobs:\n  job: {command: c, " + text + "}\n", **how).steps[0]


def faults(text: str, **how: Any) -> list[str]:
    with pytest.raises(InvalidWorkflow) as caught:
        parse(text, file="w.yaml", **how)
    return list(caught.value.faults)


def full(**how: Any) -> dict[str, Step]:
    return {step.name: step for step in plan((FILES / "good/full.yaml").read_text(), **how).steps}


# What it means


def test_the_example_of_the_specification() -> None:
    first, second = plan((FILES / "good/api.yaml").read_text()).steps
    assert (first.name, first.order.command, first.order.args) == ("setup-data", "python3", ("setup.py",))
    assert first.condition == NOTHING
    assert second.condition == Is("setup-data", Wanted.COMPLETED)
    assert second.dependencies == ("setup-data",)


def test_the_example_of_the_page() -> None:
    text = PAGE[PAGE.index("```yaml\n") + 8 :]
    names = [step.name for step in plan(text[: text.index("```")]).steps]
    assert names == ["fetch", "train[lr=0.1]", "train[lr=0.01]", "report"]


def test_the_workflow_itself() -> None:
    whole = plan((FILES / "good/full.yaml").read_text(), parameters={"epochs": "20", "size": "large"})
    assert (whole.name, whole.timeout, whole.max_parallel) == ("nightly training", 43_200.0, 4)
    assert whole.parameters == {
        "epochs": "20",
        "memory": "512",
        "rate": "0.10",
        "verbose": "false",
        "data": "items.csv",
        "size": "large",
        "key": "***",
    }


def test_plain_scalars_are_text_where_text_is_meant() -> None:
    assert step("args: [8080, 0.10, yes, 2024-01-01, 1_000, 0x1F, 1:30, '~', .inf, +1]").order.args == (
        *("8080", "0.10", "yes", "2024-01-01", "1_000", "0x1F", "1:30", "~", ".inf", "+1"),
    )
    assert step("environment: {A: 010, B: No}").order.environment == {"A": "010", "B": "No"}
    assert plan("name: 2024\njobs: {1: {command: 7z}}") == plan("name: '2024'\njobs: {'1': {command: '7z'}}")


def test_a_step_with_everything() -> None:
    train = full()["train[lr=0.01,depth=2]"]
    assert train.order.args == ("train.py", "--lr=0.01", "--rows=${{ jobs.fetch.outputs.rows }}")
    assert train.order.limits == Limits(150, 512, 10_000_000, 64, 1024, 2048, "0-3")
    assert train.order.priority == 10
    assert train.order.name == train.name
    assert train.retry == Retry(5, 10.0, 1.5, 600.0, frozenset({75, 137}))
    assert train.continue_on_failure
    fetch = full()["fetch"]
    assert fetch.order.workdir == "data"
    assert fetch.order.timeout_ms == 300_000
    assert fetch.uploads == ("fetch.py", "data")
    assert fetch.retry == Retry(3)
    assert fetch.order.args[-1] == "0.10"


def test_environments_are_inherited_and_the_nearest_wins() -> None:
    steps = full()
    assert steps["fetch"].order.environment == {
        "REGION": "eu-1",
        "LEVEL": "debug",
        "GREETING": "$${{ not a template }}",
    }
    assert steps["fetch"].order.secret_environment == {"TOKEN": "hunter2"}
    assert steps["train[lr=0.1,depth=1]"].order.environment == {"REGION": "eu-1"}
    assert steps["train[lr=0.1,depth=1]"].order.secret_environment == {
        "TOKEN": "hunter2",
        "KEY": "s3cret",
        "LEVEL": "trace",
    }
    own = plan("secret_environment: {A: x}\njobs: {a: {command: c, environment: {A: y}}}").steps[0].order
    assert (own.environment, own.secret_environment) == ({"A": "y"}, {})


def test_a_matrix_makes_steps_in_the_order_of_the_file() -> None:
    assert list(full()) == [
        "fetch",
        "train[lr=0.1,depth=1]",
        "train[lr=0.01,depth=1]",
        "train[lr=0.01,depth=2]",
        "evaluate[lr=0.1]",
        "evaluate[lr=0.01]",
        "report",
        "alarm",
    ]


def test_requirements_become_one_flat_condition() -> None:
    steps = full()
    assert steps["train[lr=0.1,depth=1]"].condition == Is("fetch", Wanted.COMPLETED)
    trains = ("train[lr=0.1,depth=1]", "train[lr=0.01,depth=1]", "train[lr=0.01,depth=2]")
    ended = AnyOf(tuple(Is(name, wanted) for wanted in (Wanted.STOPPED, Wanted.CANCELED) for name in trains))
    assert steps["evaluate[lr=0.01]"].condition == All(
        (Is("train[lr=0.01,depth=1]", Wanted.COMPLETED), Is("fetch", Wanted.COMPLETED), Not(ended))
    )
    assert steps["report"].condition == All(
        (
            Is("evaluate[lr=0.1]", Wanted.FINISHED),
            Is("evaluate[lr=0.01]", Wanted.FINISHED),
            Is("fetch", Wanted.COMPLETED),
        )
    )
    assert str(steps["alarm"].condition) == (
        "evaluate[lr=0.1]=FAILED || evaluate[lr=0.01]=FAILED || !(report=COMPLETED)"
    )


def test_outputs_of_one_step_of_a_matrix_are_named_by_template() -> None:
    assert full()["evaluate[lr=0.1]"].order.args[1] == "${{ jobs.train[lr=0.1,depth=1].outputs.model }}"


def test_a_parameter_put_in_is_not_a_template() -> None:
    text = (
        "parameters: {p: x}\n"
        "jobs: {a: {command: c, args: ['${{ params.p }}', '-${{ params.p }}', '${{ params.p }}{{ y }}']}}"
    )
    args = plan(text, parameters={"p": "${{ jobs.a.outputs.k }}"}).steps[0].order.args
    assert args[:2] == ("$${{ jobs.a.outputs.k }}", "-$${{ jobs.a.outputs.k }}")
    assert plan(text, parameters={"p": "$"}).steps[0].order.args[2] == "$${{ y }}"
    text = "parameters: {p: x}\njobs: {a: {command: c, workdir: '${{ params.p }}'}}"
    assert plan(text, parameters={"p": "$${{x"}).steps[0].order.workdir == "$${{x"


@pytest.mark.parametrize(
    ("declared", "given_", "memory"),
    [
        ("512", None, 512),
        ("512", "256", 256),
        ("{type: integer, default: 1}", "+64", 64),
        ("{type: integer}", "64", 64),
    ],
)
def test_a_field_that_is_one_template_has_the_type_of_its_parameter(
    declared: str, given_: str | None, memory: int
) -> None:
    text = (
        f"parameters: {{m: {declared}}}\njobs: {{a: {{command: c, resources: {{max_memory: '${{{{ params.m }}}}'}}}}}}"
    )
    given_parameters = {} if given_ is None else {"m": given_}
    assert plan(text, parameters=given_parameters).steps[0].order.limits.max_memory == memory


def test_truth_values_are_read_as_people_write_them() -> None:
    for text, expected in (("yes", True), ("True", True), ("on", True), ("no", False), ("FALSE", False)):
        assert step(f"continue_on_failure: {text}").continue_on_failure is expected
        declared = "parameters: {p: {type: boolean}}\njobs: {a: {command: c, args: ['${{ params.p }}']}}"
        assert plan(declared, parameters={"p": text}).steps[0].order.args == ("true" if expected else "false",)


def test_a_default_of_no_is_text() -> None:
    assert plan("parameters: {country: no}\njobs: {a: {command: c}}", parameters={"country": "de"}).parameters == {
        "country": "de"
    }


def test_blocks_that_are_left_empty_are_none() -> None:
    text = "parameters:\nenvironment:\njobs:\n  a:\n    command: c\n" + "".join(
        f"    {key}:\n" for key in ("args", "requires", "resources", "environment", "uploads", "matrix")
    )
    assert plan(text) == plan("jobs: {a: {command: c}}")


def test_anchors_and_merge_keys() -> None:
    first, second, third = plan((FILES / "good/shared.yaml").read_text()).steps
    assert first.order.limits == Limits(50, 128, 0)
    assert second.order.limits == Limits(50, 256, 0)
    assert second.order.args == third.order.args == ("work.py", "1")
    assert second.order.timeout_ms == 600_000


def test_files_that_came_along_are_enough_as_files_or_as_directories() -> None:
    assert full(sent=["fetch.py", "data/a/b.csv"])["fetch"].uploads == ("fetch.py", "data")
    assert full(sent=["fetch.py", "data"])
    text = (FILES / "good/full.yaml").read_text()
    assert faults(text, sent=["fetch.py", "database"]) == [
        'w.yaml:23: job "fetch": uploads.files[1]: "data" was not sent along'
    ]


def test_one_job_runs_alone_with_all_of_its_matrix_whatever_it_requires() -> None:
    text = (
        "jobs:\n  a: {command: c, uploads: {files: [x]}}\n"
        "  b: {command: c, requires: [a], matrix: {x: [1, 2]}, args: ['${{ matrix.x }}']}\n"
    )
    steps = plan(text, job="b", sent=[]).steps
    assert [(step.name, step.condition, step.order.args) for step in steps] == [
        ("b[x=1]", NOTHING, ("1",)),
        ("b[x=2]", NOTHING, ("2",)),
    ]


def test_one_job_alone_has_no_outputs_of_others() -> None:
    text = "jobs:\n  a: {command: c}\n  b: {command: c, requires: [a], args: ['${{ jobs.a.outputs.k }}']}\n"
    assert faults(text, job="b") == [
        'w.yaml:3: job "b": args[0]: there are no outputs of "a" when one job is run alone'
    ]


def test_a_byte_order_mark_and_foreign_line_ends_are_nothing() -> None:
    text = (FILES / "good/full.yaml").read_text()
    plain = parse(text, file="w.yaml")
    assert parse("\ufeff" + text, file="w.yaml") == plain
    assert parse(text.replace("\n", "\r\n"), file="w.yaml").plan == plain.plan


# What is shown


def test_the_values_of_secrets_are_masked_and_nothing_else_is() -> None:
    text = """\
secret_environment: &all
  A: hunter2  # a comment
  "B": 'hunter2''s'
  C: |
    hunter2
    hunter2

  D: &anchor hunter2
  E: ""
parameters:
  p: {secret: yes, default: hunter2, choices: [hunter2, "hunter2"]}
  q: {secret: true}
  r: visible
jobs:
  a: {command: c, secret_environment: {F: hunter2, <<: *all}, environment: {V: visible}}
  b:
    command: c
    secret_environment: {G: hunter2
      hunter2, H: *anchor }
"""
    parsed = parse(text, file="w.yaml", parameters={"q": "hunter2"})
    assert "hunter2" not in parsed.masked
    assert parsed.masked.count("visible") == 2
    assert "# a comment" in parsed.masked
    assert parsed.plan.parameters == {"p": "***", "q": "***", "r": "visible"}
    shape = yaml.safe_load(parsed.masked)
    assert shape["jobs"]["b"]["secret_environment"] == {"G": "***", "H": "***"}
    assert list(shape["secret_environment"]) == ["A", "B", "C", "D", "E"]
    assert set(shape["secret_environment"].values()) == {"***"}


def test_secrets_are_masked_below_a_byte_order_mark_and_with_foreign_line_ends() -> None:
    text = "\ufeffsecret_environment:\r\n  A: 'x\r\n\r\n    hunter2'\r\njobs: {u: {command: ü}}\r\n"
    assert parse(text, file="w.yaml").masked == ('secret_environment:\r\n  A: "***"\r\njobs: {u: {command: ü}}\r\n')


def test_a_file_without_secrets_is_shown_as_it_is() -> None:
    text = (FILES / "good/shared.yaml").read_text()
    assert parse(text, file="w.yaml").masked == text


def test_no_secret_is_in_the_repr_of_a_plan() -> None:
    assert "s3cret" not in repr(plan((FILES / "good/full.yaml").read_text()))


# For editors


def as_editors_read(node: source.Node | None) -> Any:
    """YAML 1.2's core schema, which knows neither dates nor `yes`."""
    match node:
        case source.Table(entries):
            return {key: as_editors_read(entry.value) for key, entry in entries.items()}
        case source.Listing(items):
            return [as_editors_read(item) for item in items]
        case source.Scalar() if node.null:
            return None
        case source.Scalar() if node.boolean or node.number:
            return json.loads(node.text.lower())
        case source.Scalar(text):
            return text
    return None


def test_the_shipped_schema_is_current() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == json.dumps(json_schema(), indent=2) + "\n"


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_the_schema_accepts_what_is_good(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.Draft202012Validator(json_schema()).validate(
        as_editors_read(source.load(path.read_text(), Faults("w.yaml")))
    )


@pytest.mark.parametrize(
    "name",
    [
        "bad-duration",
        "bad-limit",
        "bad-matrix",
        "bad-retries",
        "missing-command",
        "name-of-a-job",
        "not-supported-yet",
        "null-text",
        "quoted-number",
        "unknown-key",
        "unknown-state",
        "wrong-type",
    ],
)
def test_the_schema_refuses_what_is_wrong_by_itself(name: str) -> None:
    text = (FILES / f"malformed/{name}.yaml").read_text()
    instance = as_editors_read(source.load(text, Faults("w.yaml")))
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(instance)


def test_a_job_has_labels() -> None:
    text = "jobs: {a: {command: c, matrix: {m: [1, 2]}, labels: {team: web, example.com/run: '${{ matrix.m }}', n: 7}}}"
    first, second = plan(text).steps
    assert first.order.labels == {"team": "web", "example.com/run": "1", "n": "7"}
    assert second.order.labels["example.com/run"] == "2"
    with pytest.raises(InvalidWorkflow, match=r"labels\.Team: 'Team' is no name of a label"):
        plan("jobs: {a: {command: c, labels: {Team: web}}}")
    with pytest.raises(InvalidWorkflow, match="the value 'xxx"):
        plan("jobs: {a: {command: c, labels: {team: " + "x" * 257 + "}}}")
