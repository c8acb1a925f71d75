"""Checkpoints written by TensorFlow, and what it and freezeflow read from them."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from freezeflow.checkpoint import Request, open_checkpoint
from freezeflow.values import Digest, DType, Location, TensorRef

v1 = tf.compat.v1


def known_to_tensorflow(dtype: DType) -> bool:
    """TensorFlow 2.16 has no two-bit integers, for instance."""
    try:
        tf.as_dtype(int(dtype))
    except TypeError:
        return False
    return True


NUMBERS = [dtype for dtype in DType if dtype.item_bytes and known_to_tensorflow(dtype)]
# What V1 checkpoints can hold.
V1_NUMBERS = [
    DType.FLOAT,
    DType.DOUBLE,
    DType.INT32,
    DType.UINT8,
    DType.INT16,
    DType.INT8,
    DType.COMPLEX64,
    DType.INT64,
    DType.BOOL,
    DType.QINT8,
    DType.QUINT8,
    DType.QINT32,
    DType.UINT16,
    DType.COMPLEX128,
    DType.HALF,
]
# Types of which only some bit patterns are values.
_SMALL = {
    DType.BOOL: 2,
    DType.INT4: 16,
    DType.UINT4: 16,
    DType.INT2: 4,
    DType.UINT2: 4,
    DType.FLOAT4_E2M1FN: 16,
}


def numbers(dtype, shape, seed=0):
    """A tensor of any dtype but string, of random bits."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape)) * dtype.item_bytes
    raw = rng.integers(0, _SMALL.get(dtype, 256), count, dtype=np.uint8).tobytes()
    kind = tf.dtypes.as_dtype(int(dtype))
    return tf.constant(np.frombuffer(raw, kind.as_numpy_dtype).reshape(shape), kind)


def save(prefix, tensors, slices=None):
    """Writes a bundle of name -> tensor, by the op itself; `slices` is name -> spec."""
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[(slices or {}).get(name, "") for name in tensors],
        tensors=list(tensors.values()),
    )


def save_parts(prefix, *parts):
    """Writes a sharded bundle; each part is (tensors, slices)."""
    names = [f"{prefix}_part{number}" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        save(name, *part)
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=names, destination_prefix=str(prefix), delete_old_dirs=False
    )


def save_v1(path, tensors, slices=None):
    """Writes a V1 table of name -> tensor."""
    tf.raw_ops.SaveSlices(
        filename=str(path),
        tensor_names=list(tensors),
        shapes_and_slices=[(slices or {}).get(name, "") for name in tensors],
        data=list(tensors.values()),
    )


def restored(prefix, key, dtype, spec=""):
    """What TensorFlow reads: shape, and bytes or strings."""
    kind = tf.dtypes.as_dtype(int(dtype))
    (tensor,) = tf.raw_ops.RestoreV2(
        prefix=str(prefix), tensor_names=[key], shape_and_slices=[spec], dtypes=[kind]
    )
    return content_of(tensor)


def content_of(tensor):
    """Shape, and bytes or strings, of a TensorFlow tensor."""
    value = tensor.numpy()
    shape = tuple(tensor.shape.as_list())
    if tensor.dtype == tf.string:
        return shape, tuple(np.ravel(np.array(value, object)).tolist())
    return shape, np.asarray(value).tobytes()


class Kept:
    """A put_tensor that keeps bytes in files of a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0

    def __call__(self, data, dtype, shape):
        self.count += 1
        path = self.folder / f"kept{self.count}"
        path.write_bytes(data)
        return TensorRef(Digest.of(data), dtype, shape, location_of(path, 0, len(data)))


def no_put(data, dtype, shape):
    raise AssertionError("nothing is to be put together here")


def location_of(path, offset, length):
    status = os.stat(path)
    return Location(str(path), offset, length, status.st_mtime_ns, status.st_size, status.st_ino)


def fetch(prefix, *requests, put=no_put):
    """What freezeflow reads: (shape, bytes or strings) for each key or (key, spec)."""
    wanted = [Request(*([r] if isinstance(r, str) else r)) for r in requests]
    return [read(value) for value in open_checkpoint(prefix).fetch(wanted, put)]


def read(value):
    """Shape, and bytes or strings, of a fetched value, which must be in order."""
    if not isinstance(value.content, TensorRef):
        if value.dtype is not DType.STRING:
            assert isinstance(value.content, bytes) and len(value.content) <= 1024
        return value.shape, value.content
    reference = value.content
    assert (reference.dtype, reference.shape) == (value.dtype, value.shape)
    assert reference.nbytes > 1024
    path, offset, length = reference.location[:3]
    assert reference.location == location_of(path, offset, length)
    with open(path, "rb") as file:
        data = os.pread(file.fileno(), length, offset)
    assert Digest.of(data) == reference.digest
    return value.shape, data
