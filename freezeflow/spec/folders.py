"""Folders of recipes: which of their files are meant to be run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from freezeflow.errors import UsageError

_ENDINGS = (".yaml", ".yml")
_VERSION = re.compile(rb"^version\s*:", re.MULTILINE)
_MODEL = re.compile(rb"^(model|models|extends)\s*:", re.MULTILINE)


def recipes_in(path: Path) -> list[Path]:
    """The recipe at a path, or the recipes in a folder and below, sorted.

    In a folder a recipe is a .yaml or .yml file with `version` and a model at its top. What has no
    model is a base for others, what has no version something else; hidden folders are passed over.

    Raises:
        UsageError: The folder has no recipe.
    """
    if not path.is_dir():
        return [path]
    found = [file for file in _files(path) if _is_recipe(file)]
    if not found:
        hint = "A recipe has `version` and a model at its top; freezeflow init MODEL writes one."
        raise UsageError("this folder has no recipe", where=str(path), hint=hint)
    return found


def _files(folder: Path) -> Iterator[Path]:
    for where, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(_ENDINGS) and not name.startswith("."):
                yield Path(where, name)


def _is_recipe(file: Path) -> bool:
    try:
        text = file.read_bytes()
    except OSError:
        return True  # whoever reads it tells why it cannot be read
    return bool(_VERSION.search(text) and _MODEL.search(text))
