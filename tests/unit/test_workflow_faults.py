"""What is said of a workflow's file that means nothing, or too much."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joblet.errors import InvalidWorkflow
from joblet.workflow import source
from joblet.workflow.build import parse
from joblet.workflow.faults import Faults
from joblet.workflow.plan import Plan

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests/data/workflows"
GOOD = sorted((FILES / "good").glob("*.yaml"))
MALFORMED = sorted((FILES / "malformed").glob("*.yaml"))
PAGE = (ROOT / "docs/workflow-file.md").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """What the page says is said, row by row."""
    told = []
    for line in PAGE[PAGE.index("## What is refused") :].splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 2 and cells[1].startswith("`"):
            told.append([fault[1:-1].replace("\\|", "|") for fault in cells[1].split("<br>")])
    return told


TOLD = {row[0].partition(":")[0]: row for row in rows() if not row[0].startswith("pipeline.yaml")}
IN_USE = [row[0] for row in rows() if row[0].startswith("pipeline.yaml")]


def plan(text: str, **how: Any) -> Plan:
    return parse(text, file="w.yaml", **how).plan


def faults(text: str, **how: Any) -> list[str]:
    with pytest.raises(InvalidWorkflow) as caught:
        parse(text, file="w.yaml", **how)
    return list(caught.value.faults)


@pytest.mark.parametrize("path", MALFORMED, ids=lambda path: path.stem)
def test_a_malformed_file_is_told_all_that_is_wrong_with_it(path: Path) -> None:
    with pytest.raises(InvalidWorkflow) as caught:
        parse(path.read_text(encoding="utf-8"), file=path.name)
    assert list(caught.value.faults) == TOLD[path.name]


def test_the_page_tells_of_every_malformed_file() -> None:
    assert set(TOLD) == {path.name for path in MALFORMED}
    assert len(TOLD) >= 30


PIPELINE = """\
parameters:
  size: {choices: [small, large]}
  epochs: {default: 10, min: 1}
jobs:
  train:
    command: python3
    uploads: {files: [train.py]}
