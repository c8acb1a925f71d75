"""Paths in recipes: relative to the recipe's folder, with ``{model}`` filled in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import did_you_mean
from freezeflow.spec.tree import Path_

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")

# What marks the root of a project.
_PROJECT_MARKS = (".git", "freezeflow.toml", "pyproject.toml")


def fill_places(text: str, name: str, path: Path_, notes: Notes) -> str:
    """A path with ``{model}`` replaced by the recipe's name; ``{{`` and ``}}`` stand for braces."""

    def filled(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        if match[1] != "model":
            hint = did_you_mean(match[1], ["model"])
            notes.add(path, f"{{{match[1]}}} stands for nothing here", hint)
        return name

    return _PLACE.sub(filled, text)


def absolute(text: str, recipe: Path) -> Path:
    """A path of a recipe, without ``..``."""
    return Path(os.path.normpath(recipe.parent / text))


def exists(path: Path, notes: Notes) -> bool:
    """Whether a file is there; what was found is noted, because the check depends on it."""
    found = path.exists()
    notes.files[str(path)] = found
    return found


def project_root(recipe: Path) -> Path:
    """The nearest folder above a recipe that is the root of a project, else the recipe's own."""
    for folder in recipe.parents:
        if any((folder / mark).exists() for mark in _PROJECT_MARKS):
            return folder
    return recipe.parent
