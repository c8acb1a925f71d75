"""Anonymous tables of a SavedModel as tables that keep their contents from call to call.

The node of an anonymous table makes a new, empty one whenever it runs. TensorFlow 2's loader runs it
once and keeps the table for the initializer and every signature; a session would run it in each call.
Shared under the node's name, the table is the same in both. One that no initializer or restore op
fills is made, filled and read within a call, and stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.walk import reached_nodes

# Anonymous op to the op that takes the same inputs and attributes and can be shared.
_SHARED = {
    "AnonymousHashTable": "HashTableV2",
    "AnonymousMutableHashTable": "MutableHashTableV2",
    "AnonymousMutableHashTableOfTensors": "MutableHashTableOfTensorsV2",
    "AnonymousMutableDenseHashTable": "MutableDenseHashTableV2",
}


def with_shared_tables(graph: Graph, fills: Sequence[str]) -> Graph:
    """The graph with the anonymous tables that are filled once turned into shared ones.

    Args:
        graph: The main graph as read.
        fills: The nodes that run before the first call: initializers and the restore op.
    """
    reached = reached_nodes(graph.nodes, fills)
    shared = {
        name: _shared(node)
        for name, node in graph.nodes.items()
        if node.op in _SHARED and name in reached
    }
    return dataclasses.replace(graph, nodes={**graph.nodes, **shared}) if shared else graph


def _shared(node: Node) -> Node:
    by_name = {"use_node_name_sharing": attrs.of_bool(True)}
    return node._replace(op=_SHARED[node.op], attrs={**node.attrs, **by_name})
