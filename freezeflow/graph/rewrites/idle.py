"""Ops that, with the arguments they have, give their input back as it is.

Each rule names the tensor that comes out, or None. What stays is the very tensor, so that -0.0 and the
payloads of NaN stay, too. For that reason ``x * 1.0`` and ``x - 0.0`` stay (they make a signalling
NaN quiet, and may flush the smallest numbers to zero), but where ``x`` is computed by arithmetic that
has done both already; and ``x + 0.0``, which turns -0.0 into 0.0 as well, goes only where ``x`` is never
-0.0, or where nobody sees the sign of a zero (`zero_signs`). Numbers that are drawn from [0, 1) are none
of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node, data_inputs
from freezeflow.graph.rewrites.body import Body
from freezeflow.graph.rewrites.zero_signs import floats, is_never_minus_zero, is_zero_sign_seen
from freezeflow.graph.shapes import Dims, Shapes, all_known
from freezeflow.values import DType

IdleRule = Callable[[Body, Shapes, Node], str | None]


def is_idle(body: Body, shapes: Shapes, node: Node) -> bool:
    """Takes a node out that gives its input back, if nothing is lost with its other inputs."""
    rule = RULES.get(node.op)
    if rule is None:
        return False
    source = rule(body, shapes, node)
    if source is None:
        return False
    others = [tensor for tensor in data_inputs(node) if tensor != source]
    if not all(body.is_loose(tensor) and shapes.may_go(body, tensor) for tensor in others):
        return False
    return body.forward(node, [source])


def _same_type(body: Body, shapes: Shapes, node: Node) -> str | None:
    return node.inputs[0] if node.attrs.get("SrcT") == node.attrs.get("DstT") else None


def _same_shape(body: Body, shapes: Shapes, node: Node) -> str | None:
    """Reshape, BroadcastTo: the asked shape is the one there is."""
    shape, target = shapes.of(node.inputs[0]), shapes.value(node.inputs[1])
    if shape is None or target is None or len(shape) != len(target):
        return None
    inferred = [index for index, size in enumerate(target) if size == -1]
    if node.op != "Reshape" and inferred:
        return None
    if len(inferred) > 1 or (inferred and any(_may_be_zero(target, i) for i in range(len(target)))):
        return None
    same = all(size in (-1, own) for size, own in zip(target, shape, strict=True))
    return node.inputs[0] if same else None


def _may_be_zero(target: tuple[object, ...], index: int) -> bool:
    """Beside a -1 a size of 0 is an error, so that one that may be 0 must stay."""
    size = target[index]
    return not isinstance(size, int) or size == 0


def _in_order(body: Body, shapes: Shapes, node: Node) -> str | None:
    """Transpose: every dimension stays where it is."""
    order, shape = body.integers(node.inputs[1]), shapes.of(node.inputs[0])
    if order is None or shape is None or order != tuple(range(len(shape))):
        return None
    return node.inputs[0]


def _no_padding(body: Body, shapes: Shapes, node: Node) -> str | None:
    padding, shape = body.integers(node.inputs[1]), shapes.of(node.inputs[0])
    if padding is None or shape is None or len(padding) != 2 * len(shape):
        return None
    return None if any(padding) else node.inputs[0]


def _no_mirror(body: Body, shapes: Shapes, node: Node) -> str | None:
    """MirrorPad refuses an empty tensor, so that one that may be empty must stay."""
    shape = all_known(shapes.of(node.inputs[0]))
    return _no_padding(body, shapes, node) if shape is not None and all(shape) else None


def _no_repeats(body: Body, shapes: Shapes, node: Node) -> str | None:
    times, shape = body.integers(node.inputs[1]), shapes.of(node.inputs[0])
    if times is None or shape is None or len(times) != len(shape):
        return None
    return node.inputs[0] if all(n == 1 for n in times) else None


def _whole_slice(body: Body, shapes: Shapes, node: Node) -> str | None:
    begin, size = body.integers(node.inputs[1]), body.integers(node.inputs[2])
    shape = shapes.of(node.inputs[0])
    if begin is None or size is None or any(begin) or len(begin) != len(size):
        return None
    own = shape if shape is not None else (None,) * len(size)
    whole = len(own) == len(size) and all(n in (-1, dim) for n, dim in zip(size, own, strict=True))
    return node.inputs[0] if whole else None


def _whole_strided_slice(body: Body, shapes: Shapes, node: Node) -> str | None:
    """Every dimension from its start to its end, one by one."""
    masks = {
        key: attrs.to_int(node.attrs[f"{key}_mask"]) if f"{key}_mask" in node.attrs else 0
        for key in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    if masks["new_axis"] or masks["shrink_axis"] or masks["ellipsis"]:
        return None
    begin, end, strides = map(body.integers, node.inputs[1:4])
    shape = shapes.of(node.inputs[0])
    if begin is None or end is None or strides is None or shape is None:
        return None
    if len(begin) > len(shape) or any(stride != 1 for stride in strides):
        return None
    for index, (first, last) in enumerate(zip(begin, end, strict=True)):
        size = shape[index]
        ends = masks["end"] >> index & 1 or (isinstance(size, int) and last >= size)
        starts = masks["begin"] >> index & 1 or first == 0
        if not (starts and ends):
            return None
    return node.inputs[0]


def _only_one(body: Body, shapes: Shapes, node: Node) -> str | None:
    """AddN and Split of one tensor."""
    data = list(data_inputs(node))
    if node.op in ("AddN", "AccumulateNV2"):
        return data[0] if len(data) == 1 else None
    if attrs.to_int(node.attrs["num_split"]) == 1:
        return data[1] if _is_axis_of(body, shapes, data[0], data[1]) else None
    return None


def _is_axis_of(body: Body, shapes: Shapes, axis: str, tensor: str) -> bool:
    number, shape = body.integers(axis), shapes.of(tensor)
    if number is None or shape is None or len(number) != 1:
        return False
    return -len(shape) <= number[0] < len(shape)


def _nothing_to_reduce(body: Body, shapes: Shapes, node: Node) -> str | None:
    return node.inputs[0] if body.integers(node.inputs[1]) == () else None


def _nothing_to_squeeze(body: Body, shapes: Shapes, node: Node) -> str | None:
    shape = shapes.of(node.inputs[0])
    asked = attrs.message(node.attrs["squeeze_dims"]).list.i if "squeeze_dims" in node.attrs else ()
    if shape is None or asked:
        return None
    return node.inputs[0] if all(isinstance(n, int) and n != 1 for n in shape) else None


def _shape_as_promised(body: Body, shapes: Shapes, node: Node) -> str | None:
    shape = shapes.of(node.inputs[0])
    promised = attrs.to_shape(node.attrs["shape"])
    if promised is None:
        return node.inputs[0]
    if shape is None or len(shape) != len(promised):
        return None
    kept = all(n is None or n == own for n, own in zip(promised, shape, strict=True))
    return node.inputs[0] if kept else None


# They give multiples of a power of two in [0, 1).
_UNIFORM = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})

# Their results went through the arithmetic unit: a signalling NaN is quiet, the smallest numbers are
# flushed to zero if they ever are.
_ARITHMETIC = {
    *("Add", "AddV2", "BiasAdd", "Div", "Mul", "RealDiv", "Sub"),
    *("Conv2D", "DepthwiseConv2dNative", "MatMul"),
}

_ORDERED = frozenset({"Sub", "FloorDiv", "TruncateDiv", "Div", "RealDiv", "BiasAdd"})
_ADDING_NOTHING = {
    **dict.fromkeys(("Add", "AddV2", "BiasAdd", "Sub"), 0),
    **dict.fromkeys(("Mul", "FloorDiv", "TruncateDiv", "Div", "RealDiv"), 1),
}


def _adds_nothing(body: Body, shapes: Shapes, node: Node) -> str | None:
    """``n + 0``, ``n * 1`` and so on; for floats only where not even a sign or a NaN changes."""
    data = list(data_inputs(node))
    dtype = attrs.to_type(node.attrs["T"])
    for kept, other in [(0, 1)] if node.op in _ORDERED else [(0, 1), (1, 0)]:
        if not _keeps_shape(shapes.of(data[kept]), shapes.of(data[other]), node):
            continue
        if dtype in (DType.INT32, DType.INT64):
            if body.integers(data[other]) == (_ADDING_NOTHING[node.op],):
                return data[kept]
        elif dtype in (DType.FLOAT, DType.DOUBLE) and _is_exactly_nothing(
            body, node, data[kept], data[other]
        ):
            return data[kept]
    return None


def _keeps_shape(shape: Dims, other: Dims, node: Node) -> bool:
    """Whether a tensor's shape is that of its sum with the other one, and there is one for certain."""
    if node.op == "BiasAdd":
        layout = attrs.to_bytes(node.attrs["data_format"]) if "data_format" in node.attrs else b""
        axis = 1 if layout == b"NCHW" else -1
        return shape is not None and len(shape) >= 2 and other == (shape[axis],)
    if other == ():
        return True
    if shape is None or other is None or len(other) > len(shape):
        return False
    return all(n in (1, own) for n, own in zip(other[::-1], shape[::-1], strict=False))


