"""A graph cut at the tensors that its signatures feed: what lies behind them is never run.

A signature may feed any tensor, not only a placeholder. TensorFlow's session then leaves out what
computed it: readers of files, queues, Python code, variables without a value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node, node_of, output_types, split
from freezeflow.graph.rename import PLACEHOLDERS
from freezeflow.graph.walk import reached_nodes
from freezeflow.values import Signature, TensorSpec


def cut_at_inputs(
    graph: Graph, signatures: Mapping[str, Signature]
) -> tuple[Graph, dict[str, Signature]]:
    """The graph with a placeholder for each tensor that is fed, and the signatures that name it.

    The placeholder takes the node's place and name where that computes nothing else. Where another
    signature computes the tensor instead of feeding it, that is the placeholder's default.

    Args:
        graph: The main graph.
        signatures: Name to signature.
    """
    inner = {
        spec.tensor: spec
        for signature in signatures.values()
        for spec in signature.inputs.values()
        if (node := graph.nodes.get(node_of(spec.tensor))) is not None
        and node.op not in PLACEHOLDERS
    }
    cut = dict(signatures)
    for tensor, spec in inner.items():
        graph, cut = _cut(graph, cut, tensor, spec)
    return graph, cut


def _cut(
    graph: Graph, signatures: Mapping[str, Signature], tensor: str, spec: TensorSpec
) -> tuple[Graph, dict[str, Signature]]:
    node = graph.nodes[node_of(tensor)]
    name = node.name
    values = {"dtype": attrs.of_type(spec.dtype), "shape": attrs.of_shape(spec.shape)}
    if _is_computed(graph, signatures, tensor):
        fresh = Node(_free(graph, name), "PlaceholderWithDefault", (tensor,), values)
    elif _is_alone(graph, node):
        fresh = Node(name, "Placeholder", (), values)
    else:
        fresh = Node(_free(graph, name), "Placeholder", (), values)
    nodes = {key: _taking(other, tensor, fresh.name) for key, other in graph.nodes.items()}
    nodes[fresh.name] = fresh
    moved = {
        key: Signature(
            _moved(signature.inputs, tensor, fresh.name),
            _moved(signature.outputs, tensor, fresh.name),
        )
        for key, signature in signatures.items()
    }
    return dataclasses.replace(graph, nodes=nodes), moved


def _is_computed(graph: Graph, signatures: Mapping[str, Signature], tensor: str) -> bool:
    """Whether a signature that does not feed the tensor needs its node."""
    for signature in signatures.values():
        if any(spec.tensor == tensor for spec in signature.inputs.values()):
            continue
        outputs = [spec.tensor for spec in signature.outputs.values()]
        if node_of(tensor) in reached_nodes(graph.nodes, outputs):
            return True
    return False


def _is_alone(graph: Graph, node: Node) -> bool:
    try:
        types = output_types(graph, node)
    except (KeyError, ValueError):
        return False
    return types is not None and len(types) == 1


def _taking(node: Node, tensor: str, placeholder: str) -> Node:
    if all(other.startswith("^") or split(other) != split(tensor) for other in node.inputs):
        return node
    inputs = (
        placeholder if not other.startswith("^") and split(other) == split(tensor) else other
        for other in node.inputs
    )
    return node._replace(inputs=tuple(inputs))


def _moved(ends: Mapping[str, TensorSpec], tensor: str, placeholder: str) -> dict[str, TensorSpec]:
    return {
        key: dataclasses.replace(spec, tensor=placeholder) if spec.tensor == tensor else spec
        for key, spec in ends.items()
    }


def _free(graph: Graph, name: str) -> str:
    number, unique = 0, f"{name}/input"
    while unique in graph.nodes:
        number += 1
        unique = f"{name}/input_{number}"
    return unique
