"""The files that a recipe's stages read and write: there, inside the project, each written once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.spec.matrix import MODEL, Value
from freezeflow.spec.notes import Notes
from freezeflow.spec.paths import absolute, exists, leaves, missing_hint, project_root
from freezeflow.spec.problems import shown
from freezeflow.spec.stage_list import PlacedItem, filled, place_of, with_places
from freezeflow.spec.tree import Path_
from freezeflow.values import ModelSource


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """What is done with one model, with one combination of the matrix.

    There may be thousands: what they share is held once, and the rest is made when it is looked at.

    Args:
        name: What the model is called, with the matrix's values.
        model: What the model is called.
        point: The matrix's values.
        source: The model; None where it has mistakes.
        stages: The stages, paths in them as they are written.
        notes: Gets their mistakes.
    """

    name: str
    model: str
    point: Mapping[str, Value]
    source: ModelSource | None
    stages: Sequence[PlacedItem]
    notes: Notes

    @property
    def places(self) -> dict[str, str]:
        """What each ``{name}`` in a path stands for."""
        return {MODEL: self.model, **{key: value.text for key, value in self.point.items()}}

    def items(self) -> list[PlacedItem]:
        """The stages with the model's name, and the like, in their paths."""
        places = self.places
        return [with_places(item, places, self.notes) for item in self.stages]


class _File(NamedTuple):
    """A path in a stage's parameters, and where in the recipe it stands."""

    chain: Chain
    owner: PlacedItem
    place: Path_
    text: str
    path: str
    output: bool
    tree: bool


class _Fault(NamedTuple):
    """A mistake in a path."""

    file: _File
    message: str
    hint: str = ""


def check_files(chains: Sequence[Chain], recipe: Path, *, allow_outside: bool) -> None:
    """Notes files that are missing, and outputs that are outside or in each other's way."""
    reads = _Reads(recipe)
    faults = [fault for chain in chains for fault in reads.add(chain)]
    writes = _Writes(recipe, reads, allow_outside=allow_outside)
    faults += [fault for chain in chains for fault in writes.add(chain)]
    # Only now: a mistake at a place keeps other models' paths there from being looked at.
    for file, message, hint in faults:
        file.chain.notes.add(file.place, message, hint)


def _files(chain: Chain, recipe: Path) -> Iterator[_File]:
    places = chain.places
    for placed in chain.stages:
        for param in placed.paths:
            text = filled(placed, param, places, chain.notes)
            place = place_of(placed, param.path, chain.notes)
            if not chain.notes.broken(place):
                path = str(absolute(text, recipe))
                yield _File(chain, placed, place, text, path, param.output, param.tree)


def _above(path: str) -> Iterator[str]:
    """The folders that an absolute path lies in, from the nearest to the root.

    Of thousands of models `Path` objects would take most of the memory that a check takes.
    """
    while (folder := os.path.dirname(path)) != path:
        yield folder
        path = folder


class _Reads:
    """What is read: nothing of it is written over, and nothing is written into a model's folder."""

    def __init__(self, recipe: Path) -> None:
        self._recipe = recipe
        self._used: dict[str, str] = {}
        self._folders: set[str] = set()
        self._inputs: set[str] = set()
        self._use(str(recipe), "the recipe")

    def add(self, chain: Chain) -> Iterator[_Fault]:
        """What a chain reads, too; of what is not there, the first time."""
        if chain.source is not None:
            model = str(chain.source.path)
            self._use(model, "the model")
            if chain.source.kind == "saved_model":
                self._folders.add(model)
        for file in _files(chain, self._recipe):
            if not file.output and file.path not in self._inputs:
                self._inputs.add(file.path)
                self._use(file.path, f"an input of {file.owner.item.id}")
                yield from _missing(file)

    def _use(self, path: str, what: str) -> None:
        for each in (path, *_above(path)):
            self._used.setdefault(each, what)

    def over(self, path: str) -> str | None:
        """What a file that is written would be written over."""
        over = self._used.get(path)
        if over is None and not self._folders.isdisjoint(_above(path)):
            over = "a part of the model"
        return over


def _missing(file: _File) -> Iterator[_Fault]:
    path = Path(file.path)
    if not exists(path, file.chain.notes):
        yield _Fault(file, f"there is no file {shown(file.text)}", missing_hint(path))
    elif not file.tree and os.path.isdir(file.path):
        yield _Fault(file, f"{shown(file.text)} is a folder; it must be a file")


class _Writer(NamedTuple):
    """What writes a file: the stage with that id and number among `stages`, of a chain."""

    chain: Chain
    stage: str
    number: int


class _Writes:
    """What is written: inside the project, over nothing that is read, and each path once."""

    def __init__(self, recipe: Path, reads: _Reads, *, allow_outside: bool) -> None:
        self._recipe = recipe
        self._reads = reads
        self._allow_outside = allow_outside
        # What writes each file, and needs each folder, first.
        self._files: dict[str, _Writer] = {}
        self._folders: dict[str, _Writer] = {}

    def add(self, chain: Chain) -> Iterator[_Fault]:
        """What a chain writes, too."""
        for file in _files(chain, self._recipe):
            if file.output:
                yield from self._outside(file)
                yield from self._over(file)
                yield from self._in_the_way(file)
                writer = _Writer(chain, file.owner.item.id, file.owner.index)
                self._files.setdefault(file.path, writer)
                for folder in _above(file.path):
                    self._folders.setdefault(folder, writer)

    def _outside(self, file: _File) -> Iterator[_Fault]:
        root = project_root(self._recipe, file.chain.notes)
        if not self._allow_outside and leaves(Path(file.path), root):
            hint = f"The project is {root}. `allow_outside: true` at the recipe's top allows it."
            yield _Fault(file, f"{shown(file.text)} lies outside the project", hint)

    def _over(self, file: _File) -> Iterator[_Fault]:
        over = self._reads.over(file.path)
        if over is not None:
            message = f"{shown(file.text)} would be written over {over}"
            yield _Fault(file, message, "Choose another path.")

    def _in_the_way(self, file: _File) -> Iterator[_Fault]:
        """No two exports write one path, and none writes a file where another needs a folder."""
        same = self._files.get(file.path)
        above = (self._files[path] for path in _above(file.path) if path in self._files)
        other = same or self._folders.get(file.path) or next(above, None)
        if other is None or _are_called_alike(other.chain, file.chain):
            return
        what = "is" if same else "lies in the way of what is"
        if other.chain.name != file.chain.name:
            models = f"{file.chain.name} and {other.chain.name}"
            marks = [f"{{{key}}}" for key in file.chain.places]
            hint = f"Let the path name what it is for, by {' and '.join(marks)}."
            yield _Fault(file, f"{shown(file.text)} {what} written for {models}", hint)
        else:
            line = other.chain.notes.document.line_words(("stages", other.number))
            by = f"{other.stage} ({line})"
            hint = "Give each export a path of its own."
            yield _Fault(file, f"{shown(file.text)} {what} already written by {by}", hint)


def _are_called_alike(one: Chain, other: Chain) -> bool:
    """Two models have one name, which is told elsewhere."""
    return one is not other and one.name == other.name


def check_values(items: Sequence[PlacedItem], notes: Notes) -> None:
    """Notes what the stages themselves find wrong in their parameters."""
    for placed in items:
        if placed.item.params is None:
            continue
        for key, message in placed.stage.problems(placed.item.params):
            notes.add(place_of(placed, (key,) if key else (), notes), message, key=not key)
