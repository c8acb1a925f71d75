"""A lowered graph gives what the functional one gives."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph.frames import frames_of
from freezeflow.graph.inline import inline_model
from freezeflow.graph.lower import lower
from freezeflow.proof.rounds import CLOCK, with_clocks
from tests.tf.built import model_of, run

v1 = tf.compat.v1


@pytest.fixture
def model(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        count = v1.placeholder(tf.int32, [], name="count")

        def row(number, y):
            def more(k, z):
                return k + 1, tf.cond(k % 2 > 0, lambda: z * 1.5, lambda: z - 0.25)

            _, y = tf.while_loop(lambda k, _: k < number, more, [tf.constant(0), y])
            return number + 1, y

        _, y = tf.while_loop(lambda n, _: n < count, row, [tf.constant(0), x])
        z = tf.switch_case(count, [lambda: y, lambda: y * y, lambda: tf.constant([7.0])])

        def checked():
            with tf.control_dependencies([tf.debugging.assert_less(count, 5)]):
                return tf.constant(True)

        effect = tf.cond(count > 2, checked, lambda: tf.constant(False))
        mapped = tf.map_fn(tf.sin, y)
    ends = {"y": y, "z": z, "effect": effect, "mapped": mapped}
    return model_of(graph, {"x": x, "count": count}, ends, tmp_path)


def lowered(model):
    flat = inline_model(model)
    graph, clocks = with_clocks(lower(flat.graph))
    assert not {"If", "StatelessIf", "While", "StatelessWhile", "Case", "StatelessCase"} & {
        node.op for node in graph.nodes.values()
    }
    assert {path for path in frames_of(graph.nodes).values() if CLOCK not in path} == set(clocks)
    assert max(map(len, clocks)) == 2
    return dataclasses.replace(flat, graph=graph)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, -1])
def test_the_same_comes_out(model, count):
    inputs = {"x": np.float32([0.5, -2.0, 3.0]), "count": np.int32(count)}
    expected, found = run(model, inputs), run(lowered(model), inputs)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert np.asarray(found[key]).tobytes() == np.asarray(value).tobytes(), key


def test_what_refuses_refuses(model):
    for each in (model, lowered(model)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            run(each, {"x": np.float32([1.0]), "count": np.int32(6)})
