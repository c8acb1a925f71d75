"""What is certain of the shapes of functions' arguments, from the calls that give them."""

from __future__ import annotations

from collections.abc import Mapping

from freezeflow.graph.foldable import Scope
from freezeflow.graph.graph import Function, Graph, Node, data_inputs
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.rewrites.trim import CASES, IFS, WHILES, functions_of
from freezeflow.graph.shape_rules.infer import infer
from freezeflow.graph.shapes import Dim, Dims, Shapes

# What is assumed of a loop's variables is weakened so often at most; then nothing is assumed.
_MAX_TRIES = 5

ArgShapes = Mapping[str, Dims]


def argument_shapes(
    graph: Graph, scope: Scope, types: NodeTypes, callers: Mapping[str, int]
) -> dict[str, ArgShapes]:
    """The shapes of the arguments of the functions that a scope's If, Case and While name.

    Args:
        graph: The graph.
        scope: The scope that calls.
        types: Of the graph.
        callers: How many calls each function has; of one with several nothing is said.
    """
    calls = [node for node in scope.nodes.values() if node.op in IFS | CASES | WHILES]
    if not calls:
        return {}
    shapes = infer(Body(graph, scope, types), scope.args)
    found: dict[str, ArgShapes] = {}
    for node in calls:
        names = functions_of(graph, node)
        if all(name in graph.functions and callers.get(name) == 1 for name in names):
            functions = [graph.functions[name] for name in names]
            given = _given(node, functions[0], shapes)
            if node.op in WHILES:
                given = _stable(graph, functions[1], given, types)
            for function in functions:
                values = zip((arg.name for arg in function.args), given, strict=False)
                found[function.name] = dict(values)
    return found


def _given(node: Node, function: Function, shapes: Shapes) -> list[Dims]:
    """The shapes of the inputs, in symbols that no tensor of the function has."""
    renamed: dict[Dim, Dim] = {}

    def inner(size: Dim) -> Dim:
        if isinstance(size, int):
            return size
        return renamed.setdefault(size, (f"@{function.name}", len(renamed)))

    first = 0 if node.op in WHILES else 1
    outer = (shapes.of(tensor) for tensor in list(data_inputs(node))[first:])
    return [None if shape is None else tuple(map(inner, shape)) for shape in outer]


def _stable(graph: Graph, body: Function, given: list[Dims], types: NodeTypes) -> list[Dims]:
    """What stays true of a loop's variables each time round, of what is true before the first.

    If it is assumed of the arguments and follows for the results, it holds by induction.
    """
    names = [arg.name for arg in body.args]
    assumed = list(given)
    inside = Body(graph, Scope(body.nodes, frozenset(), frozenset()), types)
    for _ in range(_MAX_TRIES):
        shapes = infer(inside, dict(zip(names, assumed, strict=False)))
        results = [shapes.of(result.tensor) for result in body.results]
        kept = [
            _common(own, after, f"@{body.name}/{name}")
            for name, own, after in zip(names, assumed, results, strict=False)
        ]
        if kept == assumed:
            return assumed
        assumed = kept
    return [None] * len(given)


def _common(assumed: Dims, after: Dims, own: str) -> Dims:
    """What is true before and after: a size that changes is known by nothing but its own symbol."""
    if assumed is None or after is None or len(assumed) != len(after):
        return None
    return tuple(
        before if before == size else (own, axis)
        for axis, (before, size) in enumerate(zip(assumed, after, strict=True))
    )
