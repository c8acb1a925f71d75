"""NumPy's dtypes are those that TensorFlow itself gives."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import StageFailed
from freezeflow.proof.dtypes import numpy_dtype, range_of
from freezeflow.values import DType


def is_known(dtype):
    """Whether this TensorFlow has the dtype."""
    try:
        tf.as_dtype(int(dtype))
    except TypeError:
        return False
    return dtype.item_bytes > 0 or dtype is DType.STRING


FED = [dtype for dtype in DType if is_known(dtype)]


@pytest.mark.parametrize("dtype", FED, ids=lambda dtype: dtype.tf_name)
def test_as_tensorflow_has_it(dtype):
    wanted = tf.as_dtype(int(dtype))
    assert numpy_dtype(dtype) == np.dtype(wanted.as_numpy_dtype)
    if wanted.is_integer or wanted.is_floating:
        assert range_of(dtype) == (wanted.min, wanted.max)


@pytest.mark.parametrize("dtype", [DType.RESOURCE, DType.VARIANT])
def test_what_has_no_values_is_refused(dtype):
    with pytest.raises(StageFailed, match="cannot be fed"):
        numpy_dtype(dtype)
