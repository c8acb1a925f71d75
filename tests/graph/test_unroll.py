"""Loops as their rounds: the same bytes, and no loop or list is left."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.graph import verify
from freezeflow.graph.canonical import canonical
from freezeflow.graph.profile import Profile, look
from freezeflow.graph.scalars import scalar
from freezeflow.graph.single import with_one_signature, with_shapes
from freezeflow.graph.unroll import unrolled
from freezeflow.values import DType
from tests.graphs import const, node
from tests.tf.built import assert_same, model_of, run

RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((3, 6, 4)).astype(np.float32)
W = RANDOM.standard_normal((4, 4)).astype(np.float32)


def steps_in_a_list(x):
    """As Keras' recurrent layers do it: a list of steps, a state, a list of results."""
    given = tf.TensorArray(tf.float32, 6).unstack(tf.transpose(x, [1, 0, 2]))
    kept = tf.TensorArray(tf.float32, 6)

    def step(i, state, kept):
        state = tf.tanh(given.read(i) + tf.linalg.matmul(state, W))
        return i + 1, state, kept.write(i, state)

    _, state, kept = tf.while_loop(lambda i, *_: i < 6, step, (0, tf.zeros_like(x[:, 0]), kept))
    return tf.concat([state[tf.newaxis], kept.stack()], 0)


def backwards_by_two(x):
    y = tf.zeros_like(x[:, 0])
    return tf.while_loop(lambda i, _: i > 0, lambda i, v: (i - 2, v * 0.5 + x[:, 0]), (5, y))[1]


def loop_in_a_loop(x):
    def outer(i, v):
        inner = tf.while_loop(lambda j, _: j < 2, lambda j, u: (j + 1, tf.sin(u)), (0, v))[1]
        return i + 1, inner + 1.0

    return tf.while_loop(lambda i, _: i < 3, outer, (0, x))[1]


def never(x):
    return tf.while_loop(lambda i, _: i < 0, lambda i, v: (i + 1, v * 2.0), (0, x))[1]


def one_behind_the_other(x):
    for _ in range(2):
        x = tf.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, tf.cos(v)), (0, x))[1]
    return x


def by_length(x):
    length = tf.shape(x)[1]
    return tf.while_loop(lambda i, _: i < length, lambda i, v: (i + 1, v + x[:, i]), (0, x[:, 0]))[
        1
    ]


def by_value(x):
    goes_on = lambda i, v: tf.reduce_sum(tf.abs(v)) > 1.0  # noqa: E731
    return tf.while_loop(goes_on, lambda i, v: (i + 1, v * 0.5), (0, x))[1]


def built(make, folder, shape=(None, 6, 4)):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, shape, name="x")
        y = tf.identity(make(x), name="y")
    return with_one_signature(canonical(model_of(graph, {"x": x}, {"y": y}, folder)), None)


def ops_of(model):
    graph = model.graph
    bodies = (graph.nodes, *(function.nodes for function in graph.functions.values()))
    return {each.op for nodes in bodies for each in nodes.values()}


def everything(model, most_rounds=64):
    return unrolled(model, most_rounds=most_rounds, lists_only=False)


@pytest.mark.parametrize(
    "make", [steps_in_a_list, backwards_by_two, loop_in_a_loop, never, one_behind_the_other]
)
def test_the_same_bytes_without_a_loop(make, tmp_path):
    model = built(make, tmp_path)
    result = everything(model)
    assert verify.verify(result) == ()
    assert not {op for op in ops_of(result) if "While" in op or "TensorList" in op}
    assert_same(run(model, {"x": X}), run(result, {"x": X}))


def test_a_length_that_a_shape_tells(tmp_path):
    model = built(by_length, tmp_path, (None, None, 4))
    assert any("While" in op for op in ops_of(everything(model)))
    fixed = with_shapes(model, None, {"x": (3, 6, 4)})
    result = everything(fixed)
    assert not {op for op in ops_of(result) if "While" in op}
    assert_same(run(model, {"x": X}), run(result, {"x": X}))


@pytest.mark.parametrize(("make", "most"), [(by_value, 64), (backwards_by_two, 2)])
def test_what_stays_a_loop(make, most, tmp_path):
    model = built(make, tmp_path)
    result = everything(model, most)
    assert any("While" in op for op in ops_of(result))
    assert verify.verify(result) == ()
    assert_same(run(model, {"x": X}), run(result, {"x": X}))


def test_only_loops_with_lists(tmp_path):
    plain = built(loop_in_a_loop, tmp_path)
    assert unrolled(plain, most_rounds=64, lists_only=True) is plain
    listed = unrolled(built(steps_in_a_list, tmp_path), most_rounds=64, lists_only=True)
    assert not any("While" in op for op in ops_of(listed))


def test_a_loop_with_lists_is_refused_with_what_helps(tmp_path):
    profile = Profile(target="Somewhere", ops=None, list_loops=False)
    with pytest.raises(ModelRefused, match="does not take loops that carry lists") as caught:
        look(built(steps_in_a_list, tmp_path), profile)
    assert "`shapes: {KEY: [...]}`" in caught.value.hint
    look(built(steps_in_a_list, tmp_path), dataclasses.replace(profile, list_loops=True))


def test_scalars():
    whole = {"T": DType.INT32}
    nodes = {
        each.name: each
        for each in [
            const("two", 2, DType.INT32),
            node("three", "AddV2", "two", "given", **whole),
            node("less", "Less", "two", "three", **whole),
            node("not", "LogicalNot", "less"),
            node("open", "Sub", "two", "unknown", **whole),
            const("vector", [1], DType.INT32),
        ]
    }
    known = {"given": 1, "unknown": None}
    assert scalar(nodes, "three", known) == 3
    assert scalar(nodes, "not", known) == 0
    assert scalar(nodes, "open", known) is None
    assert scalar(nodes, "vector", known) is None
