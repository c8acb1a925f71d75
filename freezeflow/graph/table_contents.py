"""What a static table holds, read from the constants that its initializer puts into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node, data_inputs, split
from freezeflow.graph.tensor_values import elements, from_bytes
from freezeflow.graph.write import read_range
from freezeflow.values import DType

_INTEGERS = frozenset({DType.INT32, DType.INT64})

# Longer ranges than any vocabulary are not written down.
_MAX_RANGE = 100_000_000


def contents_of(nodes: Mapping[str, Node], fill: Node) -> dict[Any, Any] | str:
    """The keys and values that an initializer puts into its table, or why they are not known.

    Args:
        nodes: The nodes around it.
        fill: ``InitializeTable`` or ``LookupTableImport``.
    """
    columns = [_elements(nodes, tensor) for tensor in list(data_inputs(fill))[1:3]]
    if columns[0] is None or columns[1] is None:
        return "its contents are no constants"
    contents: dict[Any, Any] = {}
    for key, value in zip(columns[0], columns[1], strict=False):
        if key in contents and contents[key] != value:
            return "it has two values for one key, which TensorFlow refuses"
        contents[key] = value
    return contents


def _elements(nodes: Mapping[str, Node], tensor: str) -> list[Any] | None:
    """The elements of a constant, or of what TensorFlow's table helpers make of constants."""
    name, _ = split(tensor)
    node = nodes[name]
    if node.op == "Const":
        return _constant(node)
    if node.op in ("Identity", "Cast"):
        found = _elements(nodes, node.inputs[0])
        same = node.op == "Identity" or _keeps_integers(node, found)
        return found if same else None
    if node.op == "Range":
        return _range(nodes, node)
    return None


def _constant(node: Node) -> list[Any] | None:
    if node.tensor is not None:
        data = read_range(node.tensor.location)
        return from_bytes(data, node.tensor.dtype, node.tensor.shape[0] if node.tensor.shape else 1)
    try:
        return elements(attrs.message(node.attrs["value"]).tensor)
    except ValueError:
        return None


def _keeps_integers(cast: Node, values: list[Any] | None) -> bool:
    """Whether a Cast leaves integers what they are."""
    types = {attrs.to_type(cast.attrs["SrcT"]), attrs.to_type(cast.attrs["DstT"])}
    small = values is not None and all(-(2**31) <= value < 2**31 for value in values)
    return types <= _INTEGERS and small


def _range(nodes: Mapping[str, Node], node: Node) -> list[Any] | None:
    ends = [_elements(nodes, tensor) for tensor in data_inputs(node)]
    dtype = attrs.to_type(node.attrs["Tidx"]) if "Tidx" in node.attrs else DType.INT32
    if dtype not in _INTEGERS or any(end is None or len(end) != 1 for end in ends):
        return None
    start, limit, delta = (end[0] for end in ends if end is not None)
    if not delta or abs((limit - start) // delta) > _MAX_RANGE:
        return None
    return list(range(start, limit, delta))
