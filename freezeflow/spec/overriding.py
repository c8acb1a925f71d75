"""``override``: other parameters for some stages, by their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from freezeflow.params import shorthand_of
from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import shown
from freezeflow.spec.stage_list import item_ids, stage_in
from freezeflow.spec.tree import Document, Path_, value_at
from freezeflow.stages.registry import stage_named
from freezeflow.suggestions import did_you_mean
from freezeflow.values import Json


def overridden(document: Document, blocks: Sequence[Path_]) -> Document:
    """A recipe with the parameters that some `override` blocks give, the last block's most.

    Args:
        document: The recipe, its variables not yet filled in.
        blocks: Where those blocks stand; unknown ids in them are passed over.
    """
    stages = document.data.get("stages")
    if not blocks or not isinstance(stages, list):
        return document
    changed = document.branch()
    items = list(stages)
    numbers = {name: number for number, name in enumerate(item_ids(items)) if name}
    for block in blocks:
        given = value_at(document.data, block)
        for name, params in given.items() if isinstance(given, dict) else ():
            if name in numbers:
                number = numbers[name]
                items[number] = _with_params(items[number], number, params, (*block, name), changed)
    return changed._replace(data={**document.data, "stages": items})


def check_ids(document: Document, blocks: Sequence[Path_], notes: Notes) -> None:
    """Notes ids in `override` blocks that no stage has."""
    stages = document.data.get("stages")
    known = {name for name in item_ids(stages if isinstance(stages, list) else []) if name}
    for block in blocks:
        given = value_at(document.data, block)
        for name in given if isinstance(given, dict) else ():
            if known and name not in known:
                hint = did_you_mean(name, known)
                message = f"no stage has the id {shown(name)}"
                notes.add((*block, name), message, hint, key=True)


def _with_params(
    item: Json, number: int, params: Json, place: Path_, document: Document
) -> dict[str, Json]:
    """A stage item with some parameters replaced; the document learns where they stand."""
    body: dict[str, Any] = {item: None} if isinstance(item, str) else dict(item)
    stage = stage_in(body)
    if stage is None:
        return body
    path = ("stages", number, stage)
    short = shorthand_of(stage_named(stage).params)
    before = _spelled_out(body[stage], short, path, document)
    now = _spelled_out(params, short, place, document)
    if before is None or now is None:
        # Parameters that cannot be read are told where they stand.
        document.graft(path, place)
        return {**body, stage: params}
    for key in now:
        document.graft((*path, key), (*place, key))
    return {**body, stage: {**before, **now}}


def _spelled_out(
    given: Json, short: str | None, path: Path_, document: Document
) -> Mapping[str, Json] | None:
    if isinstance(given, dict):
        return given
    if given is None:
        return {}
    if short is None:
        return None
    document.graft((*path, short), path)
    return {short: given}
