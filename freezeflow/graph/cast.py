"""Weights stored as float16 or bfloat16, and cast back to float32 where they are used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freezeflow.graph import attrs
from freezeflow.graph.foldable import STORED_NARROW
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
from freezeflow.values import DType

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# The largest number that rounds to a finite one.
_LIMITS = {DType.HALF: 65519.0, DType.BFLOAT16: 3.3961775292304e38}


def cast_weights(
    graph: Graph,
    to: DType,
    *,
    min_elements: int,
    keep: Sequence[str],
    fixed: Collection[str],
    put: Put,
    scratch: Path,
) -> tuple[Graph, Loss]:
    """Stores a graph's float32 constants in half as many bytes.

    Args:
        graph: The graph.
        to: HALF or BFLOAT16.
        min_elements: Smaller constants stay as they are.
        keep: Patterns of names that stay as they are.
        fixed: Nodes of the main graph that a caller replaces.
        put: Keeps the bytes of a large constant.
        scratch: A folder for bytes on the way.

    Returns:
        The graph, and what the new weights differ by.
    """
    narrow, widen = _conversions(to)

    def stored(weight: Weight) -> Narrowed | str:
        if not _holds(weight.data, _LIMITS[to]):
            return f"it has values that {to.tf_name} cannot hold"
        name = weight.node.name
        made = written_anew(
            weight,
            unique(body_of(graph, weight.place), f"{name}/{to.tf_name}"),
            to,
            narrow,
            put,
            scratch,
        )
        made = made._replace(inputs=weight.node.inputs, device=weight.node.device)
        return Narrowed(
            (made, widening(name, made.name, to)),
            weight.data.size * to.item_bytes,
            lambda part, block: widen(narrow(part, block)),
        )

    return narrow_weights(graph, stored, min_elements=min_elements, keep=keep, fixed=fixed)


def widening(name: str, tensor: str, source: DType) -> Node:
    """A Cast to float32 that exact folding leaves alone: it would undo what was saved."""
    values = {
        "DstT": attrs.of_type(DType.FLOAT),
        "SrcT": attrs.of_type(source),
        "Truncate": attrs.of_bool(False),
        STORED_NARROW: attrs.of_bool(True),
    }
    return Node(name, "Cast", (tensor,), values)


def _holds(data: Array, limit: float) -> bool:
    """Whether no finite value is over the limit; NaN and infinities are held by both dtypes."""
    import numpy as np

    for _, block in blocks(data):
        finite = np.where(np.isfinite(block), np.abs(block), 0.0)
        if float(np.max(finite, initial=0.0)) > limit:
            return False
    return True


def _conversions(
    to: DType,
) -> tuple[Callable[[slice, Array], Array], Callable[[Array], Array]]:
    import numpy as np

    if to is DType.HALF:
        return lambda part, block: block.astype(np.float16), lambda block: block.astype(np.float32)
    return lambda part, block: _to_bfloat16(block), _from_bfloat16


def _to_bfloat16(block: Array) -> Array:
    """The upper half of each float, rounded to even; a NaN stays one."""
    import numpy as np

    bits = np.ascontiguousarray(block).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    quiet = (bits >> 16) | 0x40
    found: Array = np.where(np.isnan(block), quiet, rounded).astype(np.uint16)
    return found


def _from_bfloat16(block: Array) -> Array:
    import numpy as np

    return (block.astype(np.uint32) << 16).view(np.float32)
