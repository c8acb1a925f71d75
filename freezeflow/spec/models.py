"""The ``models`` of a recipe: paths and patterns, what each finds, and what each model is called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from freezeflow.spec import globs
from freezeflow.spec.model_block import Located, read_source
from freezeflow.spec.notes import Notes
from freezeflow.spec.paths import absolute, exists, fill_places, from_recipe, missing_hint
from freezeflow.spec.problems import shown
from freezeflow.spec.tree import Path_
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Json, ModelSource, SourceKind

# What models are by the ends of their names; a folder is one by what is in it.
_ENDINGS: Mapping[str, SourceKind] = {
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".pb": "frozen_graph",
    ".pbtxt": "frozen_graph",
    ".meta": "checkpoint",
}
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
_EVERYTHING = (
    "A model is a SavedModel folder, a .keras or .h5 file, a checkpoint's .meta file, or a .pb or"
    " .pbtxt graph; `kind` says which where its name does not."
)

# Keys of a group that say how it finds its models; the others are about each model.
_FINDING = frozenset(("include", "exclude", "kind", "name", "overrides"))
# Keys that change the recipe for a model, and not its source.
_CHANGING = frozenset(("vars", "override"))

_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_MAX_NAME = 100


class NamedModel(NamedTuple):
    """A model of a recipe.

    Args:
        name: What it is called; unique in the recipe.
        source: Where it comes from; None where that has mistakes.
        place: Where the recipe names it.
        changes: Places of the blocks with `vars` and `override` that count for it, the last one
            most.
    """

    name: str
    source: ModelSource | None
    place: Path_
    changes: tuple[Path_, ...] = ()


class _Placed(NamedTuple):
    """A path or pattern, and where it stands."""

    text: str
    place: Path_


class _Group(NamedTuple):
    """Paths and patterns, with what is said of all the models that they find."""

    at: Path_
    include: Sequence[_Placed]
    block: Mapping[str, Json]


class _Member(NamedTuple):
    """A model that a group has found."""

    name: str
    found: Located


def read_models(given: Json, recipe: Path, notes: Notes) -> list[NamedModel]:
    """The models of a recipe, in the order of the file and, where a pattern finds them, of their paths.

    Args:
        given: The `models` block.
        recipe: The recipe.
        notes: Has the mistakes in the block's structure, and gets those in its values.
    """
    models: dict[object, NamedModel] = {}
    for group in _groups(given, notes):
        members = list(_members(group, recipe, notes))
        overrides = _overrides(group, members, notes)
        for member in members:
            model = _named(member, group, overrides, recipe, notes)
            # One of which two entries say the same is there once.
            models.setdefault((model.name, model.source or model.place, model.changes), model)
    _check_names(list(models.values()), notes)
    return list(models.values())


def _groups(given: Json, notes: Notes) -> Iterator[_Group]:
    items: list[tuple[Path_, Json]] = [(("models",), given)]
    if isinstance(given, list):
        items = [(("models", number), item) for number, item in enumerate(given)]
    for at, item in items:
        if isinstance(item, str) and not notes.broken(at):
            yield _Group(at, [_Placed(from_recipe(item, at, notes), at)], {})
        elif isinstance(item, dict):
            whole = [key for key in item if key == "overrides" or not notes.broken((*at, key))]
            block = {key: item[key] for key in whole}
            yield _Group(at, _texts(block, "include", at, notes), block)


def _texts(block: Mapping[str, Json], key: str, at: Path_, notes: Notes) -> list[_Placed]:
    given = block.get(key, [])
    placed = [(given, (*at, key))] if isinstance(given, str) else []
    if isinstance(given, list):
        placed = [(text, (*at, key, number)) for number, text in enumerate(given)]
    return [_Placed(from_recipe(text, place, notes), place) for text, place in placed]


# ---------------------------------------------------------------- finding


def _members(group: _Group, recipe: Path, notes: Notes) -> Iterator[_Member]:
    """The models that a group finds; one that two of its patterns find is there once."""
    excluded = {
        path
        for each in _texts(group.block, "exclude", group.at, notes)
        for path in _excluded(each, recipe, notes)
    }
    taken: set[Path] = set()
    for placed in group.include:
        members = list(_found(placed, group, recipe, notes))
        if members and all(_is_below(member.found.path, excluded) for member in members):
            notes.add(placed.place, f"{shown(placed.text)} finds no model that is not excluded")
        for member in members:
            path = member.found.path
            if path not in taken and not _is_below(path, excluded):
                taken.add(path)
                yield member


def _is_below(path: Path, folders: set[str]) -> bool:
    return bool(folders) and any(str(each) in folders for each in (path, *path.parents))


def _excluded(placed: _Placed, recipe: Path, notes: Notes) -> list[str]:
    found = _glob(placed.text, recipe, notes)
    if not found:
        hint = missing_hint(absolute(placed.text, recipe))
        notes.add(placed.place, f"{shown(placed.text)} excludes nothing", hint)
    return [path.removesuffix(".meta") for path in found]


def _glob(pattern: str, recipe: Path, notes: Notes) -> list[str]:
    folder = str(recipe.parent)
    found = globs.find(pattern, folder)
    notes.looked.globs[pattern, folder] = globs.digest_of(found)
    return found


def _found(placed: _Placed, group: _Group, recipe: Path, notes: Notes) -> Iterator[_Member]:
    text, place = placed
    is_pattern = globs.is_pattern(text)
    paths = _glob(text, recipe, notes) if is_pattern else [str(absolute(text, recipe))]
    kind: SourceKind | None = group.block.get("kind")
    inside: set[str] = set()
    count = 0
    for path in paths:
        if inside and not inside.isdisjoint(map(str, Path(path).parents)):
            continue
        model = _model_at(path, kind, notes)
        if model is None:
            continue
        if model[0] == "saved_model":
            inside.add(str(model[1]))
        count += 1
        name = _name(placed, group, path, model, recipe, notes)
        yield _Member(name, Located(*model, text, place))
    if count == 0:
        _note_nothing(placed, paths if is_pattern else None, recipe, notes)


def _note_nothing(
    placed: _Placed, matched: Sequence[str] | None, recipe: Path, notes: Notes
) -> None:
    text, place = placed
    if matched:
        number = f"{len(matched)} path{'s' if len(matched) > 1 else ''}"
        message = f"{shown(text)} finds {number}, and none of them is a model"
        notes.add(place, message, f"First {shown(matched[0], 200)}. {_EVERYTHING}")
    elif matched is not None:
        hint = f"Paths start from the recipe's folder, {recipe.parent}."
        notes.add(place, f"{shown(text)} finds nothing", hint)
    else:
        path = absolute(text, recipe)
        hint = _EVERYTHING if os.path.exists(path) else missing_hint(path)
        notes.add(place, f"there is no model at {shown(text)}", hint)


def _model_at(path: str, kind: SourceKind | None, notes: Notes) -> tuple[SourceKind, Path] | None:
    """The model at a path, by what its name ends in and what is in it."""
    ending = os.path.splitext(path)[1]
    if kind is not None:
        is_meta = kind == "checkpoint" and ending == ".meta"
        return kind, Path(path.removesuffix(".meta") if is_meta else path)
    if any(exists(Path(path, name), notes) for name in _SAVED_MODEL):
        return "saved_model", Path(path)
    if os.path.basename(path) in _SAVED_MODEL:
        return "saved_model", Path(path).parent
    if ending in _ENDINGS and exists(Path(path), notes):
        return _ENDINGS[ending], Path(path.removesuffix(".meta"))
    return ("checkpoint", Path(path)) if exists(Path(f"{path}.meta"), notes) else None


# ---------------------------------------------------------------- names


def _name(
    placed: _Placed,
    group: _Group,
    path: str,
    model: tuple[SourceKind, Path],
    recipe: Path,
    notes: Notes,
) -> str:
    """What a model is called: what its pattern's wildcards stand for, or as the group says."""
    stem = _stem(path)
    parts = globs.stem_parts(placed.text, path, str(recipe.parent))
    match = "-".join([*parts[:-1], _stem(parts[-1])]) if parts else stem
    template = group.block.get("name")
    if template is None:
        return clean_name(match)
    above = model[1].parent
    places = {"match": match, "stem": stem, "parent": above.name, "grandparent": above.parent.name}
    return clean_name(fill_places(template, places, (*group.at, "name"), notes))


