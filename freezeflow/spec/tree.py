"""YAML text as plain values that remember where they stand.

Scalars are read by YAML 1.2's core schema. Tags and merge keys are refused, and so is what could
make a small file large: too many aliases, too deep nesting, aliases into oneself.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from freezeflow.errors import RecipeError
from freezeflow.spec.problems import InvalidRecipe, Mark, Problem, shown
from freezeflow.spec.scalars import parse_scalar
from freezeflow.suggestions import near_path
from freezeflow.values import Json

Path_ = tuple[str | int, ...]

T = TypeVar("T")

MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 50
_MAX_VALUES = 50_000

# libyaml's parser, which comes with nearly every PyYAML, is ten times as fast.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What YAML calls not printable, and the byte order mark anywhere but at the beginning.
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)

# What tells a tab in a comment from others: the beginning of a comment, if it is not in quotes.
_AROUND_TABS = re.compile(r"""(?<!\S)#|["'\t]""")

# What both parsers count as the end of a line.
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

# Hints for what PyYAML's parser says.
_YAML_HINTS = (
    ("cannot start any token", "Quote a value that begins with @, ` or %."),
    ("mapping values are not allowed", "Quote a value that holds ': ', or check the indentation."),
    ("could not find expected ':'", "Every key needs its ':'; check the indentation, too."),
    ("expected ',' or", "A comma or a closing bracket is missing."),
    ("block end", "Check the indentation."),
    ("sequence entries are not allowed", "Begin a list on a line of its own."),
    ("end of stream", "A quote is not closed."),
    ("escape", "In double quotes a backslash begins an escape; single quotes take it as it is."),
)

# Problems that are noticed far behind the mistake: they are told where its context begins.
_AT_THEIR_BEGINNING = ("end of stream", "could not find expected ':'")


class Written(NamedTuple):
    """A scalar as it stands in the file: its text, and whether it is in quotes (or a block)."""

    text: str
    quoted: bool


class Document(NamedTuple):
    """A recipe's text as values.

    Args:
        name: The file as the user named it.
        lines: Its lines.
        data: Its values: dict, list, str, int, float, bool, None.
        marks: Path of a value to where it starts.
        key_marks: Path of a value in a mapping to where its key starts.
        scalars: Path of a scalar to how it is written.
        problems: Mistakes that do not keep the rest from being read.
        spoiled: Paths of values that mean something else than they say, because of such a mistake.
        homes: Path of a value to the document and the path there where it is written, if that is
            another one.
    """

    name: str
    lines: list[str]
    data: Json
    marks: dict[Path_, Mark]
    key_marks: dict[Path_, Mark]
    scalars: dict[Path_, Written]
    problems: list[Problem]
    spoiled: set[Path_]
    homes: dict[Path_, tuple[Document, Path_]]

    def branch(self) -> Document:
        """A copy whose places can be changed while this one stays."""
        return self._replace(
            marks=dict(self.marks),
            key_marks=dict(self.key_marks),
            scalars=dict(self.scalars),
            homes=dict(self.homes),
        )

    def home(self, path: Path_) -> tuple[Document, Path_]:
        """The document in which a value is written, and its path there."""
        for length in range(len(path), 0, -1):
            found = self.homes.get(path[:length])
            if found is not None:
                document, origin = found
                return document.home((*origin, *path[length:]))
        return self, path

    def folder_of(self, path: Path_) -> str:
        """From the recipe's folder to that of the recipe in which a value is written; may be empty."""
        document, _ = self.home(path)
        here, there = (os.path.dirname(each.name) or os.curdir for each in (self, document))
        return "" if here == there else os.path.relpath(there, here)

    def graft(self, path: Path_, origin: Path_) -> None:
        """What is at a path and below it stands where the value of another path stands."""
        before = self.branch()
        self.forget(path)
        self.copy_places(before, origin, path)
        self.homes[path] = (before, origin)

    def copy_places(self, source: Document, origin: Path_, path: Path_) -> None:
        """What is known of the places below a path of a document is known here below another one."""
        _copy(source.marks, origin, self.marks, path)
        _copy(source.key_marks, origin, self.key_marks, path)
        _copy(source.scalars, origin, self.scalars, path)

    def forget(self, path: Path_) -> None:
        """Nothing is known of the places below a path."""
        known: tuple[dict[Path_, Any], ...] = (
            self.marks,
            self.key_marks,
            self.scalars,
            self.homes,
        )
        for places in known:
            for old in [old for old in places if old[: len(path)] == path]:
                del places[old]

    def line_words(self, path: Path_) -> str:
        """``line 3``: where a value stands, for a message about another place."""
        document, origin = self.home(path)
        line = f"line {document.marks[origin].line}"
        return line if document.name == self.name else f"{document.name}, {line}"

    def problem(self, path: Path_, message: str, hint: str = "", *, key: bool = False) -> Problem:
        """A mistake at a value, or at its key; where that is not there, at what holds it."""
        document, origin = self.home(path)
        if document is not self:
            return document.problem(origin, message, hint, key=key)
        mark = self.key_marks.get(path) if key else self.marks.get(path)
        if mark is None:
            mark = self.marks.get(path)
        while mark is None and path:
            path = path[:-1]
            mark = self.key_marks.get(path) or self.marks.get(path)
        return problem_at(self, mark or Mark(1, 1), message, hint)


