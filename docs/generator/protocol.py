"""The rpcs and messages of protos/joblet.proto, by its compiled form, which holds the comments too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

from generator.markdown import code, one_line, prose, table
from generator.source import ROOT
from joblet.access import ROLES
from joblet.server.auth import OPERATIONS

_DESCRIPTOR = ROOT / "src/joblet/proto/joblet.binpb"
_SERVICE, _METHOD, _MESSAGE, _FIELD, _ENUM, _VALUE = 6, 2, 4, 2, 5, 2
"""numbers of fields of descriptor.proto, of which the paths of comments consist"""

Comments = Mapping[tuple[int, ...], str]


def page() -> str:
    """The reference of the protocol."""
    file = read(_DESCRIPTOR)
    comments = {tuple(place.path): _comment(place) for place in file.source_code_info.location}
    text = (
        f"# Protocol\n\nPackage `{file.package}`, in [joblet.proto](../../protos/joblet.proto). What is called an"
        " extension is not of the original specification: it is optional, and who does not know it gets the"
        " specification's behaviour. Field numbers are never reused. [Errors](errors.md) have a page of their own.\n\n"
    )
    text += "".join(_service(file, number, comments) for number in range(len(file.service)))
    text += "## Messages\n\n"
    for number, message in enumerate(file.message_type):
        text += _message(message, (_MESSAGE, number), comments, "")
    for number, enum in enumerate(file.enum_type):
        place = (_ENUM, number)
        rows = [
            (str(value.number), code(value.name), prose(comments.get((*place, _VALUE, index), "")))
            for index, value in enumerate(enum.value)
        ]
        text += f"### {enum.name}\n\n{_paragraph(comments.get(place, ''))}" + table(("number", "name", "meaning"), rows)
    return text


def read(path: Path) -> FileDescriptorProto:
    """The one file of a descriptor set."""
    files = FileDescriptorSet.FromString(path.read_bytes())
    return next(file for file in files.file if file.name == "joblet.proto")


def _comment(place: object) -> str:
    leading, trailing = getattr(place, "leading_comments", ""), getattr(place, "trailing_comments", "")
    return one_line(f"{leading} {trailing}")


def _paragraph(text: str) -> str:
    return f"{prose(text)}\n\n" if text else ""


def _service(file: FileDescriptorProto, number: int, comments: Comments) -> str:
    service: ServiceDescriptorProto = file.service[number]
    text = f"## {service.name}\n\n" + _paragraph(comments.get((_SERVICE, number), ""))
    rows = []
    for index, method in enumerate(service.method):
        operation = OPERATIONS.get(f"/{file.package}.{service.name}/{method.name}", "")
        roles = ", ".join(name for name, role in ROLES.items() if operation in role.operations)
        request = _link(method.input_type, "stream " if method.client_streaming else "")
        answer = _link(method.output_type, "stream " if method.server_streaming else "")
        about = prose(comments.get((_SERVICE, number, _METHOD, index), ""))
        rows.append((code(method.name), request, answer, roles or "nobody", about))
    return text + table(("rpc", "request", "answer", "for", "what it does"), rows)


def _message(message: DescriptorProto, place: tuple[int, ...], comments: Comments, outer: str) -> str:
    name = f"{outer}{message.name}"
    text = f"### {name}\n\n" + _paragraph(comments.get(place, ""))
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    rows = [
        (
            str(field.number),
            code(field.name),
            _type(field, maps),
            prose(comments.get((*place, _FIELD, index), "")),
        )
        for index, field in enumerate(message.field)
    ]
    text += table(("number", "field", "type", "meaning"), rows) if rows else "No fields.\n\n"
    for index, nested in enumerate(message.nested_type):
        if nested.name not in maps:
            text += _message(nested, (*place, 3, index), comments, f"{name}.")
    return text


def _type(field: FieldDescriptorProto, maps: Mapping[str, DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        return f"map of {_type(entry.field[0], {})} to {_type(entry.field[1], {})}"
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    optional = "optional " if field.proto3_optional else ""
    if field.type_name:
        return _link(field.type_name, repeated + optional)
    return repeated + optional + FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _link(type_name: str, before: str) -> str:
    name = type_name.removeprefix(".joblet.")
    return f"{before}[{name}](#{name.lower().replace('.', '')})"
