"""A recipe's text checked and turned into frozen typed values; all its mistakes at once."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeflow.params import params_to_json, unkeyed
from freezeflow.spec.files import check_files, check_values
from freezeflow.spec.model_block import read_model
from freezeflow.spec.notes import Notes
from freezeflow.spec.order import check_order
from freezeflow.spec.problems import InvalidRecipe
from freezeflow.spec.stage_list import StageItem, read_stages
from freezeflow.spec.structure import check_structure
from freezeflow.spec.tree import read_document
from freezeflow.spec.variables import fill_variables
from freezeflow.values import Digest, Json, ModelSource

__all__ = ["Recipe", "StageItem", "load_recipe"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe.

    Args:
        path: Its file, absolute.
        name: What it is called.
        digest: Digest of what it says: comments, order of keys, defaults written out or not, and
            parameters that cannot change a result make no difference.
        source: Where its model comes from.
        stages: Its stages, in the order of the file.
        dependencies: What else the check has looked at: ``files``, path to whether it is there, and
            ``environment``, variable to value.
    """

    path: Path
    name: str
    digest: str
    source: ModelSource
    stages: tuple[StageItem, ...]
    dependencies: Mapping[str, Mapping[str, Json]]


def load_recipe(path: str | Path, *, set_vars: Mapping[str, str] | None = None) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: Its file.
        set_vars: Values of variables, which go before the recipe's own and the environment's.

    Raises:
        RecipeError: The file cannot be read.
        InvalidRecipe: It has mistakes; the error holds all of them.
        UsageError: A plugin's stage cannot be had.
    """
    document = read_document(Path(path), str(path))
    notes = Notes(document)
    data: Any = document.data
    if isinstance(data, dict):
        data = fill_variables(data, set_vars or {}, notes)
    check_structure(data, notes)
    where = Path(path).absolute()
    recipe = _read(data, where, notes) if isinstance(data, dict) else None
    if notes.problems or recipe is None:
        raise InvalidRecipe(notes.problems)
    return recipe


def _read(data: Mapping[str, Json], where: Path, notes: Notes) -> Recipe | None:
    """The recipe; None where it has mistakes."""
    named = isinstance(data.get("name"), str) and not notes.broken(("name",))
    name = data["name"] if named else where.stem
    source = read_model(data.get("model"), name, where, notes)
    stages = read_stages(data.get("stages"), name, notes)
    check_order(stages, data.get("stages"), notes)
    outside = data.get("allow_outside") is True
    check_files(stages.items, source, where, notes, allow_outside=outside)
    check_values(stages.items, notes)
    if source is None or notes.problems:
        return None
    items = tuple(placed.item for placed in stages.items)
    return Recipe(
        path=where,
        name=name,
        digest=_digest(name, source, items, where.parent),
        source=source,
        stages=items,
        dependencies={"files": notes.files, "environment": notes.environment},
    )


def _digest(name: str, source: ModelSource, items: tuple[StageItem, ...], base: Path) -> str:
    def relative(path: str | None) -> str | None:
        return None if path is None else os.path.relpath(path, base)

    model = source.to_json()
    model |= {key: relative(model[key]) for key in ("path", "meta_graph", "weights")}
    said = {"name": name, "model": model, "stages": [_said(item) for item in items]}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return str(Digest.of(f"freezeflow.recipe/1\n{text}".encode()))


def _said(item: StageItem) -> Json:
    apart = unkeyed(type(item.params))
    params = {k: v for k, v in params_to_json(item.params).items() if k not in apart}
    return {"id": item.id, "stage": item.stage, "params": params, "needs": item.needs}
