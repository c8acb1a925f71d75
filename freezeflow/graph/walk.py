"""Ways through a graph: what is reached, in which order, and what is left after pruning.

Nothing here recurses, so a chain of a hundred thousand nodes or fifty levels of calls is as good as
a short one, and all of it is linear in nodes and edges (but for the heap that breaks ties by name).
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node, node_of

# The only way to close a loop in a valid graph: TF1's NextIteration feeds the Merge at its head.
_LOOP_ENDS = frozenset({"NextIteration", "RefNextIteration"})
_LOOP_HEADS = frozenset({"Merge", "RefMerge"})


# ---------------------------------------------------------------- what is reached


def reached_nodes(nodes: Mapping[str, Node], roots: Iterable[str]) -> set[str]:
    """Names of the nodes that the roots need, along data and control edges, roots included.

    Args:
        nodes: The main graph's nodes or a function's body.
        roots: Nodes or tensors. A name without a node (a function's argument) reaches nothing.
    """
    seen = {name for name in map(node_of, roots) if name in nodes}
    stack = list(seen)
    while stack:
        for tensor in nodes[stack.pop()].inputs:
            if tensor not in seen:
                name = tensor if tensor in nodes else node_of(tensor)
                if name not in seen and name in nodes:
                    seen.add(name)
                    stack.append(name)
    return seen


def named_functions(graph: Graph, node: Node) -> Sequence[str]:
    """Functions that a node needs: named in its attributes, by sorted key, or called as its op."""
    names = attrs.functions_in(node.attrs)
    return (node.op, *names) if node.op in graph.functions else names


def reached_functions(graph: Graph, nodes: Iterable[Node]) -> list[str]:
    """Names of the functions that nodes need, directly or through other functions.

    They come in the order of their first reference, breadth first. A name that the library lacks is
    left out. Gradient functions are reached through the ``SymbolicGradient`` node that names them.
    """
    if not graph.functions:
        return []
    found: dict[str, None] = {}
    for node in nodes:
        found.update(dict.fromkeys(named_functions(graph, node)))
    queue = [name for name in found if name in graph.functions]
    reached = dict.fromkeys(queue)
    for name in queue:  # grows while it is walked
        for callee in callees(graph, name):
            if callee not in reached:
                reached[callee] = None
                queue.append(callee)
    return list(reached)


def callees(graph: Graph, name: str) -> list[str]:
    """The functions of the library that a function calls or names, in the order of its nodes."""
    # An op may be a function's name.
    return [callee for callee in graph.functions[name].named if callee in graph.functions]


def consumers(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """For each name that is an input, the nodes that take it, by data or control, each once."""
    found: dict[str, list[str]] = {}
    for name, node in nodes.items():
        sources = [t if t in nodes else node_of(t) for t in node.inputs]
        for source in sources if len(sources) == 1 else dict.fromkeys(sources):
            found.setdefault(source, []).append(name)
    return found


def prune(graph: Graph, keep: Iterable[str]) -> Graph:
    """The part of a graph that the nodes or tensors to keep need, functions and op definitions too.

    The order of what stays is kept; function bodies stay whole.
    """
    nodes = among(graph.nodes, reached_nodes(graph.nodes, keep))
    return without_unused(dataclasses.replace(graph, nodes=nodes))


def among(nodes: Mapping[str, Node], names: Collection[str]) -> Mapping[str, Node]:
    """Those of the nodes that have some of their names; the same mapping where all have."""
    if len(names) == len(nodes):
        return nodes
    return {name: node for name, node in nodes.items() if name in names}


def without_unused(graph: Graph) -> Graph:
    """The graph without the functions and op definitions that no node needs."""
    needed = set(reached_functions(graph, graph.nodes.values()))
    functions = {name: f for name, f in graph.functions.items() if name in needed}
    op_defs = dict(graph.op_defs)
    if op_defs:
        bodies = (graph.nodes, *(function.nodes for function in functions.values()))
        used = {node.op for nodes in bodies for node in nodes.values()}
        op_defs = {name: definition for name, definition in op_defs.items() if name in used}
    return dataclasses.replace(graph, functions=functions, op_defs=op_defs)


# ---------------------------------------------------------------- order


def topological_order(nodes: Mapping[str, Node]) -> list[str]:
    """All node names, inputs before consumers, the smallest name first where there is a choice.

    The order depends on the graph alone, not on the mapping's order. The edge from a NextIteration
    to a Merge (a TF1 loop) is not counted.

    Raises:
        ModelRefused: There is a cycle outside such loops.
    """
    ordered, rest = _sort({name: _sources(nodes, node) for name, node in nodes.items()})
    if rest:
        raise ModelRefused(
            "the graph has a cycle that is no loop: " + " -> ".join(_cycle_in(rest)),
            hint="The file is damaged or was edited; write the model again.",
        )
    return ordered


def inputs_first(nodes: Mapping[str, Node]) -> list[str]:
    """All node names, inputs before consumers: in the nodes' own order if it is such a one.

    Raises:
        ModelRefused: There is a cycle outside TF1 loops.
    """
    return list(nodes) if _is_ordered(nodes) else topological_order(nodes)


def find_cycle(nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """A cycle outside TF1 loops, its first name repeated at the end; empty if there is none."""
    if _is_ordered(nodes):
        return ()
    _, rest = _sort({name: _sources(nodes, node) for name, node in nodes.items()})
    return _cycle_in(rest) if rest else ()


def _is_ordered(nodes: Mapping[str, Node]) -> bool:
    """Whether every node stands behind its inputs, as in a canonical graph without loops."""
    passed: set[str] = set()
    for name, node in nodes.items():
        for tensor in node.inputs:
            if tensor not in passed:
                source = tensor if tensor in nodes else node_of(tensor)
                if source not in passed and source in nodes:
                    return False
        passed.add(name)
    return True


def find_recursion(graph: Graph) -> tuple[str, ...]:
    """Functions that call each other in a circle, the first again at the end; empty if none do."""
    _, rest = _sort(_callees(graph))
    return _cycle_in(rest) if rest else ()


def function_order(graph: Graph) -> list[str]:
    """All function names, callees before their callers, the smallest name first.

    Raises:
        ModelRefused: A function calls itself, directly or through others.
    """
    ordered, rest = _sort(_callees(graph))
    if rest:
        raise ModelRefused(
            "functions call each other in a circle: " + " -> ".join(_cycle_in(rest)),
            hint="TensorFlow cannot run recursive functions in a graph; rewrite them as a loop.",
        )
    return ordered


def _callees(graph: Graph) -> dict[str, set[str]]:
    return {name: set(callees(graph, name)) for name in graph.functions}


def _sources(nodes: Mapping[str, Node], node: Node) -> Collection[str]:
    """Nodes that must come before this one."""
    found: Collection[str] = node.inputs
    if not all(map(nodes.__contains__, found)):
        found = [name for name in map(node_of, found) if name in nodes]
    if len(found) > 1:
        found = set(found)
    if node.op in _LOOP_HEADS:
        return {name for name in found if nodes[name].op not in _LOOP_ENDS}
    return found


def _sort(
    sources: Mapping[str, Collection[str]],
) -> tuple[list[str], dict[str, Collection[str]]]:
    """Kahn's algorithm with a heap: the order, and what a cycle keeps from being ordered."""
    waiting: dict[str, int] = {}
    users: dict[str, list[str]] = {}
    ready: list[str] = []
    for name, before in sources.items():
        if before:
            waiting[name] = len(before)
            for source in before:
                users.setdefault(source, []).append(name)
        else:
            ready.append(name)
    heapq.heapify(ready)
    ordered = []
    while ready:
        name = heapq.heappop(ready)
        ordered.append(name)
        for user in users.get(name, ()):
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, user)
    rest = {name: sources[name] for name, count in waiting.items() if count}
    return ordered, rest


def _cycle_in(rest: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """A cycle among nodes of which each waits for another of them."""
    path: dict[str, int] = {}
    name = min(rest)
    while name not in path:
        path[name] = len(path)
        name = min(source for source in rest[name] if source in rest)
    # The path went from consumers to sources.
    cycle = list(path)[path[name] :][::-1]
    return (cycle[-1], *cycle)
