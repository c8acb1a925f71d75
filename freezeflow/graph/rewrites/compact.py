"""Constants in as few bytes as TensorFlow's own way of writing them allows.

A list of values that is too short repeats its last value (upstream ``core/framework/tensor.cc``), so a
constant whose tail is one value repeated is written as what comes before it and that value once. An
empty list would mean zeros, but OpenCV's reader does not take it.
"""

from __future__ import annotations

import mmap
import struct

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node
from freezeflow.messages import message_class
from freezeflow.values import DType, TensorRef

# Where a message lists the values of a dtype, and struct's letter for them.
_FIELDS = {
    DType.FLOAT: ("float_val", "f"),
    DType.DOUBLE: ("double_val", "d"),
    DType.INT32: ("int_val", "i"),
    DType.INT16: ("int_val", "h"),
    DType.INT8: ("int_val", "b"),
    DType.UINT8: ("int_val", "B"),
    DType.UINT16: ("int_val", "H"),
    DType.INT64: ("int64_val", "q"),
    DType.UINT32: ("uint32_val", "I"),
    DType.UINT64: ("uint64_val", "Q"),
    DType.BOOL: ("bool_val", "?"),
    DType.HALF: ("half_val", "H"),
    DType.BFLOAT16: ("half_val", "H"),
}
_FLOATS = frozenset({DType.FLOAT, DType.DOUBLE})

# What comes before the tail may have so many bytes.
_HEAD_BYTES = 256
_BLOCK = 1 << 16


def compacted(node: Node) -> Node:
    """The Const in fewer bytes, if there is such a form; else the node itself."""
    dtype, content = _content(node)
    if dtype not in _FIELDS or not content:
        return node
    head = _head(content, dtype.item_bytes)
    if head is None:
        return node
    field, letter = _FIELDS[dtype]
    values = struct.unpack(f"<{len(head) // dtype.item_bytes}{letter}", head)
    if dtype in _FLOATS and any(value != value for value in values):
        return node  # a NaN's payload would not survive every reader
    message = message_class("AttrValue")()
    message.CopyFrom(attrs.message(node.attrs["value"]))
    message.tensor.ClearField("tensor_content")
    getattr(message.tensor, field).extend(values)
    encoded = attrs.encode(message)
    if node.tensor is None and len(encoded) >= len(node.attrs["value"]):
        return node
    return node._replace(attrs={**node.attrs, "value": encoded}, tensor=None)


def _content(node: Node) -> tuple[DType, bytes | mmap.mmap | memoryview]:
    if node.op != "Const" or "value" not in node.attrs:
        return DType.INVALID, b""
    if node.tensor is not None:
        return node.tensor.dtype, _mapped(node.tensor)
    tensor = attrs.message(node.attrs["value"]).tensor
    return DType(tensor.dtype), tensor.tensor_content


def _mapped(tensor: TensorRef) -> memoryview:
    """The bytes of a tensor where they lie; nothing of them is read yet."""
    place = tensor.location
    if not place.length:
        return memoryview(b"")
    begin = place.offset - place.offset % mmap.ALLOCATIONGRANULARITY
    with open(place.path, "rb") as file:
        length = place.offset - begin + place.length
        mapped = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=begin)
    return memoryview(mapped)[place.offset - begin :]


def _head(content: bytes | mmap.mmap | memoryview, size: int) -> bytes | None:
    """What comes before the tail, with the tail's value once; None where there is no tail to speak of."""
    data = memoryview(content)
    last = bytes(data[-size:])
    if not _repeats(data[len(data) - len(data) // 2 // size * size :], last):
        return None
    start = _tail_start(data, last)
    return bytes(data[: start + size]) if start + size <= _HEAD_BYTES else None


def _repeats(data: memoryview, value: bytes) -> bool:
    """Whether the bytes are one value over and over, looked at block by block."""
    block = value * (_BLOCK // len(value))
    for begin in range(0, len(data), len(block)):
        part = data[begin : begin + len(block)]
        if part != block[: len(part)]:
            return False
    return True


def _tail_start(data: memoryview, value: bytes) -> int:
    """The first byte from which on there is nothing but the value, if it is near the beginning."""
    size = len(value)
    start = len(data)
    if _repeats(data[_HEAD_BYTES // size * size :], value):
        start = min(len(data), _HEAD_BYTES // size * size)
        while start and bytes(data[start - size : start]) == value:
            start -= size
    return start
