"""Models that are almost the original: `validate` must not call any of them equal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ValidationFailed
from freezeflow.values import Signature
from tests.stages.test_validate import pair_of
from tests.tf.built import model_of

v1 = tf.compat.v1
FLOATS = [None]


def placeholder(dtype=tf.float32, shape=FLOATS):
    return v1.placeholder(dtype, shape, name="x")


# ---------------------------------------------------------------- cases: what is right, what is wrong


def wrong_for_one_batch_size(is_right):
    x = placeholder()
    wrong = tf.where(tf.equal(tf.size(x), 3), x * 1.5, x)
    return x, {"y": x * 2.0 if is_right else wrong * 2.0}


def a_string_cut_short(is_right):
    x = placeholder(tf.string)
    text = tf.strings.join([x, "\0end"])
    return x, {"y": text if is_right else tf.strings.substr(text, 0, 5)}


def a_nul_at_the_end(is_right):
    x = placeholder(tf.string)
    return x, {"y": tf.strings.join([x, "\0" if is_right else ""])}


def integers_that_doubles_do_not_tell_apart(is_right):
    x = placeholder(tf.int64)
    return x, {"y": x * 0 + tf.constant(2**53 + (0 if is_right else 1), tf.int64)}


def large_unsigned_integers(is_right):
    x = placeholder(tf.uint64)
    return x, {"y": x * 0 + tf.constant(2**64 - (1 if is_right else 2), tf.uint64)}


def an_imaginary_part(is_right):
    x = placeholder(tf.complex64)
    return x, {"y": x if is_right else tf.math.conj(x)}


def a_nan_of_other_bits(is_right):
    x = placeholder()
    bits = 0x7FC00000 if is_right else 0x7FC00001
    return x, {"y": tf.bitcast(tf.cast(x * 0, tf.int32) + bits, tf.float32)}


def a_zero_of_the_other_sign(is_right):
    x = placeholder()
    return x, {"y": tf.abs(x) * (0.0 if is_right else -0.0)}


def sparse_parts_in_another_order(is_right):
    x = placeholder()
    indices = tf.where(x > -2.0)
    return x, {
        "indices": indices if is_right else tf.reverse(indices, [0]),
        "values": x,
        "shape": tf.shape(x, out_type=tf.int64),
    }


def ragged_rows_of_other_lengths(is_right):
    x = placeholder(tf.string)
    parts = tf.strings.split(tf.strings.join([x, "a b c"]))
    lengths = parts.row_lengths()
    return x, {"values": parts.values, "lengths": lengths if is_right else lengths + 1}


def another_dtype(is_right):
    x = placeholder()
    return x, {"y": tf.cast(x > 0.0, tf.int32 if is_right else tf.int64)}


def another_rank(is_right):
    x = placeholder()
    return x, {"y": x if is_right else x[:, None]}


def the_sign_of_a_bool(is_right):
    x = placeholder()
    return x, {"y": x > 0.0 if is_right else x >= -1.0}


CASES = (
    wrong_for_one_batch_size, a_string_cut_short, a_nul_at_the_end,
    integers_that_doubles_do_not_tell_apart, large_unsigned_integers, an_imaginary_part,
    a_nan_of_other_bits, a_zero_of_the_other_sign, sparse_parts_in_another_order,
    ragged_rows_of_other_lengths, another_dtype, another_rank, the_sign_of_a_bool,
)  # fmt: skip

# At level `served` they are the same: neither is a number that differs.
EXACT_ONLY = (a_nan_of_other_bits, a_zero_of_the_other_sign)


def pair_with(case, tmp_path):
    """The right model as original and result, and the wrong one."""
    found = []
    for is_right in (True, False):
        with tf.Graph().as_default() as graph:
            x, outputs = case(is_right)
            outputs = {key: tf.identity(value, name=key) for key, value in outputs.items()}
        found.append((graph, {"x": x}, outputs))
    pair = pair_of(tmp_path, *found[0])
    (tmp_path / "wrong").mkdir()
    return pair, model_of(*found[1], tmp_path / "wrong")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_is_not_equal(case, tmp_path):
    pair, wrong = pair_with(case, tmp_path)
    assert pair.verdict()["equal"] is True
    with pytest.raises(ValidationFailed) as told:
        pair.validate(wrong)
    assert told.value.exit_code == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", sorted({*CASES} - {*EXACT_ONLY}, key=str), ids=lambda c: c.__name__
)
def test_it_is_not_within_a_tolerance_either(case, tmp_path):
    pair, wrong = pair_with(case, tmp_path)
    with pytest.raises(ValidationFailed):
        pair.validate(wrong, level="served")


# ---------------------------------------------------------------- signatures


@pytest.fixture
def two(tmp_path):
    """A model with two outputs."""
    with tf.Graph().as_default() as graph:
        x = placeholder()
        y, z = tf.identity(x * 2.0, name="y"), tf.identity(x * 3.0, name="z")
    return pair_of(tmp_path, graph, {"x": x}, {"y": y, "z": z})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {}, "the result has no such signature"),
        (lambda s: {"other": s}, "the result has no such signature"),
        (
            lambda s: {"serving_default": Signature(s.inputs, {"y": s.outputs["y"]})},
            "the result has no output 'z'",
        ),
        (
            lambda s: {"serving_default": Signature(s.inputs, {**s.outputs, "w": s.outputs["y"]})},
            "the original has no output 'w'",
        ),
        (
            lambda s: {"serving_default": Signature({}, s.outputs)},
            "the result has no input 'x'",
        ),
    ],
)
def test_what_a_signature_lacks_is_a_difference(two, change, message):
    (signature,) = two.model.signatures.values()
    with pytest.raises(ValidationFailed, match=message):
        two.validate(dataclasses.replace(two.model, signatures=change(signature)))


# ---------------------------------------------------------------- what a comparison cannot tell


def noisy(is_right):
    x = placeholder()
    noise = tf.random.uniform([8]) if is_right else tf.constant(np.float32(0.5), shape=[8])
    return x, {"y": noise + 0.0 * tf.reduce_sum(x)}


def test_what_was_random_must_still_be(tmp_path):
    pair, wrong = pair_with(noisy, tmp_path)
    assert pair.verdict()["signatures"]["serving_default"]["outputs"]["y"]["random"] is True
    with pytest.raises(
        ValidationFailed, match="the original's is random, the result's is the same"
    ):
        pair.validate(wrong)


def few_random_bits(is_right):
    x = placeholder()
    coin = tf.random.uniform([1], maxval=2, dtype=tf.int32)
    return x, {"y": coin if is_right else coin * 0}


def test_a_few_random_bits_prove_nothing_either_way(tmp_path):
    pair, wrong = pair_with(few_random_bits, tmp_path)
    found = pair.validate(wrong, samples=9).facts["verdict"]["signatures"]["serving_default"]
    assert found["equal"] is found["outputs"]["y"]["random"] is True
    assert any("random in the original itself" in line for line in pair.context.warnings)


def test_nothing_but_nan_is_said_to_prove_nothing(tmp_path):
    with tf.Graph().as_default() as graph:
        x = placeholder()
        y = tf.sqrt(-1.0 - tf.square(x), name="y")
        z = tf.boolean_mask(x, x > 9.0, name="z")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y, "z": z})
    outputs = pair.verdict()["signatures"]["serving_default"]["outputs"]
    assert outputs["y"]["compared"] == outputs["z"]["compared"] == 0
    assert any("proves nothing" in line and "y, z" in line for line in pair.context.warnings)


def coin_tosses(is_right):
    x = placeholder()
    toss = tf.random.uniform([], maxval=2, dtype=tf.int32)
    return x, {"y": toss + tf.zeros([40], tf.int32), "z": x * (2.0 if is_right else 3.0)}


def test_a_coin_that_falls_alike_twice_is_random_and_alarms_nobody(tmp_path):
    pair, wrong = pair_with(coin_tosses, tmp_path)
    for _ in range(6):
        outputs = pair.verdict(samples=1)["signatures"]["serving_default"]["outputs"]
        assert outputs["y"]["equal"]
    with pytest.raises(ValidationFailed, match="z"):
        pair.validate(wrong, samples=1)


def a_coin_in_a_branch_that_is_not_taken(is_right):
    x = placeholder()
    factor = 2.0 if is_right else 3.0
    return x, {"y": tf.cond(tf.size(x) < 0, lambda: x * tf.random.uniform([]), lambda: x * factor)}


def test_a_random_op_that_is_never_run_hides_no_difference(tmp_path):
    pair, wrong = pair_with(a_coin_in_a_branch_that_is_not_taken, tmp_path)
    assert pair.verdict()["signatures"]["serving_default"]["outputs"]["y"]["random"] is False
    with pytest.raises(ValidationFailed, match="y"):
        pair.validate(wrong)
