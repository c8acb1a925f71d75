"""A checkpoint with its meta graph (TF1's ``Saver.save``) as a Model.

Source of the formats: upstream ``core/protobuf/meta_graph.proto``, ``python/training/saver.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from freezeflow.checkpoint import open_checkpoint
from freezeflow.context import Context
from freezeflow.errors import ModelRefused
from freezeflow.graph import walk
from freezeflow.graph.graph import node_of
from freezeflow.graph.model import Model
from freezeflow.graph.read import GraphReader
from freezeflow.sources.graph_file import parse_file
from freezeflow.sources.meta_graph import init_nodes, read_assets, with_values
from freezeflow.sources.saved_model import choose_signatures
from freezeflow.sources.signatures import ends_of, read_signature
from freezeflow.sources.tensor_names import SIGNATURE, signature_of_names
from freezeflow.values import ModelSource, Signature


def load_checkpoint(source: ModelSource, context: Context) -> Model:
    """Reads a meta graph and the values of the variables that its outputs reach.

    Raises:
        ModelRefused: A file is missing or damaged, or inputs and outputs are not named and not clear.
    """
    path = meta_graph_file(source)
    parsed = parse_file(path, "MetaGraphDef")
    meta_graph = parsed.message
    reader = parsed.reader(meta_graph.graph_def, meta_graph.meta_info_def.stripped_op_list.op)
    signatures = signatures_of(meta_graph, reader, source, path)
    init = init_nodes(meta_graph)
    restore_op = node_of(meta_graph.saver_def.restore_op_name)
    roots = [*map(node_of, ends_of(signatures)), *init]
    whole = reader.graph([*roots, *([restore_op] if restore_op else [])])
    graph = walk.prune(whole, roots)
    model = Model(
        graph=graph,
        signatures=signatures,
        init=init,
        assets=read_assets(meta_graph, graph, path.parent / "assets"),
        source_kind="checkpoint",
    )
    return with_values(model, meta_graph, whole, source, source.path, context)


def signatures_of(
    meta_graph: Any, reader: GraphReader, source: ModelSource, path: Path
) -> dict[str, Signature]:
    """The wanted signatures of a meta graph; without any, one of the tensors that are named.

    Raises:
        ModelRefused: A signature or tensor is not there, or the choice is not clear.
    """
    if source.outputs or not meta_graph.signature_def:
        names = signature_of_names(reader.graph(), source.inputs, source.outputs, str(path))
        return {SIGNATURE: names}
    chosen = choose_signatures(meta_graph.signature_def, source.signatures, path)
    return {name: read_signature(meta_graph.signature_def[name]) for name in chosen}


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
