"""Leaves out of a graph what no output needs, and by wish its debugging ops; the meaning stays.

What goes: nodes and functions out of reach of the signatures and initializers, control edges that
wait for nothing, control results without an effect. Only on request: ops that check or print, and
Identity nodes where leaving them out is exactly the same.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from freezeflow.graph import colocation
from freezeflow.graph.effects import (
    Effects,
    awaited,
    drop_idle_control,
    order_matters,
)
from freezeflow.graph.foldable import Scope, held_scope, released
from freezeflow.graph.graph import (
    Function,
    Graph,
    Node,
    control_inputs,
    data_inputs,
    node_of,
)
from freezeflow.graph.model import Model
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.rewrites.passing import passes_on
from freezeflow.graph.shared_names import sharing_names
from freezeflow.graph.walk import among, prune, reached_nodes, without_unused

# Debugging ops that hand their first input on unchanged, and the attribute with its dtype.
PASSING_OPS: Mapping[str, str] = {
    "CheckNumerics": "T",
    "CheckNumericsV2": "T",
    "Print": "T",
    "DebugIdentity": "T",
    "DebugIdentityV2": "T",
    "DebugIdentityV3": "T",
}

# Debugging ops without outputs.
SINK_OPS = frozenset({"Assert", "PrintV2"})


class Stripped(NamedTuple):
    """A stripped model, with figures for the report.

    Args:
        model: The model.
        removed: Debugging op to how many of its nodes were taken out.
        identities: How many Identity nodes were taken out.
    """

    model: Model
    removed: Mapping[str, int]
    identities: int


def strip(model: Model, *, remove: Collection[str] = (), drop_identities: bool = False) -> Stripped:
    """Strips a valid model.

    Args:
        model: The model.
        remove: Debugging ops to take out, of `PASSING_OPS` and `SINK_OPS`.
        drop_identities: Take out Identity nodes where that is exactly the same.
    """
    ends = ends_of(model)
    if model.variables:
        ends |= sharing_names(model.graph, ends) & model.variables.keys()
    outputs = [s.tensor for sig in model.signatures.values() for s in sig.outputs.values()]
    graph = _pruned(model.graph, ends, outputs)
    removed: Counter[str] = Counter()
    count = 0
    if remove:
        passing = _passing(graph, remove)
        graph = _in_all_bodies(
            graph, lambda nodes: _without_debugging(nodes, frozenset(remove), removed)
        )
        graph, _ = _without_identities(_pruned(graph, ends, outputs), ends, passing)
    if drop_identities:
        graph, count = _without_identities(graph, ends, None)
    kept = dataclasses.replace(
        model,
        graph=_in_all_bodies(graph, colocation.drop_dangling),
        variables={name: value for name, value in model.variables.items() if name in graph.nodes},
        assets=tuple(a for a in model.assets if node_of(a.tensor) in graph.nodes),
    )
    return Stripped(kept, dict(sorted(removed.items())), count)


def ends_of(model: Model) -> set[str]:
    """Nodes that are known by name outside the graph."""
    tensors = [
        spec.tensor
        for signature in model.signatures.values()
        for spec in (*signature.inputs.values(), *signature.outputs.values())
    ]
    return {*map(node_of, tensors), *model.init}


def _in_all_bodies(
    graph: Graph, change: Callable[[Mapping[str, Node]], Mapping[str, Node]]
) -> Graph:
    functions = {}
    for name, function in graph.functions.items():
        nodes = change(function.nodes)
        is_same = nodes is function.nodes
        functions[name] = function if is_same else dataclasses.replace(function, nodes=nodes)
    return dataclasses.replace(graph, nodes=change(graph.nodes), functions=functions)


# ---------------------------------------------------------------- pruning


def _pruned(graph: Graph, ends: Collection[str], outputs: Collection[str]) -> Graph:
    """The graph without what the ends do not need, in function bodies as well."""
    graph = prune(graph, ends)
    effects = Effects(graph)
    counts = order_matters(graph, called=reached_nodes(graph.nodes, outputs))
    functions = {
        name: _pruned_body(function, effects.node, counts)
        for name, function in graph.functions.items()
    }
    nodes = drop_idle_control(graph.nodes, awaited(graph.nodes, counts))
    nodes = among(nodes, reached_nodes(nodes, ends))
    return without_unused(dataclasses.replace(graph, nodes=nodes, functions=functions))


def _pruned_body(
    function: Function, has_effect: Callable[[Node], bool], counts: Callable[[Node], bool]
) -> Function:
    waited = awaited(function.nodes, counts)
    nodes = drop_idle_control(function.nodes, waited)
    control = tuple(result for result in function.control_results if result.node in waited)
    roots = [result.tensor for result in function.results]
    roots += [result.node for result in control]
    # A function that names no control results runs its nodes with an effect all the same.
    roots += [node.name for node in nodes.values() if has_effect(node)]
    nodes = among(nodes, reached_nodes(nodes, roots))
    if nodes is function.nodes and control == function.control_results:
        return function
    return dataclasses.replace(function, nodes=nodes, control_results=control)


# ---------------------------------------------------------------- debugging ops


def _without_debugging(
    nodes: Mapping[str, Node], remove: frozenset[str], removed: Counter[str]
) -> dict[str, Node]:
    """Debugging nodes turned into Identity or NoOp of the same name."""
    kept = dict(nodes)
    for name, node in nodes.items():
        if node.op in remove:
            kept[name] = _plain(node)
            removed[node.op] += 1
    return kept


def _plain(node: Node) -> Node:
    """The node without its check or its message."""
    data, control = list(data_inputs(node)), list(control_inputs(node))
    if node.op in PASSING_OPS:
        values = {"T": node.attrs[PASSING_OPS[node.op]]}
        inputs = (data[0], *(f"^{name}" for name in control))
        return Node(node.name, "Identity", inputs, values, node.device)
    # It goes on waiting for what it looked at: it stays in the same loop, and dead where it was.
    waits = dict.fromkeys([*map(node_of, data), *control])
    return Node(node.name, "NoOp", tuple(f"^{name}" for name in waits), {}, node.device)


def _passing(graph: Graph, remove: Collection[str]) -> frozenset[tuple[str, str]]:
    """Function (empty for the main graph) and name of the nodes that were made an Identity."""
    wanted = {op for op in remove if op in PASSING_OPS}
    bodies = [("", graph.nodes)]
    bodies += [(name, function.nodes) for name, function in graph.functions.items()]
    return frozenset(
        (body, name) for body, nodes in bodies for name, node in nodes.items() if node.op in wanted
    )


# ---------------------------------------------------------------- identities


def _without_identities(
    graph: Graph, ends: Collection[str], only: Collection[tuple[str, str]] | None
) -> tuple[Graph, int]:
    """The graph without Identity nodes that do nothing, and how many these were.

    Args:
        graph: The graph.
        ends: Nodes that must keep their name.
        only: (function, name) of the nodes to look at; None for all.
    """
    types = NodeTypes(graph)
    main = Body(graph, Scope(graph.nodes, frozenset(ends)), types)
    count = _pass_on(main, "", only)
    functions = {}
    for name, function in graph.functions.items():
        body = Body(graph, held_scope(function), types)
        count += _pass_on(body, name, only)
        functions[name] = released(function, body.nodes)
    return dataclasses.replace(graph, nodes=main.nodes, functions=functions), count


def _pass_on(body: Body, place: str, only: Collection[tuple[str, str]] | None) -> int:
    """Takes out the Identity nodes of a body that only hand on; how many."""
    count = 0
    for name in body.order:
        node = body.nodes[name]
        if node.op == "Identity" and (only is None or (place, name) in only):
            count += passes_on(body, node)
    return count
