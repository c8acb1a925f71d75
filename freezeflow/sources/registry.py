"""Which reader takes which kind of model."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from freezeflow.checkpoint import open_checkpoint
from freezeflow.context import Context
from freezeflow.errors import UsageError
from freezeflow.graph.model import Model
from freezeflow.store.background import PendingDigest, present
from freezeflow.store.hashing import hash_file
from freezeflow.values import Digest, ModelSource, SourceKind


class Reader(NamedTuple):
    """A kind of source: the module that reads it and the names of its two functions.

    Args:
        module: Imported only when it is needed.
        load: ``(source, context) -> Model``.
        files: ``(source) -> tuple[Path, ...]``: every file that can change the result.
    """

    module: str
    load: str
    files: str


READERS: dict[SourceKind, Reader] = {
    "saved_model": Reader(
        "freezeflow.sources.saved_model", "load_saved_model", "saved_model_files"
    ),
    "keras": Reader("freezeflow.sources.keras", "load_keras", "keras_files"),
    "checkpoint": Reader(
        "freezeflow.sources.checkpoint", "load_checkpoint", "checkpoint_source_files"
    ),
    "frozen_graph": Reader(
        "freezeflow.sources.frozen_graph", "load_frozen_graph", "frozen_graph_files"
    ),
}


def load_source(source: ModelSource, context: Context) -> Model:
    """Reads a model.

    Raises:
        ModelRefused: It is damaged.
        UsageError: It asks for other weights where there are none.
    """
    _check_weights(source)
    model: Model = _function(source, "load")(source, context)
    return dataclasses.replace(model, source_digest=source_digest(source, context.hashed))


def _check_weights(source: ModelSource) -> None:
    if source.kind == "keras" and (source.weights is not None or source.averages):
        raise UsageError(
            "a Keras file brings its own weights",
            where=str(source.path),
            hint="Leave the checkpoint and the averages out, or load the weights in Keras and save.",
        )
    if source.kind == "frozen_graph" and source.averages and source.weights is None:
        raise UsageError(
            "a graph file alone has no moving averages",
            where=str(source.path),
            hint="Name the checkpoint that holds them.",
        )


def source_files(source: ModelSource) -> tuple[Path, ...]:
    """Every file of the source that can change the result, sorted.

    Raises:
        ModelRefused: There is no such model.
    """
    files: tuple[Path, ...] = _function(source, "files")(source)
    other = () if source.weights is None else open_checkpoint(source.weights).files
    return (*files, *other)


def source_digest(source: ModelSource, hashed: Mapping[str, Digest]) -> Digest:
    """The digest of a source: of its files' names, relative to the model, and contents.

    Args:
        source: The source.
        hashed: Absolute path to BLAKE3 of those of its files that need not be hashed again.
    """
    root = source.path if source.path.is_dir() else source.path.parent
    beside = present()

    def digest_of(path: Path) -> Digest:
        # What is being hashed anyway is not hashed twice; files that are left are small, mostly.
        found = hashed.get(os.path.abspath(path))
        if found is None and beside is not None:
            found = beside.files.get(path.absolute())
        return hash_file(path) if found is None else found

    files = {path: digest_of(path) for path in source_files(source)}

    def find() -> Digest:
        lines = [f"{digest} {_label(path, root)}\n" for path, digest in files.items()]
        return Digest.of(("freezeflow.source/1\n" + "".join(lines)).encode())

    return find() if beside is None else PendingDigest(functools.cache(lambda: find().hex))


def _label(path: Path, root: Path) -> str:
    """A file's name in the digest: it does not tell where on this machine the model is."""
    if root in path.parents:
        return path.relative_to(root).as_posix()
    return f"weights/{path.name}"


def _function(source: ModelSource, role: str) -> Callable[..., Any]:
    reader = READERS[source.kind]
    found: Callable[..., Any] = getattr(
        importlib.import_module(reader.module), getattr(reader, role)
    )
    return found
