"""Text in columns of a terminal, where some characters take two and some none."""

from __future__ import annotations

import unicodedata


def cells(text: str) -> list[str]:
    """The columns that a text takes: a wide character and then nothing, a combining one with that before it."""
    columns: list[str] = []
    for character in text:
        if unicodedata.combining(character) and columns:
            columns[-1] += character
            continue
        columns.append(character)
        if unicodedata.east_asian_width(character) in "WF":
            columns.append("")
    return columns


def cut(text: str, width: int) -> str:
    """As much of the text as fits; cut text ends with `…`."""
    columns = cells(text)
    if len(columns) <= width:
        return text
    kept = columns[: width - 1]
    if columns[width - 1] == "" and kept:  # half of a wide character
        kept.pop()
    return "".join(kept) + "…"


def padded(text: str, width: int) -> str:
    """The text with blanks up to the width."""
    return text + " " * max(0, width - len(cells(text)))
