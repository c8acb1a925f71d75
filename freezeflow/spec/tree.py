"""YAML text as plain values that remember where they stand.

Scalars are read by the core schema of YAML 1.2 (so ``no`` is a string and ``010`` is ten), tags and
merge keys are refused, and so is what could make a small file large: too many aliases, too deep
nesting, aliases into oneself. Source of the schema: https://yaml.org/spec/1.2.2/#103-core-schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from freezeflow.errors import RecipeError
from freezeflow.spec.problems import InvalidRecipe, Mark, Problem
from freezeflow.values import Json

Path_ = tuple[str | int, ...]

MAX_BYTES = 4 * 1024 * 1024
_MAX_DEPTH = 50
_MAX_NODES = 200_000

_NULL = re.compile(r"(~|null|Null|NULL|)$")
_TRUE = re.compile(r"(true|True|TRUE)$")
_FALSE = re.compile(r"(false|False|FALSE)$")
_INT = re.compile(r"[-+]?[0-9]+$")
_OCTAL = re.compile(r"0o[0-7]+$")
_HEX = re.compile(r"0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_SPECIAL = {".inf": "inf", ".Inf": "inf", ".INF": "inf", ".nan": "nan", ".NaN": "nan", ".NAN": "nan"}

_PLAIN_TAGS = {
    yaml.ScalarNode: "tag:yaml.org,2002:str",
    yaml.SequenceNode: "tag:yaml.org,2002:seq",
    yaml.MappingNode: "tag:yaml.org,2002:map",
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes; resolves no implicit types, so that a tag on a node is one that was written."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


class Document(NamedTuple):
    """A recipe's text as values.

    Args:
        name: The file as the user named it.
        lines: Its lines.
        data: Its values: dict, list, str, int, float, bool, None.
        marks: Path of a value to where it starts.
        key_marks: Path of a value in a mapping to where its key starts.
        problems: Mistakes that do not keep the rest from being read.
    """

    name: str
    lines: list[str]
    data: Json
    marks: dict[Path_, Mark]
    key_marks: dict[Path_, Mark]
    problems: list[Problem]

    def problem(self, path: Path_, message: str, hint: str = "", *, key: bool = False) -> Problem:
        """A mistake at a value, or at its key; where that is not there, at what holds it."""
        mark = self.key_marks.get(path) if key else self.marks.get(path)
        while mark is None and path:
            path = path[:-1]
            mark = self.marks.get(path)
        return problem_at(self.name, self.lines, mark or Mark(1, 1), message, hint)


def problem_at(name: str, lines: list[str], mark: Mark, message: str, hint: str = "") -> Problem:
    """A mistake at a place of a file."""
    line = lines[mark.line - 1] if 0 < mark.line <= len(lines) else ""
    return Problem(name, mark, message, hint, line.rstrip("\r\n"))


def read_document(path: Path, name: str) -> Document:
    """Reads a recipe's file.

    Raises:
        RecipeError: The file cannot be read.
        InvalidRecipe: It is no YAML that a recipe may be.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"cannot be read: {error.strerror}", where=name, hint="Name a recipe file."
        ) from None
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"is over {MAX_BYTES // 2**20} MiB: no recipe", where=name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"byte {raw[error.start]:#04x} is not UTF-8"
        raise InvalidRecipe([Problem(name, Mark(line, 1), message, "Save the file as UTF-8.", "")]) from None
    return parse_document(text, name)


def parse_document(text: str, name: str) -> Document:
    """The values of a recipe's text.

    Raises:
        InvalidRecipe: It is no YAML that a recipe may be.
    """
    lines = text.splitlines()
    _check_nesting(text, lines, name)
    root = _compose(text, lines, name)
    document = Document(name, lines, None, {}, {}, [])
    if root is None:
        message = "the recipe is empty"
        raise InvalidRecipe([problem_at(name, lines, Mark(1, 1), message, "See `freezeflow init`.")])
    builder = _Builder(document)
    data = builder.value(root, ())
    return document._replace(data=data)


