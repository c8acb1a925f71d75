"""Metrics against their definitions, worked out by hand or the slow way."""

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from freezeflow.proof.compare import (
    Tolerance,
    _numbers,
    compare,
    count_right,
    max_ulp,
    same_bytes,
    to_json,
    worse,
)

STRICT = Tolerance(0.0, 0.0)
FLOATS = arrays.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]), arrays.array_shapes(max_dims=2)
)


@given(FLOATS)
def test_everything_equals_itself(array):
    found = compare(array, array.copy(), STRICT)
    assert found.equal
    assert found.within
    assert found.metrics["max_abs"] == 0
    assert found.metrics["nan_differ"] == found.metrics["inf_differ"] == 0
    assert found.metrics["atol_needed"] == found.metrics["rtol_needed"] == 0


@given(FLOATS)
def test_the_figures_of_equal_tensors_are_those_of_the_long_way(array):
    short = compare(array, array.copy(), STRICT).metrics
    long, within = _numbers(array, array.copy(), STRICT, None)
    assert within
    assert short == pytest.approx(long)


@given(FLOATS)
def test_the_next_float_is_one_ulp_away_and_not_equal(array):
    # The largest one has none that is finite.
    array = np.where(np.abs(array) < np.finfo(array.dtype).max, array, 1).astype(array.dtype)
    upper = np.nextafter(array, np.array(np.inf, array.dtype))
    assert max_ulp(array, upper) == 1
    assert not compare(array, upper, STRICT).equal


def test_ulp_counts_across_zero():
    tiny = np.nextafter(np.float32(0), np.float32(1))
    assert max_ulp(np.float32([-tiny]), np.float32([tiny])) == 2
    assert max_ulp(np.float32([-0.0]), np.float32([0.0])) == 0
    assert max_ulp(np.float64([-1.0]), np.float64([1.0])) == 2 * int(np.float64(1).view(np.int64))


def test_ulp_of_bfloat16_and_complex():
    one = np.array([1.0], ml_dtypes.bfloat16)
    assert max_ulp(one, np.array([1.0078125], ml_dtypes.bfloat16)) == 1
    more = np.float32(1 + 3 * 2**-23)
    assert max_ulp(np.complex64([1 + 1j]), np.complex64([1 + 1j * more])) == 3
    assert max_ulp(np.int32([1]), np.int32([2])) is None


def test_minus_zero_is_not_the_same_bytes_but_within():
    found = compare(np.float32([0.0]), np.float32([-0.0]), STRICT)
    assert (found.equal, found.within) == (False, True)


def test_nan_and_infinity():
    one = np.float32([math.nan, math.inf, -math.inf, 1])
    assert compare(one, one.copy(), STRICT).within
    found = compare(one, np.float32([1, math.inf, math.inf, math.nan]), Tolerance(1e9, 1e9))
    assert not found.within
    assert found.metrics["nan_differ"] == 2
    assert found.metrics["inf_differ"] == 1
    assert found.metrics["bad_share"] == 0.75
    assert found.metrics["atol_needed"] == math.inf
    assert to_json(found.metrics)["rtol_needed"] is None


def test_figures_by_hand():
    one, other = np.float64([[1, 2], [4, 0]]), np.float64([[1, 2.5], [3, 0]])
    metrics = compare(one, other, Tolerance(0.25, 0.125)).metrics
    assert metrics["max_abs"] == 1
    assert metrics["mean_abs"] == 0.375
    assert metrics["max_rel"] == 0.25
    assert metrics["rmse"] == pytest.approx(math.sqrt(1.25 / 4))
    assert metrics["bad_share"] == 0.25
    assert metrics["top1_agreement"] == 1
    # 0.5 less a bit: with 0.125 x 4 it rounds to 1.
    assert metrics["atol_needed"] == np.nextafter(0.5, 0)
    assert metrics["rtol_needed"] == 0.1875
    assert metrics["p99_abs"] == 1
    assert metrics["cosine"] == pytest.approx((1 + 5 + 12) / math.sqrt(21 * 16.25))
    assert metrics["sqnr_db"] == pytest.approx(10 * math.log10(21 / 1.25))
    assert metrics["psnr_db"] == pytest.approx(10 * math.log10(16 * 4 / 1.25))
    assert compare(one, other, Tolerance(0.5, 0.125)).within
    assert not compare(one, other, Tolerance(0.49, 0.125)).within
    leeway = np.full(one.shape, 0.5)
    found = compare(one, other, Tolerance(0.25, 0.125), leeway)
    assert found.within
    assert found.metrics["rtol_needed"] <= 0.125
    leeway.reshape(-1)[np.argmax(np.abs(one - other))] = 0.0
    assert not compare(one, other, Tolerance(0.25, 0.125), leeway).within


