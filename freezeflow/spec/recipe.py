"""A recipe's text checked and turned into frozen typed values; all its mistakes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeflow.spec.model_block import read_model
from freezeflow.spec.notes import Notes
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
        digest: Digest of its text and of the values of its variables.
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
        set_vars: Values for variables of its ``vars`` block.

    Raises:
        RecipeError: The file cannot be read.
        InvalidRecipe: It has mistakes; the error holds all of them.
    """
    document = read_document(Path(path), str(path))
    notes = Notes(document)
    data: Any = document.data
    if isinstance(data, dict):
        data = fill_variables(data, set_vars or {}, notes)
    check_structure(data, notes)
    if not isinstance(data, dict):
        raise InvalidRecipe(notes.problems)
    where = Path(path).absolute()
    name = data["name"] if isinstance(data.get("name"), str) else where.stem
    source = read_model(data.get("model"), name, where, notes)
    outside = data.get("allow_outside") is True
    stages = read_stages(data.get("stages"), name, where, notes, allow_outside=outside)
    if notes.problems:
        raise InvalidRecipe(notes.problems)
    assert source is not None
    variables = sorted((set_vars or {}).items()), sorted(notes.environment.items())
    text = "\n".join(document.lines)
    return Recipe(
        path=where,
        name=name,
        digest=str(Digest.of(f"freezeflow.recipe/1\n{variables}\n{text}".encode())),
        source=source,
        stages=stages,
        dependencies={"files": notes.files, "environment": notes.environment},
    )
