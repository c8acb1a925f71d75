"""What is known of a scope's shapes while rules look at one node after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.shapes import Dims, Shapes, all_known
from freezeflow.graph.slicing import Picked, picked

Rule = Callable[["Known", Node], Sequence[Dims]]


class Known:
    """The shapes of the tensors that come before a node.

    Args:
        body: The scope.
    """

    def __init__(self, body: Body) -> None:
        self.body = body
        self.shapes = Shapes()

    def of(self, node: Node, index: int) -> Dims:
        """The shape of an input."""
        return self.shapes.of(node.inputs[index])

    def integers(self, node: Node, index: int) -> tuple[int, ...] | None:
        """The elements of a constant input, or of one whose value is known anyway."""
        tensor = node.inputs[index]
        found = self.body.integers(tensor)
        return found if found is not None else all_known(self.shapes.value(tensor))


def ints_of(node: Node, key: str) -> tuple[int, ...]:
    return tuple(attrs.message(node.attrs[key]).list.i) if key in node.attrs else ()


def int_of(node: Node, key: str, default: int) -> int:
    return attrs.to_int(node.attrs[key]) if key in node.attrs else default


def flag_of(node: Node, key: str) -> bool:
    return key in node.attrs and bool(attrs.message(node.attrs[key]).b)


def text_of(node: Node, key: str, default: str) -> str:
    return attrs.to_bytes(node.attrs[key]).decode() if key in node.attrs else default


def picked_of(known: Known, node: Node) -> Picked | None:
    shape = known.of(node, 0)
    begin, end, strides = (known.body.integers(node.inputs[index]) for index in (1, 2, 3))
    if shape is None or strides is None:
        return None
    return picked(node, shape, begin, end, strides)


def as_input(index: int) -> Rule:
    """An output of the shape of an input."""

    def rule(known: Known, node: Node) -> Sequence[Dims]:
        return (known.of(node, index),)

    return rule
