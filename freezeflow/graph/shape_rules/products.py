"""Matrix products, convolutions, pooling, batch norms, resizing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from freezeflow.graph.einsum import ELLIPSIS, equation_of
from freezeflow.graph.graph import Node, data_inputs
from freezeflow.graph.shape_rules.elementwise import broadcast_two
from freezeflow.graph.shape_rules.known import (
    Known,
    Rule,
    as_input,
    flag_of,
    ints_of,
    text_of,
)
from freezeflow.graph.shapes import Dim, Dims, all_known, fresh


def _matmul(known: Known, node: Node) -> Sequence[Dims]:
    one, other = known.of(node, 0), known.of(node, 1)
    if one is None or other is None or len(one) != 2 or len(other) != 2:
        return (None,)
    rows = one[1] if flag_of(node, "transpose_a") else one[0]
    columns = other[0] if flag_of(node, "transpose_b") else other[1]
    return ((rows, columns),)


def _batch_matmul(known: Known, node: Node) -> Sequence[Dims]:
    one, other = known.of(node, 0), known.of(node, 1)
    if one is None or other is None or len(one) < 2 or len(other) < 2:
        return (None,)
    batch = broadcast_two(node.name, one[:-2], other[:-2])
    if batch is None:
        return (None,)
    rows = one[-1] if flag_of(node, "adj_x") else one[-2]
    columns = other[-2] if flag_of(node, "adj_y") else other[-1]
    return ((*batch, rows, columns),)


def _einsum(known: Known, node: Node) -> Sequence[Dims]:
    equation = equation_of(node)
    shapes = [known.shapes.of(tensor) for tensor in data_inputs(node)]
    operands = None if equation is None else equation.operands(shapes)
    if equation is None or operands is None:
        return (None,)
    between: Dims = ()
    found: dict[str, set[Dim]] = {}
    for operand in operands:
        between = broadcast_two(node.name, between, operand.between)
        for letter, size in operand.sizes():
            found.setdefault(letter, set()).add(size)
    before, dots, after = equation.output.partition(ELLIPSIS)
    if between is None or (between and not dots) or not found.keys() >= {*before, *after}:
        return (None,)

    def sizes(letters: str, first: int) -> Iterator[Dim]:
        for place, letter in enumerate(letters, first):
            yield found[letter].copy().pop() if len(found[letter]) == 1 else (node.name, place)

    # Of what is stretched, symbols count places from its own first.
    middle = tuple(
        (node.name, len(before) + axis) if size == (node.name, axis) else size
        for axis, size in enumerate(between)
    )
    return ((*sizes(before, 0), *middle, *sizes(after, len(before) + len(middle))),)


def _convolution(known: Known, node: Node) -> Sequence[Dims]:
    """Conv2D, DepthwiseConv2dNative and pooling: batch and channels; the sizes where known."""
    shape = known.of(node, 0)
    layout = text_of(node, "data_format", "NHWC")
    if shape is None or len(shape) != 4 or layout not in ("NHWC", "NCHW"):
        return (None,)
    places = (1, 2) if layout == "NHWC" else (2, 3)
    channel = 3 if layout == "NHWC" else 1
    window, channels = _window(known, node, shape[channel], places)
    if window is None:
        return (None,)
    strides = ints_of(node, "strides")
    dilations = ints_of(node, "dilations") or (1, 1, 1, 1)
    sizes: list[Dim] = list(fresh(node.name, 4))
    sizes[0], sizes[channel] = shape[0], channels
    for place, length in zip(places, window, strict=True):
        size = shape[place]
        reach = (length - 1) * dilations[place] + 1
        found = _windowed(node, place, size, reach, strides[place])
        if found is not None:
            sizes[place] = found
    return (tuple(sizes),)


def _window(
    known: Known, node: Node, channels: Dim, places: tuple[int, int]
) -> tuple[tuple[int, ...] | None, Dim]:
    """Height and width of the window, and the channels that come out."""
    if "ksize" in node.attrs:
        sizes = ints_of(node, "ksize")
        return tuple(sizes[place] for place in places), channels
    kernel = all_known(known.of(node, 1))
    if kernel is None or len(kernel) != 4:
        return None, channels
    outputs = kernel[3] if node.op == "Conv2D" else kernel[2] * kernel[3]
    return kernel[:2], outputs


def _windowed(node: Node, place: int, size: Dim, reach: int, stride: int) -> int | None:
    if not isinstance(size, int):
        return None
    padding = text_of(node, "padding", "")
    if padding == "SAME":
        return -(-size // stride)
    if padding == "EXPLICIT":
        explicit = ints_of(node, "explicit_paddings")
        size += explicit[2 * place] + explicit[2 * place + 1]
    elif padding != "VALID":
        return None
    return -(-(size - reach + 1) // stride) if size >= reach else None


def _resized(known: Known, node: Node) -> Sequence[Dims]:
    shape, size = known.of(node, 0), known.integers(node, 1)
    if shape is None or len(shape) != 4 or size is None or len(size) != 2:
        return (None,)
    return ((shape[0], size[0], size[1], shape[3]),)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("Conv2D", "DepthwiseConv2dNative", "MaxPool", "AvgPool"), _convolution),
    **dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _batch_matmul),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), as_input(0)),
    "BatchNormWithGlobalNormalization": as_input(0),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic"), _resized),
    "MatMul": _matmul,
    "Einsum": _einsum,
}
