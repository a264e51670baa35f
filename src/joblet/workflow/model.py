"""What a workflow's file may hold: its keys, the types and bounds of their values, and what they are for.

The models read what `source` gives: mappings and lists of scalars that have kept their text. From the same models the
JSON Schema is made, so the descriptions here are what editors show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from joblet.clock import format_duration, parse_duration
from joblet.errors import InvalidArgument
from joblet.order import (
    MAX_ARG_BYTES,
    MAX_INT32,
    MAX_LABELS,
    MAX_NAME,
    MAX_PRIORITY,
    MAX_TIMEOUT_MS,
    parse_cores,
    validate_command,
    validate_environment,
    validate_labels,
    validate_path,
    validate_workdir,
)
from joblet.workflow.condition import Wanted
from joblet.workflow.expression import MAX_LENGTH
from joblet.workflow.faults import SHOWN, show
from joblet.workflow.source import Scalar, Table

MAX_STEPS = 10_000
MAX_BACKOFF = 86_400.0

JOB_NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"
NAME = "[A-Za-z_][A-Za-z0-9_-]{0,62}"
"""of a parameter, or of a key of a matrix"""

NOT_YET = ("runtime", "network", "volumes")
"""keys that users of the original know, and that mean nothing here so far"""

Schema = dict[str, Any]

_TEMPLATE: Schema = {"type": "string", "pattern": "^\\$\\{\\{[^{}]*\\}\\}$", "description": "a template"}
_ANY_SCALAR: Schema = {"type": ["string", "number", "boolean"]}
_DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|[smhd]))+$|\$\{\{"


def describe(value: object) -> str:
    """What stands where something else should, for a message."""
    match value:
        case Scalar() if value.null:
            return "null"
        case Scalar(text, plain=True):
            return text if text.isprintable() and len(text) <= SHOWN else show(text)
        case Scalar(text):
            return f"text {show(text)}"
        case Mapping() | Table():
            return "a mapping"
    return "a list"


def unfit(text: str) -> str:
    """What keeps a text from being an argument or the value of a variable, if anything does. It does not show it."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    if "\0" in text:
        return "contains a NUL byte"
    return f"is {size} bytes long (at most {MAX_ARG_BYTES})" if size > MAX_ARG_BYTES else ""


class _Leaf:
    """The type of one value: how it is read, and what editors are told of it."""

    def read(self, value: object) -> object:
        """The value. Raises ValueError, which says what it must be, and what it is."""
        raise NotImplementedError

    def schema(self) -> Schema:
        """Its JSON Schema."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return self.schema()


@dataclass(frozen=True)
class _Text(_Leaf):
    """Any scalar, as it is written: `0.10` is `0.10`, `yes` is `yes`. It is never shown, for it may be secret."""

    def read(self, value: object) -> str:
        if not isinstance(value, Scalar):
            raise ValueError(f"must be text, not {describe(value)}")
        if value.null:
            raise ValueError('must be text, not null (write "")')
        if what := unfit(value.text):
            raise ValueError(what)
        return value.text

    def schema(self) -> Schema:
        return dict(_ANY_SCALAR)


@dataclass(frozen=True)
class _Whole(_Leaf):
    """A whole number within bounds."""

    least: int
    most: int

    def read(self, value: object) -> int:
        if isinstance(value, Scalar) and value.integer and len(value.text) <= 20:
            number = int(value.text)
            if self.least <= number <= self.most:
                return number
        raise ValueError(f"must be a whole number from {self.least} to {self.most}, not {describe(value)}")

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "integer", "minimum": self.least, "maximum": self.most}, _TEMPLATE]}


@dataclass(frozen=True)
class _Number(_Leaf):
    """A number within bounds."""

    least: float
    most: float

    def read(self, value: object) -> float:
        number = float(value.text) if isinstance(value, Scalar) and value.number else math.nan
        if self.least <= number <= self.most:
            return number
        raise ValueError(f"must be a number from {self.least:g} to {self.most:g}, not {describe(value)}")

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "number", "minimum": self.least, "maximum": self.most}, _TEMPLATE]}


@dataclass(frozen=True)
class _Flag(_Leaf):
    """A truth value."""

    def read(self, value: object) -> bool:
        if isinstance(value, Scalar) and value.plain and value.text.lower() in TRUTH:
            return TRUTH[value.text.lower()]
        raise ValueError(f"must be true or false, not {describe(value)}")

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "boolean"}, _TEMPLATE]}


TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""how truth values are written, in any case of letters"""


@dataclass(frozen=True)
class _Duration(_Leaf):
    """Seconds, written as `5s`, `1h30m` or `250ms`."""

    least: float
    most: float

    def read(self, value: object) -> float:
        try:
            seconds = parse_duration(value.text) if isinstance(value, Scalar) and len(value.text) <= SHOWN else None
        except ValueError:
            seconds = None
        if seconds is None:
            raise ValueError(f'must be a duration, as "5s", "1h30m" or "250ms", not {describe(value)}')
        if not self.least <= seconds <= self.most:
            allowed = f"{format_duration(self.least)} to {format_duration(self.most)}"
            raise ValueError(f"must be {allowed}, not {describe(value)}")
        return seconds

    def schema(self) -> Schema:
        return {"type": "string", "pattern": _DURATION_PATTERN, "examples": ["90s", "1h30m", "250ms"]}


