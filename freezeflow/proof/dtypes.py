"""TensorFlow's element types as NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from freezeflow.errors import StageFailed
from freezeflow.values import DType

Array = np.ndarray[Any, Any]

_PLAIN: dict[DType, Any] = {
    DType.FLOAT: np.float32,
    DType.DOUBLE: np.float64,
    DType.HALF: np.float16,
    DType.INT8: np.int8,
    DType.INT16: np.int16,
    DType.INT32: np.int32,
    DType.INT64: np.int64,
    DType.UINT8: np.uint8,
    DType.UINT16: np.uint16,
    DType.UINT32: np.uint32,
    DType.UINT64: np.uint64,
    DType.BOOL: np.bool_,
    DType.COMPLEX64: np.complex64,
    DType.COMPLEX128: np.complex128,
    DType.STRING: np.object_,
    # TensorFlow's Python interface has quantised numbers as records of one field.
    DType.QINT8: [("qint8", np.int8)],
    DType.QUINT8: [("quint8", np.uint8)],
    DType.QINT16: [("qint16", np.int16)],
    DType.QUINT16: [("quint16", np.uint16)],
    DType.QINT32: [("qint32", np.int32)],
}

INTEGERS = frozenset(
    dtype for dtype in DType if dtype.name.startswith(("INT", "UINT")) and dtype.item_bytes
)
QUANTISED = frozenset({DType.QINT8, DType.QUINT8, DType.QINT16, DType.QUINT16, DType.QINT32})
COMPLEX = frozenset({DType.COMPLEX64, DType.COMPLEX128})
FLOATS = frozenset(
    {DType.FLOAT, DType.DOUBLE, DType.HALF, DType.BFLOAT16}
    | {dtype for dtype in DType if dtype.name.startswith(("FLOAT8", "FLOAT4"))}
)


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype that TensorFlow gives and takes for a type.

    Raises:
        StageFailed: It has no values that can be fed (resource, variant).
    """
    if dtype in _PLAIN:
        plain: np.dtype[Any] = np.dtype(_PLAIN[dtype])
        return plain
    if not dtype.item_bytes:
        raise StageFailed(
            f"an input of dtype {dtype.tf_name} cannot be fed",
            hint="Choose another signature to validate.",
        )
    import ml_dtypes

    small: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype.tf_name))
    return small


def range_of(dtype: DType) -> tuple[float, float]:
    """The smallest and the largest finite number of a type of real numbers."""
    if dtype is DType.BOOL:
        return 0, 1
    kind = numpy_dtype(dtype)
    if dtype in QUANTISED:
        kind = kind[0]
    limits: Any = np
    if dtype not in _PLAIN:
        import ml_dtypes

        limits = ml_dtypes
    info = limits.finfo(kind) if dtype in FLOATS else limits.iinfo(kind)
    return (int(info.min), int(info.max)) if dtype not in FLOATS else (info.min, info.max)


def strings(words: list[bytes], shape: tuple[int, ...]) -> Array:
    """Strings as TensorFlow takes them: objects, so that NUL at an end is kept."""
    found = np.empty(len(words), object)
    found[:] = words
    return found.reshape(shape)
