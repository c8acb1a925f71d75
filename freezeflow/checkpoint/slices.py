"""Parts of tensors: reading slice specs, and putting a part together from the parts stored.

A `Box` is (start, length) for each dimension. Offsets count elements in row-major order.
Source of the spec's form: upstream ``core/framework/tensor_slice.cc`` and
``core/util/saved_tensor_slice_util.cc`` (ParseShapeAndSlice).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from freezeflow.checkpoint.coding import Malformed

Box = tuple[tuple[int, int], ...]


class Run(NamedTuple):
    """Elements that lie side by side both in a stored part and in the wanted one."""

    source: int
    target: int
    length: int


def whole(shape: Sequence[int]) -> Box:
    """The box that is all of a tensor."""
    return tuple((0, size) for size in shape)


def box_shape(box: Box) -> tuple[int, ...]:
    return tuple(length for _, length in box)


def volume(box: Box) -> int:
    """Number of elements."""
    return math.prod(length for _, length in box)


def parse_spec(spec: str) -> tuple[tuple[int, ...], Box]:
    """The full shape and the box that a spec such as ``4 2 0,2:-`` names.

    Raises:
        Malformed: It is not a spec, or its box is not inside the shape.
    """
    *sizes, extents = spec.split(" ")
    try:
        shape = tuple(int(size) for size in sizes)
        parts = [_parse_extent(part) for part in extents.split(":")] if extents else []
    except ValueError:
        raise Malformed(f"{spec!r} is no shape and slice") from None
    if len(parts) != len(shape) or min(shape, default=0) < 0:
        raise Malformed(
            f"{spec!r} has a shape of {len(shape)} and a slice of {len(parts)} dimensions"
        )
    return shape, resolve(shape, parts)


def _parse_extent(text: str) -> tuple[int, int | None]:
    if text == "-":
        return 0, None
    start, length = text.split(",")
    return int(start), int(length)


def resolve(shape: Sequence[int], extents: Sequence[tuple[int, int | None]]) -> Box:
    """The box that extents name in a shape; a length of None is all of a dimension.

    Raises:
        Malformed: It is not inside the shape.
    """
    if len(extents) != len(shape):
        raise Malformed(f"a slice of {len(extents)} dimensions in a shape of {len(shape)}")
    box = []
    for size, (start, length) in zip(shape, extents, strict=True):
        if length is None:
            start, length = 0, size
        elif start < 0 or length <= 0 or start + length > size:
            raise Malformed(f"the slice {start},{length} is not inside a dimension of {size}")
        box.append((start, length))
    return tuple(box)


def overlap(one: Box, other: Box) -> Box | None:
    """What two boxes of the same tensor share, or None."""
    shared = []
    for (start, length), (other_start, other_length) in zip(one, other, strict=True):
        first = max(start, other_start)
        end = min(start + length, other_start + other_length)
        if first >= end:
            return None
        shared.append((first, end - first))
    return tuple(shared)


def covering(wanted: Box, stored: Mapping[Box, object]) -> list[Box]:
    """Those of the stored boxes that together make up the wanted one, each element once.

    Raises:
        Malformed: Elements are missing, or stored more than once.
    """
    if wanted in stored:
        return [wanted]
    parts = sorted(box for box in stored if overlap(box, wanted) is not None)
    if _any_overlap(parts):
        raise Malformed("its slices overlap")
    found = sum(volume(overlap(box, wanted) or ()) for box in parts)
    if found != volume(wanted):
        raise Malformed(f"its slices hold {found} of {volume(wanted)} elements")
    return parts


def _any_overlap(boxes: Sequence[Box]) -> bool:
    """Whether any two boxes overlap; looks only at pairs that do so in the first dimension."""
    open_boxes: list[Box] = []
    for box in boxes:
        if not box:
            return len(boxes) > 1
        start = box[0][0]
        open_boxes = [other for other in open_boxes if sum(other[0]) > start]
        if any(overlap(box, other) is not None for other in open_boxes):
            return True
        open_boxes.append(box)
    return False


def runs(source: Box, target: Box) -> Iterator[Run]:
    """What to copy from a stored box into a wanted one, in ascending order, in the longest runs.

    Args:
        source: The stored box; its elements are row-major.
        target: The wanted box; its elements are row-major, too.
    """
    shared = overlap(source, target)
    if shared is None:
        return
    split = _rows_end(source, target, shared)
    length = math.prod(size for _, size in shared[split:])
    source_steps, target_steps = _steps(source), _steps(target)
    source_start = _offset(shared, source, source_steps)
    target_start = _offset(shared, target, target_steps)
    for place in itertools.product(*(range(size) for _, size in shared[:split])):
        yield Run(
            source_start + sum(map(int.__mul__, place, source_steps)),
            target_start + sum(map(int.__mul__, place, target_steps)),
            length,
        )


def _rows_end(source: Box, target: Box, shared: Box) -> int:
    """The first dimension from which on the shared elements lie side by side in both boxes."""
    split = len(shared)
    while split > 0:
        split -= 1
        size = shared[split][1]
        if size != source[split][1] or size != target[split][1]:
            break
    return split


def _steps(box: Box) -> list[int]:
    """How many elements apart neighbours in each dimension are."""
    steps = [1] * len(box)
    for axis in range(len(box) - 2, -1, -1):
        steps[axis] = steps[axis + 1] * box[axis + 1][1]
    return steps


def _offset(inner: Box, outer: Box, steps: Sequence[int]) -> int:
    return sum(
        (start - outer_start) * step
        for (start, _), (outer_start, _), step in zip(inner, outer, steps, strict=True)
    )
