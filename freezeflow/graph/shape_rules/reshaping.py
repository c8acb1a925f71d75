"""Ops that give the elements another shape, or add some around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from freezeflow.graph.graph import Node
from freezeflow.graph.shape_rules.known import (
    Known,
    Rule,
    ints_of,
)
from freezeflow.graph.shapes import Dim, Dims, fresh


def _reshaped(known: Known, node: Node) -> Sequence[Dims]:
    target = known.shapes.value(node.inputs[1])
    if target is None:
        rank = known.of(node, 1)
        known_rank = rank is not None and len(rank) == 1 and isinstance(rank[0], int)
        return (fresh(node.name, int(rank[0])),) if known_rank else (None,)  # type: ignore[index,arg-type]
    sizes = list(target)
    if -1 in sizes:
        place = sizes.index(-1)
        sizes[place] = _inferred(known.of(node, 0), target) or (node.name, place)
    return (tuple(sizes),)


def _inferred(shape: Dims, target: tuple[Dim, ...]) -> Dim | None:
    """What a -1 in a Reshape stands for; None where it is not certain."""
    if shape is None:
        return None
    left = list(shape)
    rest = []
    for size in target:
        if size == -1:
            continue
        if not isinstance(size, int):
            if size not in left:
                return None
            left.remove(size)
        else:
            rest.append(size)
    symbols = [size for size in left if not isinstance(size, int)]
    number, divisor = math.prod(s for s in left if isinstance(s, int)), math.prod(rest)
    if not divisor or number % divisor:
        return None
    if not symbols:
        return number // divisor
    return symbols[0] if len(symbols) == 1 and number == divisor else None


def _transposed(known: Known, node: Node) -> Sequence[Dims]:
    shape, order = known.of(node, 0), known.integers(node, 1)
    if shape is None:
        return (None,)
    if order is None or sorted(order) != list(range(len(shape))):
        return (fresh(node.name, len(shape)),)
    return (tuple(shape[axis] for axis in order),)


def _expanded(known: Known, node: Node) -> Sequence[Dims]:
    shape, axis = known.of(node, 0), known.integers(node, 1)
    if shape is None or axis is None or len(axis) != 1:
        return (None,)
    place = axis[0] if axis[0] >= 0 else axis[0] + len(shape) + 1
    if not 0 <= place <= len(shape):
        return (None,)
    return ((*shape[:place], 1, *shape[place:]),)


def _squeezed(known: Known, node: Node) -> Sequence[Dims]:
    shape, asked = known.of(node, 0), ints_of(node, "squeeze_dims")
    if shape is None:
        return (None,)
    if asked:
        places = {axis % len(shape) for axis in asked if -len(shape) <= axis < len(shape)}
        return (tuple(size for axis, size in enumerate(shape) if axis not in places),)
    if not all(isinstance(size, int) for size in shape):
        return (None,)
    return (tuple(size for size in shape if size != 1),)


def _padded(known: Known, node: Node) -> Sequence[Dims]:
    shape, padding = known.of(node, 0), known.integers(node, 1)
    if shape is None:
        return (None,)
    if padding is None or len(padding) != 2 * len(shape):
        return (fresh(node.name, len(shape)),)
    pairs = zip(padding[::2], padding[1::2], strict=True)
    return (
        tuple(
            size if before + after == 0 else _plus(size, before + after, (node.name, axis))
            for axis, (size, (before, after)) in enumerate(zip(shape, pairs, strict=True))
        ),
    )


def _plus(size: Dim, more: int, otherwise: Dim) -> Dim:
    return size + more if isinstance(size, int) else otherwise


def _tiled(known: Known, node: Node) -> Sequence[Dims]:
    shape, times = known.of(node, 0), known.integers(node, 1)
    if shape is None:
        return (None,)
    if times is None or len(times) != len(shape):
        return (fresh(node.name, len(shape)),)
    return (
        tuple(
            size if n == 1 else size * n if isinstance(size, int) else (node.name, axis)
            for axis, (size, n) in enumerate(zip(shape, times, strict=True))
        ),
    )


def _filled(known: Known, node: Node) -> Sequence[Dims]:
    """Fill and BroadcastTo: the shape is an input."""
    index = 0 if node.op == "Fill" else 1
    value = known.shapes.value(node.inputs[index])
    if value is not None and not any(isinstance(size, int) and size < 0 for size in value):
        return (value,)
    return (None,)


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), _padded),
    **dict.fromkeys(("Fill", "BroadcastTo"), _filled),
    "Reshape": _reshaped,
    "Transpose": _transposed,
    "ExpandDims": _expanded,
    "Squeeze": _squeezed,
    "Tile": _tiled,
}
