"""What only the source itself tells: the texts below attributes, and how the sentences of errors are put together."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def attribute_docs(kind: type) -> dict[str, str]:
    """The text below each attribute of a class, by its name; of its bases too."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("joblet"):
            found |= _attribute_docs(base)
    return found


def _attribute_docs(kind: type) -> dict[str, str]:
    (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for statement, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[statement.target.id] = inspect.cleandoc(text)
    return found


def sentence(node: ast.expr) -> str | None:
    """The text that an expression gives, with names in braces for what is known later; None if it is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            texts = [_part(part) for part in parts]
            return "".join(text for text, before in zip(texts, ["", *texts], strict=False) if text != before)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return "".join(sentence(side) or f"{{{_name(side)}}}" for side in (left, right))
    return None


def _part(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=text):
            return str(text)
        case ast.FormattedValue(value=value):
            return f"{{{_name(value)}}}"
    return f"{{{ast.unparse(node)}}}"


def _name(node: ast.expr) -> str:
    """What stands for a value: its name, without how it is come by."""
    match node:
        case ast.Attribute(attr="name" | "value" | "strerror", value=ast.Name(id=name)):
            return name
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name.strip("_").lower()
        case ast.Call(args=[argument, *_]):
            return _name(argument)
        case ast.Call(func=ast.Attribute(value=value)) | ast.Subscript(value=value):
            return _name(value)
    return "..."


def raised(name: str, below: Path) -> list[str]:
    """The texts with which errors of a class's name are made, of the modules below a directory, each once."""
    found: dict[str, None] = {}
    for path in sorted(below.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[argument, *_]) if (
                    called == name
                ):
                    if text := sentence(argument):
                        found[text] = None
    return list(found)
