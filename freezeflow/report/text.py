"""Words, figures and tables."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from freezeflow.values import Shape

_UNITS = ("B", "KB", "MB", "GB", "TB")

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def paint(text: str, style: str, *, color: bool) -> str:
    """The text in a style (bold, dim, red, green, yellow) where colours are wanted."""
    return f"\033[{_STYLES[style]}m{text}\033[0m" if color and text else text


def size(nbytes: int) -> str:
    """Bytes for people, in powers of 1000: ``66.7 KB``."""
    amount = float(nbytes)
    for unit in _UNITS:
        if amount < 999.95 or unit == _UNITS[-1]:
            break
        amount /= 1000
    return f"{nbytes} B" if unit == "B" else f"{amount:.1f} {unit}"


def seconds(amount: float) -> str:
    """Seconds for people: ``0.04 s``, ``12.3 s``, ``3 min 20 s``."""
    if amount < 9.995:
        return f"{amount:.2f} s"
    if amount < 119.95:
        return f"{amount:.1f} s"
    minutes, rest = divmod(round(amount), 60)
    return f"{minutes} min {rest} s"


def count(number: int, word: str, plural: str = "") -> str:
    """``1 step``, ``2 steps``."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def short_path(path: str | Path) -> str:
    """A path as one would type it here: relative where that is no longer than it is."""
    text = os.fspath(path)
    relative = os.path.relpath(text)
    return relative if len(relative) <= len(text) else text


def shape_text(shape: Shape) -> str:
    """``[?, 8, 8, 1]``; ``[...]`` where the rank is not known."""
    if shape is None:
        return "[...]"
    return f"[{', '.join('?' if length is None else str(length) for length in shape)}]"


def table(rows: Iterable[Sequence[str]], *, indent: str = "", right: Sequence[int] = ()) -> str:
    """Rows in columns, two spaces apart.

    Args:
        rows: Cells; a row may end early.
        indent: What stands before every row.
        right: Columns that are set flush right.
    """
    cells = [list(row) for row in rows]
    columns = max((len(row) for row in cells), default=0)
    widths = [
        max((_width(row[column]) for row in cells if column < len(row)), default=0)
        for column in range(columns)
    ]
    lines = []
    for row in cells:
        padded = [
            _pad(cell, widths[column], to_right=column in right) for column, cell in enumerate(row)
        ]
        lines.append((indent + "  ".join(padded)).rstrip())
    return "\n".join(lines)


def _pad(cell: str, width: int, *, to_right: bool) -> str:
    space = " " * (width - _width(cell))
    return space + cell if to_right else cell + space


def _width(text: str) -> int:
    """Columns on a terminal: colours take none, wide characters two."""
    plain = _without_colors(text) if "\033" in text else text
    if plain.isascii():
        return len(plain)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in plain
    )


def _without_colors(text: str) -> str:
    parts = text.split("\033[")
    return parts[0] + "".join(part.partition("m")[2] for part in parts[1:])
