"""TF1's tensor arrays as lists: the same bytes."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph import verify
from freezeflow.graph.array_lists import lists_for_arrays
from freezeflow.graph.canonical import canonical
from freezeflow.graph.single import with_one_signature
from tests.graph.test_stacked import W, X, joined, nodes_of, read_again, recurrent, recurrent_twice
from tests.tf.built import assert_same, model_of, run

v1 = tf.compat.v1


def built(make, folder):
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, (None, None, 4), name="x")
            y = tf.identity(make(x), name="y")
    finally:
        v1.enable_control_flow_v2()
    return with_one_signature(canonical(model_of(graph, {"x": x}, {"y": y}, folder)), None)


def as_dynamic_rnn(x):
    """A batch of sequences of several lengths, whose states stay once they are over."""
    steps = tf.transpose(x, [1, 0, 2])
    length = tf.shape(steps)[0]
    lengths = tf.reduce_sum(tf.cast(x[:, :, 0] > 0.0, tf.int32), 1)
    given = tf.TensorArray(tf.float32, length).unstack(steps)
    kept = tf.TensorArray(tf.float32, length)

    def body(i, state, kept):
        new = tf.tanh(given.read(i) + tf.linalg.matmul(state, W))
        state = tf.cond(i < tf.reduce_min(lengths), lambda: new, lambda: new * 0.5)
        return i + 1, state, kept.write(i, state)

    start = (0, tf.zeros((tf.shape(x)[0], 4)), kept)
    _, state, kept = tf.while_loop(lambda i, *_: i < length, body, start)
    return tf.concat([kept.stack(), state[tf.newaxis]], 0) + tf.cast(kept.size(), tf.float32)


def array_in_a_loop(x):
    """An array of each round's own."""

    def body(i, total):
        own = tf.TensorArray(tf.float32, 2).write(0, x[0, i]).write(1, total)
        return i + 1, tf.reduce_sum(own.stack(), 0)

    return tf.while_loop(lambda i, _: i < 3, body, (0, x[1, 0]))[1]


@pytest.mark.parametrize(
    "make", [recurrent, recurrent_twice, as_dynamic_rnn, array_in_a_loop, read_again]
)
def test_the_same_bytes_without_an_array(make, tmp_path):
    model = built(make, tmp_path)
    assert any(each.op == "TensorArrayV3" for each in nodes_of(model))
    result = lists_for_arrays(model)
    assert verify.verify(result) == ()
    ops = {each.op for each in nodes_of(result)}
    assert not [op for op in ops if "TensorArray" in op]
    assert ("TensorListFromTensor" in ops) is (make in (recurrent, recurrent_twice, as_dynamic_rnn))
    assert "TensorListStack" in ops
    for x in (X, X[:2]):
        assert_same(run(model, {"x": x}), run(result, {"x": x}))


def test_what_stays_an_array(tmp_path):
    model = built(joined, tmp_path)
    assert lists_for_arrays(model) is model


def test_a_model_without_arrays_stays_as_it_is(tmp_path):
    model = built(lambda x: x + np.float32(1), tmp_path)
    assert lists_for_arrays(model) is model
