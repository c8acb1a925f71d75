"""The ``stages`` of a recipe: a chain, or with ``needs`` any DAG."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freezeflow.errors import UsageError
from freezeflow.spec.notes import Notes
from freezeflow.spec.paths import absolute, exists, fill_places, project_root
from freezeflow.spec.problems import did_you_mean
from freezeflow.spec.tree import Path_
from freezeflow.stages.params import (
    InputPath,
    OutputPath,
    params_from_json,
    paths_in,
    shorthand_of,
)
from freezeflow.stages.registry import stage_named
from freezeflow.stages.stage import Stage
from freezeflow.values import Json


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageItem:
    """One item of ``stages``.

    Args:
        id: Unique in the recipe.
        stage: The stage's name.
        params: Its ``Params``, defaults filled in; None where the item has mistakes.
        needs: Ids of the stages before it; the model comes from the first.
    """

    id: str
    stage: str
    params: Any
    needs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Item:
    """A stage item while it is checked; `path` is where its parameters stand."""

    item: StageItem
    stage: Stage
    path: Path_
    values: Mapping[str, Json]


def read_stages(
    items: Json, name: str, recipe: Path, notes: Notes, *, allow_outside: bool
) -> tuple[StageItem, ...]:
    """The stages in the order of the file; mistakes are noted."""
    if not isinstance(items, list):
        return ()
    found = _parsed(items, name, notes)
    whole = len(found) == len(items)
    _check_ids(items, notes)
    _check_needs(found, notes, all_known=whole)
    _check_roles(found, notes)
    for item in found:
        _check_files(item, recipe, notes)
    _check_outputs(found, recipe, notes, allow_outside)
    return tuple(item.item for item in found)


# ---------------------------------------------------------------- items


def _parsed(items: Sequence[Json], name: str, notes: Notes) -> list[_Item]:
    taken = {i["id"] for i in items if isinstance(i, dict) and isinstance(i.get("id"), str)}
    found: list[_Item] = []
    for index, raw in enumerate(items):
        body: Json = {raw: None} if isinstance(raw, str) else raw
        named = [key for key in body if key not in ("id", "needs")] if isinstance(body, dict) else []
        stage = _stage(named[0]) if len(named) == 1 else None
        if stage is None:
            continue
        identifier = body["id"] if isinstance(body.get("id"), str) else _free(stage.name, taken)
        taken.add(identifier)
        before = (found[-1].item.id,) if found else ()
        path = ("stages", index, stage.name)
        values = _values(body[stage.name], stage, path, name, notes)
        params = None if values is None else params_from_json(stage.params, values)
        needs = _needs(body.get("needs"), before)
        item = StageItem(id=identifier, stage=stage.name, params=params, needs=needs)
        found.append(_Item(item, stage, path, values or {}))
    return found


def _stage(name: str) -> Stage | None:
    try:
        return stage_named(name)
    except UsageError:
        return None  # an unknown one was noted against the schema


def _free(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    return unique


def _needs(given: Json, before: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(given, str):
        return (given,)
    if isinstance(given, list):
        return tuple(name for name in given if isinstance(name, str))
    return before


def _values(
    given: Json, stage: Stage, path: Path_, name: str, notes: Notes
) -> dict[str, Json] | None:
    """The parameters as a mapping, places in paths filled; None where there is a mistake."""
    if notes.broken(path) or notes.broken(path[:2]) and not isinstance(given, (dict, type(None))):
        return None
    short = shorthand_of(stage.params)
    values = dict(given) if isinstance(given, dict) else {}
    if given is not None and not isinstance(given, dict) and short is not None:
        values = {short: given}
    for marker in (InputPath, OutputPath):
        for key, text in paths_in(stage.params, values, marker).items():
            values[key] = fill_places(text, name, _at(path, key, notes), notes)
    return values


def _at(path: Path_, key: str, notes: Notes) -> Path_:
    """Where a parameter stands: under its key, or in the stage's own place."""
    return (*path, key) if (*path, key) in notes.document.marks else path


