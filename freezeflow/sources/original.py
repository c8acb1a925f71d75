"""How TensorFlow runs a source unchanged: the other side of every comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from freezeflow.checkpoint import PutTensor, open_checkpoint
from freezeflow.errors import UsageError
from freezeflow.graph.graph import Graph, node_of
from freezeflow.graph.original import Original
from freezeflow.graph.restore import follow_restore
from freezeflow.sources.graph_file import parse_file
from freezeflow.sources.meta_graph import init_nodes, read_assets
from freezeflow.sources.object_graph import captured_variables
from freezeflow.sources.saved_model import (
    choose_meta_graph,
    choose_signatures,
    graph_file,
)
from freezeflow.sources.signatures import ends_of, read_signature
from freezeflow.values import ModelSource


def original_of(source: ModelSource, put_tensor: PutTensor) -> Original:
    """What it takes to run a source as it is.

    Args:
        source: Where the model is.
        put_tensor: Takes what has to be read of the checkpoint to find a variable's key.

    Raises:
        ModelRefused: It is no SavedModel that can be read.
        UsageError: It is of a kind that cannot be run unchanged.
    """
    _check_kind(source)
    path = graph_file(source.path)
    parsed = parse_file(path, "SavedModel")
    meta_graph = choose_meta_graph(parsed.message, source, path)
    signatures = {
        name: read_signature(meta_graph.signature_def[name])
        for name in choose_signatures(meta_graph.signature_def, source.signatures, path)
    }
    checkpoint = source.path / "variables" / "variables"
    saver = meta_graph.saver_def
    restores = saver.restore_op_name and checkpoint.with_suffix(".index").is_file()
    init = init_nodes(meta_graph)
    roots = [node_of(tensor) for tensor in ends_of(signatures)]
    if restores:
        roots += [node_of(saver.restore_op_name), node_of(saver.filename_tensor_name)]
    reader = parsed.reader(meta_graph.graph_def, meta_graph.meta_info_def.stripped_op_list.op)
    graph = reader.graph([*roots, *init])
    return Original(
        file=path,
        tags=frozenset(meta_graph.meta_info_def.tags),
        graph=graph,
        signatures=signatures,
        restore_op=node_of(saver.restore_op_name) if restores else "",
        filename_tensor=saver.filename_tensor_name,
        checkpoint=checkpoint,
        captured=_captured(meta_graph, graph, checkpoint, put_tensor) if restores else {},
        init=init,
        assets={
            asset.tensor: source.path / "assets" / asset.name
            for asset in read_assets(meta_graph, graph, source.path / "assets")
        },
    )


def _check_kind(source: ModelSource) -> None:
    if source.kind != "saved_model":
        raise UsageError(
            f"a {source.kind} source cannot be run unchanged to compare with",
            where=str(source.path),
            hint="Leave `validate` out, or validate against a SavedModel.",
        )


def _captured(meta_graph: Any, graph: Graph, prefix: Path, put_tensor: PutTensor) -> dict[str, str]:
    restored = follow_restore(graph, node_of(meta_graph.saver_def.restore_op_name))
    lost = [n.name for n in graph.nodes.values() if n.op == "VarHandleOp"]
    lost = [name for name in lost if name not in restored.variables]
    if not lost:
        return {}
    found = captured_variables(
        meta_graph.object_graph_def, graph, lost, open_checkpoint(prefix), put_tensor
    )
    return {handle: saved.key for handle, saved in found.items()}