"""


@pytest.mark.parametrize(
    ("how", "row"),
    [
        ({}, 0),
        ({"parameters": {"size": "small", "epoch": "1"}}, 1),
        ({"parameters": {"size": "small", "epochs": "0"}}, 2),
        ({"parameters": {"size": "small"}, "job": "trian"}, 3),
        ({"parameters": {"size": "small"}, "sent": ["other.py"]}, 4),
    ],
)
def test_what_depends_on_how_a_file_is_run_is_told(how: Mapping[str, Any], row: int) -> None:
    with pytest.raises(InvalidWorkflow) as caught:
        parse(PIPELINE, file="pipeline.yaml", **how)
    assert caught.value.faults == (IN_USE[row],)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ("ten", "the value given must be a whole number of at most 18 digits, not ten"),
        ("1.0", "the value given must be a whole number of at most 18 digits, not 1.0"),
        ("", "the value given must be a whole number of at most 18 digits, not null"),
        ("101", "the value given must be at most 100, not 101"),
        ("9" * 70, "the value given must be a whole number of at most 18 digits, not " + f'"{"9" * 60}..."'),
    ],
)
def test_a_value_given_must_be_what_is_declared(given_: str, told: str) -> None:
    text = "parameters: {epochs: {type: integer, max: 100}}\njobs: {a: {command: c}}"
    assert faults(text, parameters={"epochs": given_}) == [f"w.yaml:1: parameters.epochs: {told}"]


def test_all_faults_come_in_the_order_of_the_file() -> None:
    text = "jobs:\n  b: {command: c, requires: [x]}\n  a: {command: c, priority: high}\n  a: {}\ntimeout: never\n"
    assert [fault.split(": ", 1)[0] for fault in faults(text)] == ["w.yaml:2", "w.yaml:3", "w.yaml:4", "w.yaml:5"]


def test_there_is_an_end_to_faults() -> None:
    text = "jobs:\n" + "".join(f"  job{i}: {{command: c, requires: [jib{i}]}}\n" for i in range(500))
    assert len(faults(text)) == Faults.MOST


def test_a_fault_of_every_combination_is_told_once() -> None:
    text = "jobs:\n  a: {command: c, priority: x, args: ['${{ params.p }}'], matrix: {x: [1, 2, 3]}}\n"
    assert len(faults(text)) == 2


def test_a_value_that_is_broken_already_has_no_further_fault() -> None:
    text = "parameters: {m: {type: integer}}\njobs: {a: {command: '${{ params.m }}', priority: '${{ params.m }}'}}"
    assert faults(text) == ["w.yaml:1: parameters.m: has no default, and no value was given"]


@pytest.mark.parametrize(
    "text",
    [
        "secret_environment: {A: [hunter2]}\njobs: {a: {command: c}}",
        "secret_environment: hunter2\njobs: {a: {command: c}}",
        "secret_environment: [hunter2]\njobs: {a: {command: c}}",
        "secret_environment: {A: !hunter2 x}\njobs: {a: {command: c}}",
        "secret_environment: {A: *hunter2 }\njobs: {a: {command: c}}",
        "secret_environment: {A: '${{ hunter2 }}'}\njobs: {a: {command: c}}",
        'secret_environment: {A: "hunter2\\0"}\njobs: {a: {command: c}}',
        "jobs: {a: {command: c, secret_environment: {A: 'hunter2${{'}}}",
        "parameters: {p: {secret: true, default: hunter2, choices: [hunter2x]}}\njobs: {a: {command: c}}",
        "parameters: {p: {secret: true, type: integer, default: hunter2}}\njobs: {a: {command: c}}",
        "parameters: {p: {secret: true, default: hunter2}}\njobs: {a: {command: '${{ params.p }}'}}",
    ],
)
def test_a_secret_is_in_no_fault(text: str) -> None:
    assert "hunter2" not in "\n".join(faults(text))


def test_a_given_secret_is_in_no_fault() -> None:
    text = "parameters: {p: {secret: true, type: integer, max: 10}}\njobs: {a: {command: c}}"
    for given_ in ("hunter2", "4711"):
        assert given_ not in "\n".join(faults(text, parameters={"p": given_}))


def test_a_cycle_is_told_once_however_many_steps_it_has() -> None:
    text = (
        "jobs:\n  a: {command: c, matrix: {x: [1, 2]}, requires: ['b[x=${{ matrix.x }}]']}\n"
        "  b: {command: c, matrix: {x: [1, 2]}, requires: ['a[x=${{ matrix.x }}]']}\n"
        "  d: {command: c, requires: [e]}\n  e: {command: c, requires: [{d: FAILED}]}\n"
    )
    assert faults(text) == [
        'w.yaml:2: job "a": requires: in a circle: a[x=1] -> b[x=1] -> a[x=1]',
        'w.yaml:4: job "d": requires: in a circle: d -> e -> d',
    ]


def test_the_steps_of_a_matrix_may_require_each_other() -> None:
    text = (
        "jobs:\n  a:\n    command: c\n    matrix: {x: [1, 2]}\n"
        "    requires: [{expression: 'a[x=1]=COMPLETED || a[x=${{ matrix.x }}]=FAILED'}]\n"
    )
    assert faults(text) == ['w.yaml:5: job "a": requires: the job requires itself']


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jobs: [a]", ["jobs: must be a mapping, not a list"]),
        ("jobs: {}", ["jobs: there are none"]),
        ("jobs: {a: }", ['job "a": command: is missing']),
        (
            "jobs: {a: train.py, b: [x]}",
            ['job "a": must be a mapping, not train.py', 'job "b": must be a mapping, not a list'],
        ),
        (
            "jobs: {a: {command: c, matrix: {x: [" + "y" * 64 + "], z: [" + "y" * 64 + "]}}}",
            ['job "a": matrix: the name "' + ("a[x=" + "y" * 64)[:60] + '..." is 136 characters long (at most 128)'],
        ),
        (
            "jobs: {a: {command: c, uploads: {files: ['${{ params.x }}', [b]]}}}",
            [
                'job "a": uploads.files[0]: unknown parameter "x"',
                'job "a": uploads.files[1]: must be text, not a list',
            ],
        ),
        (
            "jobs: {a: {command: c, resources: {max_cpu: &x 1, max_mem: 1}}}",
            ['job "a": resources.max_mem: unknown key (did you mean max_memory?)'],
        ),
        (
            "jobs: {a: {command: c, matrix: {'l r': [1]}}}",
            ['job "a": matrix.l r: is no name of a value ([A-Za-z_][A-Za-z0-9_-]{0,62})'],
        ),
        ("jobs: {a: {command: c, matrix: {exclude: [{x: 1}]}}}", ['job "a": matrix: has no values']),
        (
            "jobs: {a: {command: c, matrix: {x: [1], exclude: {x: 1}}}}",
            ['job "a": matrix.exclude: must be a list of mappings, not a mapping'],
        ),
        (
            "jobs: {a: {command: c, matrix: {x: [1], exclude: [1, {x: ~}]}}}",
            [
                'job "a": matrix.exclude[0]: must be a mapping of keys of the matrix to values',
                'job "a": matrix.exclude[1].x: must be a single value, not null',
            ],
        ),
        (
            "jobs: {a: {command: c, matrix: {x: [[1]], y: ['${{ params.p }}'], z: 1}}}",
            [
                'job "a": matrix.x[0]: must be a single value, not a list',
                'job "a": matrix.y[0]: unknown parameter "p"',
                'job "a": matrix.z: must be a list of values, not 1',
            ],
        ),
        (
            "jobs: {a: {command: c, requires: [{b: [FAILED]}, {expression: [x]}, {}, '${{ matrix.x }}']}, b: }",
            [
                'job "a": requires[0]: must be a state, not a list',
                'job "a": requires[1].expression: must be text, not a list',
                'job "a": requires[2]: must be the name of a job, JOB: STATE, or expression: TEXT',
                'job "a": requires[3]: unknown key of the matrix "x"',
                'job "b": command: is missing',
            ],
        ),
        (
            "jobs: {a: {command: c, requires: [{b: '${{ params.s }}'}, {expression: '${{ x }}'}]}, b: {command: c}}",
            [
                'job "a": requires[0]: unknown parameter "s"',
                'job "a": requires[1].expression: unknown template "x" (write params.NAME, matrix.NAME or '
                "jobs.NAME.outputs.KEY)",
            ],
        ),
        (
            "jobs: {a: {command: c, args: ['${{ jobs.aa.outputs.k }}', '${{ jobs.${{ jobs.b.outputs.k }} }}']}}",
            [
                'job "a": args[0]: unknown job "aa" (did you mean a?)',
                'job "a": args[1]: "${{" without "}}" after it (write "$${{" for the text itself)',
            ],
        ),
        (
            "jobs: {a: {command: c, args: ['${{ jobs.b[${{ jobs.b.outputs.k }}].outputs.k }}']}}",
            ['job "a": args[0]: an output cannot be part of the name of a job'],
        ),
        (
            "jobs: {a: {command: c, requires: ['b[x=1]', b, 'a=FAILED']}, b: {command: c, matrix: {x: []}}}",
            [
                'job "b": matrix.x: must be a list of values, not an empty one',
                'job "a": requires[2]: unknown job "a=FAILED" (write expression: TEXT for one)',
            ],
        ),
        ("jobs: {a: {command: c, <<: [1]}}", ['job "a": <<: must be a mapping, or a list of them']),
        ("parameters: [p]\njobs: {a: {command: c}}", ["parameters: must be a mapping, not a list"]),
        (
            "parameters: {p: [1], q: {default: [1]}, r: {default: 1, mni: 1}}\njobs: {a: {command: c}}",
            [
                "parameters.p: must be a default or a mapping, not a list",
                "parameters.q: default must be a single value, not a list",
                "parameters.r.mni: unknown key (did you mean min?)",
            ],
        ),
        (
            "parameters: {p: {min: 1}, q: {default: 1, min: [1]}, r: {choices: [[b]]}}\njobs: {a: {command: c}}",
            [
                "parameters.p: min is for numbers, not for a string",
                "parameters.q: min must be a whole number of at most 18 digits, not a list",
                "parameters.r: choices[0] must be a single value, not a list",
            ],
        ),
        (
            'parameters:\n {p: "\\0", q: {default: 1.5, min: 2.5}, r: {default: yes, type: boolean, choices: [no]}}\n'
            "jobs: {a: {command: c}}",
            [
                "parameters.p: default contains a NUL byte",
                "parameters.q: default must be at least 2.5, not 1.5",
                'parameters.r: default must be one of its choices: "no", not yes',
            ],
        ),
        (
            "name: &n " + "x" * 129 + "\njobs: {a: {command: c, args: [*n]}}",
            ['name: must be at most 128 printable characters, not "' + "x" * 60 + '..."'],
        ),
        (
            "jobs: {a: {command: c, args: ['" + "x" * 131_072 + "'], retries: [1], timeout: 0s}}",
            [
                'job "a": args[0]: is 131072 bytes long (at most 131071)',
                'job "a": timeout: must be 1ms to 87600h, not 0s',
                'job "a": retries: must be a number of attempts or a mapping, not a list',
            ],
        ),
        (
            'jobs: {"a\\e": {command: "\\e;"}}',
            [
                'job "a\\x1b": is no name of a job (1 to 63 letters, digits and _ . -, not . or - first)',
                'job "a\\x1b": command: command contains dangerous characters',
            ],
        ),
    ],
)
def test_smaller_faults(text: str, told: list[str]) -> None:
    assert [fault.split(": ", 1)[1] for fault in faults(text)] == told


def test_the_matrices_of_all_jobs_count_together() -> None:
    numbers = ", ".join(map(str, range(3000)))
    jobs = "".join(f"  a{i}: {{command: c, matrix: {{x: [{numbers}]}}}}\n" for i in range(4))
    assert faults("jobs:\n" + jobs) == ["w.yaml:1: jobs: more than 10000 jobs, those of matrices included"]


def test_a_matrix_with_too_many_kinds_of_exclusions_is_refused() -> None:
    keys = "".join(f"      k{i}: [0, 1]\n" for i in range(13))
    excluded = ", ".join(
        "{" + ", ".join(f"k{i}: 0" for i in range(13) if number >> i & 1) + "}" for number in range(1, 200)
    )
    assert faults(f"jobs:\n  a:\n    command: c\n    matrix:\n{keys}      exclude: [{excluded}]\n") == [
        'w.yaml:5: job "a": matrix.exclude: 199 different sets of keys for 8192 combinations are too many'
    ]


# Bounds


def test_bounds_of_size() -> None:
    text = "jobs: {a: {command: c}} #"
    assert plan(text + "x" * (2**20 - len(text))).steps
    assert faults(text + "x" * (2**20 - len(text) + 1)) == ["w.yaml:1: 1048577 bytes long (at most 1048576)"]


def test_bounds_of_aliases() -> None:
    def text(count: int) -> str:
        return "jobs:\n  a:\n    command: &c c\n    args: [" + "*c, " * count + "]\n"

    assert len(plan(text(100)).steps[0].order.args) == 100
    assert faults(text(101)) == ["w.yaml:4: more than 100 aliases"]


def test_bounds_of_depth_hold_through_aliases() -> None:
    text = f"jobs:\n  a:\n    command: c\n    args: &a {'[' * 20 + ']' * 20}\n    env: {'[' * 10}*a{']' * 10}\n"
    assert faults(text) == ["w.yaml:5: more than 32 levels deep"]


NUMBERS = ", ".join(map(str, range(5000)))
BOMBS = {
    "brackets": "[" * 500_000,
    "braces": "{" * 500_000,
    "dashes": "- " * 500_000,
    "tag": "a: " + "!" * 500_000,
    "anchors": "&a " * 300_000,
    "questions": "? " * 400_000,
    "aliases": "".join(f"a{i}: &a{i} [" + f"*a{i - 1}, " * 9 * bool(i) + "x]\n" for i in range(11)),
    "merges": "x: &x {"
    + ", ".join(f"k{i}: 1" for i in range(2000))
    + "}\njobs:\n"
    + "".join(f"  j{i}: {{<<: *x}}\n" for i in range(90)),
    "duration": f"jobs: {{a: {{command: c, timeout: {'1' * 500_000}}}}}",
    "dollars": f"jobs: {{a: {{command: c, args: ['{'$' * 500_000}{{{{']}}}}",
    "open template": f"jobs: {{a: {{command: c, args: ['${{{{ {'[' * 500_000}']}}}}",
    "output": f"jobs: {{a: {{command: c, args: ['${{{{ jobs.{'.outputs.' * 90_000} }}}}']}}}}",
    "arguments": f"jobs: {{a: {{command: c, args: [{'a, ' * 90_000}], matrix: {{x: [{NUMBERS}]}}}}}}",
    "one parameter": f"parameters: {{p: {'x' * 100_000}}}\n"
    + f"jobs: {{a: {{command: c, args: ['{'${{params.p}}' * 60_000}']}}}}",
    "parameters": f"parameters: {{p: {'x' * 100_000}}}\n"
    + f"jobs: {{a: {{command: c, args: [{'${{params.p}}, ' * 20_000}]}}}}".replace("${{params.p}}", "'${{params.p}}'"),
    "environment": f"environment: {{{', '.join(f'E{i}: xxxxxxxxx' for i in range(20_000))}}}\n"
    + f"jobs: {{a: {{command: c, matrix: {{x: [{NUMBERS}]}}}}}}",
    "requirements": f"jobs: {{a: {{command: c, matrix: {{x: [{NUMBERS}]}}}}, "
    + f"b: {{command: c, requires: [a], matrix: {{x: [{NUMBERS}]}}}}}}",
    "matrix": "jobs: {a: {command: c, matrix: {" + ", ".join(f"k{i}: [1, 2]" for i in range(20_000)) + "}}}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_goes_off(name: str) -> None:
    before = time.process_time()
    assert len(faults(BOMBS[name])) == 1
    assert time.process_time() - before < 20  # what any of them would take is far beyond


def test_a_thousand_jobs_are_read_in_well_under_a_second() -> None:
    jobs = "".join(
        f"  job{i}:\n    command: echo\n    args: [a, b]\n    requires: [{f'job{i - 1}' if i else ''}]\n"
        f"    environment: {{A: b}}\n    resources: {{max_memory: 10}}\n"
        for i in range(1000)
    )
    before = time.process_time()
    assert len(plan("jobs:\n" + jobs).steps) == 1000
    assert time.process_time() - before < 1.5


SNIPPETS = st.sampled_from(
    sorted({part for path in (*GOOD, *MALFORMED) for part in re.findall(r"\$\{\{|[\w.-]+|\s+|.", path.read_text())})
)


@settings(max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 8), SNIPPETS), max_size=4))
def test_a_file_with_any_damage_is_a_plan_or_a_list_of_faults(path: Path, damage: list[tuple[int, int, str]]) -> None:
    text = path.read_text()
    for at, length, other in damage:
        at %= len(text) + 1
        text = text[:at] + other + text[at + length :]
    try:
        parse(text, file="w.yaml")
    except InvalidWorkflow as error:
        assert all(re.match(r"w\.yaml:\d+: ", fault) for fault in error.faults)


@settings(max_examples=100, deadline=2000)
@given(st.text(max_size=80) | st.text(alphabet="jobs:{}[]&*!|>-?\n\"' a<,#%@", max_size=80))
def test_any_text_is_a_plan_or_a_list_of_faults(text: str) -> None:
    try:
        parse(text, file="w.yaml")
    except InvalidWorkflow as error:
        assert error.faults


def test_it_is_read_without_libyaml_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = [parse(path.read_text(), file="w.yaml") for path in GOOD]
    monkeypatch.setattr(source, "_LOADER", yaml.SafeLoader)
    assert [parse(path.read_text(), file="w.yaml") for path in GOOD] == with_it
    assert faults('jobs: "\\Uffffffff"') == ["w.yaml:1: not valid YAML: an escape that stands for no character"]


def test_it_needs_nothing_of_the_server() -> None:
    code = "import sys, joblet.workflow.build; print([m for m in sys.modules if m.startswith('joblet.')])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"joblet\.(server|executor|store|runner|logs)", loaded)
