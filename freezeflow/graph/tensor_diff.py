"""How far two constants differ, element by element, in constant memory.

Sources of the number formats: upstream ``core/framework/types.proto`` for which there are; for the
8-bit floats https://arxiv.org/abs/2209.05433 and https://arxiv.org/abs/2206.02915, for the 4-bit one
the OCP Microscaling Formats specification, version 1.0.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from freezeflow.graph import attrs
from freezeflow.graph.graph import Node
from freezeflow.graph.tensor_values import elements
from freezeflow.store.hashing import FileIdentity, changed_while_read, reading_failed
from freezeflow.values import DType, Location, Shape

# Elements that are compared at once.
_BLOCK = 128 * 1024

_Array = Any  # a NumPy array; NumPy is imported only where constants differ


class ValueChange(NamedTuple):
    """How two values of one dtype and shape differ.

    Args:
        elements: How many elements each has.
        differing: How many of them differ in any bit.
        largest: The largest absolute difference of two finite elements; None for strings.
        special: How many pairs differ where one of them is NaN or infinite.
    """

    elements: int
    differing: int
    largest: float | int | None
    special: int


def type_of(value: Node) -> tuple[DType, Shape]:
    """Dtype and shape of a Const node."""
    if value.tensor is not None:
        return value.tensor.dtype, value.tensor.shape
    tensor = attrs.message(value.attrs["value"]).tensor
    return DType(tensor.dtype), attrs.read_shape(tensor.tensor_shape)


def same_value(before: Node, after: Node) -> bool | None:
    """Whether two Const nodes hold the same; None where only their elements can tell."""
    if type_of(before) != type_of(after):
        return False
    if before.tensor is not None and after.tensor is not None:
        return before.tensor.digest == after.tensor.digest
    if before.tensor is None and after.tensor is None:
        return before.attrs["value"] == after.attrs["value"] or None
    return None


def compare_values(before: Node, after: Node) -> ValueChange:
    """Compares two Const nodes of the same dtype and shape.

    Raises:
        FreezeflowError: A file with a value is gone or has changed since it was read.
        ValueError: A value has fewer bytes than its shape needs.
    """
    dtype, shape = type_of(before)
    count = math.prod(size or 0 for size in shape or ())
    if dtype is DType.STRING:
        pairs = zip(_strings(before), _strings(after), strict=True)
        return ValueChange(count, sum(a != b for a, b in pairs), None, 0)
    differing = special = 0
    largest: float | int = 0
    for one, other in zip(_blocks(before, dtype, count), _blocks(after, dtype, count), strict=True):
        found = _compare(one, other, dtype)
        differing += found.differing
        special += found.special
        largest = max(largest, found.largest or 0)
    return ValueChange(count, differing, largest, special)


def _strings(value: Node) -> list[bytes]:
    return elements(attrs.message(value.attrs["value"]).tensor)


# ---------------------------------------------------------------- reading


def _blocks(value: Node, dtype: DType, count: int) -> Iterator[_Array]:
    """The elements in blocks, as NumPy keeps their bits."""
    if value.tensor is not None:
        return _blocks_of_file(value.tensor.location, dtype)
    tensor = attrs.message(value.attrs["value"]).tensor
    if tensor.tensor_content:
        return _blocks_of_bytes(tensor.tensor_content, dtype, count)
    return _blocks_of_list(tensor, dtype, count)


def _blocks_of_file(location: Location, dtype: DType) -> Iterator[_Array]:
    import numpy as np

    try:
        descriptor = os.open(location.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise reading_failed(error, location.path) from error
    try:
        if not FileIdentity.of(os.fstat(descriptor)).holds(location):
            raise changed_while_read(location.path)
        step = _BLOCK * dtype.item_bytes
        end = location.offset + location.length
        for start in range(location.offset, end, step):
            data = bytearray(min(step, end - start))
            if os.preadv(descriptor, [data], start) != len(data):
                raise changed_while_read(location.path)
            yield np.frombuffer(data, _bits(dtype))
    except OSError as error:
        raise reading_failed(error, location.path) from error
    finally:
        os.close(descriptor)


def _blocks_of_bytes(data: bytes, dtype: DType, count: int) -> Iterator[_Array]:
    import numpy as np

    if len(data) != count * dtype.item_bytes:
        raise ValueError(f"{len(data)} bytes do not hold {count} elements of {dtype.tf_name}")
    whole = np.frombuffer(data, _bits(dtype))
    for start in range(0, count, _BLOCK):
        yield whole[start : start + _BLOCK]


def _blocks_of_list(tensor: Any, dtype: DType, count: int) -> Iterator[_Array]:
    """Listed elements; the last one stands for all that follow it."""
    import numpy as np

    listed = max(
        (len(items) for _, items in tensor.ListFields() if hasattr(items, "append")), default=0
    )
    listed = min(count, max(1, listed // 2 if _is_complex(dtype) else listed))
    short = type(tensor)()
    short.CopyFrom(tensor)
    short.ClearField("tensor_shape")
    short.tensor_shape.dim.add(size=listed)
    found = _bits_of(np.array(elements(short)), dtype)
    for start in range(0, count, _BLOCK):
        part = found[start : start + _BLOCK]
        missing = min(_BLOCK, count - start) - len(part)
        yield np.concatenate([part, np.repeat(found[-1:], missing)]) if missing else part


def _is_complex(dtype: DType) -> bool:
    return dtype in (DType.COMPLEX64, DType.COMPLEX128)


def _bits(dtype: DType) -> str:
    """NumPy's name for integers (or pairs of floats) as wide as an element."""
    return f"<V{dtype.item_bytes}" if dtype.item_bytes > 8 else f"<u{dtype.item_bytes}"