def _stem(path: str) -> str:
    """The last part of a path, without the ending by which it is a model."""
    base, ending = os.path.splitext(os.path.basename(path))
    return base if ending in _ENDINGS else base + ending


def clean_name(name: str) -> str:
    """A name as names are: other characters become ``-``."""
    return _NO_NAME.sub("-", name).lstrip("_.-")[:_MAX_NAME] or "model"


def _check_names(models: Sequence[NamedModel], notes: Notes) -> None:
    first: dict[str, NamedModel] = {}
    for model in models:
        other = first.setdefault(model.name, model)
        if other is model:
            continue
        paths = " and ".join(str(each.source.path) for each in (other, model) if each.source)
        message = f"two models are called {shown(model.name)}: {paths}"
        hint = '`name: "{parent}-{stem}"` makes names of other parts of the paths.'
        notes.add(model.place, message, hint)


# ---------------------------------------------------------------- what is said of some


def _overrides(
    group: _Group, members: Sequence[_Member], notes: Notes
) -> list[tuple[str, Path_, Mapping[str, Json]]]:
    """The overrides of a group: pattern of names, place, and what they say."""
    given = group.block.get("overrides")
    found: list[tuple[str, Path_, Mapping[str, Json]]] = []
    for pattern, block in given.items() if isinstance(given, dict) else ():
        place = (*group.at, "overrides", pattern)
        if not isinstance(block, dict) or notes.broken(place):
            continue
        if members and not any(fnmatchcase(member.name, pattern) for member in members):
            hint = did_you_mean(pattern, {member.name for member in members})
            notes.add(place, f"no model here is called {shown(pattern)}", hint, key=True)
        found.append((pattern, place, block))
    return found


def _named(
    member: _Member,
    group: _Group,
    overrides: Sequence[tuple[str, Path_, Mapping[str, Json]]],
    recipe: Path,
    notes: Notes,
) -> NamedModel:
    blocks = [(group.at, group.block)]
    blocks += [(at, block) for pattern, at, block in overrides if fnmatchcase(member.name, pattern)]
    said = {
        key: (value, (*at, key))
        for at, block in blocks
        for key, value in block.items()
        if key not in _FINDING and key not in _CHANGING
    }
    changes = tuple(at for at, block in blocks if not _CHANGING.isdisjoint(block))
    places = {"model": member.name}
    source = read_source(member.found, said, places, recipe, notes)
    return NamedModel(member.name, source, member.found.place, changes)
