"""Ifs in place of a Case choose as it does, to the bit."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph.cases import with_ifs_for_cases
from freezeflow.graph.inline import inline_model
from freezeflow.graph.verify import verify
from tests.tf.built import assert_same, model_of, run

v1 = tf.compat.v1


def made(count, folder, branch):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [2], name="x")
        n = v1.placeholder(tf.int32, [], name="n")
        y = tf.switch_case(n, [lambda k=k: branch(x, n, k) for k in range(count)])
        ends = {"y": tf.identity(y)}
    return inline_model(model_of(graph, {"x": x, "n": n}, ends, folder))


def ops_of(model):
    bodies = (model.graph.nodes, *(each.nodes for each in model.graph.functions.values()))
    return [node.op for nodes in bodies for node in nodes.values()]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9])
def test_all_that_an_index_may_be(count, tmp_path):
    case = made(count, tmp_path, lambda x, n, k: x * (k + 1.5) if k % 3 else tf.exp(x) + k)
    ifs = with_ifs_for_cases(case)
    assert "StatelessCase" in ops_of(case)
    assert not {"Case", "StatelessCase"} & set(ops_of(ifs))
    assert ops_of(ifs).count("StatelessIf") == count - 1
    assert not verify(ifs)
    assert with_ifs_for_cases(ifs) is ifs
    for n in (*range(-2, count + 2), -(2**31), 2**31 - 1):
        feeds = {"x": np.float32([0.5, -2.0]), "n": np.int32(n)}
        assert_same(run(case, feeds), run(ifs, feeds))


def test_one_in_another_with_effects(tmp_path):
    """Only the branch that is chosen checks anything."""

    def branch(x, n, k):
        if k == 1:
            return tf.switch_case(n - 1, [lambda: x, lambda: x + 1.0, lambda: x + 2.0])
        with tf.control_dependencies([tf.debugging.assert_less(tf.reduce_sum(x), float(k))]):
            return x - k

    case = made(4, tmp_path, branch)
    ifs = with_ifs_for_cases(case)
    assert not {"Case", "StatelessCase"} & set(ops_of(ifs))
    assert "If" in ops_of(ifs)
    for n, value in [(0, -1.0), (0, 1.0), (1, 9.0), (2, 0.5), (2, 1.5), (3, 1.4), (7, 2.0)]:
        feeds = {"x": np.float32([value, 0.0]), "n": np.int32(n)}
        if n != 1 and value >= min(n, 3):
            for each in (case, ifs):
                with pytest.raises(tf.errors.InvalidArgumentError):
                    run(each, feeds)
        else:
            assert_same(run(case, feeds), run(ifs, feeds))