@dataclass(frozen=True)
class _Or:
    """Another way to write something, for editors; a validator before the model turns it into the full one."""

    short: Schema

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {"anyOf": [self.short, handler(core)]}


def _mapping(value: object) -> object:
    if isinstance(value, Scalar) and value.null:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping, not {describe(value)}")
    return value


def _list(value: object) -> object:
    if isinstance(value, Scalar) and value.null:
        return []
    if not isinstance(value, list):
        raise ValueError(f"must be a list, not {describe(value)}")
    return value


def _short(key: str, what: str) -> Callable[[object], object]:
    """Reads a scalar as the mapping in which it stands under `key`."""

    def read(value: object) -> object:
        if isinstance(value, Scalar):
            return {} if value.null else {key: value}
        if not isinstance(value, Mapping):
            raise ValueError(f"must be {what} or a mapping, not {describe(value)}")
        return value

    return read


def _secret_mapping(value: object) -> object:
    if isinstance(value, Scalar) and not value.null:
        raise ValueError("must be a mapping of names to values")
    return _mapping(value)


def _valid(validate: Callable[[str], object]) -> AfterValidator:
    """Refuses what `validate` raises InvalidArgument for."""

    def check(value: str) -> str:
        try:
            validate(value)
        except InvalidArgument as error:
            raise ValueError(str(error).partition(": ")[2]) from None
        return value

    return AfterValidator(check)


def _title(value: str) -> str:
    if len(value) > MAX_NAME or not value.isprintable():
        raise ValueError(f"must be at most {MAX_NAME} printable characters, not {show(value)}")
    return value


Text = Annotated[str, _Text()]
Texts = Annotated[list[Text], BeforeValidator(_list)]
Command = Annotated[Text, _valid(lambda command: validate_command(command, ()))]
Workdir = Annotated[Text, _valid(validate_workdir)]
Cores = Annotated[Text, _valid(lambda cores: cores and parse_cores(cores))]
Files = Annotated[list[Annotated[Text, _valid(partial(validate_path, "uploads"))]], BeforeValidator(_list)]
Variable = Annotated[str, _valid(lambda name: validate_environment("environment", {name: ""}))]
Variables = Annotated[dict[Variable, Text], BeforeValidator(_mapping)]
SecretVariables = Annotated[dict[Variable, Text], BeforeValidator(_secret_mapping)]
LabelName = Annotated[str, _valid(lambda name: validate_labels({name: ""}))]
LabelValue = Annotated[Text, _valid(lambda value: validate_labels({"value": value}))]
Labels = Annotated[dict[LabelName, LabelValue], BeforeValidator(_mapping)]
Limit = Annotated[int, _Whole(0, MAX_INT32)]
Timeout = Annotated[float, _Duration(0.001, MAX_TIMEOUT_MS / 1000)]
Pause = Annotated[float, _Duration(0.0, MAX_BACKOFF)]


class Model(BaseModel):
    """Refuses unknown keys; the docstring of a field is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Resources(Model):
    """What a job may use at most; 0 is the server's default."""

    max_cpu: Limit = Field(default=0, examples=[100])
    """Percent of one core."""
    max_memory: Limit = Field(default=0, examples=[512])
    """MB of memory."""
    max_io_bps: Limit = 0
    """Bytes per second of reading and, apart, of writing."""
    cpu_cores: Cores = Field(default="", examples=["0-3", "0,2,4"])
    """The cores it may run on."""
    max_processes: Limit = 0
    """Processes and threads."""
    max_open_files: Limit = 0
    """Open files of each process."""
    max_disk: Limit = 0
    """MB in the work directory."""


class Uploads(Model):
    """Files that are sent along and placed in the job's work directory."""

    files: Files = Field(default=[], examples=[["train.py", "data/items.csv"]])
    """Paths relative to the workflow's file, of files or directories."""


class Retries(Model):
    """Whether and when a job that failed or ran into its timeout is tried again."""

    limit: Annotated[int, _Whole(0, 100)]
    """Attempts beyond the first."""
    backoff: Pause = 0.0
    """The pause before the second attempt; none without one."""
    factor: Annotated[float, _Number(1, 10)] = 2.0
    """By which each further pause is longer; 2 without one."""
    max_backoff: Pause = 300.0
    """The longest pause; 5m without one, or backoff where that is longer."""
    exit_codes: Annotated[list[Annotated[int, _Whole(1, 255)]], BeforeValidator(_list)] = []
    """Only these are worth another attempt; without any, every failure and every timeout is."""


