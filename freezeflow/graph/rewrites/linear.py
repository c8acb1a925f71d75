"""Convolutions and matrix products with constant weights: where their channels are."""

from __future__ import annotations

import math
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node
from freezeflow.graph.shapes import Shapes, all_known

# Op to the number of the input that holds its weights.
WEIGHTS = {
    "Conv2D": 1,
    "Conv2DBackpropInput": 1,
    "Conv3D": 1,
    "DepthwiseConv2dNative": 1,
    "MatMul": 1,
}


class Layout(NamedTuple):
    """The rank of a tensor and the axis of its channels."""

    rank: int
    axis: int

    def aligned(self, channels: int) -> tuple[int, ...]:
        """The shape with which a vector of channels is broadcast along the axis."""
        return (channels, *(1,) * (self.rank - 1 - self.axis))

    def fits(self, shape: tuple[int, ...], channels: int) -> bool:
        """Whether a constant of this shape has one value for each channel, or one for all."""
        if len(shape) > self.rank:
            return False
        full = (1,) * (self.rank - len(shape)) + shape
        return all(
            size == 1 or (axis == self.axis and size == channels) for axis, size in enumerate(full)
        )


_LAYOUTS = {
    "NHWC": Layout(4, 3),
    "NCHW": Layout(4, 1),
    "NDHWC": Layout(5, 4),
    "NCDHW": Layout(5, 1),
}


def layout_of(node: Node) -> Layout | None:
    """Where the channels of a linear op's or a batch norm's output are."""
    if node.op == "MatMul":
        return Layout(2, 1)
    default = "NDHWC" if node.op == "Conv3D" else "NHWC"
    given = (
        attrs.to_bytes(node.attrs["data_format"]).decode() if "data_format" in node.attrs else ""
    )
    return _LAYOUTS.get(given or default)


def channels_of(node: Node, shapes: Shapes) -> int | None:
    """How many channels a linear op gives, from the shape of its weights."""
    shape = all_known(shapes.of(node.inputs[WEIGHTS[node.op]]))
    if shape is None:
        return None
    if node.op == "DepthwiseConv2dNative":
        return shape[2] * shape[3]
    if node.op == "Conv2DBackpropInput":
        return shape[2]
    return shape[0] if node.op == "MatMul" and _transposed(node) else shape[-1]


def scale_shape(node: Node, shapes: Shapes) -> tuple[int, ...]:
    """The shape in which a vector of channels multiplies the weights."""
    shape = all_known(shapes.of(node.inputs[WEIGHTS[node.op]]))
    assert shape is not None
    if node.op == "DepthwiseConv2dNative":
        return shape[2:]
    if node.op == "Conv2DBackpropInput":
        return (shape[2], 1)
    return (shape[0], 1) if node.op == "MatMul" and _transposed(node) else (shape[-1],)


def weight_bytes(node: Node, shapes: Shapes, item_bytes: int) -> int:
    """The size of a linear op's weights."""
    shape = all_known(shapes.of(node.inputs[WEIGHTS[node.op]]))
    return 0 if shape is None else math.prod(shape) * item_bytes


def _transposed(node: Node) -> bool:
    return "transpose_b" in node.attrs and bool(attrs.message(node.attrs["transpose_b"]).b)
