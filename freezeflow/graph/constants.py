"""Const nodes made and read without NumPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import Node
from freezeflow.graph.tensor_values import elements, to_bytes
from freezeflow.messages import message_class
from freezeflow.values import DType, TensorRef

# No model restores more tensors; a short message can claim any number.
_MAX_STRINGS = 10_000_000


def const(
    name: str,
    dtype: DType,
    shape: tuple[int, ...],
    value: TensorRef | bytes | Sequence[bytes],
) -> Node:
    """A Const node.

    Args:
        name: Its name.
        dtype: Element type.
        shape: Its shape.
        value: Where the bytes are, or the bytes themselves (row-major, little-endian), or the
            elements of a string tensor in row-major order.
    """
    message = message_class("AttrValue")()
    message.tensor.dtype = int(dtype)
    attrs.fill_shape(message.tensor.tensor_shape, shape)
    if isinstance(value, bytes):
        message.tensor.tensor_content = value
    elif not isinstance(value, TensorRef):
        message.tensor.string_val.extend(value)
    values = {"dtype": attrs.of_type(dtype), "value": attrs.encode(message)}
    return Node(name, "Const", (), values, "", value if isinstance(value, TensorRef) else None)


def value_of(
    node: Node,
) -> tuple[DType, tuple[int, ...], TensorRef | bytes | tuple[bytes, ...]]:
    """Dtype, shape and value of a Const node, which `const` makes a node of again."""
    if node.tensor is not None:
        return node.tensor.dtype, node.tensor.shape, node.tensor
    tensor = attrs.message(node.attrs["value"]).tensor
    dtype = DType(tensor.dtype)
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if dtype is DType.STRING:
        return dtype, shape, tuple(elements(tensor))
    return dtype, shape, tensor.tensor_content or to_bytes(elements(tensor), dtype)


def strings_of(node: Node) -> tuple[bytes, ...]:
    """The elements of a string Const, in row-major order.

    Raises:
        ModelRefused: The node is no string Const.
    """
    if node.op != "Const" or attrs.to_type(node.attrs["dtype"]) is not DType.STRING:
        raise ModelRefused(
            f"a constant string is expected, found op {node.op}",
            where=node.name,
            hint="The way that this model restores its variables is not known.",
        )
    found = _strings_in(node.attrs["value"])
    if found is None:
        raise ModelRefused("the list of strings is too long", where=node.name)
    return found


@functools.lru_cache(maxsize=16)
def _strings_in(value: bytes) -> tuple[bytes, ...] | None:
    """The strings of an attribute; None for too many. A restore op is asked for each of its keys."""
    tensor = attrs.message(value).tensor
    if math.prod(dim.size for dim in tensor.tensor_shape.dim) > _MAX_STRINGS:
        return None
    return tuple(elements(tensor))