def _copy(known: dict[Path_, T], origin: Path_, target: dict[Path_, T], path: Path_) -> None:
    length = len(origin)
    for old in [old for old in known if old[:length] == origin]:
        place = (*path, *old[length:])
        target[place] = known[old]


def problem_at(document: Document, mark: Mark, message: str, hint: str = "") -> Problem:
    """A mistake at a place of a file."""
    lines = document.lines
    line = lines[mark.line - 1] if 0 < mark.line <= len(lines) else ""
    return Problem(document.name, mark, message, hint, line)


def read_document(path: Path, name: str) -> Document:
    """Reads a recipe's file.

    Raises:
        RecipeError: The file cannot be read.
        InvalidRecipe: It is no YAML that a recipe may be.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        near = near_path(path)
        hint = f"Did you mean {str(near)!r}?" if near is not None else "Name a recipe file."
        raise RecipeError(f"cannot be read: {error.strerror}", where=name, hint=hint) from None
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"is over {MAX_BYTES // 2**20} MiB: no recipe", where=name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode("utf-8-sig", "replace")
        mark = Mark(good.count("\n") + 1, len(good) - good.rfind("\n"))
        message = f"byte {raw[error.start]:#04x} is not UTF-8"
        raise InvalidRecipe([Problem(name, mark, message, "Save the file as UTF-8.", "")]) from None
    return parse_document(text, name)


def parse_document(text: str, name: str) -> Document:
    """The values of a recipe's text.

    Raises:
        InvalidRecipe: It is no YAML that a recipe may be.
    """
    document = Document(name, _LINE_BREAK.split(text), None, {}, {}, {}, [], set(), {})
    _check_characters(document)
    root = _Composer(document).compose(text)
    return document._replace(data=_Builder(document).value(root, ()))


def _stop(document: Document, mark: Mark, message: str, hint: str = "") -> InvalidRecipe:
    """The error for a mistake after which nothing more can be read."""
    return InvalidRecipe([*document.problems, problem_at(document, mark, message, hint)])


def _check_characters(document: Document) -> None:
    for number, line in enumerate(document.lines, 1):
        found = _UNPRINTABLE.search(line)
        if found:
            what = f"character U+{ord(found[0]):04X} is not allowed"
            raise _stop(document, Mark(number, found.start() + 1), what, "Take it out.")
        place = _tab(line)
        if place is not None:
            hint = "Use spaces; in double quotes a tab is written \\t."
            raise _stop(document, Mark(number, place + 1), "there is a tab", hint)


def _tab(line: str) -> int | None:
    """Where a tab stands that is not surely in a comment; None without one.

    On such tabs the two parsers differ, and no recipe needs one. What looks like a comment may be in
    quotes, which an earlier line may have opened: then another quote follows.
    """
    in_comment = False
    for found in _AROUND_TABS.finditer(line):
        if found[0] != "\t":
            in_comment = found[0] == "#"
        elif not in_comment:
            return found.start()
    return None


# ---------------------------------------------------------------- nodes


@dataclasses.dataclass(slots=True, eq=False)
class _Node:
    """A composed node; a mapping's children are its keys and values in turn."""

    mark: Mark
    kind: str
    scalar: Written | None = None
    tagged: bool = False
    children: list[_Node] = dataclasses.field(default_factory=list)


