"""Constants compared element by element, out of files and out of messages, every dtype."""

from __future__ import annotations

import math
import os

import ml_dtypes
import numpy as np
import pytest

from freezeflow.errors import FreezeflowError
from freezeflow.graph import attrs, tensor_diff
from freezeflow.graph.constants import const as constant
from freezeflow.graph.tensor_diff import ValueChange, compare_values, same_value
from freezeflow.messages import message_class
from freezeflow.values import DType
from tests.graphs import const, large_const

SMALL_FLOATS = {
    DType.FLOAT8_E5M2: ml_dtypes.float8_e5m2,
    DType.FLOAT8_E4M3FN: ml_dtypes.float8_e4m3fn,
    DType.FLOAT8_E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    DType.FLOAT8_E4M3B11FNUZ: ml_dtypes.float8_e4m3b11fnuz,
    DType.FLOAT8_E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
}


def listed(dtype, shape, **values):
    """A Const whose elements are listed, the last standing for the rest."""
    message = message_class("AttrValue")()
    message.tensor.dtype = int(dtype)
    attrs.fill_shape(message.tensor.tensor_shape, shape)
    for field, items in values.items():
        getattr(message.tensor, field).extend(items)
    made = constant("c", dtype, shape, b"")
    return made._replace(attrs={**made.attrs, "value": attrs.encode(message)})


@pytest.mark.parametrize("dtype", SMALL_FLOATS, ids=lambda dtype: dtype.tf_name)
def test_small_floats_are_what_ml_dtypes_takes_them_for(dtype):
    every = np.arange(256, dtype=np.uint8)
    expected = every.view(SMALL_FLOATS[dtype]).astype(np.float64)
    np.testing.assert_array_equal(tensor_diff._numbers(every, dtype).astype(float), expected)


@pytest.mark.skipif(not hasattr(ml_dtypes, "float4_e2m1fn"), reason="this ml_dtypes has none")
def test_four_bit_floats_are_what_ml_dtypes_takes_them_for():
    every = np.arange(16, dtype=np.uint8)
    expected = every.view(ml_dtypes.float4_e2m1fn).astype(np.float64)
    np.testing.assert_array_equal(tensor_diff._numbers(every, DType.FLOAT4_E2M1FN), expected)


@pytest.mark.parametrize(
    ("dtype", "before", "after", "expected"),
    [
        (DType.FLOAT, [1.0, 2.0], [1.0, 2.5], (2, 1, 0.5, 0)),
        (DType.DOUBLE, [0.0, 1.0], [-0.0, 1.0], (2, 1, 0.0, 0)),
        (DType.INT64, [-(2**63)], [2**63 - 1], (1, 1, 2**64 - 1, 0)),
        (DType.UINT8, [0, 7], [255, 7], (2, 1, 255, 0)),
        (DType.BOOL, [True, False], [False, False], (2, 1, 1, 0)),
        (DType.FLOAT, [math.nan, 1.0], [1.0, math.inf], (2, 2, 0.0, 2)),
        (DType.STRING, [b"a", b"b"], [b"a", b"c"], (2, 1, None, 0)),
    ],
    ids=str,
)
def test_elements(dtype, before, after, expected):
    found = compare_values(const("c", before, dtype), const("c", after, dtype))
    assert found == ValueChange(*expected)


def test_bfloat16_int4_and_complex():
    two = constant("c", DType.BFLOAT16, (2,), b"\x80\x3f\x00\x40")  # 1, 2
    other = constant("c", DType.BFLOAT16, (2,), b"\x80\x3f\x80\x40")  # 1, 4
    assert compare_values(two, other) == (2, 1, 2.0, 0)
    assert compare_values(
        constant("c", DType.INT4, (1,), b"\x0f"), constant("c", DType.INT4, (1,), b"\x07")
    ) == (1, 1, 8, 0)  # -1 and 7
    one = constant("c", DType.COMPLEX128, (1,), np.array([3 + 4j]).tobytes())
    zero = constant("c", DType.COMPLEX128, (1,), np.array([0j]).tobytes())
    assert compare_values(one, zero) == (1, 1, 5.0, 0)


def test_a_list_and_bytes_can_be_the_same_value():
    as_list = listed(DType.FLOAT, (300_000,), float_val=[2.0, 1.0])
    data = np.ones(300_000, np.float32)
    data[0] = 2
    as_bytes = constant("c", DType.FLOAT, (300_000,), data.tobytes())
    assert same_value(as_list, as_bytes) is None
    assert compare_values(as_list, as_bytes) == (300_000, 0, 0, 0)
    data[299_999] = 1.25
    changed = constant("c", DType.FLOAT, (300_000,), data.tobytes())
    assert compare_values(as_list, changed) == (300_000, 1, 0.25, 0)
    half = listed(DType.HALF, (3,), half_val=[0x3C00])
    assert compare_values(half, constant("c", DType.HALF, (3,), b"\x00\x3c" * 3)).differing == 0
    pairs = listed(DType.COMPLEX64, (2,), scomplex_val=[1.0, 2.0])
    same = constant("c", DType.COMPLEX64, (2,), np.array([1 + 2j] * 2, np.complex64).tobytes())
    assert compare_values(pairs, same).differing == 0


def test_a_short_list_may_stand_for_any_number_of_elements():
    # 16 GB if it were written out at once; the first block differs everywhere, so one look is enough.
    blocks = tensor_diff._blocks(listed(DType.FLOAT, (2**32,), float_val=[1.0]), DType.FLOAT, 2**32)
    assert len(next(blocks)) == tensor_diff._BLOCK


def test_large_values_in_files_are_read_in_blocks(tmp_path):
    count = tensor_diff._BLOCK * 3 + 5
    data = np.random.default_rng(0).standard_normal(count, np.float32)
    one = large_const("w", tmp_path / "one", data.tobytes(), (count,))
    data[tensor_diff._BLOCK] += 1
    data[-1] = np.nan
    other = large_const("w", tmp_path / "other", data.tobytes(), (count,))
    assert same_value(one, one) is True
    found = compare_values(one, other)
    assert found[:2] == (count, 2)
    assert found.largest == pytest.approx(1)
    assert found.special == 1


def test_a_file_that_changed_is_noticed(tmp_path):
    one = large_const("w", tmp_path / "one", b"\0" * 4096, (1024,))
    other = large_const("w", tmp_path / "other", b"\1" * 4096, (1024,))
    os.utime(tmp_path / "one", ns=(1, 1))
    with pytest.raises(FreezeflowError, match="changed while being read"):
        compare_values(one, other)
    (tmp_path / "one").unlink()
    with pytest.raises(FreezeflowError, match="no such file"):
        compare_values(one, other)
