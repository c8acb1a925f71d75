"""What a StridedSlice picks; source of the rules: upstream ``core/util/strided_slice_op.cc``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node
from freezeflow.graph.shapes import Dim


class Picked(NamedTuple):
    """The outcome of a slice.

    Args:
        shape: The shape that comes out: sizes, or None where one is not known. A dimension that is
            taken whole keeps whatever stood in the given shape.
        places: For a vector of known length: which of its elements are picked, in order.
    """

    shape: tuple[Dim | None, ...]
    places: tuple[int, ...] | None


def picked(
    node: Node,
    shape: Sequence[Dim],
    begin: Sequence[int] | None,
    end: Sequence[int] | None,
    strides: Sequence[int],
) -> Picked | None:
    """What a StridedSlice gives of a tensor of this shape; None where it is not certain.

    Args:
        node: The node, for its masks.
        shape: Sizes; what is no int is not known.
        begin: Where each dimension starts; None where that is not known.
        end: Where each ends; None where that is not known.
        strides: The steps.
    """
    masks = {
        key: attrs.to_int(node.attrs[f"{key}_mask"]) if f"{key}_mask" in node.attrs else 0
        for key in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    result: list[Dim | None] = []
    places: tuple[int, ...] | None = None
    dimension = 0
    for index, step in enumerate(strides):
        bit = 1 << index
        if masks["ellipsis"] & bit:
            taken = _taken_later(masks, index, len(strides))
            keep = len(shape) - dimension - taken
            if keep < 0:
                return None
            result += shape[dimension : dimension + keep]
            dimension += keep
            continue
        if masks["new_axis"] & bit:
            result.append(1)
            continue
        if dimension >= len(shape):
            return None
        size = shape[dimension]
        dimension += 1
        if masks["shrink_axis"] & bit:
            places = _one_place(begin, index, size)
            continue
        first = None if masks["begin"] & bit else (None if begin is None else begin[index])
        last = None if masks["end"] & bit else (None if end is None else end[index])
        unknown = (first is None and not masks["begin"] & bit) or (
            last is None and not masks["end"] & bit
        )
        if unknown or step == 0:
            result.append(None)
        elif isinstance(size, int):
            places = tuple(range(size))[slice(first, last, step)]
            result.append(len(places))
        else:
            whole = step in (1, -1) and first in (None, 0) and last is None
            result.append(size if whole and not (step == -1 and first == 0) else None)
    result += shape[dimension:]
    only = len(shape) == 1 and len(strides) == 1 and not masks["ellipsis"] and not masks["new_axis"]
    return Picked(tuple(result), places if only else None)


def _taken_later(masks: dict[str, int], index: int, count: int) -> int:
    """Dimensions that the entries behind an ellipsis take."""
    return sum(1 for later in range(index + 1, count) if not masks["new_axis"] >> later & 1)


def _one_place(begin: Sequence[int] | None, index: int, size: Dim) -> tuple[int, ...] | None:
    if begin is None or not isinstance(size, int):
        return None
    place = begin[index] if begin[index] >= 0 else begin[index] + size
    return (place,) if 0 <= place < size else None