class _Composer:
    """Puts the parser's events together, without recursion."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._anchors: dict[str, _Node] = {}
        self._open: list[_Node] = []
        self._root: _Node | None = None

    def compose(self, text: str) -> _Node:
        try:
            for event in yaml.parse(text, Loader=Loader):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            raise self._bad_yaml(self._in_words(text) or error) from None
        if self._root is None:
            hint = "`freezeflow init MODEL` writes a first one."
            raise _stop(self._document, Mark(1, 1), "the recipe is empty", hint)
        return self._root

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._start(event)
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._aliased(event))
        elif isinstance(event, yaml.ScalarEvent):
            # The C parser says "" for a plain scalar, the other one None.
            quoted = bool(event.style) and event.style != "plain"
            self._new(event, "scalar").scalar = Written(event.value, quoted)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(self._new(event, "mapping" if is_mapping else "sequence"))
            self._check_depth(len(self._open), event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._open.pop()

    def _check_depth(self, depth: int, event: Any) -> None:
        if depth > _MAX_DEPTH:
            raise _stop(self._document, _mark(event), f"nested over {_MAX_DEPTH} levels deep")

    def _start(self, event: Any) -> None:
        if self._root is not None:
            hint = "A recipe is one document: take the `---` out, or make it two files."
            raise _stop(self._document, _mark(event), "a second document begins here", hint)
        if event.version not in (None, (1, 2)):
            raise _stop(self._document, _mark(event), "recipes are YAML 1.2", "Drop `%YAML`.")

    def _new(self, event: Any, kind: str) -> _Node:
        node = _Node(_mark(event), kind)
        if event.tag is not None:
            node.tagged = True
            written = event.tag.replace("tag:yaml.org,2002:", "!!")
            message = f"tags ({shown(written)[1:-1]}) are not allowed in a recipe"
            self._note(node.mark, message, "Write the plain value.")
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._add(node)
        return node

    def _add(self, node: _Node) -> None:
        if self._open:
            self._open[-1].children.append(node)
        else:
            self._root = node

    def _aliased(self, event: Any) -> _Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            raise _stop(self._document, _mark(event), f"no anchor &{event.anchor} comes before")
        if node in self._open:
            message = f"alias *{event.anchor} refers to what it stands in"
            raise _stop(self._document, _mark(event), message)
        return node

    def _note(self, mark: Mark, message: str, hint: str) -> None:
        self._document.problems.append(problem_at(self._document, mark, message, hint))

    def _in_words(self, text: str) -> yaml.MarkedYAMLError | None:
        """The mistake as PyYAML's own parser words it, so that it is told alike with libyaml's.

        libyaml may refuse deep nesting itself, before its first event; the other parser, which takes
        a time that grows with the square of the depth, is stopped where a recipe is too deep.
        """
        depth = 0
        try:
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                depth += isinstance(event, yaml.CollectionStartEvent)
                depth -= isinstance(event, yaml.CollectionEndEvent)
                self._check_depth(depth, event)
        except yaml.MarkedYAMLError as error:
            return error
        return None

    def _bad_yaml(self, error: yaml.MarkedYAMLError) -> InvalidRecipe:
        problem = error.problem or "cannot be parsed"
        mark = error.problem_mark or error.context_mark
        if error.context_mark and any(words in problem for words in _AT_THEIR_BEGINNING):
            mark = error.context_mark
        place = Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
        hint = next((hint for words, hint in _YAML_HINTS if words in problem), "")
        return _stop(self._document, place, f"bad YAML: {problem}", hint)


def _mark(event: Any) -> Mark:
    start, end = event.start_mark, event.end_mark
    whole = isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)) and start.line == end.line
    length = end.column - start.column if whole else 1
    return Mark(start.line + 1, start.column + 1, max(1, length))


# ---------------------------------------------------------------- values


class _Builder:
    """Values of composed nodes, each value's place noted under its path."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def value(self, node: _Node, path: Path_) -> Json:
        self._document.marks[path] = node.mark
        if node.tagged:
            self._document.spoiled.add(path)
        self._count += 1
        if self._count > _MAX_VALUES:
            message = f"aliases make this recipe larger than {_MAX_VALUES} values"
            raise _stop(self._document, node.mark, message)
        if len(path) > _MAX_DEPTH:
            raise _stop(self._document, node.mark, f"nested over {_MAX_DEPTH} levels deep")
        if node.scalar is not None:
            self._document.scalars[path] = node.scalar
            return node.scalar.text if node.scalar.quoted else parse_scalar(node.scalar.text)
        if node.kind == "sequence":
            return [self.value(item, (*path, i)) for i, item in enumerate(node.children)]
        return self._dict(node, path)

    def _dict(self, node: _Node, path: Path_) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for key_node, value_node in zip(node.children[::2], node.children[1::2], strict=True):
            if self._is_new_key(key_node, path):
                key = self._key_text(key_node)
                place = (*path, key)
                self._document.key_marks[place] = key_node.mark
                found[key] = self.value(value_node, place)
        return found

    def _key_text(self, node: _Node) -> str:
        return node.scalar.text if node.scalar is not None else ""

    def _is_new_key(self, node: _Node, path: Path_) -> bool:
        key = self._key_text(node)
        first = self._document.key_marks.get((*path, key))
        if node.scalar is None:
            self._note(node.mark, "a key must be plain text")
        elif key == "<<" and not node.scalar.quoted:
            self._note(node.mark, "YAML 1.2 has no merge keys (<<)", "Write the keys out.")
        elif first is not None:
            message = f"key {shown(key)} is there twice, first in line {first.line}"
            self._note(node.mark, message, "Remove one of them.")
        else:
            return True
        return False

    def _note(self, mark: Mark, message: str, hint: str = "") -> None:
        self._document.problems.append(problem_at(self._document, mark, message, hint))


def value_at(data: Json, path: Path_) -> Json:
    """The value at a path; None where there is none."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def walk(data: Json, path: Path_ = ()) -> Iterator[tuple[Path_, Json]]:
    """Every value with its path, outer ones first."""
    yield path, data
    if isinstance(data, dict):
        for key, value in data.items():
            yield from walk(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from walk(value, (*path, index))