def _is_exactly_nothing(body: Body, node: Node, kept: str, other: str) -> bool:
    source, numbers = body.source(kept), floats(body, other)
    if source is None or numbers is None or source.name in body.fed:
        return False
    neutral = _ADDING_NOTHING[node.op]
    if any(number != neutral for number in numbers):
        return False
    if source.op in _UNIFORM:
        return all(math.copysign(1, number) > 0 for number in numbers)
    if source.op not in _ARITHMETIC:
        return False
    return (
        not _adds_plus_zero(node, numbers)
        or is_never_minus_zero(body, source)
        or not is_zero_sign_seen(body, node.name)
    )


def _adds_plus_zero(node: Node, numbers: Sequence[float]) -> bool:
    """Whether a node adds 0.0, or subtracts -0.0, either of which makes 0.0 of -0.0."""
    sign = {"Add": 1, "AddV2": 1, "BiasAdd": 1, "Sub": -1}.get(node.op, 0)
    return any(math.copysign(1, number) == sign for number in numbers)


RULES: Mapping[str, IdleRule] = {
    "Cast": _same_type,
    "Reshape": _same_shape,
    "BroadcastTo": _same_shape,
    "Transpose": _in_order,
    "Pad": _no_padding,
    "PadV2": _no_padding,
    "MirrorPad": _no_mirror,
    "Tile": _no_repeats,
    "Slice": _whole_slice,
    "StridedSlice": _whole_strided_slice,
    "Split": _only_one,
    "AddN": _only_one,
    "AccumulateNV2": _only_one,
    "Squeeze": _nothing_to_squeeze,
    "EnsureShape": _shape_as_promised,
    **dict.fromkeys(("Sum", "Prod", "Max", "Min", "Mean", "All", "Any"), _nothing_to_reduce),
    **dict.fromkeys(_ADDING_NOTHING, _adds_nothing),
}