def _compose(text: str, lines: list[str], name: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
        message = error.problem or "cannot be parsed"
        hint = "A recipe is one document." if "document" in (error.context or "") else ""
        raise InvalidRecipe([problem_at(name, lines, place, f"bad YAML: {message}", hint)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"bad YAML: character {error.character!r} is not allowed"
        raise InvalidRecipe([problem_at(name, lines, Mark(line, 1), message)]) from None
    finally:
        if loader is not None:
            loader.dispose()


def _check_nesting(text: str, lines: list[str], name: str) -> None:
    """Refuses deep nesting from the event stream, before anything recurses."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                depth += 1
                if depth > _MAX_DEPTH:
                    mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
                    message = f"nested more than {_MAX_DEPTH} levels deep"
                    raise InvalidRecipe([problem_at(name, lines, mark, message)])
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                depth -= 1
    except (yaml.MarkedYAMLError, yaml.reader.ReaderError):
        return  # composing tells it, with its place


class _Builder:
    """Values of composed nodes, each node's place noted."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: yaml.Node, path: Path_) -> Json:
        self._document.marks[path] = mark = _mark(node)
        self._count += 1
        if self._count > _MAX_NODES:
            self._stop(mark, "aliases make this recipe too large")
        if id(node) in self._open:
            self._stop(mark, "an alias refers to what it stands in")
        if node.tag not in (_PLAIN_TAGS[type(node)], "!", "?"):
            self._note(mark, f"tag {node.tag} is not allowed", "Write the plain value.")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        self._open.add(id(node))
        found = self._list(node, path) if isinstance(node, yaml.SequenceNode) else self._dict(node, path)
        self._open.discard(id(node))
        return found

    def _list(self, node: yaml.SequenceNode, path: Path_) -> list[Json]:
        return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]

    def _dict(self, node: yaml.MappingNode, path: Path_) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for key_node, value_node in node.value:
            mark = _mark(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._note(mark, "a key must be a plain name")
                continue
            key = str(key_node.value)
            if key == "<<" and not key_node.style:
                self._note(mark, "merge keys (<<) are not part of YAML 1.2", "Write the keys out.")
                continue
            if key in found:
                first = self._document.key_marks[(*path, key)].line
                self._note(mark, f"key {key!r} is there twice, first in line {first}", "Remove one of them.")
                continue
            self._document.key_marks[(*path, key)] = mark
            found[key] = self.value(value_node, (*path, key))
        return found

    def _note(self, mark: Mark, message: str, hint: str = "") -> None:
        document = self._document
        document.problems.append(problem_at(document.name, document.lines, mark, message, hint))

    def _stop(self, mark: Mark, message: str) -> None:
        document = self._document
        raise InvalidRecipe([problem_at(document.name, document.lines, mark, message)])


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


def _scalar(node: yaml.ScalarNode) -> Json:
    text = str(node.value)
    # The C parser says "" for a plain scalar, the other one None.
    return text if node.style else parse_scalar(text)


def parse_scalar(text: str) -> Json:
    """A plain scalar by YAML 1.2's core schema: null, bool, int, float, or the string itself."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text) or _FALSE.match(text):
        return bool(_TRUE.match(text))
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.match(text) and len(text) <= 100:
            return int(text, base)
    if _FLOAT.match(text):
        return float(text)
    sign, bare = ("-", text[1:]) if text[:1] == "-" else ("", text.removeprefix("+"))
    return float(sign + _SPECIAL[bare]) if bare in _SPECIAL else text


def walk(data: Json, path: Path_ = ()) -> Iterator[tuple[Path_, Json]]:
    """Every value with its path, outer ones first."""
    yield path, data
    if isinstance(data, dict):
        for key, value in data.items():
            yield from walk(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from walk(value, (*path, index))
