"""From a captured variable to its checkpoint key by the object graph of a TF2 SavedModel.

Keras 3 keeps variables whose own handle no restore op fills: another handle of the same object is
filled in its stead. The object graph tells: a concrete function lists the objects that it captures,
and the checkpoint's own object graph, walked by the same names, gives each object's key.
Source of the formats: upstream ``core/protobuf/saved_object_graph.proto`` and
``trackable_object_graph.proto``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from freezeflow.checkpoint import Checkpoint, PutTensor, Request
from freezeflow.graph.graph import Graph, data_inputs, node_of
from freezeflow.graph.inline import CALLS, call_of
from freezeflow.graph.restore import SavedTensor
from freezeflow.graph.variables import HANDLES
from freezeflow.messages import message_class
from freezeflow.values import DType

_OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"


def captured_variables(
    saved_objects: Any,
    graph: Graph,
    wanted: Iterable[str],
    checkpoint: Checkpoint,
    put_tensor: PutTensor,
) -> dict[str, SavedTensor]:
    """Checkpoint keys of handles that are captured by concrete functions.

    Args:
        saved_objects: The meta graph's ``SavedObjectGraph`` message.
        graph: The main graph, with calls of concrete functions.
        wanted: Handle nodes whose key is wanted.
        checkpoint: The SavedModel's checkpoint.
        put_tensor: As for `Checkpoint.fetch`.
    """
    objects = captured_objects(saved_objects, graph, set(wanted))
    keys_there = checkpoint.keys()
    if not objects or _OBJECT_GRAPH_KEY not in keys_there:
        return {}
    keys = _keys_by_object(saved_objects, _checkpoint_objects(checkpoint, put_tensor))
    return {
        handle: SavedTensor(keys[number], "")
        for handle, number in objects.items()
        if number in keys
    }


def captured_objects(saved_objects: Any, graph: Graph, wanted: set[str]) -> dict[str, int]:
    """Handle node to the number of the object that it stands for.

    Args:
        saved_objects: The meta graph's ``SavedObjectGraph`` message.
        graph: The main graph, with calls of concrete functions.
        wanted: Handle nodes that are looked for.
    """
    found: dict[str, int] = {}
    for node in graph.nodes.values():
        call = call_of(graph, node) if node.op in CALLS else None
        if call is None or call[0] not in saved_objects.concrete_functions:
            continue
        numbers = saved_objects.concrete_functions[call[0]].bound_inputs
        inputs = [node_of(tensor) for tensor in data_inputs(node)]
        captured = inputs[max(0, len(inputs) - len(numbers)) :]
        for name, number in zip(captured, numbers, strict=False):
            if name in wanted and graph.nodes[name].op in HANDLES:
                found[name] = number
    return found


def _checkpoint_objects(checkpoint: Checkpoint, put_tensor: PutTensor) -> Any:
    (value,) = checkpoint.fetch([Request(_OBJECT_GRAPH_KEY)], put_tensor)
    is_string = value.dtype is DType.STRING and isinstance(value.content, tuple)
    data = value.content[0] if is_string and value.content else b""
    try:
        return message_class("TrackableObjectGraph").FromString(data)
    except DecodeError:
        return message_class("TrackableObjectGraph")()


def _keys_by_object(saved_objects: Any, checkpoint_objects: Any) -> Mapping[int, str]:
    """Number of a saved object to its key; both graphs are walked from their roots by names."""
    if not saved_objects.nodes or not checkpoint_objects.nodes:
        return {}
    keys: dict[int, str] = {}
    pairs = [(0, 0)]
    seen = {0}
    for saved, stored in pairs:  # grows while it is walked
        if not (saved < len(saved_objects.nodes) and stored < len(checkpoint_objects.nodes)):
            continue  # what a damaged number leaves out is missed, and refused, later
        for attribute in checkpoint_objects.nodes[stored].attributes:
            if attribute.name == _VALUE:
                keys[saved] = attribute.checkpoint_key
        children = {c.local_name: c.node_id for c in checkpoint_objects.nodes[stored].children}
        for child in saved_objects.nodes[saved].children:
            if child.local_name in children and child.node_id not in seen:
                seen.add(child.node_id)
                pairs.append((child.node_id, children[child.local_name]))
    return keys
