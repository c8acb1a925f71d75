"""What the calls of a folded model can do without: branches, arguments, results, whole loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from freezeflow.graph import attrs
from freezeflow.graph.branches import choose_branches
from freezeflow.graph.graph import Graph, Node, join, node_of, split
from freezeflow.graph.inline import CALLS, inline_model
from freezeflow.graph.model import Model
from freezeflow.graph.rewrites.trim import trim_calls
from freezeflow.graph.strip import strip


def settle(model: Model, wanted: Collection[str], fed: Collection[str]) -> Model:
    """The model with its functional control flow trimmed and constant predicates decided.

    Args:
        model: A folded model.
        wanted: Tensors (and ``^node``) of the main graph that are known outside of it.
        fed: Nodes whose outputs a caller replaces.

    Returns:
        The very same model where there is nothing to do.
    """
    ends = {tensor for tensor in wanted if not tensor.startswith("^")}
    nodes = {tensor[1:] for tensor in wanted if tensor.startswith("^")}
    graph = trim_calls(model.graph, {*ends, *nodes, *fed})
    # A constant that a caller replaces decides nothing.
    if not any(graph.nodes[name].op == "Const" for name in fed):
        graph = _chosen(graph, ends | nodes)
    if graph is model.graph:
        return model
    return strip(inline_model(dataclasses.replace(model, graph=graph))).model


def _chosen(graph: Graph, ends: Collection[str]) -> Graph:
    """The graph with branches chosen; a chosen call keeps its name where that is known outside."""
    chosen = choose_branches(graph, ends)
    if chosen is graph:
        return graph
    nodes = dict(chosen.nodes)
    for name in {node_of(end) for end in ends}:
        if nodes[name].op not in CALLS or graph.nodes[name].op in CALLS:
            continue
        taken = {split(end)[1] for end in ends if node_of(end) == name}
        if taken != {0}:
            return dataclasses.replace(chosen, nodes=graph.nodes)
        _move_aside(nodes, name)
    return dataclasses.replace(chosen, nodes=nodes)


def _move_aside(nodes: dict[str, Node], name: str) -> None:
    """Gives a call another name, and its own to an Identity of its first output."""
    new = f"{name}/branch"
    while new in nodes:
        new += "_"
    call = nodes.pop(name)
    nodes[new] = call._replace(name=new)
    for user in list(nodes.values()):
        inputs = tuple(_moved(tensor, name, new) for tensor in user.inputs)
        if inputs != user.inputs:
            nodes[user.name] = user._replace(inputs=inputs)
    nodes[name] = Node(name, "Identity", (new,), {"T": _first_type(call)})


def _moved(tensor: str, name: str, new: str) -> str:
    if tensor == f"^{name}":
        return f"^{new}"
    source, index = split(tensor)
    return join(new, index) if source == name else tensor


def _first_type(call: Node) -> bytes:
    return attrs.of_type(attrs.to_types(call.attrs["Tout"])[0])
