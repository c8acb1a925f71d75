"""Values of small integer tensors that are computed from shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node, data_inputs, join
from freezeflow.graph.shape_rules.known import (
    Known,
    int_of,
    picked_of,
)
from freezeflow.graph.shapes import Dim, all_known
from freezeflow.values import DType

Value = tuple[Dim, ...] | None
ValueRule = Callable[[Known, Node], Value]
_INT32_MAX = 2**31 - 1


def _value_of_constant(known: Known, node: Node) -> Value:
    shape = known.shapes.of(node.name)
    return known.body.integers(node.name) if shape is not None and len(shape) <= 1 else None


def _value_of_input(known: Known, node: Node) -> Value:
    return known.shapes.value(node.inputs[0])


def _value_of_cast(known: Known, node: Node) -> Value:
    value = known.shapes.value(node.inputs[0])
    if value is None or attrs.to_type(node.attrs["DstT"]) not in (DType.INT32, DType.INT64):
        return None
    fits = all(isinstance(n, int) and abs(n) <= _INT32_MAX for n in value)
    return value if fits or attrs.to_type(node.attrs["DstT"]) is DType.INT64 else None


def _value_of_shape(known: Known, node: Node) -> Value:
    return known.of(node, 0)


def _value_of_size(known: Known, node: Node) -> Value:
    numbers = all_known(known.of(node, 0))
    return None if numbers is None else (math.prod(numbers),)


def _value_of_rank(known: Known, node: Node) -> Value:
    shape = known.of(node, 0)
    return None if shape is None else (len(shape),)


def _value_of_strided(known: Known, node: Node) -> Value:
    value, found = known.shapes.value(node.inputs[0]), picked_of(known, node)
    if value is None or found is None or found.places is None or known.of(node, 0) == ():
        return None
    return tuple(value[place] for place in found.places)


def _value_of_gather(known: Known, node: Node) -> Value:
    value, places = known.shapes.value(node.inputs[0]), known.integers(node, 1)
    rank = known.of(node, 1)
    if value is None or places is None or rank is None or len(rank) > 1:
        return None
    if node.op == "GatherV2" and (known.integers(node, 2) != (0,) or int_of(node, "batch_dims", 0)):
        return None
    if known.of(node, 0) == () or any(not 0 <= place < len(value) for place in places):
        return None
    return tuple(value[place] for place in places)


def _value_of_pack(known: Known, node: Node) -> Value:
    parts = [known.shapes.value(tensor) for tensor in data_inputs(node)]
    if any(known.shapes.of(tensor) != () for tensor in data_inputs(node)):
        return None
    return tuple(part[0] for part in parts if part) if all(parts) else None


def _value_of_concat(known: Known, node: Node) -> Value:
    data = list(data_inputs(node))[:-1]
    parts = [known.shapes.value(tensor) for tensor in data]
    if any(part is None for part in parts) or known.integers(node, len(data)) not in ((0,), (-1,)):
        return None
    return tuple(size for part in parts if part is not None for size in part)


def _value_of_slice(known: Known, node: Node) -> Value:
    value = known.shapes.value(node.inputs[0])
    begin, size = known.integers(node, 1), known.integers(node, 2)
    if value is None or begin is None or size is None or len(begin) != 1 or len(size) != 1:
        return None
    last = len(value) if size[0] == -1 else begin[0] + size[0]
    return value[begin[0] : last] if 0 <= begin[0] <= last <= len(value) else None


def _value_of_prod(known: Known, node: Node) -> Value:
    value, axes = known.shapes.value(node.inputs[0]), known.integers(node, 1)
    if value is None or axes not in ((0,), (-1,)) or known.of(node, 0) == ():
        return None
    return _limited(node, "T", _product(value))


def _product(value: tuple[Dim, ...]) -> Dim | None:
    symbols = [size for size in value if not isinstance(size, int)]
    number = math.prod(size for size in value if isinstance(size, int))
    if not symbols:
        return number
    return symbols[0] if len(symbols) == 1 and number == 1 else None


def _limited(node: Node, key: str, size: Dim | None) -> Value:
    """One number, if it does not overflow its dtype."""
    if size is None or (isinstance(size, int) and abs(size) > _INT32_MAX):
        return None
    return (size,)


_EXACT: Mapping[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "AddV2": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Maximum": max,
    "Minimum": min,
}
_NEUTRAL = {"Add": 0, "AddV2": 0, "Sub": 0, "Mul": 1}


def _value_of_arithmetic(known: Known, node: Node) -> Value:
    one, other = (known.shapes.value(tensor) for tensor in list(data_inputs(node))[:2])
    if one is None or other is None:
        return None
    if len(one) == 1 and known.of(node, 0) == ():
        one = one * len(other)
    if len(other) == 1 and known.of(node, 1) == ():
        other = other * len(one)
    if len(one) != len(other):
        return None
    result = [_computed(node.op, a, b) for a, b in zip(one, other, strict=True)]
    if any(size is None or (isinstance(size, int) and abs(size) > _INT32_MAX) for size in result):
        return None
    return tuple(size for size in result if size is not None)


def _computed(op: str, one: Dim, other: Dim) -> Dim | None:
    if isinstance(one, int) and isinstance(other, int):
        return _EXACT[op](one, other)
    if other == _NEUTRAL.get(op):
        return one
    if one == _NEUTRAL.get(op) and op != "Sub":
        return other
    return one if one == other and op in ("Maximum", "Minimum") else None


def _same_elements(known: Known, node: Node) -> Value:
    """Squeeze, ExpandDims and Reshape between a scalar and a vector of one, or of a vector."""
    value, shape = known.shapes.value(node.inputs[0]), known.shapes.of(node.name)
    if value is None or shape is None or len(shape) > 1:
        return None
    return value if all_known(shape) in ((), (len(value),)) else None


VALUES: Mapping[str, ValueRule] = {
    **dict.fromkeys(("Identity", "Snapshot", "StopGradient"), _value_of_input),
    **dict.fromkeys(("Gather", "GatherV2"), _value_of_gather),
    **dict.fromkeys(_EXACT, _value_of_arithmetic),
    "Const": _value_of_constant,
    "Cast": _value_of_cast,
    "Shape": _value_of_shape,
    "Size": _value_of_size,
    "Rank": _value_of_rank,
    "StridedSlice": _value_of_strided,
    "Pack": _value_of_pack,
    "ConcatV2": _value_of_concat,
    "Slice": _value_of_slice,
    "Prod": _value_of_prod,
    **dict.fromkeys(("ExpandDims", "Reshape", "Squeeze"), _same_elements),
}


def several_values(known: Known, node: Node) -> None:
    """ShapeN, and Unpack of a shape: a value for each output."""
    if node.op == "ShapeN":
        for index, tensor in enumerate(data_inputs(node)):
            shape = known.shapes.of(tensor)
            if shape is not None:
                known.shapes.set_value(join(node.name, index), shape)
        return
    value = known.shapes.value(node.inputs[0])
    if value is not None and len(value) == int_of(node, "num", 0):
        for index, size in enumerate(value):
            known.shapes.set_value(join(node.name, index), (size,))
