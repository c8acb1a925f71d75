"""Which variables of a model were trained, as far as its files tell.

TF1 lists variables in collections, TF2 in the object graph. Source of the formats: upstream
``core/framework/variable.proto``, ``core/protobuf/saved_object_graph.proto``.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from freezeflow.graph.graph import Graph, node_of
from freezeflow.graph.variables import HANDLES
from freezeflow.messages import message_class
from freezeflow.sources.object_graph import captured_objects

_TRAINABLE = "trainable_variables"
_VARIABLES = ("variables", "local_variables", _TRAINABLE)


def trainable_handles(meta_graph: Any, graph: Graph) -> dict[str, bool]:
    """Handle node to whether its variable was trained; without those of which nothing is said.

    Args:
        meta_graph: The ``MetaGraphDef`` message.
        graph: Its main graph.
    """
    found = {}
    for collection in _VARIABLES:
        for name in _listed(meta_graph, collection):
            if name in graph.nodes:
                found[name] = collection == _TRAINABLE
    saved = meta_graph.object_graph_def
    if not saved.nodes:
        return found
    handles = {name for name, node in graph.nodes.items() if node.op in HANDLES}
    for name, number in captured_objects(saved, graph, handles).items():
        if 0 <= number < len(saved.nodes) and saved.nodes[number].HasField("variable"):
            found[name] = saved.nodes[number].variable.trainable
    return found


def _listed(meta_graph: Any, collection: str) -> list[str]:
    """The handles of the variables that a collection lists."""
    if collection not in meta_graph.collection_def:
        return []
    definitions = meta_graph.collection_def[collection].bytes_list.value
    try:
        variables = [message_class("VariableDef").FromString(data) for data in definitions]
    except DecodeError:
        return []
    return [node_of(variable.variable_name) for variable in variables]
