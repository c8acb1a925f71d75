"""How TensorFlow runs a source unchanged: the other side of every comparison."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from freezeflow.checkpoint import Checkpoint
from freezeflow.context import Context
from freezeflow.graph import walk
from freezeflow.graph.anonymous_tables import with_shared_tables
from freezeflow.graph.cut import cut_at_inputs
from freezeflow.graph.graph import Graph, node_of
from freezeflow.graph.original import Original
from freezeflow.graph.restore import SavedTensor
from freezeflow.sources.checkpoint import meta_graph_file
from freezeflow.sources.frozen_graph import saved_weights
from freezeflow.sources.graph_file import ParsedFile, parse_file
from freezeflow.sources.keras import keras_files
from freezeflow.sources.mapped_weights import mapped_paths, with_mapped_weights
from freezeflow.sources.meta_graph import Saved, init_nodes, read_assets, saved_values
from freezeflow.sources.saved_model import choose_meta_graph, graph_file
from freezeflow.sources.signatures import ends_of, signatures_of
from freezeflow.sources.tensor_names import SIGNATURE, signature_of_names
from freezeflow.values import ModelSource, Signature, SourceKind

_INDEX = ".index"
_SHARD_NUMBER = re.compile(r"-\d{5,}(-of-\d{5,})$")


def original_of(source: ModelSource, context: Context) -> Original:
    """What it takes to run a source as it is.

    Args:
        source: Where the model is. A Keras file is loaded by Keras, which may run code of the file:
            only a confined process asks for that.
        context: Its scratch folder takes what Keras exports; its tensor store takes what has to be
            read of a checkpoint to find a variable's key.

    Raises:
        ModelRefused: It is damaged, or lacks what was asked for.
    """
    return _READERS[source.kind](source, context)


def _saved_model(source: ModelSource, context: Context) -> Original:
    path = graph_file(source.path)
    parsed = parse_file(path, "SavedModel")
    meta_graph = choose_meta_graph(parsed.message, source, path)
    prefix = source.path / "variables" / "variables"
    return _meta_graph(parsed, meta_graph, source, prefix, source.path / "assets", context)


def _checkpoint(source: ModelSource, context: Context) -> Original:
    path = meta_graph_file(source)
    parsed = parse_file(path, "MetaGraphDef")
    folder = path.parent / "assets"
    return _meta_graph(parsed, parsed.message, source, source.path, folder, context)


def _frozen_graph(source: ModelSource, context: Context) -> Original:
    parsed = parse_file(source.path, "GraphDef")
    whole = parsed.reader(parsed.message).graph()
    where = str(source.path)
    signatures = {SIGNATURE: signature_of_names(whole, source.inputs, source.outputs, where)}
    whole = _cut(whole, signatures)
    graph = walk.prune(whole, ends_of(signatures))
    # Refuses a file that is missing or too short, which would end the process that reads it.
    with_mapped_weights(graph, source.path.parent)
    saved = saved_weights(graph, whole, source)
    return Original(
        file=source.path,
        message="GraphDef",
        graph=graph,
        signatures=signatures,
        checkpoint="" if saved is None else _prefix(saved.checkpoint),
        assigned={} if saved is None else saved.variables,
        tables={} if saved is None else saved.tables,
        mapped=mapped_paths(graph, source.path.parent),
    )


def _keras(source: ModelSource, context: Context) -> Original:
    """What Keras and TensorFlow export, anew: nothing is shared with what `load` did."""
    from freezeflow.tf.keras_files import export_keras_file

    (path,) = keras_files(source)
    folder = context.scratch / "original"
    export_keras_file(path, folder, source.custom_objects)
    return _saved_model(ModelSource(kind="saved_model", path=folder), context)


_READERS: dict[SourceKind, Callable[[ModelSource, Context], Original]] = {
    "saved_model": _saved_model,
    "checkpoint": _checkpoint,
    "frozen_graph": _frozen_graph,
    "keras": _keras,
}


def _meta_graph(
    parsed: ParsedFile,
    meta_graph: Any,
    source: ModelSource,
    prefix: Path,
    assets: Path,
    context: Context,
) -> Original:
    reader = parsed.reader(meta_graph.graph_def, meta_graph.meta_info_def.stripped_op_list.op)
    signatures = signatures_of(meta_graph, reader, source, parsed.path)
    saver = meta_graph.saver_def
    restore_op = node_of(saver.restore_op_name)
    init = init_nodes(meta_graph)
    roots = [*map(node_of, ends_of(signatures)), *init]
    restoring = [restore_op, node_of(saver.filename_tensor_name)] if restore_op else []
    whole = with_shared_tables(reader.graph([*roots, *restoring]), [*init, *restoring])
    whole = walk.prune(_cut(whole, signatures), [*roots, *restoring])
    graph = walk.prune(whole, roots)
    saved = saved_values(graph, meta_graph, whole, source, prefix, context)
    # Values of another checkpoint, or under other keys, are not what the restore op restores.
    restores = restore_op != "" and saved is not None and not (source.weights or source.averages)
    return Original(
        file=parsed.path,
        message="SavedModel" if source.kind == "saved_model" else "MetaGraphDef",
        tags=frozenset(meta_graph.meta_info_def.tags),
        graph=whole if restores else graph,
        signatures=signatures,
        restore_op=restore_op if restores else "",
        filename_tensor=saver.filename_tensor_name if restores else "",
        checkpoint="" if saved is None else _prefix(saved.checkpoint),
        assigned={} if saved is None else _assigned(saved, everything=not restores),
        tables={} if saved is None or restores else saved.tables,
        init=init,
        assets={
            asset.tensor: assets / asset.name
            for asset in read_assets(meta_graph, graph, assets, parsed.path)
        },
    )


def _cut(graph: Graph, signatures: Mapping[str, Signature]) -> Graph:
    """The graph cut at its inputs, where that leaves the file's tensors their names."""
    cut, moved = cut_at_inputs(graph, signatures)
    return cut if moved == signatures else graph


def _assigned(saved: Saved, *, everything: bool) -> dict[str, SavedTensor]:
    return {
        handle: tensor
        for handle, tensor in saved.variables.items()
        if everything or handle in saved.captured
    }


def _prefix(checkpoint: Checkpoint) -> str:
    """A checkpoint as TensorFlow's restore ops take it: a prefix; of a V1 one the file, or a pattern."""
    first, *others = map(str, checkpoint.files)
    if first.endswith(_INDEX):
        return first.removesuffix(_INDEX)
    return _SHARD_NUMBER.sub(r"-?????\1", first) if others else first
