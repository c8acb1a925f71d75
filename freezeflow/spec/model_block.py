"""The ``model`` block of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from freezeflow.spec.notes import Notes
from freezeflow.spec.paths import absolute, exists, fill_places, missing_hint
from freezeflow.spec.problems import near_miss, shown
from freezeflow.spec.schema import SOURCE_KEYS
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


def read_model(block: Json, name: str, recipe: Path, notes: Notes) -> ModelSource | None:
    """Where the model comes from; None where the block has mistakes."""
    if not isinstance(block, dict):
        return None
    kind = _kind(block, notes)
    if kind is None:
        return None
    for key, owner in _ONLY_WITH.items():
        if key in block and kind != owner:
            message = f"{key} goes with {owner}, not with {kind}"
            notes.add(("model", key), message, "Take it out.", key=True)
    path, meta_graph = (_path(block, key, name, recipe, notes) for key in (kind, "meta_graph"))
    if path is not None:
        _check_there(kind, path, meta_graph, block[kind], notes)
    weights = None
    if kind != "checkpoint" and "checkpoint" in block:
        weights = _path(block, "checkpoint", name, recipe, notes)
        _check_weights(weights, notes)
    if path is None or notes.broken(("model",)):
        return None
    return ModelSource(
        kind=kind,
        path=path,
        meta_graph=meta_graph,
        tags=_names(block.get("tags")),
        signatures=_names(block.get("signatures")),
        inputs=_names(block.get("inputs")) or (),
        outputs=_names(block.get("outputs")) or (),
        custom_objects=_names(block.get("custom_objects")) or (),
        weights=weights,
        averages=block.get("averages", False),
    )


def _path(
    block: Mapping[str, Json], key: str, name: str, recipe: Path, notes: Notes
) -> Path | None:
    if key not in block or notes.broken(("model", key)):
        return None
    return absolute(fill_places(block[key], name, ("model", key), notes), recipe)


def _check_there(
    kind: SourceKind, path: Path, meta_graph: Path | None, text: str, notes: Notes
) -> None:
    # All of them, and not only the first that is found: the check depends on each.
    found = [exists(place, notes) for place in _places(kind, path, meta_graph)]
    if not any(found) and not notes.broken(("model", kind)):
        message = f"there is {_WHAT[kind]} at {shown(text)}"
        is_inside = kind == "saved_model" and path.is_file()
        hint = f"Name its folder, {path.parent}." if is_inside else missing_hint(path)
        notes.add(("model", kind), message, hint)


def _check_weights(prefix: Path | None, notes: Notes) -> None:
    if prefix is None:
        return
    # The index of a V2 checkpoint, or a V1 checkpoint itself.
    found = [exists(place, notes) for place in (Path(f"{prefix}.index"), prefix)]
    if not any(found):
        message = f"there is no checkpoint at {shown(str(prefix))}"
        notes.add(("model", "checkpoint"), message, missing_hint(prefix))


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
