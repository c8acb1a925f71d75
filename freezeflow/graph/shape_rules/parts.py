"""Ops that join tensors, cut them, pick from them, or reduce them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from freezeflow.graph.graph import Node, data_inputs, join
from freezeflow.graph.shape_rules.known import (
    Known,
    Rule,
    flag_of,
    int_of,
    picked_of,
)
from freezeflow.graph.shapes import Dim, Dims, all_known, fresh


def _concatenated(known: Known, node: Node) -> Sequence[Dims]:
    data = list(data_inputs(node))
    shapes = [known.shapes.of(tensor) for tensor in data[:-1]]
    axis = known.integers(node, len(data) - 1)
    first = shapes[0]
    if axis is None or len(axis) != 1 or first is None:
        return (None,)
    if any(shape is None or len(shape) != len(first) for shape in shapes) or not first:
        return (None,)
    place = axis[0] % len(first)
    sizes: list[Dim] = list(fresh(node.name, len(first)))
    for index in range(len(first)):
        own = {shape[index] for shape in shapes if shape is not None}
        if index != place and len(own) == 1:
            sizes[index] = own.pop()
    along = all_known(tuple(shape[place] for shape in shapes if shape is not None))
    if along is not None:
        sizes[place] = sum(along)
    return (tuple(sizes),)


def _packed(known: Known, node: Node) -> Sequence[Dims]:
    data = list(data_inputs(node))
    shape = known.shapes.of(data[0])
    if shape is None or any(known.shapes.of(tensor) != shape for tensor in data):
        return (None,)
    axis = int_of(node, "axis", 0)
    place = axis if axis >= 0 else axis + len(shape) + 1
    return ((*shape[:place], len(data), *shape[place:]),)


def _unpacked(known: Known, node: Node) -> Sequence[Dims]:
    shape, number = known.of(node, 0), int_of(node, "num", 0)
    if not shape:
        return (None,) * number
    place = int_of(node, "axis", 0) % len(shape)
    return ((*shape[:place], *shape[place + 1 :]),) * number


def _split(known: Known, node: Node) -> Sequence[Dims]:
    number = int_of(node, "num_split", 1)
    data, axis_input = (1, 0) if node.op == "Split" else (0, 2)
    shape, axis = known.of(node, data), known.integers(node, axis_input)
    if not shape or axis is None or len(axis) != 1:
        return (None,) * number
    place = axis[0] % len(shape)
    size = shape[place]
    sizes: tuple[int, ...] | None = None
    if node.op == "SplitV":
        given = known.integers(node, 1)
        sizes = given if given is not None and all(n >= 0 for n in given) else None
    elif isinstance(size, int) and size % number == 0:
        sizes = (size // number,) * number
    return [
        (*shape[:place], _part(sizes, index, node, place), *shape[place + 1 :])
        for index in range(number)
    ]


def _part(sizes: tuple[int, ...] | None, index: int, node: Node, place: int) -> Dim:
    return (join(node.name, index), place) if sizes is None else sizes[index]


def _sliced(known: Known, node: Node) -> Sequence[Dims]:
    shape = known.of(node, 0)
    begin, size = known.integers(node, 1), known.integers(node, 2)
    if shape is None:
        return (None,)
    if begin is None or size is None or not len(begin) == len(size) == len(shape):
        return (fresh(node.name, len(shape)),)
    result: list[Dim] = []
    for axis, (own, first, length) in enumerate(zip(shape, begin, size, strict=True)):
        if length >= 0:
            result.append(length)
        elif first == 0:
            result.append(own)
        else:
            result.append(own - first if isinstance(own, int) else (node.name, axis))
    return (tuple(result),)


def _strided(known: Known, node: Node) -> Sequence[Dims]:
    found = picked_of(known, node)
    if found is None:
        return (None,)
    return (tuple((node.name, axis) if n is None else n for axis, n in enumerate(found.shape)),)


def _gathered(known: Known, node: Node) -> Sequence[Dims]:
    params, indices = known.of(node, 0), known.of(node, 1)
    axis: tuple[int, ...] | None = (0,)
    if node.op == "GatherV2":
        axis = known.integers(node, 2)
    if params is None or indices is None or axis is None or int_of(node, "batch_dims", 0):
        return (None,)
    if not params:
        return (None,)
    place = axis[0] % len(params)
    return ((*params[:place], *indices, *params[place + 1 :]),)


def _reduced(known: Known, node: Node) -> Sequence[Dims]:
    shape, axes = known.of(node, 0), known.integers(node, 1)
    if shape is None or axes is None:
        return (None,)
    places = {axis % len(shape) for axis in axes} if shape else set()
    if flag_of(node, "keep_dims"):
        return (tuple(1 if axis in places else size for axis, size in enumerate(shape)),)
    return (tuple(size for axis, size in enumerate(shape) if axis not in places),)


def _best(known: Known, node: Node) -> Sequence[Dims]:
    """ArgMax, ArgMin."""
    shape, axis = known.of(node, 0), known.integers(node, 1)
    if not shape or axis is None or len(axis) != 1:
        return (None,)
    place = axis[0] % len(shape)
    return ((*shape[:place], *shape[place + 1 :]),)


def _one_hot(known: Known, node: Node) -> Sequence[Dims]:
    shape, depth = known.of(node, 0), known.integers(node, 1)
    if shape is None:
        return (None,)
    axis = int_of(node, "axis", -1)
    place = len(shape) if axis == -1 else axis
    size: Dim = (node.name, place) if depth is None else depth[0]
    return ((*shape[:place], size, *shape[place:]),)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("All", "Any", "EuclideanNorm", "Max", "Mean", "Min", "Prod", "Sum"), _reduced),
    **dict.fromkeys(("Split", "SplitV"), _split),
    **dict.fromkeys(("Gather", "GatherV2"), _gathered),
    **dict.fromkeys(("ArgMax", "ArgMin"), _best),
    "ConcatV2": _concatenated,
    "Pack": _packed,
    "Unpack": _unpacked,
    "Slice": _sliced,
    "StridedSlice": _strided,
    "OneHot": _one_hot,
}
