"""The elements of a ``TensorProto`` message, every dtype, without NumPy.

Meant for small tensors: what is shown to people, and what decides a rewrite. Source of the format:
upstream ``core/framework/tensor.proto`` and ``tensor.cc`` (a value list that is too short repeats
its last value; an empty one means zeros).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

from freezeflow.values import DType

# struct's letter for each dtype whose elements it can unpack.
_LETTERS = {
    DType.FLOAT: "f",
    DType.DOUBLE: "d",
    DType.HALF: "e",
    DType.INT8: "b",
    DType.INT16: "h",
    DType.INT32: "i",
    DType.INT64: "q",
    DType.UINT8: "B",
    DType.UINT16: "H",
    DType.UINT32: "I",
    DType.UINT64: "Q",
    DType.BOOL: "?",
    DType.QINT8: "b",
    DType.QUINT8: "B",
    DType.QINT16: "h",
    DType.QUINT16: "H",
    DType.QINT32: "i",
    DType.INT4: "b",
    DType.INT2: "b",
    DType.UINT4: "B",
    DType.UINT2: "B",
}

# Where a message lists the values of each dtype, if not in its bytes.
_FIELDS = {
    DType.FLOAT: "float_val",
    DType.DOUBLE: "double_val",
    DType.HALF: "half_val",
    DType.BFLOAT16: "half_val",
    DType.INT64: "int64_val",
    DType.BOOL: "bool_val",
    DType.UINT32: "uint32_val",
    DType.UINT64: "uint64_val",
    DType.STRING: "string_val",
    DType.COMPLEX64: "scomplex_val",
    DType.COMPLEX128: "dcomplex_val",
}

# Two's complement numbers of fewer bits than their byte.
_NARROW = {DType.INT4: 4, DType.INT2: 2, DType.UINT4: 4, DType.UINT2: 2}

# Shown as the number that their bits are.
_AS_BITS = frozenset(dtype for dtype in DType if dtype.name.startswith(("FLOAT8", "FLOAT4")))


def elements(tensor: Any) -> list[Any]:
    """The elements of a ``TensorProto`` in row-major order.

    Floats come as float, integers and quantised ones as int, bool as bool, strings as bytes,
    complex numbers as complex, 8-bit and 4-bit floats as the number that their bits are.

    Raises:
        ValueError: The dtype has no values (resource, variant), the shape is not known, or the
            bytes are not as many as the shape needs.
    """
    dtype = DType(tensor.dtype)
    if tensor.tensor_shape.unknown_rank or any(dim.size < 0 for dim in tensor.tensor_shape.dim):
        raise ValueError("the shape of the tensor is not known")
    count = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_content:
        return from_bytes(tensor.tensor_content, dtype, count)
    return _from_values(tensor, dtype, count)


def from_bytes(data: bytes, dtype: DType, count: int) -> list[Any]:
    """The elements that bytes (row-major, little-endian) hold; as for `elements`.

    Raises:
        ValueError: The dtype has no fixed size, or there are not as many bytes as it needs.
    """
    if not dtype.item_bytes or len(data) != count * dtype.item_bytes:
        raise ValueError(f"{len(data)} bytes do not hold {count} elements of {dtype.tf_name}")
    if dtype is DType.BFLOAT16:
        return [_bfloat16(bits) for bits in struct.unpack(f"<{count}H", data)]
    if dtype in (DType.COMPLEX64, DType.COMPLEX128):
        letter = "f" if dtype is DType.COMPLEX64 else "d"
        parts = struct.unpack(f"<{2 * count}{letter}", data)
        return list(map(complex, parts[::2], parts[1::2]))
    if dtype in _AS_BITS:
        return list(data)
    values = struct.unpack(f"<{count}{_LETTERS[dtype]}", data)
    return [_narrow(value, dtype) for value in values] if dtype in _NARROW else list(values)


def to_bytes(values: Sequence[Any], dtype: DType) -> bytes:
    """The bytes (row-major, little-endian) of elements as `elements` gives them, strings excepted."""
    if dtype is DType.BFLOAT16:
        floats = struct.pack(f"<{len(values)}f", *values)
        return b"".join(floats[at + 2 : at + 4] for at in range(0, len(floats), 4))
    if dtype in (DType.COMPLEX64, DType.COMPLEX128):
        letter = "f" if dtype is DType.COMPLEX64 else "d"
        parts = [part for value in values for part in (value.real, value.imag)]
        return struct.pack(f"<{len(parts)}{letter}", *parts)
    if dtype in _AS_BITS:
        return bytes(values)
    return struct.pack(f"<{len(values)}{_LETTERS[dtype]}", *values)


def _from_values(tensor: Any, dtype: DType, count: int) -> list[Any]:
    if dtype in (DType.RESOURCE, DType.VARIANT, DType.INVALID):
        raise ValueError(f"a {dtype.tf_name} has no value that can be written down")
    if dtype in _AS_BITS:
        found = list(tensor.float8_val)
    else:
        found = list(getattr(tensor, _FIELDS.get(dtype, "int_val")))
    if dtype in (DType.COMPLEX64, DType.COMPLEX128):
        found = list(map(complex, found[::2], found[1::2]))
    decode = _DECODERS.get(dtype)
    values = [decode(value) for value in found] if decode else found
    if not values:
        values = [b"" if dtype is DType.STRING else _zero(dtype)]
    return values[:count] + values[-1:] * (count - len(values))


def _zero(dtype: DType) -> Any:
    return from_bytes(bytes(dtype.item_bytes), dtype, 1)[0]


def _half(bits: int) -> float:
    value: float = struct.unpack("<e", struct.pack("<H", bits & 0xFFFF))[0]
    return value


def _bfloat16(bits: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", (bits & 0xFFFF) << 16))[0]
    return value


_DECODERS: dict[DType, Callable[[Any], Any]] = {DType.HALF: _half, DType.BFLOAT16: _bfloat16}


def _narrow(value: int, dtype: DType) -> int:
    """A number of few bits from its byte, whatever the upper bits hold."""
    bits = _NARROW[dtype]
    value &= (1 << bits) - 1
    signed = dtype in (DType.INT4, DType.INT2) and value >> (bits - 1)
    return value - (1 << bits) if signed else value


def show(value: Any, dtype: DType) -> str:
    """One element as text, as short as it can be read back without loss (NaN payloads apart)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _shortest(value, dtype)
    if isinstance(value, complex):
        part = DType.FLOAT if dtype is DType.COMPLEX64 else DType.DOUBLE
        return f"({_shortest(value.real, part)},{_shortest(value.imag, part)})"
    if isinstance(value, bytes):
        return quoted(value)
    return f"0x{value:02x}" if dtype in _AS_BITS else str(value)


def quoted(data: bytes) -> str:
    """Bytes as a quoted string: UTF-8 as it is where it is printable, else escaped byte by byte."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "b" + _quoted_ascii(data)
    if text.isprintable():
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "b" + _quoted_ascii(data)


def _quoted_ascii(data: bytes) -> str:
    plain = [
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in data
    ]
    return '"' + "".join(plain) + '"'


def _shortest(value: float, dtype: DType) -> str:
    if not math.isfinite(value) or dtype is DType.DOUBLE:
        return repr(value)
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if _rounded(float(text), dtype) == value:
            break
    return text if any(mark in text for mark in ".e") else text + ".0"


def _rounded(value: float, dtype: DType) -> float:
    """A number as the dtype keeps it."""
    if dtype is DType.BFLOAT16:
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        bits += 0x7FFF + ((bits >> 16) & 1)
        return _bfloat16(bits >> 16)
    letter = _LETTERS[dtype]
    try:
        rounded: float = struct.unpack(f"<{letter}", struct.pack(f"<{letter}", value))[0]
    except OverflowError:  # one digit of the largest float32 rounds up to infinity
        return math.inf
    return rounded
