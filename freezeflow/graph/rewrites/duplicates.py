"""Nodes that compute what another one computes: constants of the same bytes, the same op on the same
tensors."""

from __future__ import annotations

from collections.abc import Hashable

from freezeflow.graph.graph import Node, control_inputs, data_inputs, join
from freezeflow.graph.op_policy import REPEATABLE
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.walk import inputs_first

# Attributes that change nothing of what a node gives.
_IDLE = frozenset({"_class", "_output_shapes", "_has_manual_control_dependencies"})


def merge_duplicates(body: Body) -> bool:
    """Leaves one of each; whether any was found.

    One whose name is known outside is the one that stays; a second such stays as well.
    """
    kept: dict[Hashable, str] = {}
    changed = False
    for name in inputs_first(body.nodes):
        node = body.nodes[name]
        if not _may_merge(body, node):
            continue
        key = _key(node)
        other = kept.setdefault(key, name)
        if other == name:
            continue
        if name in body.known:
            name, other = other, name
            kept[key] = other
        if name not in body.known:
            _take_out(body, body.nodes[name], other)
            changed = True
    return changed


def _may_merge(body: Body, node: Node) -> bool:
    if node.name in body.fed or (node.op != "Const" and node.op not in REPEATABLE):
        return False
    ends = body.types.ends(node)
    return ends.outputs is not None and not ends.ref_inputs and not ends.ref_outputs


def _key(node: Node) -> Hashable:
    values = tuple(sorted((k, v) for k, v in node.attrs.items() if k not in _IDLE))
    tensor = node.tensor and (node.tensor.digest, node.tensor.dtype, node.tensor.shape)
    waits = frozenset(control_inputs(node))
    return node.op, tuple(data_inputs(node)), waits, values, node.device, tensor


def _take_out(body: Body, node: Node, other: str) -> None:
    outputs = body.types.ends(node).outputs or ()
    moved = {join(node.name, index): join(other, index) for index in range(len(outputs))}
    body.take_out(node, moved, (other,))
