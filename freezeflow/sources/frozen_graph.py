"""A graph file (``.pb``, ``.pbtxt``) without variables as a Model.

Source of the format: upstream ``core/framework/graph.proto``.
"""

from __future__ import annotations

from pathlib import Path

from freezeflow.context import Context
from freezeflow.graph import walk
from freezeflow.graph.model import Model
from freezeflow.sources.graph_file import parse_file
from freezeflow.sources.signatures import ends_of
from freezeflow.sources.tensor_names import SIGNATURE, signature_of_names
from freezeflow.values import ModelSource


def load_frozen_graph(source: ModelSource, context: Context) -> Model:
    """Reads a GraphDef.

    Raises:
        ModelRefused: The file is damaged, or inputs and outputs are not named and not clear.
    """
    parsed = parse_file(source.path, "GraphDef")
    graph = parsed.reader(parsed.message).graph()
    signature = signature_of_names(graph, source.inputs, source.outputs, str(source.path))
    signatures = {SIGNATURE: signature}
    return Model(
        graph=walk.prune(graph, ends_of(signatures)),
        signatures=signatures,
        source_kind="frozen_graph",
    )


def frozen_graph_files(source: ModelSource) -> tuple[Path, ...]:
    """The graph's own file."""
    return (source.path,)
