"""The ``stages`` of a recipe: a chain, or with ``needs`` any DAG."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from freezeflow.params import (
    PathParam,
    fields_of,
    is_required,
    params_from_json,
    params_to_json,
    paths_in,
    shorthand_of,
    with_paths,
)
from freezeflow.spec.notes import Notes
from freezeflow.spec.paths import fill_places, from_recipe
from freezeflow.spec.problems import shown
from freezeflow.spec.schema import ITEM_KEYS
from freezeflow.spec.tree import Path_
from freezeflow.stages.registry import stage_modules, stage_named
from freezeflow.stages.stage import Stage
from freezeflow.values import Json


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlacedItem:
    """A stage item while it is checked.

    Args:
        index: Its number in `stages`, from 0.
        item: What it says.
        stage: Its stage.
        needs_given: Whether it names its needs itself.
        values: Its parameters as JSON, without those that have mistakes.
        paths: The paths in them, as they are written.
    """

    index: int
    item: StageItem
    stage: Stage
    needs_given: bool
    values: Mapping[str, Json]
    paths: tuple[PathParam, ...]

    @property
    def path(self) -> Path_:
        """Where its parameters stand."""
        return ("stages", self.index, self.stage.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageList:
    """The items that could be read, and the ids that the others seem to have."""

    items: tuple[PlacedItem, ...]
    lost: frozenset[str]


def read_stages(given: Json, notes: Notes) -> StageList:
    """The stages in the order of the file; what is wrong in one of them is noted.

    Paths in their parameters are as they are written, see `with_places`.

    Args:
        given: The `stages` block.
        notes: Has the mistakes in the block's structure, and gets those in its values.
    """
    raws = given if isinstance(given, list) else []
    items: list[PlacedItem] = []
    lost: set[str] = set()
    for index, (raw, identifier) in enumerate(zip(raws, item_ids(raws), strict=True)):
        body: Json = {raw: None} if isinstance(raw, str) else raw
        if identifier is None:
            lost |= _likely_ids(body)
            continue
        stage = stage_named(stage_in(body) or "")
        path = ("stages", index, stage.name)
        values = _values(body[stage.name], stage, path, notes)
        kind = stage.params_for(values)
        params = None if notes.broken(path) else params_from_json(kind, values)
        item = StageItem(
            id=identifier,
            stage=stage.name,
            params=params,
            needs=_needs(body, tuple(before.item.id for before in items[-1:])),
        )
        items.append(
            PlacedItem(
                index=index,
                item=item,
                stage=stage,
                needs_given="needs" in body,
                values=values,
                paths=paths_in(kind, values),
            )
        )
    return StageList(items=tuple(items), lost=frozenset(lost))


def with_places(item: PlacedItem, places: Mapping[str, str], notes: Notes) -> PlacedItem:
    """An item with ``{model}`` and the like filled into its paths.

    Args:
        item: The item.
        places: What each name stands for.
        notes: Gets names that stand for nothing.
    """
    if not item.paths:
        return item
    kind = item.stage.params_for(item.values)
    values = with_paths(kind, item.values, lambda param: filled(item, param, places, notes))
    params = None if item.item.params is None else params_from_json(kind, values)
    return dataclasses.replace(
        item, values=values, item=dataclasses.replace(item.item, params=params)
    )


def filled(item: PlacedItem, param: PathParam, places: Mapping[str, str], notes: Notes) -> str:
    """A path of an item as it is from the recipe's folder; the others as for `with_places`."""
    place = place_of(item, param.path, notes)
    return from_recipe(fill_places(param.text, places, place, notes), place, notes)


def item_ids(raws: Sequence[Json]) -> list[str | None]:
    """The id of each item of `stages`; None for one that names no stage, or several."""
    taken = {raw["id"] for raw in raws if isinstance(raw, dict) and _is_text(raw.get("id"))}
    count: dict[str, int] = {}
    ids: list[str | None] = []
    for raw in raws:
        stage = stage_in({raw: None} if isinstance(raw, str) else raw)
        if stage is None:
            ids.append(None)
        elif isinstance(raw, dict) and _is_text(raw.get("id")):
            ids.append(raw["id"])
        else:
            ids.append(_free(stage, taken, count))
            taken.add(ids[-1] or "")
    return ids


def stage_in(body: Json) -> str | None:
    """The stage of an item, if it is one mapping with one stage."""
    named = [key for key in body if key in stage_modules()] if isinstance(body, dict) else []
    return named[0] if len(named) == 1 else None


def place_of(item: PlacedItem, within: Sequence[str | int], notes: Notes) -> Path_:
    """Where a parameter stands; in the shorthand form that is where the stage's value stands."""
    path = (*item.path, *within)
    return path if path in notes.document.marks else item.path


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _likely_ids(body: Json) -> set[str]:
    """What an item that cannot be read would be called."""
    if not isinstance(body, dict):
        return set()
    return {body["id"]} if _is_text(body.get("id")) else set(body) - ITEM_KEYS


def _free(name: str, taken: set[str], count: dict[str, int]) -> str:
    """The name, with a number behind it where it is taken; `count` has the last number of each."""
    while True:
        count[name] = number = count.get(name, 0) + 1
        unique = name if number == 1 else f"{name}-{number}"
        if unique not in taken:
            return unique


def _needs(body: Mapping[str, Json], before: tuple[str, ...]) -> tuple[str, ...]:
    given = body.get("needs", before)
    if isinstance(given, str):
        return (given,)
    return tuple(filter(_is_text, given)) if isinstance(given, (list, tuple)) else ()


def _values(given: Json, stage: Stage, path: Path_, notes: Notes) -> dict[str, Json]:
    """The parameters that have no mistake; defaults too if all are right."""
    values = _spelled_out(given, stage, path, notes)
    params = stage.params_for(values)
    for key, (field, _) in fields_of(params).items():
        if is_required(field) and given is None:
            notes.add(path, f"{stage.name} needs {shown(key)}", field.metadata["doc"], key=True)
    if not notes.broken(path):
        values = params_to_json(params_from_json(params, values))
    known = fields_of(params)
    return {key: value for key, value in values.items() if key in known}


def _spelled_out(given: Json, stage: Stage, path: Path_, notes: Notes) -> dict[str, Json]:
    """The parameters as a mapping, without those that have mistakes."""
    if isinstance(given, dict):
        return {key: value for key, value in given.items() if not notes.broken((*path, key))}
    short = shorthand_of(stage.params)
    return {} if given is None or short is None or notes.broken(path) else {short: given}