# ---------------------------------------------------------------- checks


def _check_ids(items: Sequence[Json], notes: Notes) -> None:
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        identifier = item.get("id") if isinstance(item, dict) else None
        if not isinstance(identifier, str):
            continue
        if identifier in first:
            line = notes.document.marks["stages", first[identifier], "id"].line
            message = f"id {identifier!r} is there twice, first in line {line}"
            notes.add(("stages", index, "id"), message, "Give each stage an id of its own.")
        first.setdefault(identifier, index)


def _check_needs(found: Sequence[_Item], notes: Notes, *, all_known: bool) -> None:
    known = {item.item.id for item in found}
    for item in found:
        for number, need in enumerate(item.item.needs):
            if need not in known and all_known:
                path = (*item.path[:2], "needs", number)
                path = path if path in notes.document.marks else path[:3]
                message = f"needs {need!r}, but no stage has that id"
                notes.add(path, message, did_you_mean(need, known - {item.item.id}))
    _check_cycle(found, notes)


def _check_cycle(found: Sequence[_Item], notes: Notes) -> None:
    import networkx

    graph = networkx.DiGraph()
    graph.add_edges_from((need, item.item.id) for item in found for need in item.item.needs)
    try:
        edges = networkx.find_cycle(graph)
    except networkx.NetworkXNoCycle:
        return
    by_id = {item.item.id: item for item in found}
    lines = notes.document.marks
    way = [f"{name} (line {lines[by_id[name].path[:2]].line})" for name, _ in edges]
    message = f"the stages need each other in a circle: {' -> '.join([*way, way[0]])}"
    last = by_id[edges[0][0]]
    path = (*last.path[:2], "needs")
    notes.add(path if path in lines else last.path[:2], message, "Take one of these needs out.")


def _check_roles(found: Sequence[_Item], notes: Notes) -> None:
    loads = [item for item in found if item.stage.role == "load"]
    for item in loads[1:]:
        notes.add(item.path, "a recipe loads one model, and does so above", key=True)
    for item in loads[:1]:
        if item.item.needs:
            notes.add(item.path, f"{item.stage.name} comes first; nothing can come before it", key=True)
    if not loads and found:
        notes.add(found[0].path[:2], "nothing loads the model", "Begin with `- load`.")
    for item in found:
        if item.stage.role != "load" and not item.item.needs and loads:
            notes.add(item.path, f"{item.stage.name} has no model to work on", "Put it after `load`.")


def _check_files(item: _Item, recipe: Path, notes: Notes) -> None:
    if item.item.params is None:
        return
    for key, text in paths_in(item.stage.params, item.values, InputPath).items():
        if not exists(absolute(text, recipe), notes):
            hint = f"Paths start from the recipe's folder, {recipe.parent}."
            notes.add(_at(item.path, key, notes), f"there is no file {text!r}", hint)
    for key, message in item.stage.problems(item.item.params):
        notes.add(_at(item.path, key, notes) if key else item.path, message)


def _check_outputs(
    found: Sequence[_Item], recipe: Path, notes: Notes, allow_outside: bool
) -> None:
    root = project_root(recipe)
    written: dict[Path, _Item] = {}
    for item in found:
        if item.item.params is None:
            continue
        for key, text in paths_in(item.stage.params, item.values, OutputPath).items():
            path, place = absolute(text, recipe), _at(item.path, key, notes)
            if not allow_outside and root not in path.parents:
                hint = f"The project is {root}. To allow it: `allow_outside: true`."
                notes.add(place, f"{text!r} lies outside the project", hint)
            if path in written:
                line = notes.document.marks[written[path].path[:2]].line
                message = f"{text!r} is already written by {written[path].item.id} (line {line})"
                notes.add(place, message, "Give each export a path of its own.")
            written.setdefault(path, item)
