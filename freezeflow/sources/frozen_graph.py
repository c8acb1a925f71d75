"""A graph file (``.pb``, ``.pbtxt``) as a Model: frozen already, or with a checkpoint beside it.

Source of the format: upstream ``core/framework/graph.proto``.
"""

from __future__ import annotations

from pathlib import Path

from freezeflow.checkpoint import open_checkpoint
from freezeflow.context import Context
from freezeflow.graph import attrs, walk
from freezeflow.graph.cut import cut_at_inputs
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.model import Model
from freezeflow.graph.restore import SavedTensor, follow_assignments
from freezeflow.graph.variables import HANDLES
from freezeflow.sources.graph_file import parse_file
from freezeflow.sources.mapped_weights import mapped_weight_files, with_mapped_weights
from freezeflow.sources.meta_graph import Saved, fill
from freezeflow.sources.other_weights import averaged_keys, matching_keys
from freezeflow.sources.signatures import ends_of
from freezeflow.sources.tensor_names import SIGNATURE, signature_of_names
from freezeflow.store.background import unchecked
from freezeflow.values import ModelSource


def load_frozen_graph(source: ModelSource, context: Context) -> Model:
    """Reads a GraphDef.

    Raises:
        ModelRefused: The file is damaged, or inputs and outputs are not named and not clear; or the
            checkpoint that was named lacks a variable.
    """
    parsed = parse_file(source.path, "GraphDef")
    graph = with_mapped_weights(parsed.reader(parsed.message).graph(), source.path.parent)
    named = signature_of_names(graph, source.inputs, source.outputs, str(source.path))
    graph, signatures = cut_at_inputs(graph, {SIGNATURE: named})
    model = Model(
        graph=walk.prune(graph, ends_of(signatures)),
        signatures=signatures,
        source_kind="frozen_graph",
    )
    saved = saved_weights(model.graph, graph, source)
    return model if saved is None else fill(model, saved, context)


def saved_weights(graph: Graph, whole: Graph, source: ModelSource) -> Saved | None:
    """What fills a graph's variables, by its own restore ops, else by names; None without weights.

    Args:
        graph: What the model reaches.
        whole: The file's whole graph.
        source: Says where the weights are.

    Raises:
        ModelRefused: The checkpoint is missing or damaged, or has no entry for a variable.
    """
    if source.weights is None:
        return None
    restored = follow_assignments(whole)
    nodes = graph.nodes
    saved = {
        node.name: restored.variables.get(node.name) or SavedTensor(_name(node), "")
        for node in nodes.values()
        if node.op in HANDLES
    }
    checkpoint = open_checkpoint(source.weights)
    saved = matching_keys(saved, checkpoint, source.weights)
    if source.averages:
        saved = averaged_keys(saved, checkpoint, source.weights)
    tables = {name: pair for name, pair in restored.tables.items() if name in nodes}
    return Saved(checkpoint, source.weights, saved, tables)


def _name(node: Node) -> str:
    """What a variable is saved as: its shared name, else its node's."""
    shared = attrs.to_bytes(node.attrs["shared_name"]) if "shared_name" in node.attrs else b""
    return shared.decode(errors="replace") or node.name


def frozen_graph_files(source: ModelSource) -> tuple[Path, ...]:
    """The graph's own file, and those of the weights beside it that it maps."""
    with unchecked():
        parsed = parse_file(source.path, "GraphDef")
    graph = parsed.reader(parsed.message).graph()
    return (source.path, *mapped_weight_files(graph, source.path.parent))
