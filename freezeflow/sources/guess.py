"""What kind of model a path names."""

from __future__ import annotations

import os
from pathlib import Path

from freezeflow.errors import ModelRefused, UsageError
from freezeflow.suggestions import near_path
from freezeflow.values import SourceKind

_KERAS = (".keras", ".h5", ".hdf5")
_GRAPH = (".pb", ".pbtxt")

# Entries of a folder that are looked at, and models that are listed, where the folder is no model itself.
_LOOKED_AT = 200
_LISTED = 4

_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
_EVERYTHING = (
    "A model is a SavedModel folder, a .keras or .h5 file, a checkpoint's prefix (the path of its"
    " .index or .meta file without that ending), or a .pb or .pbtxt graph."
)


def find_model(text: str) -> tuple[SourceKind, Path]:
    """The kind of the model at a path, from the names of the files there, and its own path.

    Args:
        text: The path as the user wrote it. A checkpoint whose files have no name before the dot
            (``folder/.meta``) is named by its folder.

    Raises:
        UsageError: There is nothing at that path.
        ModelRefused: What is there is no model.
    """
    path = Path(text)
    if path.is_dir() and any((path / name).is_file() for name in _SAVED_MODEL):
        return "saved_model", path
    if _is_checkpoint(path):
        return "checkpoint", path
    if path.is_dir():
        raise ModelRefused(
            "this folder holds no saved_model.pb or saved_model.pbtxt, and no checkpoint's .meta",
            where=text,
            hint=_inside(path),
        )
    if path.suffix in _KERAS and path.is_file():
        return "keras", path
    if path.suffix in _GRAPH and path.is_file():
        # A SavedModel may be named by its graph file, too; what is beside it belongs to it.
        in_folder = path.name in _SAVED_MODEL
        return ("saved_model", path.parent) if in_folder else ("frozen_graph", path)
    if path.is_file():
        raise ModelRefused("this file is no model that is known", where=text, hint=_EVERYTHING)
    near = near_path(path)
    hint = _EVERYTHING if near is None else f"Did you mean {str(near)!r}?"
    raise UsageError("there is no such model", where=text, hint=hint)


def _inside(folder: Path) -> str:
    """A hint that names models directly below a folder, if there are some."""
    try:
        names = sorted(os.listdir(folder))[:_LOOKED_AT]
    except OSError:
        return _EVERYTHING
    found = [name for name in names if _is_model(folder / name)]
    if not found:
        return _EVERYTHING
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"In it are models: {', '.join(str(folder / name) for name in found[:_LISTED])}{more}."


def _is_model(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in _SAVED_MODEL)
    return path.suffix in (*_KERAS, *_GRAPH) and path.is_file()


def _is_checkpoint(path: Path) -> bool:
    """A prefix with its files, or a folder with those of an empty prefix."""
    endings = (".index", ".meta") if path.name else ()  # "." and "/" have no name
    beside = [path.with_name(path.name + ending) for ending in endings]
    if path.is_dir():
        beside += [path / ".index", path / ".meta"]
    shards = path.parent.glob(f"{_literal(path.name)}-?????-of-?????") if path.name else iter(())
    return any(file.is_file() for file in beside) or next(shards, None) is not None


def _literal(name: str) -> str:
    """A file name in which nothing is a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