def _bits_of(values: _Array, dtype: DType) -> _Array:
    """Decoded elements as their bits."""
    import numpy as np

    if dtype is DType.BFLOAT16:
        return (values.astype("<f4").view("<u4") >> np.uint32(16)).astype("<u2")
    if dtype in _NUMPY:
        return values.astype(_NUMPY[dtype]).view(_bits(dtype))
    return values.astype(_bits(dtype))


# ---------------------------------------------------------------- comparing


def _compare(before: _Array, after: _Array, dtype: DType) -> ValueChange:
    import numpy as np

    places = np.flatnonzero(before != after)
    if not len(places):
        return ValueChange(len(before), 0, 0, 0)
    one, other = (_numbers(part[places], dtype) for part in (before, after))
    if one.dtype.kind in "iub":
        return ValueChange(len(before), len(places), _integer_distance(one, other), 0)
    finite = np.isfinite(one) & np.isfinite(other)
    wide = np.complex128 if one.dtype.kind == "c" else np.float64
    apart = np.abs(one[finite].astype(wide) - other[finite].astype(wide))
    largest = float(apart.max()) if len(apart) else 0.0
    return ValueChange(len(before), len(places), largest, int((~finite).sum()))


def _integer_distance(one: _Array, other: _Array) -> int:
    """The largest distance of integers, also where it does not fit into their own type."""
    import numpy as np

    low, high = np.minimum(one, other), np.maximum(one, other)
    return int((high.astype(np.uint64) - low.astype(np.uint64)).max())


_NUMPY = {
    DType.FLOAT: "<f4",
    DType.DOUBLE: "<f8",
    DType.HALF: "<f2",
    DType.INT8: "<i1",
    DType.INT16: "<i2",
    DType.INT32: "<i4",
    DType.INT64: "<i8",
    DType.UINT8: "<u1",
    DType.UINT16: "<u2",
    DType.UINT32: "<u4",
    DType.UINT64: "<u8",
    DType.BOOL: "<u1",
    DType.QINT8: "<i1",
    DType.QUINT8: "<u1",
    DType.QINT16: "<i2",
    DType.QUINT16: "<u2",
    DType.QINT32: "<i4",
    DType.COMPLEX64: "<c8",
    DType.COMPLEX128: "<c16",
}


def _numbers(bits: _Array, dtype: DType) -> _Array:
    """Elements from their bits, as numbers that NumPy can subtract."""
    import numpy as np

    if dtype in _NUMPY:
        return bits.view(_NUMPY[dtype])
    if dtype is DType.BFLOAT16:
        return (bits.astype("<u4") << np.uint32(16)).view("<f4")
    return np.array(_table(dtype))[bits]


@functools.cache
def _table(dtype: DType) -> list[float] | list[int]:
    """What each byte means, for dtypes of at most eight bits that NumPy does not have."""
    return [_NARROW[dtype](byte) for byte in range(256)]


def _integer(bits: int, *, signed: bool) -> Callable[[int], int]:
    def decode(byte: int) -> int:
        value = byte & ((1 << bits) - 1)
        return value - (1 << bits) if signed and value >> (bits - 1) else value

    return decode


def _float(
    exponent_bits: int, fraction_bits: int, bias: int, special: str
) -> Callable[[int], float]:
    """A small float.

    Args:
        exponent_bits: Width of its exponent.
        fraction_bits: Width of its fraction.
        bias: What is subtracted from the exponent.
        special: ``ieee``: the largest exponent is infinity and NaN; ``fn``: all ones is NaN; ``fnuz``:
            minus zero is NaN; ``none``.
    """

    def decode(byte: int) -> float:
        bits = byte & ((1 << (exponent_bits + fraction_bits + 1)) - 1)
        fraction = bits & ((1 << fraction_bits) - 1)
        exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1)
        sign = -1.0 if bits >> (exponent_bits + fraction_bits) else 1.0
        full = exponent == (1 << exponent_bits) - 1
        if special == "fnuz" and sign < 0 and not (fraction or exponent):
            return math.nan
        if special == "fn" and full and fraction == (1 << fraction_bits) - 1:
            return math.nan
        if special == "ieee" and full:
            return math.nan if fraction else sign * math.inf
        if exponent == 0:
            return sign * math.ldexp(fraction, 1 - bias - fraction_bits)
        return sign * math.ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits)

    return decode


_NARROW: dict[DType, Callable[[int], Any]] = {
    DType.INT4: _integer(4, signed=True),
    DType.UINT4: _integer(4, signed=False),
    DType.INT2: _integer(2, signed=True),
    DType.UINT2: _integer(2, signed=False),
    DType.FLOAT8_E5M2: _float(5, 2, 15, "ieee"),
    DType.FLOAT8_E4M3FN: _float(4, 3, 7, "fn"),
    DType.FLOAT8_E4M3FNUZ: _float(4, 3, 8, "fnuz"),
    DType.FLOAT8_E4M3B11FNUZ: _float(4, 3, 11, "fnuz"),
    DType.FLOAT8_E5M2FNUZ: _float(5, 2, 16, "fnuz"),
    DType.FLOAT4_E2M1FN: _float(2, 1, 1, "none"),
}