def test_the_tolerances_needed_are_the_smallest_that_pass():
    random = np.random.default_rng(3)
    one = random.standard_normal(100)
    other = one + random.standard_normal(100) * 1e-3
    metrics = compare(one, other, Tolerance(1e-4, 1e-4)).metrics
    for key in ("atol", "rtol"):
        needed = metrics[f"{key}_needed"]
        for factor, passes in ((1.0001, True), (0.999, False)):
            tolerance = Tolerance(1e-4, 1e-4)._replace(**{key: needed * factor})
            assert compare(one, other, tolerance).within is passes


def test_a_gap_from_zero_is_infinite_in_relation_and_null_in_json():
    metrics = compare(np.float32([0]), np.float32([1]), STRICT).metrics
    assert metrics["max_rel"] == metrics["rtol_needed"] == math.inf
    assert metrics["sqnr_db"] == -math.inf
    assert metrics["cosine"] == 0
    assert to_json(metrics)["max_rel"] is None


def test_the_best_places_of_each_row():
    one = np.float32([[9, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7]])
    other = one.copy()
    other[0, 6], other[1, 6] = 10, 0
    metrics = compare(one, other, STRICT).metrics
    assert metrics["top1_agreement"] == 0
    assert metrics["top5_agreement"] == pytest.approx((4 + 4) / 10)
    narrow = compare(one[:, :5], other[:, 1:6], STRICT).metrics
    assert narrow["top5_agreement"] is None
    assert compare(np.float32([1]), np.float32([2]), STRICT).metrics["top1_agreement"] is None


def test_integers_have_to_be_equal_whatever_the_tolerance():
    loose = Tolerance(10.0, 10.0)
    assert not compare(np.int64([1]), np.int64([2]), loose).within
    large = np.int64([2**62]), np.int64([2**62 + 1])
    assert compare(*large, loose).metrics["max_abs"] == 1
    assert not compare(*large, loose).within


def test_other_dtypes_and_shapes_are_named():
    found = compare(np.zeros(2, np.float32), np.zeros(2), Tolerance(1, 1))
    assert found.metrics == {"problem": "float32[2] became float64[2]"}
    assert not found.within
    assert not compare(np.zeros((2, 1)), np.zeros((1, 2)), Tolerance(1, 1)).within


def test_figures_are_json_even_where_doubles_end():
    huge = np.float64([1e308, -1e308])
    metrics = to_json(compare(huge, -huge, Tolerance(0, 0)).metrics)
    assert metrics["max_abs"] is None
    assert metrics["bad_share"] == 1
    json.dumps(metrics, allow_nan=False)


def test_strings():
    one = np.array([b"a\0", b"", b"c"], object)
    assert same_bytes(one, one.copy())
    found = compare(one, np.array([b"a", b"", b"c"], object), Tolerance(1, 1))
    assert not found.within
    assert found.metrics["bad_share"] == pytest.approx(1 / 3)


def test_empty_tensors_are_equal():
    empty = np.zeros((0, 3), np.float32)
    found = compare(empty, empty.copy(), STRICT)
    assert found.equal
    assert found.metrics["bad_share"] == 0


def test_how_many_are_right():
    scores = np.float32([[0, 1], [1, 0], [0, 1], [1, 0]])
    assert count_right(scores, np.array([1, 0, 0, 0])) == 3
    assert count_right(np.array([1, 2]), np.array([1, 3])) == 1
    assert count_right(scores.reshape(2, 2, 2), np.array([[1, 0], [0, 0]])) == 3


def test_the_worse_of_two():
    one = {"max_abs": 1.0, "top1_agreement": 0.5, "sqnr_db": 30.0, "atol_needed": math.inf}
    other = {"max_abs": 0.5, "top1_agreement": 1.0, "sqnr_db": math.inf, "atol_needed": 3.0}
    assert worse(one, other) == worse(other, one) == one
    assert worse(one, {"problem": "x"}) == {"problem": "x"}
    assert worse({"max_ulp": None}, {"max_ulp": None}) == {"max_ulp": None}
