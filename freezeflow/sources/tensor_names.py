"""Inputs and outputs of a graph that has no signature, by the names that a user gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from freezeflow.errors import ModelRefused
from freezeflow.graph.graph import Graph, Node, join, node_of, output_types, split
from freezeflow.graph.rename import PLACEHOLDERS, placeholder_shape
from freezeflow.graph.variables import HANDLES
from freezeflow.graph.walk import consumers, reached_nodes
from freezeflow.values import DType, Shape, Signature, TensorSpec

SIGNATURE = "serving_default"

# Ops whose outputs nobody asks a graph for, though nothing consumes them.
_NO_OUTPUTS = (
    frozenset({"Const", "NoOp", "Assert", "Placeholder", "SaveV2", "SaveSlices"}) | HANDLES
)

_MAX_LISTED = 8


def signature_of_names(
    graph: Graph, inputs: Sequence[str], outputs: Sequence[str], where: str
) -> Signature:
    """The signature that the given names make; left out, they are found when there is no doubt.

    Args:
        graph: The whole main graph.
        inputs: Names of tensors to feed: ``x``, ``x:0``; empty for every placeholder in reach.
        outputs: Names of tensors to fetch; empty for the only one that depends on an input and
            that nothing consumes.
        where: Names the file in errors.

    Raises:
        ModelRefused: A name is not there (near ones are suggested), or outputs cannot be guessed.
    """
    fetched = [_tensor(graph, name, where) for name in outputs] or [_only_output(graph, where)]
    fed = [_tensor(graph, name, where) for name in inputs] or _placeholders(graph, fetched)
    return Signature(
        {tensor: _spec(graph, tensor, where) for tensor in fed},
        {tensor: _spec(graph, tensor, where) for tensor in fetched},
    )


def _tensor(graph: Graph, given: str, where: str) -> str:
    name, _, index = given.partition(":")
    if name not in graph.nodes or (index and not (index.isascii() and index.isdigit())):
        raise _unknown(graph, given, where)
    types = _types(graph, graph.nodes[name], where)
    if types is not None and int(index or 0) >= len(types):
        count = f"{len(types)} output" + ("s" if len(types) != 1 else "")
        raise ModelRefused(
            f"there is no tensor {given!r}: node {name!r} ({graph.nodes[name].op}) has {count}",
            where=where,
        )
    return join(name, int(index or 0))


def _unknown(graph: Graph, given: str, where: str) -> ModelRefused:
    name = node_of(given)
    near = difflib.get_close_matches(name, graph.nodes, n=3, cutoff=0.6)
    tail = name.rpartition("/")[2]
    near += [n for n in graph.nodes if n.rpartition("/")[2] == tail and n not in near][:3]
    hint = (
        f"Did you mean {' or '.join(repr(n) for n in near)}?"
        if near
        else ("List the nodes with freezeflow inspect.")
    )
    return ModelRefused(f"the graph has no tensor {given!r}", where=where, hint=hint)


def _only_output(graph: Graph, where: str) -> str:
    consumed = {node_of(tensor) for node in graph.nodes.values() for tensor in node.inputs}
    ends = [
        node.name
        for node in graph.nodes.values()
        if node.name not in consumed
        and node.op not in _NO_OUTPUTS
        and _types(graph, node, where) != ()
    ]
    # Beside what is computed of inputs, a graph has ends that only read variables.
    fed = _behind_placeholders(graph)
    ends = [name for name in ends if name in fed] or ends
    if len(ends) == 1:
        return ends[0]
    shown = ", ".join(ends[:_MAX_LISTED]) + (" ..." if len(ends) > _MAX_LISTED else "")
    raise ModelRefused(
        "the graph has no signature, and its output is not clear",
        where=where,
        hint=f"Name it with --outputs; candidates: {shown}." if ends else "Name it with --outputs.",
    )


def _behind_placeholders(graph: Graph) -> set[str]:
    """The nodes that depend on an input."""
    users = consumers(graph.nodes)
    stack = [name for name, node in graph.nodes.items() if node.op in PLACEHOLDERS]
    found = set(stack)
    while stack:
        new = [name for name in users.get(stack.pop(), ()) if name not in found]
        found.update(new)
        stack += new
    return found


def _placeholders(graph: Graph, fetched: Iterable[str]) -> list[str]:
    reached = reached_nodes(graph.nodes, fetched)
    return [n for n, node in graph.nodes.items() if n in reached and node.op in PLACEHOLDERS]


def _spec(graph: Graph, tensor: str, where: str) -> TensorSpec:
    name, index = split(tensor)
    node = graph.nodes[name]
    types = _types(graph, node, where)
    if types is None:
        raise ModelRefused(
            f"the dtype of {tensor!r} is not known: op {node.op!r} has no definition",
            where=where,
            hint="Choose a tensor of a standard op, or save the model as a SavedModel.",
        )
    return TensorSpec(tensor, types[index], _shape(node, graph.producer))


def _types(graph: Graph, node: Node, where: str) -> tuple[DType, ...] | None:
    try:
        return output_types(graph, node)
    except (KeyError, ValueError) as problem:
        raise ModelRefused(
            f"the outputs of node {node.name!r} ({node.op}) have no dtype: {problem}",
            where=where,
            hint="The file is damaged or was edited; write the graph again.",
        ) from None


def _shape(node: Node, producer: int) -> Shape:
    return placeholder_shape(node, producer) if node.op in PLACEHOLDERS else None
