"""Variables that two nodes share by their names.

A function's body may name a variable itself, instead of taking the handle from its caller; no edge leads
from there to the main graph's handle, which a checkpoint fills.
Source: upstream ``core/framework/resource_mgr.h`` (container and name make a resource).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.variables import HANDLES
from freezeflow.graph.walk import reached_functions, reached_nodes


def identity(node: Node) -> tuple[bytes, bytes]:
    """What makes two handle nodes the same variable: container, and shared name or else own name."""
    shared = attrs.to_bytes(node.attrs["shared_name"]) if "shared_name" in node.attrs else b""
    container = attrs.to_bytes(node.attrs["container"]) if "container" in node.attrs else b""
    return container, shared or node.name.encode()


def sharing_names(graph: Graph, roots: Iterable[str]) -> set[str]:
    """Handle nodes of the main graph with the variables of all handles that the roots reach.

    Args:
        graph: The graph.
        roots: Tensors or nodes of the main graph.
    """
    reached = reached_nodes(graph.nodes, roots)
    functions = reached_functions(graph, (graph.nodes[name] for name in reached))
    bodies = [graph.functions[name].nodes.values() for name in functions]
    nodes = itertools.chain((graph.nodes[name] for name in reached), *bodies)
    named = {identity(node) for node in nodes if node.op in HANDLES}
    if not named:
        return set()
    handles = (node for node in graph.nodes.values() if node.op in HANDLES)
    return {node.name for node in handles if identity(node) in named}
