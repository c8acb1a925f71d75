"""Elements of tensors are what TensorFlow itself reads from them."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph import tensor_values
from freezeflow.messages import message_class

KINDS = [
    tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128, tf.bool,
    tf.int8, tf.uint8, tf.int16, tf.uint16, tf.int32, tf.uint32, tf.int64, tf.uint64,
    tf.dtypes.experimental.int4, tf.dtypes.experimental.uint4,
]  # fmt: skip
FLOAT8 = [tf.dtypes.experimental.float8_e5m2, tf.dtypes.experimental.float8_e4m3fn]


def elements(proto):
    message = message_class("TensorProto").FromString(proto.SerializeToString())
    return tensor_values.elements(message)


@pytest.mark.parametrize("dtype", KINDS, ids=lambda d: d.name)
@pytest.mark.parametrize("values", [[0, 1, 3], [1, 1, 1], [0, 0, 0], [5]], ids=str)
def test_every_dtype(dtype, values):
    array = np.array(values, np.float32).astype(dtype.as_numpy_dtype)
    assert elements(tf.make_tensor_proto(array)) == array.tolist()
    # A scalar is written as a list of values, the others as bytes.
    scalar = tf.make_tensor_proto(array[-1])
    assert not scalar.tensor_content
    assert elements(scalar) == [array[-1].tolist()]


@pytest.mark.parametrize("dtype", FLOAT8, ids=lambda d: d.name)
def test_small_floats_as_bits(dtype):
    array = np.array([0, 1, -3], np.float32).astype(dtype.as_numpy_dtype)
    bits = array.view(np.uint8).tolist()
    assert elements(tf.make_tensor_proto(array)) == bits
    assert elements(tf.make_tensor_proto(array[-1])) == bits[-1:]


def test_strings():
    proto = tf.make_tensor_proto(np.array([[b"a", b"\x00\xff"], [b"", b"b"]], object))
    assert elements(proto) == [b"a", b"\x00\xff", b"", b"b"]
