"""Folding changes no bit: special values, random models, and TensorFlow as the judge."""

import os
import warnings

import numpy as np
import pytest
import tensorflow as tf

import freezeflow
from freezeflow.stages.fold import STAGE, Params
from freezeflow.stages.stage import StageInput
from tests import graph_generator
from tests.tf.built import FakeContext, assert_same, model_of, run

v1 = tf.compat.v1
MANY = range(2000, 2000 + int(os.environ.get("FREEZEFLOW_TEST_SEEDS", "50")))

# Zeros of both signs, NaN of both kinds with payloads, infinities, the smallest numbers.
SPECIAL_BITS = """
    00000000 80000000 7FC01234 7F801234 FFC00001 7F800000 FF800000 00000001 807FFFFF 3F800000 BF800000
    7F7FFFFF
"""
SPECIAL = np.array(
    [int(bits, 16) for bits in SPECIAL_BITS.split()],
    np.uint32,
).view(np.float32)


def folded(model, tmp_path, **params):
    context = FakeContext(tmp_path)
    return STAGE.run(StageInput(model=model, source=None), Params(**params), context)


# Each gives its input of shape [batch, 3] back.
IDLE = {
    "identity": tf.identity,
    "stop_gradient": tf.stop_gradient,
    "identity_n": lambda x: tf.raw_ops.IdentityN(input=[x, x])[1],
    "reshape": lambda x: tf.reshape(x, [-1, 3]),
    "reshape_to_own_shape": lambda x: tf.reshape(x, tf.shape(x)),
    "reshape_to_computed": lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], 3])),
    "transpose": lambda x: tf.transpose(x, [0, 1]),
    "cast": lambda x: tf.raw_ops.Cast(x=x, DstT=tf.float32),
    "pad": lambda x: tf.pad(x, [[0, 0], [0, 0]]),
    "pad_v2": lambda x: tf.pad(x, [[0, 0], [0, 0]], constant_values=1.0),
    "slice": lambda x: tf.slice(x, [0, 0], [-1, 3]),
    "strided_slice": lambda x: x[:, 0:3],
    "tile": lambda x: tf.tile(x, [1, 1]),
    "split": lambda x: tf.split(x, 1, axis=1)[0],
    "add_n": lambda x: tf.raw_ops.AddN(inputs=[x]),
    "ensure_shape": lambda x: tf.ensure_shape(x, [None, 3]),
    "broadcast": lambda x: tf.broadcast_to(x, tf.shape(x)),
    "sum_of_nothing": lambda x: tf.reduce_sum(x, axis=np.zeros(0, np.int32)),
    "mean_of_nothing": lambda x: tf.reduce_mean(x, axis=np.zeros(0, np.int32)),
    "max_of_nothing": lambda x: tf.reduce_max(x, axis=np.zeros(0, np.int32)),
}

# Each looks like the like, and changes a bit of some special value or may do so.
NOT_IDLE = {
    "plus_zero": lambda x: x + 0.0,
    "times_one": lambda x: x * 1.0,
    "divided_by_one": lambda x: x / 1.0,
    "there_and_back": lambda x: tf.cast(tf.cast(x, tf.float64), tf.float32),
    "reversed_twice": lambda x: tf.reverse(x, [1]),
    # It refuses an empty batch.
    "mirror_pad": lambda x: tf.pad(x, [[0, 0], [0, 0]], mode="REFLECT"),
    "one_row": lambda x: x[:, 0:2],
}


