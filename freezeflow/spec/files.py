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


class _File(NamedTuple):
    """A path in a stage's parameters, and where in the recipe it stands."""

    owner: PlacedItem
    place: Path_
    text: str
    path: Path
    output: bool


def check_files(
    items: Sequence[PlacedItem],
    source: ModelSource | None,
    recipe: Path,
    notes: Notes,
    *,
    allow_outside: bool,
) -> None:
    """Notes files that are missing, and outputs that are outside or in each other's way."""
    files = [file for placed in items for file in _files(placed, recipe, notes)]
    used: dict[Path, str] = {recipe: "the recipe"}
    if source is not None:
        used[source.path] = "the model"
    for file in files:
        if not file.output:
            used[file.path] = f"an input of {file.owner.item.id}"
            _check_there(file, notes)
    into = source.path if source is not None and source.kind == "saved_model" else None
    written: dict[Path, _File] = {}
    for file in files:
        if file.output:
            _check_inside(file, recipe, notes, allow_outside=allow_outside)
            _check_unread(file, used, into, notes)
            _check_free(file, written, notes)
            for path in (file.path, *file.path.parents):
                written.setdefault(path, file)


def _files(placed: PlacedItem, recipe: Path, notes: Notes) -> Iterator[_File]:
    for param in paths_in(placed.stage.params_for(placed.values), placed.values):
        place = place_of(placed, param.path, notes)
        path = absolute(param.text, recipe)
        if not notes.broken(place):
            yield _File(placed, place, param.text, path, param.output)


def _check_there(file: _File, notes: Notes) -> None:
    if not exists(file.path, notes):
        notes.add(file.place, f"there is no file {shown(file.text)}", missing_hint(file.path))
    elif os.path.isdir(file.path):
        notes.add(file.place, f"{shown(file.text)} is a folder; it must be a file")


def _check_inside(file: _File, recipe: Path, notes: Notes, *, allow_outside: bool) -> None:
    root = project_root(recipe, notes)
    if not allow_outside and leaves(file.path, root):
        hint = f"The project is {root}. `allow_outside: true` at the recipe's top allows it."
        notes.add(file.place, f"{shown(file.text)} lies outside the project", hint)


def _check_unread(file: _File, used: Mapping[Path, str], model: Path | None, notes: Notes) -> None:
    """Nothing that is read is written over, and nothing is written into the model's folder."""
    over = next((what for path, what in used.items() if file.path in (path, *path.parents)), None)
    if over is None and model in file.path.parents:
        over = "a part of the model"
    if over is not None:
        message = f"{shown(file.text)} would be written over {over}"
        notes.add(file.place, message, "Choose another path.")


def _check_free(file: _File, written: Mapping[Path, _File], notes: Notes) -> None:
    """No two exports write one path, and none writes a file where another needs a folder.

    Args:
        file: What is written now.
        written: What was written before, by its path and by every folder above it.
        notes: Gets the mistake.
    """
    above = (written[path] for path in file.path.parents if path in written)
    other = written.get(file.path) or next((o for o in above if o.path in file.path.parents), None)
    if other is None:
        return
    same = "is" if file.path == other.path else "lies in the way of what is"
    line = notes.document.marks["stages", other.owner.index].line
    message = f"{shown(file.text)} {same} already written by {other.owner.item.id} (line {line})"
    notes.add(file.place, message, "Give each export a path of its own.")


def check_values(items: Sequence[PlacedItem], notes: Notes) -> None:
    """Notes what the stages themselves find wrong in their parameters."""
    for placed in items:
        if placed.item.params is None:
            continue
        for key, message in placed.stage.problems(placed.item.params):
            notes.add(place_of(placed, (key,) if key else (), notes), message, key=not key)
