"""Large tensor contents cut out of a serialized message before protobuf sees it.

A SavedModel or a frozen graph may hold gigabytes in its constants. `excise` walks the wire format
only where it must, leaves out every large ``tensor_content``, and says where each one lies in the
file. Source of the format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import NamedTuple

from freezeflow.checkpoint import INLINE_BYTES

# Contents over this many bytes stay out of line, as in a checkpoint.
LARGE_TENSOR_BYTES = INLINE_BYTES

# Which fields lead to a tensor's content: message -> field number -> message of that field.
_PATHS: dict[str, dict[int, str]] = {
    "SavedModel": {2: "MetaGraphDef"},
    "MetaGraphDef": {2: "GraphDef"},
    "GraphDef": {1: "NodeDef", 2: "FunctionDefLibrary"},
    "FunctionDefLibrary": {1: "FunctionDef"},
    "FunctionDef": {3: "NodeDef"},
    "NodeDef": {5: "AttrEntry"},
    "AttrEntry": {2: "AttrValue"},
    "AttrValue": {8: "TensorProto"},
    "TensorProto": {4: "content"},
}


_OP_TAG = 2 << 3 | 2  # NodeDef.op, which is written before the attributes
_STRING = 7  # DT_STRING


class Cut(NamedTuple):
    """A content that was left out: its range in the file."""

    offset: int
    length: int


class Truncated(ValueError):
    """The bytes end in the middle of a field, or are not a message at all."""


_ONE_BYTE = [bytes([number]) for number in range(0x80)]


def varint(number: int) -> bytes:
    """A non-negative number in base-128, low groups first."""
    if number < 0x80:
        return _ONE_BYTE[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(view: memoryview, pos: int, end: int) -> tuple[int, int]:
    """The number at `pos` and the position behind it.

    Raises:
        Truncated: It runs past `end`, or is longer than 64 bits.
    """
    number = shift = 0
    while pos < end and shift < 70:
        byte = view[pos]
        pos += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, pos
        shift += 7
    raise Truncated("a number is cut short")


def excise(view: memoryview, kind: str, marker: bytes) -> tuple[bytes, list[Cut]]:
    """A message without its large tensor contents, and where these lie in `view`.

    Args:
        view: The serialized message.
        kind: Its name: SavedModel, GraphDef.
        marker: What stands in the place of content number i: these bytes, then i in 8 bytes,
            big-endian. Choose it at random, so that no file can contain it on purpose.

    Raises:
        Truncated: The bytes are not a whole message.
    """
    cuts: list[Cut] = []
    return _excise(view, 0, len(view), kind, marker, cuts), cuts


def _excise(
    view: memoryview, start: int, end: int, kind: str, marker: bytes, cuts: list[Cut]
) -> bytes:
    paths = _PATHS[kind]
    # Slices, not views: a view that lives on in a traceback keeps the file's mapping from closing.
    pieces: list[bytes | slice] = []
    copied = pos = start
    while pos < end:
        tag, body = read_varint(view, pos, end)
        wire_type = tag & 7
        if wire_type != 2:
            pos = _skip(view, wire_type, body, end)
            continue
        length, body = read_varint(view, body, end)
        after = body + length
        if after > end:
            raise Truncated("a field is cut short")
        child = paths.get(tag >> 3)
        if kind == "NodeDef" and tag == _OP_TAG and bytes(view[body:after]) != b"Const":
            return bytes(view[start:end])
        if child == "content" and _holds_strings(view, start, pos):
            child = None
        if child is not None and length > LARGE_TENSOR_BYTES:
            if child == "content":
                inner = marker + len(cuts).to_bytes(8, "big")
                cuts.append(Cut(body, length))
            else:
                inner = _excise(view, body, after, child, marker, cuts)
            pieces += [slice(copied, pos), varint(tag), varint(len(inner)), inner]
            copied = after
        pos = after
    pieces.append(slice(copied, end))
    return b"".join(view[p] if isinstance(p, slice) else p for p in pieces)


def _holds_strings(view: memoryview, start: int, before: int) -> bool:
    """Whether a TensorProto's dtype, which is written first, says string: not bytes to refer to."""
    return before - start < 2 or view[start] != 0x08 or view[start + 1] == _STRING


def _skip(view: memoryview, wire_type: int, pos: int, end: int) -> int:
    if wire_type == 0:
        return read_varint(view, pos, end)[1]
    fixed = {1: 8, 5: 4}.get(wire_type)
    if fixed is None or pos + fixed > end:
        raise Truncated("a field is cut short or of an unknown kind")
    return pos + fixed
