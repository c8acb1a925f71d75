"""The files that a recipe's stages read and write: there, inside the project, each written once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from freezeflow.params import paths_in
from freezeflow.spec.notes import Notes
from freezeflow.spec.paths import absolute, exists, leaves, missing_hint, project_root
from freezeflow.spec.problems import shown
from freezeflow.spec.stage_list import PlacedItem, place_of
from freezeflow.spec.tree import Path_
from freezeflow.values import ModelSource


class Chain(NamedTuple):
    """What is done with one model: the stages with the model's name in their paths.

    Args:
        name: What the model is called, with the matrix's values.
        places: What may stand in a path to tell it from others.
        source: The model; None where it has mistakes.
        items: Its stages.
        notes: Gets their mistakes.
    """

    name: str
    places: Sequence[str]
    source: ModelSource | None
    items: Sequence[PlacedItem]
    notes: Notes


class _File(NamedTuple):
    """A path in a stage's parameters, and where in the recipe it stands."""

    chain: Chain
    owner: PlacedItem
    place: Path_
    text: str
    path: str
    output: bool
    tree: bool

    @property
    def notes(self) -> Notes:
        return self.chain.notes


def check_files(chains: Sequence[Chain], recipe: Path, *, allow_outside: bool) -> None:
    """Notes files that are missing, and outputs that are outside or in each other's way."""
    files = [file for chain in chains for file in _files(chain, recipe)]
    reads = _Reads(chains, files, recipe)
    seen: set[str] = set()
    for file in files:
        if not file.output and file.path not in seen:
            seen.add(file.path)
            _check_there(file)
    written: dict[str, _File] = {}
    for file in files:
        if file.output:
            _check_inside(file, recipe, allow_outside=allow_outside)
            reads.check(file)
            _check_free(file, written)
            for path in (file.path, *_above(file.path)):
                written.setdefault(path, file)


def _files(chain: Chain, recipe: Path) -> Iterator[_File]:
    for placed in chain.items:
        for param in paths_in(placed.stage.params_for(placed.values), placed.values):
            place = place_of(placed, param.path, chain.notes)
            path = str(absolute(param.text, recipe))
            if not chain.notes.broken(place):
                yield _File(chain, placed, place, param.text, path, param.output, param.tree)


def _above(path: str) -> Iterator[str]:
    """The folders that an absolute path lies in, from the nearest to the root.

    Of thousands of models `Path` objects would take most of the memory that a check takes.
    """
    while (folder := os.path.dirname(path)) != path:
        yield folder
        path = folder


def _check_there(file: _File) -> None:
    path = Path(file.path)
    if not exists(path, file.notes):
        hint = missing_hint(path)
        file.notes.add(file.place, f"there is no file {shown(file.text)}", hint)
    elif not file.tree and os.path.isdir(file.path):
        file.notes.add(file.place, f"{shown(file.text)} is a folder; it must be a file")


def _check_inside(file: _File, recipe: Path, *, allow_outside: bool) -> None:
    root = project_root(recipe, file.notes)
    if not allow_outside and leaves(Path(file.path), root):
        hint = f"The project is {root}. `allow_outside: true` at the recipe's top allows it."
        file.notes.add(file.place, f"{shown(file.text)} lies outside the project", hint)


class _Reads:
    """What is read: nothing of it is written over, and nothing is written into a model's folder."""

    def __init__(self, chains: Sequence[Chain], files: Sequence[_File], recipe: Path) -> None:
        self._used: dict[str, str] = {}
        self._folders: set[str] = set()
        self._use(str(recipe), "the recipe")
        for chain in chains:
            if chain.source is not None:
                model = str(chain.source.path)
                self._use(model, "the model")
                if chain.source.kind == "saved_model":
                    self._folders.add(model)
        for file in files:
            if not file.output:
                self._use(file.path, f"an input of {file.owner.item.id}")

    def _use(self, path: str, what: str) -> None:
        for each in (path, *_above(path)):
            self._used.setdefault(each, what)

    def check(self, file: _File) -> None:
        over = self._used.get(file.path)
        if over is None and not self._folders.isdisjoint(_above(file.path)):
            over = "a part of the model"
        if over is not None:
            message = f"{shown(file.text)} would be written over {over}"
            file.notes.add(file.place, message, "Choose another path.")


def _check_free(file: _File, written: Mapping[str, _File]) -> None:
    """No two exports write one path, and none writes a file where another needs a folder.

    Args:
        file: What is written now.
        written: What was written before, by its path and by every folder above it.
    """
    folders = [*_above(file.path)]
    above = (written[path] for path in folders if path in written)
    other = written.get(file.path) or next((o for o in above if o.path in folders), None)
    if other is None or _are_called_alike(other.chain, file.chain):
        return
    same = "is" if file.path == other.path else "lies in the way of what is"
    if other.chain.name != file.chain.name:
        message = f"{shown(file.text)} {same} written for {file.chain.name} and {other.chain.name}"
        hint = f"Let the path name what it is for, by {' and '.join(file.chain.places)}."
    else:
        line = other.notes.document.line_words(("stages", other.owner.index))
        message = f"{shown(file.text)} {same} already written by {other.owner.item.id} ({line})"
        hint = "Give each export a path of its own."
    file.notes.add(file.place, message, hint)


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
