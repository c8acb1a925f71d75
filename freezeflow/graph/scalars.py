"""Small numbers that follow from constants: counters of loops, places in lists, predicates."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node, data_inputs, node_of
from freezeflow.graph.tensor_values import elements
from freezeflow.values import DType

_BINARY: Mapping[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "AddV2": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Minimum": min,
    "Maximum": max,
    "Less": operator.lt,
    "LessEqual": operator.le,
    "Greater": operator.gt,
    "GreaterEqual": operator.ge,
    "Equal": operator.eq,
    "NotEqual": operator.ne,
    "LogicalAnd": lambda a, b: bool(a) and bool(b),
    "LogicalOr": lambda a, b: bool(a) or bool(b),
}

_WHOLE = frozenset({DType.INT32, DType.INT64, DType.BOOL})

# Beyond it int32 would wrap around.
_MOST = 2**31 - 1


def scalar(nodes: Mapping[str, Node], tensor: str, known: dict[str, int | None]) -> int | None:
    """The value of an integer or bool scalar, where it follows from constants.

    Args:
        nodes: The nodes of the graph or of a function's body.
        tensor: The tensor.
        known: What is known already, by tensor (a function's arguments, too); what is found is added.
    """
    stack = [tensor]
    while stack:
        current = stack[-1]
        node = nodes.get(node_of(current))
        if current in known:
            stack.pop()
            continue
        inputs = _inputs(node, current)
        if missing := [name for name in inputs if name not in known]:
            stack += missing
            continue
        stack.pop()
        known[current] = None if node is None else _value(node, [known[name] for name in inputs])
    return known[tensor]


def _inputs(node: Node | None, tensor: str) -> list[str]:
    """What its value follows from."""
    if node is None or tensor != node.name:
        return []
    if node.op in _BINARY or node.op in ("Identity", "LogicalNot"):
        return list(data_inputs(node))
    return []


def _value(node: Node, given: list[int | None]) -> int | None:
    if node.op == "Const":
        return _constant(node)
    if not given or any(value is None for value in given):
        return None
    numbers = [value for value in given if value is not None]
    if node.op == "Identity":
        return numbers[0]
    if node.op == "LogicalNot":
        return int(not numbers[0])
    found = int(_BINARY[node.op](*numbers))
    return found if abs(found) <= _MOST else None


def _constant(node: Node) -> int | None:
    if node.tensor is not None or attrs.to_type(node.attrs["dtype"]) not in _WHOLE:
        return None
    tensor = attrs.message(node.attrs["value"]).tensor
    return None if tensor.tensor_shape.dim else int(elements(tensor)[0])
