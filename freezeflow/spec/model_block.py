"""The ``model`` block of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from freezeflow.spec.notes import Notes
from freezeflow.spec.paths import absolute, exists, fill_places, from_recipe, missing_hint
from freezeflow.spec.problems import shown
from freezeflow.spec.schema import SOURCE_KEYS
from freezeflow.spec.tree import Path_
from freezeflow.suggestions import near_miss
from freezeflow.values import Json, ModelSource, SourceKind

# Keys that only one kind of source has.
_ONLY_WITH = {"meta_graph": "checkpoint", "custom_objects": "keras", "tags": "saved_model"}

# Kinds of source whose graph may take the values of a checkpoint that is named beside it.
_TAKE_WEIGHTS = ("saved_model", "frozen_graph")

_WHAT = {
    "saved_model": "no SavedModel",
    "keras": "no Keras file",
    "checkpoint": "no checkpoint with a .meta file",
    "frozen_graph": "no graph file",
}


# What is said of a model: each key's value, and where that stands.
Said = Mapping[str, tuple[Json, Path_]]


class Located(NamedTuple):
    """A model's kind and path, and where in the recipe that is said."""

    kind: SourceKind
    path: Path
    text: str
    place: Path_


def read_model(
    block: Json, places: Mapping[str, str], recipe: Path, notes: Notes
) -> ModelSource | None:
    """Where the model comes from; None where the block has mistakes."""
    if not isinstance(block, dict):
        return None
    said: Said = {key: (value, ("model", key)) for key, value in block.items()}
    kind = _kind(block, notes)
    if kind is None:
        return None
    path = _path(said, kind, places, recipe, notes)
    if path is None:
        _check_keys(said, kind, notes)
        return None
    located = Located(kind, path, block[kind], ("model", kind))
    source = read_source(located, said, places, recipe, notes)
    return None if notes.broken(("model",)) else source


def read_source(
    model: Located, said: Said, places: Mapping[str, str], recipe: Path, notes: Notes
) -> ModelSource | None:
    """The source of a model; None where something is wrong with it.

    Args:
        model: The model.
        said: What else is said of it: tags, signatures, and so on.
        places: What ``{name}`` stands for in paths.
        recipe: The recipe.
        notes: Gets the mistakes.
    """
    kind = model.kind
    _check_keys(said, kind, notes)
    meta_graph = _path(said, "meta_graph", places, recipe, notes)
    _check_there(model, meta_graph, notes)
    weights = None
    if kind != "checkpoint" and "checkpoint" in said:
        weights = _path(said, "checkpoint", places, recipe, notes)
        _check_weights(weights, said["checkpoint"][1], notes)
    if notes.broken(model.place) or any(notes.broken(place) for _, place in said.values()):
        return None
    block = {key: value for key, (value, _) in said.items()}
    return ModelSource(
        kind=kind,
        path=model.path,
        meta_graph=meta_graph,
        tags=_names(block.get("tags")),
        signatures=_names(block.get("signatures")),
        inputs=_names(block.get("inputs")) or (),
        outputs=_names(block.get("outputs")) or (),
        custom_objects=_names(block.get("custom_objects")) or (),
        weights=weights,
        averages=block.get("averages", False),
    )


def _check_keys(said: Said, kind: SourceKind, notes: Notes) -> None:
    for key, owner in _ONLY_WITH.items():
        if key in said and kind != owner:
            message = f"{key} goes with {owner}, not with {kind}"
            notes.add(said[key][1], message, "Take it out.", key=True)


def _path(
    said: Said, key: str, places: Mapping[str, str], recipe: Path, notes: Notes
) -> Path | None:
    if key not in said or notes.broken(said[key][1]):
        return None
    text, place = said[key]
    text = from_recipe(fill_places(text, places, place, notes), place, notes)
    return absolute(text, recipe)


def _check_there(model: Located, meta_graph: Path | None, notes: Notes) -> None:
    found = any(exists(place, notes) for place in _places(model.kind, model.path, meta_graph))
    if not found and not notes.broken(model.place):
        message = f"there is {_WHAT[model.kind]} at {shown(model.text)}"
        is_inside = model.kind == "saved_model" and model.path.is_file()
        inside = f"Name its folder, {model.path.parent}."
        notes.add(model.place, message, inside if is_inside else missing_hint(model.path))


def _check_weights(prefix: Path | None, place: Path_, notes: Notes) -> None:
    if prefix is None:
        return
    # The index of a V2 checkpoint, or a V1 checkpoint itself.
    if not any(exists(place, notes) for place in (Path(f"{prefix}.index"), prefix)):
        message = f"there is no checkpoint at {shown(str(prefix))}"
        notes.add(place, message, missing_hint(prefix))


def _kind(block: Mapping[str, Json], notes: Notes) -> SourceKind | None:
    given = [key for key in SOURCE_KEYS if key in block]
    if "checkpoint" in given and any(key in _TAKE_WEIGHTS for key in given):
        given.remove("checkpoint")
    if len(given) == 1:
        return given[0]
    if given:
        message = f"the model comes from one place; here are {' and '.join(given)}"
        notes.add(("model", given[1]), message, "Remove all but one of them.", key=True)
    elif not any(notes.broken(("model", key)) and near_miss(key, SOURCE_KEYS) for key in block):
        hint = "As in `saved_model: path/to/folder`."
        notes.add(("model",), f"the model needs one of {', '.join(SOURCE_KEYS)}", hint, key=True)
    return None


def _places(kind: SourceKind, path: Path, meta_graph: Path | None) -> list[Path]:
    """Files of which one must be there."""
    if kind == "saved_model":
        return [path / f"saved_model.{ending}" for ending in ("pb", "pbtxt", "cpb")]
    if kind == "checkpoint":
        return [meta_graph] if meta_graph else [Path(f"{path}.meta"), path / ".meta"]
    return [path]


def _names(given: Json) -> tuple[str, ...] | None:
    if given is None:
        return None
    return (given,) if isinstance(given, str) else tuple(given)