class Parameter(Model):
    """A value that whoever runs the workflow may give, with `--param NAME=VALUE`."""

    type: Annotated[Text, WithJsonSchema({"enum": ["string", "integer", "number", "boolean"]})] = ""
    """What it may be; without one, that of the default, or a string."""
    default: Any = Field(default=None, json_schema_extra=_ANY_SCALAR)
    """What it is when it is not given; without one it must be."""
    min: Annotated[Any, WithJsonSchema({"type": "number"})] = None
    """The least number allowed."""
    max: Annotated[Any, WithJsonSchema({"type": "number"})] = None
    """The greatest number allowed."""
    choices: Annotated[list[Any], BeforeValidator(_list), WithJsonSchema({"type": "array", "items": _ANY_SCALAR})] = []
    """The only values allowed."""
    secret: Annotated[bool, _Flag(), WithJsonSchema({"type": "boolean"})] = False
    """It may be used below secret_environment only, and is shown nowhere."""
    description: Text = ""
    """What it is for."""


_REQUIREMENT: Schema = {
    "anyOf": [
        {"type": "string", "description": "the name of a job, which must have COMPLETED"},
        {
            "type": "object",
            "properties": {"expression": {"type": "string", "maxLength": MAX_LENGTH}},
            "required": ["expression"],
            "additionalProperties": False,
            "examples": [{"expression": "a=COMPLETED && (b=FAILED || c=COMPLETED)"}],
        },
        {
            "type": "object",
            "propertyNames": {"not": {"const": "expression"}},
            "additionalProperties": {"anyOf": [{"enum": list(Wanted)}, _TEMPLATE]},
            "minProperties": 1,
            "examples": [{"setup-data": "COMPLETED"}],
        },
    ]
}
_MATRIX: Schema = {
    "type": "object",
    "properties": {
        "exclude": {
            "type": "array",
            "description": "Combinations that are left out; one may name some of the keys only.",
            "items": {"type": "object", "additionalProperties": _ANY_SCALAR},
        },
        "include": False,
    },
    "patternProperties": {f"^(?!(exclude|include)$){NAME}$": {"type": "array", "items": _ANY_SCALAR, "minItems": 1}},
    "additionalProperties": False,
    "examples": [{"lr": [0.1, 0.01], "depth": [1, 2], "exclude": [{"lr": 0.1, "depth": 2}]}],
}


class Job(Model):
    """One job, or with a matrix several."""

    command: Command
    """The program to run. No shell reads it."""
    args: Texts = Field(default=[], examples=[["train.py", "--lr", "${{ matrix.lr }}"]])
    """Its arguments."""
    requires: Annotated[Any, WithJsonSchema({"type": "array", "items": _REQUIREMENT})] = None
    """What must have become of other jobs before this one starts; all of it."""
    resources: Annotated[Resources, BeforeValidator(_mapping)] = Resources()
    environment: Variables = {}
    """Environment variables, over those of the workflow."""
    secret_environment: SecretVariables = {}
    """Environment variables whose values reach the job and nobody else."""
    workdir: Workdir = ""
    """Where the command starts: relative to the work directory, or absolute in the job's view."""
    uploads: Annotated[Uploads, BeforeValidator(_mapping)] = Uploads()
    timeout: Timeout = 0.0
    """How long an attempt may take; without one, the server's jobTimeout."""
    retries: Annotated[
        Retries,
        BeforeValidator(_short("limit", "a number of attempts")),
        _Or(_Whole(0, 100).schema()),
    ] = Retries.model_construct(limit=0)
    continue_on_failure: Annotated[bool, _Flag()] = False
    """Its failure is none of the workflow's, and counts as COMPLETED for those that require that."""
    matrix: Annotated[Any, WithJsonSchema(_MATRIX)] = None
    """Runs the job once for each combination of these values."""
    priority: Annotated[int, _Whole(-MAX_PRIORITY, MAX_PRIORITY)] = 0
    """Of those that wait for a slot the highest goes first."""
    labels: Annotated[Labels, Field(max_length=MAX_LABELS)] = {}
    """For finding it: `rnx list --label`."""


class Header(Model):
    """All of a workflow but its parameters and jobs."""

    name: Annotated[Text, AfterValidator(_title)] = ""
    """What it is called."""
    environment: Variables = {}
    """Environment variables of every job."""
    secret_environment: SecretVariables = {}
    """Environment variables of every job whose values reach the jobs and nobody else."""
    timeout: Timeout = 0.0
    """How long the whole may take; then what runs is stopped."""
    max_parallel: Annotated[int, _Whole(0, MAX_STEPS)] = 0
    """Jobs that run at a time; 0 is no bound but the server's."""


Parameters = Annotated[Parameter, BeforeValidator(_short("default", "a default")), _Or(dict(_ANY_SCALAR))]


class Workflow(Header):
    """Jobs that depend on each other."""

    parameters: Annotated[
        dict[str, Parameters], Field(json_schema_extra={"propertyNames": {"pattern": f"^{NAME}$"}})
    ] = {}
    """Values that whoever runs it may give."""
    jobs: Annotated[
        dict[str, Job],
        Field(
            min_length=1,
            json_schema_extra={"propertyNames": {"pattern": f"^{JOB_NAME}$", "not": {"const": "expression"}}},
        ),
    ]
    """The jobs by name."""
