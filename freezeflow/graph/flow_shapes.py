"""The shapes of what If, Case and While give, said in their ``output_shapes``.

TensorFlow takes a While without them for one whose variables keep the shape in which they enter, and knows
nothing of what an If without them gives. A variable has the shape that its first value and all that the
body makes of it have in common.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Sequence
from functools import reduce

from freezeflow.graph import attrs
from freezeflow.graph.foldable import Scope
from freezeflow.graph.graph import Function, Graph, Node, data_inputs
from freezeflow.graph.node_types import NodeTypes
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.shape_rules.infer import infer
from freezeflow.graph.shape_rules.known import Known
from freezeflow.graph.shapes import Dims, Shapes, named
from freezeflow.values import Shape

_WHILES = frozenset({"While", "StatelessWhile"})
_CHOICES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})


def with_flow_shapes(graph: Graph, fed: Iterable[str], made: Container[str]) -> Graph:
    """The graph with ``output_shapes`` at each If, Case and While that was made for it.

    Args:
        graph: The graph.
        fed: Inputs of the main graph.
        made: The functions that were made for them, each called from one place.
    """
    return _Flow(graph, made).graph(frozenset(fed))


class _Flow:
    def __init__(self, graph: Graph, made: Container[str]) -> None:
        self._graph = graph
        self._made = made
        self._types = NodeTypes(graph)
        self._functions = dict(graph.functions)
        # Nodes of the scope that is looked at, the innermost one last.
        self._changed: list[dict[str, Node]] = []

    def graph(self, fed: frozenset[str]) -> Graph:
        self._changed.append({})
        self._inferred(Scope(self._graph.nodes, frozenset(), fed))
        nodes = {**self._graph.nodes, **self._changed.pop()}
        return dataclasses.replace(self._graph, nodes=nodes, functions=self._functions)

    def _inferred(self, scope: Scope) -> Shapes:
        rules = dict.fromkeys([*_WHILES, *_CHOICES], self._look_at)
        return infer(Body(self._graph, scope, self._types), scope.args, rules)

    def _look_at(self, known: Known, node: Node) -> Sequence[Dims]:
        shapes = (
            attrs.to_shapes(node.attrs["output_shapes"]) if "output_shapes" in node.attrs else ()
        )
        if not shapes and all(name in self._made for name in attrs.functions_in(node.attrs)):
            given = [_static(known.shapes.of(tensor)) for tensor in data_inputs(node)]
            shapes = (
                self._round(node, given) if node.op in _WHILES else self._chosen(node, given[1:])
            )
            values = {**node.attrs, "output_shapes": attrs.of_shapes(shapes)}
            self._changed[-1][node.name] = node._replace(attrs=values)
        return [named(f"{node.name}:{index}", shape) for index, shape in enumerate(shapes)]

    def _chosen(self, node: Node, given: Sequence[Shape]) -> tuple[Shape, ...]:
        names = attrs.functions_in(node.attrs)
        found = [self._results(self._graph.functions[name], given) for name in names]
        return tuple(reduce(_common, shapes) for shapes in zip(*found, strict=True))

    def _round(self, node: Node, given: Sequence[Shape]) -> tuple[Shape, ...]:
        condition, body = (
            self._graph.functions[attrs.to_function(node.attrs[key])[0]] for key in ("cond", "body")
        )
        shapes = tuple(given)
        while True:
            made = self._results(body, shapes)
            common = tuple(map(_common, shapes, made))
            if common == shapes:
                break
            shapes = common
        self._results(condition, shapes)
        return shapes

    def _results(self, function: Function, given: Sequence[Shape]) -> tuple[Shape, ...]:
        """What a function gives for arguments of these shapes; its own nodes get to know theirs."""
        args = {
            arg.name: named(arg.name, shape)
            for arg, shape in zip(function.args, given, strict=True)
        }
        wanted = frozenset(result.tensor for result in function.results)
        self._changed.append({})
        shapes = self._inferred(Scope(function.nodes, wanted, args=args))
        nodes = {**function.nodes, **self._changed.pop()}
        self._functions[function.name] = dataclasses.replace(function, nodes=nodes)
        return tuple(_static(shapes.of(result.tensor)) for result in function.results)


def _static(dims: Dims) -> Shape:
    return None if dims is None else tuple(d if isinstance(d, int) else None for d in dims)


def _common(one: Shape, other: Shape) -> Shape:
    """What is certain of a tensor that has the one shape or the other."""
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))
