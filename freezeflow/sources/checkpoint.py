"""A checkpoint with its meta graph (TF1's ``Saver.save``) as a Model.

Source of the formats: upstream ``core/protobuf/meta_graph.proto``, ``python/training/saver.py``.
"""

from __future__ import annotations

from pathlib import Path

from freezeflow.checkpoint import open_checkpoint
from freezeflow.context import Context
from freezeflow.errors import ModelRefused
from freezeflow.graph.model import Model
from freezeflow.sources.graph_file import parse_file
from freezeflow.sources.meta_graph import read_model
from freezeflow.values import ModelSource


def load_checkpoint(source: ModelSource, context: Context) -> Model:
    """Reads a meta graph and the values of the variables that its outputs reach.

    Raises:
        ModelRefused: A file is missing or damaged, or inputs and outputs are not named and not clear.
    """
    path = meta_graph_file(source)
    parsed = parse_file(path, "MetaGraphDef")
    assets = path.parent / "assets"
    return read_model(parsed, parsed.message, source, source.path, assets, context)


def meta_graph_file(source: ModelSource) -> Path:
    """The file with the graph: the one that is named, else the prefix with ``.meta``.

    Raises:
        ModelRefused: There is none.
    """
    path = source.meta_graph or _with_suffix(source.path, ".meta")
    if path.is_file():
        return path
    raise ModelRefused(
        f"the checkpoint has no graph: there is no {path.name}",
        where=str(source.path),
        hint="A checkpoint alone holds only values. Give the .meta file that was written with it,"
        " or export the model as a SavedModel.",
    )


def checkpoint_source_files(source: ModelSource) -> tuple[Path, ...]:
    """The meta graph and the files of the checkpoint, sorted."""
    return tuple(sorted((meta_graph_file(source), *open_checkpoint(source.path).files)))


def _with_suffix(prefix: Path, suffix: str) -> Path:
    beside = prefix.with_name(prefix.name + suffix)
    # An empty prefix is written as the folder's path: its files are called .meta, .index and so on.
    return prefix / suffix if prefix.is_dir() and not beside.is_file() else beside