def model_with(build, tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        ends = {}
        for name, make in build.items():
            # Two more ops around it, so that it is no end of the signature.
            ends[name] = tf.negative(make(tf.abs(x, name=f"{name}_in")), name=name)
            ends[f"{name}_bare"] = tf.concat([make(x), x], 1, name=f"{name}_bare")
    return model_of(graph, {"x": x}, ends, tmp_path)


def test_idle_ops_go_and_special_values_come_through(tmp_path):
    model = model_with(IDLE, tmp_path)
    outcome = folded(model, tmp_path)
    left = {node.op for node in outcome.model.graph.nodes.values()}
    assert left == {"Placeholder", "Abs", "Neg", "ConcatV2", "Const"}
    for rows in (4, 1, 0):
        feeds = {"x": SPECIAL.reshape(4, 3)[:rows]}
        assert_same(run(model, feeds), run(outcome.model, feeds))


def test_what_only_looks_idle_stays(tmp_path):
    model = model_with(NOT_IDLE, tmp_path)
    outcome = folded(model, tmp_path)
    left = {node.op for node in outcome.model.graph.nodes.values()}
    assert {"AddV2", "Mul", "RealDiv", "Cast", "MirrorPad", "ReverseV2", "StridedSlice"} <= left
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        feeds = {"x": SPECIAL.reshape(4, 3)}
        assert_same(run(model, feeds), run(outcome.model, feeds))


def test_arithmetic_on_results_of_arithmetic(tmp_path):
    """Layers as they are before training, on numbers that cancel out, vanish, overflow, and NaN."""
    eye = np.eye(3, dtype=np.float32)
    bias = np.array([0, 1, -2], np.float32)
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        swish = 1.0 * tf.nn.bias_add(tf.matmul(x, eye), bias) + np.zeros(3, np.float32)
        outputs = {
            "swish": tf.identity(swish, name="swish"),
            "scaled": tf.identity((x * -1.0) / np.ones(3, np.float32) - 0.0, name="scaled"),
            "half_plus_two": tf.identity(0.0 + (0.5 * x + 2.0), name="half_plus_two"),
            "stays": tf.identity(x * -0.5 + 0.0, name="stays"),
        }
    model = model_of(graph, {"x": x}, outputs, tmp_path)
    outcome = folded(model, tmp_path)
    ops = [node.op for node in outcome.model.graph.nodes.values()]
    assert ops.count("AddV2") == 2
    assert ops.count("Mul") == 3
    assert not {"RealDiv", "Sub"} & set(ops)
    plain = np.array([-4, 4, 2, -2, -1, 1, 0.5, -0.5, 0], np.float32)
    for value in np.concatenate([SPECIAL, plain]):
        feeds = {"x": np.array([[value, -value, 0], [2, value, value]], np.float32)}
        assert_same(run(model, feeds), run(outcome.model, feeds))


def test_biases_of_zeros_go_where_nobody_sees_the_sign_of_a_zero(tmp_path):
    """Layers as Keras makes them; products that are too small for a float come out as -0.0."""
    zeros = np.zeros(3, np.float32)
    narrow = np.array([[1, 0, 0], [0, -1e-30, 0], [0, 0, -1]], np.float32)
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        hidden = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, narrow), zeros))
        swish = tf.nn.bias_add(tf.matmul(hidden, narrow), zeros)
        swish = swish * tf.sigmoid(swish)
        logits = tf.nn.bias_add(tf.matmul(swish, narrow), zeros)
        outputs = {
            "classes": tf.nn.softmax(logits, name="classes"),
            "best": tf.argmax(logits, 1, name="best"),
            "bare": tf.identity(tf.matmul(swish, -narrow) + zeros, name="bare"),
        }
    model = model_of(graph, {"x": x}, outputs, tmp_path)
    outcome = folded(model, tmp_path)
    ops = [node.op for node in outcome.model.graph.nodes.values()]
    assert "BiasAdd" not in ops
    assert ops.count("AddV2") == 1
    signs = set()
    plain = np.array([-4, 4, 2, -2, 1e-30, -1e-30, 1e-20, 0], np.float32)
    for value in np.concatenate([SPECIAL, plain]):
        for other in (value, -value, 1e-20, -0.0, 2):
            feeds = {"x": np.array([[other, value, value], [value, other, 1]], np.float32)}
            expected = run(model, feeds)
            assert_same(expected, run(outcome.model, feeds))
            signs |= set(np.signbit(run(outcome.model, feeds)["bare"][expected["bare"] == 0]))
    assert signs == {False}  # the last bias does something


def test_shapes_that_are_partly_known_are_folded(tmp_path):
    """Keras writes flattening, splitting of heads and zero states like this."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4, 6], name="x")
        batch = tf.shape(x)[0]
        heads = tf.reshape(x, tf.stack([batch, 4, 2, 3]))
        turned = tf.transpose(heads, [0, 2, 1, 3])
        rows = tf.reduce_prod(tf.gather(tf.shape(turned), [1, 2]))
        flat = tf.reshape(turned, tf.stack([tf.shape(turned)[0], rows, 3]))
        y = tf.identity(flat * tf.cast(tf.size(heads[0]), tf.float32), name="y")
        state = tf.zeros(tf.stack([batch, 5]), name="state")
    model = model_of(graph, {"x": x}, {"y": y, "state": state}, tmp_path)
    outcome = folded(model, tmp_path)
    ops = [node.op for node in outcome.model.graph.nodes.values()]
    assert "Prod" not in ops
    assert "Size" not in ops
    assert ops.count("Pack") == 1  # of the state: its size is the batch's
    assert ops.count("Shape") == 1
    for rows in (3, 1, 0):
        feeds = {"x": np.random.default_rng(rows).standard_normal((rows, 4, 6), np.float32)}
        assert_same(run(model, feeds), run(outcome.model, feeds))


def check(seed, save, tmp_path):
    save(seed, tmp_path / "model")
    model = freezeflow.freeze(tmp_path / "model")
    outcome = folded(model, tmp_path)
    assert outcome.facts["nodes_after"] <= outcome.facts["nodes_before"]
    assert outcome.facts["bytes_after"] <= outcome.facts["bytes_before"]
    again = folded(outcome.model, tmp_path)
    assert again.facts["nodes_after"] == outcome.facts["nodes_after"]
    for feeds in graph_generator.feeds(seed):
        assert_same(run(model, feeds), run(outcome.model, feeds))


SAVERS = pytest.mark.parametrize("save", [graph_generator.save_tf2, graph_generator.save_tf1])


@SAVERS
@pytest.mark.parametrize("seed", range(6))
def test_random_models(seed, save, tmp_path):
    check(seed, save, tmp_path)


@pytest.mark.slow
@SAVERS
@pytest.mark.parametrize("seed", MANY)
def test_many_random_models(seed, save, tmp_path):
    check(seed, save, tmp_path)
