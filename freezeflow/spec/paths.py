"""Paths in recipes: relative to the recipe's folder, with ``{model}`` and the like filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from freezeflow.spec.notes import Notes
from freezeflow.spec.problems import shown
from freezeflow.spec.tree import Path_
from freezeflow.suggestions import did_you_mean, near_path

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

# What marks the root of a project.
_PROJECT_MARKS = (".git", "freezeflow.toml", "pyproject.toml")


def fill_places(text: str, places: Mapping[str, str], path: Path_, notes: Notes) -> str:
    """A text with ``{name}`` replaced by what the name stands for; ``{{`` and ``}}`` are braces."""

    def filled(match: re.Match[str]) -> str:
        if match[1] is None:
            if len(match[0]) == 1:
                hint = "Write {{ and }} for braces."
                notes.add(path, f"{shown(text)} has a brace without its partner", hint)
            return match[0][0]
        if match[1] not in places:
            hint = did_you_mean(match[1], places)
            notes.add(path, f"{shown(match[0])} stands for nothing here", hint)
        return places.get(match[1], "_")

    if not text.isprintable():
        notes.add(path, f"{shown(text)} has a character that no path should have")
        return "_"
    if text.startswith("~"):
        notes.add(path, f"`~` in {shown(text)} does not stand for your home here", "Write it out.")
    return _PLACE.sub(filled, text)


def from_recipe(text: str, path: Path_, notes: Notes) -> str:
    """A path as it is from the recipe's folder, wherever it is written."""
    folder = notes.document.folder_of(path)
    return os.path.join(folder, text) if folder and text else text


def absolute(text: str, recipe: Path) -> Path:
    """A path of a recipe, without ``..``."""
    return Path(os.path.normpath(os.path.join(recipe.parent, text)))


def exists(path: Path, notes: Notes) -> bool:
    """Whether a file is there; what was found is noted, because the check depends on it."""
    found = os.path.exists(path)
    notes.looked.files[str(path)] = found
    return found


def missing_hint(path: Path) -> str:
    """Where a file that is not there was looked for, and what is there under nearly its name."""
    near = near_path(path)
    name = near.name if near is not None and near.parent == path.parent else near
    meant = f" Did you mean {str(name)!r}?" if near is not None else ""
    return f"Paths start from the recipe's folder; that makes it {path}.{meant}"


def project_root(recipe: Path, notes: Notes) -> Path:
    """The nearest folder above a recipe that is the root of a project, else the recipe's own."""
    for folder in recipe.parents:
        if any(exists(folder / mark, notes) for mark in _PROJECT_MARKS):
            return folder
    return recipe.parent


def leaves(path: Path, root: Path) -> bool:
    """Whether a path lies outside a folder, by its name or through a symbolic link."""
    real = Path(os.path.realpath(path))
    return root not in path.parents or Path(os.path.realpath(root)) not in real.parents
