"""Weights stored as int8 with a scale for each channel, and multiplied out where they are used.

Symmetric: a channel's largest value becomes 127, zero stays zero. The graph gets a Cast and a Mul, which
every runtime knows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freezeflow.graph import attrs
from freezeflow.graph.cast import widening
from freezeflow.graph.constants import const
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.narrow import (
    Loss,
    Narrowed,
    Put,
    Weight,
    blocks,
    body_of,
    narrow_weights,
    unique,
    written_anew,
)
from freezeflow.graph.walk import consumers
from freezeflow.graph.wire import LARGE_TENSOR_BYTES
from freezeflow.values import DType

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_LARGEST = 127

# A row of a table that is looked up gets a scale of its own from this length on.
_ROW = 16


def quantize_weights(
    graph: Graph,
    *,
    min_elements: int,
    keep: Sequence[str],
    fixed: Collection[str],
    put: Put,
    scratch: Path,
) -> tuple[Graph, Loss]:
    """Stores the float32 weights of matrix products, convolutions and look-ups as int8.

    Args:
        graph: The graph.
        min_elements: Smaller constants stay as they are.
        keep: Patterns of names that stay as they are.
        fixed: Nodes of the main graph that a caller replaces.
        put: Keeps the bytes of a large constant.
        scratch: A folder for bytes on the way.

    Returns:
        The graph, and what the new weights differ by.
    """
    users: dict[str, Mapping[str, list[str]]] = {}

    def stored(weight: Weight) -> Narrowed | str | None:
        nodes = body_of(graph, weight.place)
        if weight.place not in users:
            users[weight.place] = consumers(nodes)
        own = users[weight.place].get(weight.node.name, ())
        axes = _channel_axes(weight, [nodes[user] for user in own])
        if axes is None:
            return None
        scale = _scales(weight.data, axes)
        if scale is None:
            return "it has values that are not finite"
        nbytes = weight.data.size + scale.nbytes
        if nbytes >= weight.data.nbytes:
            return "its scales would take what is saved"
        parts = _quantized(weight, scale, nodes, put, scratch)
        return Narrowed(parts, nbytes, functools.partial(_restored, scale))

    return narrow_weights(graph, stored, min_elements=min_elements, keep=keep, fixed=fixed)


def _channel_axes(weight: Weight, users: Sequence[Node]) -> tuple[int, ...] | None:
    """The axes along which a weight gets scales of its own; None if it is none."""
    rank = weight.data.ndim
    for user in users:
        if rank < 2 or weight.node.name not in user.inputs:
            continue
        if user.op in ("Conv2D", "Conv3D"):
            return (rank - 1,)
        if user.op == "DepthwiseConv2dNative":
            return (2, 3)
        if user.op == "Conv2DBackpropInput":
            return (2,)
        if user.op == "MatMul":
            return _product_axes(user, weight, "transpose_a", "transpose_b")
        if user.op in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
            return (*range(rank - 2), *_product_axes(user, weight, "adj_x", "adj_y"))
        if user.op in ("Gather", "GatherV2") and user.inputs[0] == weight.node.name:
            return (0,) if weight.data[0].size >= _ROW else (rank - 1,)
    return None


def _product_axes(user: Node, weight: Weight, left: str, right: str) -> tuple[int, ...]:
    """The axis of a factor that is an axis of the product as well."""
    rank = weight.data.ndim
    if user.inputs[1] == weight.node.name:
        return (rank - 2 if _flag(user, right) else rank - 1,)
    return (rank - 1 if _flag(user, left) else rank - 2,)


def _flag(node: Node, key: str) -> bool:
    return key in node.attrs and bool(attrs.message(node.attrs[key]).b)


def _scales(data: Array, axes: tuple[int, ...]) -> Array | None:
    """For each channel its largest value over 127, in a shape that is broadcast; None for NaN or Inf."""
    import numpy as np

    shape = tuple(size if axis in axes else 1 for axis, size in enumerate(data.shape))
    largest = np.zeros(shape, np.float32)
    others = tuple(axis for axis in range(data.ndim) if axis not in axes)
    for part, block in blocks(data):
        if not np.isfinite(block).all():
            return None
        found = np.max(np.abs(block), axis=others, keepdims=True, initial=0.0)
        rows = part if 0 in axes else slice(None)
        largest[rows] = np.maximum(largest[rows], found)
    scale: Array = np.where(largest > 0, largest / np.float32(_LARGEST), np.float32(1))
    # A channel of numbers so small that their scale is zero or has lost its digits stays zero.
    return np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1)).astype(np.float32)


def _rows(scale: Array, part: slice) -> Array:
    return scale[part] if len(scale) > 1 else scale


def _as_int8(part: slice, block: Array, scale: Array) -> Array:
    import numpy as np

    steps = np.rint(block / _rows(scale, part))
    found: Array = np.clip(steps, -_LARGEST, _LARGEST).astype(np.int8)
    return found


def _restored(scale: Array, part: slice, block: Array) -> Array:
    """What the graph makes of it, in the same float32 arithmetic."""
    import numpy as np

    return _as_int8(part, block, scale).astype(np.float32) * _rows(scale, part)


def _quantized(
    weight: Weight, scale: Array, nodes: Mapping[str, Node], put: Put, scratch: Path
) -> tuple[Node, ...]:
    name = weight.node.name
    stored = written_anew(
        weight,
        unique(nodes, f"{name}/int8"),
        DType.INT8,
        lambda part, block: _as_int8(part, block, scale),
        put,
        scratch,
    )
    stored = stored._replace(inputs=weight.node.inputs, device=weight.node.device)
    scales = _constant(unique(nodes, f"{name}/scale"), scale, put)
    cast = widening(unique(nodes, f"{name}/float32"), stored.name, DType.INT8)
    product = Node(name, "Mul", (cast.name, scales.name), {"T": attrs.of_type(DType.FLOAT)})
    return stored, scales._replace(inputs=weight.node.inputs), cast, product


def _constant(name: str, values: Array, put: Put) -> Node:
    data = values.tobytes()
    if math.prod(values.shape) * values.itemsize <= LARGE_TENSOR_BYTES:
        return const(name, DType.FLOAT, values.shape, data)
    return const(name, DType.FLOAT, values.shape, put(memoryview(data), DType.FLOAT, values.shape))
