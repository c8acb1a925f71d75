"""Settings in files: the project's and the user's.

The project's is the nearest upwards from a folder: ``freezeflow.toml``, or ``pyproject.toml`` with a
table ``[tool.freezeflow]``. A folder with ``.git`` is the last that is looked into, so that a file in a
folder that others can write to (``/tmp``) does not speak for what lies below. The user's is
``freezeflow/config.toml`` in ``XDG_CONFIG_HOME``, else in ``~/.config``.

Most calls find no file. They must not pay for reading TOML, so the parser is imported when there is one.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from freezeflow.errors import UsageError
from freezeflow.values import Json

PROJECT_FILE = "freezeflow.toml"
PYPROJECT = "pyproject.toml"

# In pyproject.toml, the table below which settings stand.
_TABLE = ("tool", "freezeflow")

Names = tuple[str, ...]


class SettingsFile(NamedTuple):
    """A file that may hold settings, with its text, and the table in which they stand."""

    path: Path
    text: str
    table: Names


class Place(NamedTuple):
    """Where a name stands in a file: line and column from 1, characters, and the line itself."""

    line: int
    column: int
    length: int
    source: str


def find_project_file(folder: Path) -> SettingsFile | None:
    """The project's settings file, the nearest upwards from a folder."""
    here = os.path.abspath(folder)
    while True:
        found = _read(f"{here}/{PROJECT_FILE}", ()) or _read(f"{here}/{PYPROJECT}", _TABLE)
        if found is not None:
            return found
        above = os.path.dirname(here)
        if above == here or os.path.exists(f"{here}/.git"):
            return None
        here = above


def find_user_file() -> SettingsFile | None:
    """The user's settings file."""
    return _read(str(user_path()), ())


def user_path() -> Path:
    """Where the user's settings file is, if there is one."""
    configs = os.environ.get("XDG_CONFIG_HOME")
    return (Path(configs) if configs else Path.home() / ".config") / "freezeflow" / "config.toml"


def parse(file: SettingsFile) -> Json:
    """The settings in a file, as TOML gives them.

    Raises:
        UsageError: It is not TOML; with line and column.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        data: Json = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        numbers = re.findall(r"\d+", place)
        raise UsageError(message, where=":".join([str(file.path), *numbers[:2]])) from None
    for name in file.table:
        data = data.get(name, {}) if isinstance(data, dict) else {}
    return data


def place_of(file: SettingsFile, names: Names) -> Place:
    """Where a setting stands in its file; where that is not plain, the table that it is in."""
    wanted = file.table + names
    best, best_length = Place(1, 1, 1, ""), 0
    for place, found in _keys(file.text):
        if len(found) > best_length and wanted[: len(found)] == found:
            best, best_length = place, len(found)
    inside = re.search(rf"(?<![\w-]){re.escape(names[-1])}(?![\w-])", best.source)
    if best_length < len(wanted) and inside:  # in an inline table
        return best._replace(column=inside.start() + 1, length=len(names[-1]))
    return best


_HEADER = re.compile(r"\s*\[+\s*([^\[\]#]+?)\s*\]+")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_FENCES = re.compile(r"\"\"\"|\'\'\'")


def _keys(text: str) -> list[tuple[Place, Names]]:
    """Every table and key that begins a line, by its full name."""
    found = []
    table: Names = ()
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        inside, fence = fence, _fence_after(line, fence)
        if inside:
            continue
        if match := _HEADER.match(line):
            table = names = _names(match[1])
        elif match := _KEY.match(line):
            names = table + _names(match[1])
        else:
            continue
        found.append((Place(number, match.start(1) + 1, len(match[1]), line), names))
    return found


def _fence_after(line: str, fence: str) -> str:
    """Which kind of multi-line text is open after a line; empty for none."""
    for mark in _FENCES.findall(line):
        if not fence:
            fence = mark
        elif mark == fence:
            fence = ""
    return fence


def _names(dotted: str) -> Names:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _read(path: str, table: Names) -> SettingsFile | None:
    """A file, if it is there and has the table."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=path) from None
    if table and not _has_table(data):
        return None
    try:
        return SettingsFile(Path(path), data.decode(), table)
    except UnicodeDecodeError:
        raise UsageError("is not UTF-8, which TOML is", where=path) from None


def _has_table(data: bytes) -> bool:
    """Whether a pyproject.toml has our table, as far as can be told without reading TOML."""
    if b"freezeflow" not in data:
        return False
    for line in data.splitlines():
        words = line.strip()
        if words.startswith((b"[tool", b"tool")) and b"freezeflow" in words:
            return True
        if words.replace(b" ", b"") == b"[tool]":
            return True
    return False
