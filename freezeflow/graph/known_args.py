"""Arguments of functions that are a variable of a known value, in every call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from freezeflow.graph import attrs, walk
from freezeflow.graph.graph import Function, Graph, Node, data_inputs

Known = Mapping[str, bool | int]

_IFS = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_LOOPS = frozenset({"While", "StatelessWhile"})


def known_arguments(graph: Graph, known: Known) -> dict[str, dict[str, bool | int]]:
    """Function to argument to value, for handles that all callers give and, in loops, keep.

    Args:
        graph: The graph.
        known: Handle nodes of the main graph, to the value of their variable.
    """
    found: dict[str, dict[str, bool | int]] = {}
    _note(graph, graph.nodes, known, found)
    for name in reversed(walk.function_order(graph)):
        _note(graph, graph.functions[name].nodes, found.get(name, {}), found)
    return found


def _note(
    graph: Graph,
    nodes: Mapping[str, Node],
    known: Known,
    found: dict[str, dict[str, bool | int]],
) -> None:
    """Notes what the nodes of a scope give to functions; what two calls give otherwise is not known."""
    values = dict(known)
    for name in walk.inputs_first(nodes):
        node = nodes[name]
        if node.op == "Identity" and node.inputs[0] in values:
            values[name] = values[node.inputs[0]]
        for callee, given in _calls(graph, node):
            here = {arg: values[tensor] for arg, tensor in given.items() if tensor in values}
            before = found.get(callee, here)
            found[callee] = {arg: v for arg, v in here.items() if before.get(arg) == v}


def _calls(graph: Graph, node: Node) -> Iterator[tuple[str, dict[str, str]]]:
    """The functions that a node names, with the tensors for those arguments that are the same all along."""
    names = [name for name in walk.named_functions(graph, node) if name in graph.functions]
    inputs = list(data_inputs(node))[1 if node.op in _IFS else 0 :]
    kept = set(range(len(inputs)))
    if node.op in _LOOPS:
        body = graph.functions.get(attrs.to_function(node.attrs["body"])[0])
        kept = set() if body is None else {i for i in kept if _goes_round(body, i)}
    for name in names:
        args = graph.functions[name].args
        plain = node.op in _IFS | _LOOPS and len(args) == len(inputs)
        yield name, {args[i].name: inputs[i] for i in kept} if plain else {}


def _goes_round(body: Function, index: int) -> bool:
    return index < len(body.args) and body.results[index].tensor == body.args[index].name
