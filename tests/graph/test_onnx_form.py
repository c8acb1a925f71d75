"""Loops get a counter and a limit of their own where their first two variables are something else."""

import pytest
import tensorflow as tf

from freezeflow.graph.graph import data_inputs
from freezeflow.graph.inline import inline_model
from freezeflow.graph.onnx_form import onnx_form
from freezeflow.graph.verify import verify
from tests.graph.test_raised import assert_alike, of_tf2


def loops_of(model):
    bodies = (model.graph.nodes, *(each.nodes for each in model.graph.functions.values()))
    return [node for nodes in bodies for node in nodes.values() if node.op.endswith("While")]


def counted(x, n):
    return tf.while_loop(lambda i, y: i < n, lambda i, y: (i + 1, y * 1.5), [0, x])[1]


def test_tensorflows_own_loops_stay(tmp_path):
    model = inline_model(of_tf2(lambda x, n: {"y": counted(x, n)}, tmp_path))
    assert len(loops_of(model)) == 1
    assert onnx_form(model) is model


def limited(x, n):
    return tf.while_loop(
        lambda i, y: tf.reduce_sum(y) < 99.0,
        lambda i, y: (i + 1, y * 2.0 + 1.0),
        [0, x],
        maximum_iterations=4,
    )[1]


def test_a_limit_of_rounds_stays(tmp_path):
    model = inline_model(of_tf2(lambda x, n: {"y": limited(x, n)}, tmp_path))
    assert onnx_form(model) is model


def raw_loop(condition, body, *start):
    """A While of these variables alone."""
    kinds = [tf.TensorSpec(None, each.dtype) for each in start]
    functions = [tf.function(f).get_concrete_function(*kinds) for f in (condition, body)]
    return tf.raw_ops.While(input=start, cond=functions[0], body=functions[1])


def until_large(x, n):
    """No counter at all."""
    return raw_loop(lambda y: tf.reduce_sum(y) < 50.0, lambda y: [y * 2.0 + 1.0], x)[0]


def two_others(x, n):
    return raw_loop(
        lambda a, b: tf.reduce_sum(a) < 50.0, lambda a, b: [a + b + 1.0, b * 2.0], x, x
    )[0]


def counter_that_is_asked_for(x, n):
    i, _, y = raw_loop(
        lambda i, m, y: i < m, lambda i, m, y: [i + 1, m, y + 1.0], tf.constant(0), n, x
    )
    return y + tf.cast(i, tf.float32)


def counter_in_the_body(x, n):
    return raw_loop(
        lambda i, m, y: i < m,
        lambda i, m, y: [i + 1, m, y + tf.cast(i, tf.float32)],
        tf.constant(0), n, x,
    )[2]  # fmt: skip


def counter_below_another_limit(x, n):
    return raw_loop(
        lambda i, m, y: i + 1 < m, lambda i, m, y: [i + 1, m, y + 1.0], tf.constant(0), n, x
    )[2]


def limit_that_changes(x, n):
    return raw_loop(
        lambda i, m, y: i < m, lambda i, m, y: [i + 1, m - 1, y + 1.0], tf.constant(0), n, x
    )[2]


def one_in_another(x, n):
    def body(y):
        return [until_large(y, n) + 45.0]

    return raw_loop(lambda y: tf.reduce_sum(y) < 300.0, body, x)[0]


OTHERS = [
    until_large, two_others, counter_that_is_asked_for, counter_in_the_body,
    counter_below_another_limit, limit_that_changes, one_in_another,
]  # fmt: skip


@pytest.mark.parametrize("build", OTHERS, ids=lambda build: build.__name__)
def test_others_get_them(build, tmp_path):
    model = inline_model(of_tf2(lambda x, n: {"y": build(x, n)}, tmp_path))
    made = onnx_form(model)
    assert not verify(made)
    before, after = ([len(list(data_inputs(n))) for n in loops_of(m)] for m in (model, made))
    assert [count + 2 for count in before] == after
    assert onnx_form(made) is made
    assert_alike(model, made)
