"""Functional control flow that is folded: branches, arguments, results, whole loops."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph import attrs
from freezeflow.graph.verify import verify
from freezeflow.stages.fold import STAGE, Params
from freezeflow.stages.stage import StageInput
from tests.tf.built import FakeContext, assert_same, model_of, run

v1 = tf.compat.v1
RANDOM = np.random.default_rng(5)


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.fixture
def fold(tmp_path):
    """Folds a graph of `x` (two floats a row) and `n`; gives back the model and checks that it is
    equal to the byte."""

    def run_fold(build):
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, [None, 2], name="x")
            n = v1.placeholder(tf.int32, [], name="n")
            built = build(x, n)
            ends = {
                f"y{i}": y for i, y in enumerate(built if isinstance(built, tuple) else (built,))
            }
        model = model_of(graph, {"x": x, "n": n}, ends, tmp_path)
        given = StageInput(model=model, source=None)
        folded = STAGE.run(given, Params(), FakeContext(tmp_path)).model
        assert not verify(folded)
        assert {k: s.tensor for k, s in folded.signatures["serving_default"].outputs.items()} == {
            k: s.tensor for k, s in model.signatures["serving_default"].outputs.items()
        }
        for count in (0, 1, 4):
            feeds = {"x": weights(3, 2), "n": np.int32(count)}
            assert_same(run(model, feeds), run(folded, feeds))
        return folded

    return run_fold


def ops_of(model):
    return sorted(node.op for node in model.graph.nodes.values())


def the(model, *ops):
    (found,) = (node for node in model.graph.nodes.values() if node.op in ops)
    return found


def inside(model):
    return [n.op for f in model.graph.functions.values() for n in f.nodes.values()]


def test_a_constant_that_goes_round_a_loop_moves_into_it(fold):
    def build(x, n):
        def body(i, x, w):
            return i + 1, tf.tanh(x @ (w * 2.0)), w

        _, y, w = tf.while_loop(lambda i, *_: i < n, body, [0, x, tf.constant(weights(2, 2))])
        return tf.add(y, w[0], name="y")

    folded = fold(build)
    loop = the(folded, "While", "StatelessWhile")
    # The counter, its limit, the maximum of the loop's own count, and x; the weights are inside.
    assert len(attrs.to_types(loop.attrs["T"])) <= 4
    assert "Mul" not in inside(folded)


def test_a_result_that_nobody_takes_goes_and_what_it_needs_with_it(fold):
    def build(x, n):
        def then():
            return x * 2.0, tf.exp(x), tf.sin(x)

        def otherwise():
            return x * 3.0, tf.cos(x), tf.tan(x)

        first, _, third = tf.cond(n > 0, then, otherwise)
        return tf.identity(first - third, name="y")

    folded = fold(build)
    assert not {"Exp", "Cos"} & set(inside(folded))
    assert len(attrs.to_types(the(folded, "If", "StatelessIf").attrs["Tout"])) == 2


def test_a_loop_variable_that_only_keeps_itself_alive_goes(fold):
    def build(x, n):
        def body(i, x, unused):
            return i + 1, x * 1.5, tf.sin(unused) + x

        _, y, _ = tf.while_loop(lambda i, *_: i < n, body, [0, x, x])
        return tf.identity(y, name="y")

    assert "Sin" not in inside(fold(build))


def test_a_branch_of_a_constant_predicate_is_all_that_is_left(fold):
    def build(x, n):
        flag = tf.sqrt(tf.constant(4.0)) > 1.5
        y = tf.cond(flag, lambda: tf.exp(x), lambda: tf.sin(x))
        z = tf.switch_case(tf.constant(1) + 1, [lambda: x, lambda: tf.cos(x), lambda: tf.tan(x)])
        return tf.identity(y, name="y"), tf.identity(z, name="z")

    folded = fold(build)
    assert ops_of(folded) == ["Exp", "Identity", "Identity", "Placeholder", "Placeholder", "Tan"]
    assert not folded.graph.functions


def test_what_nobody_takes_inside_a_branch_does_not_hold_its_arguments(fold):
    """The product is computed from an argument that nothing else needs, and for nobody."""
    table = weights(3, 2)

    def build(x, n):
        def branch():
            tf.matmul(x, x, transpose_b=True)
            return tf.constant(table) * tf.cast(n, tf.float32)

        def chosen():
            return tf.cond(tf.constant(1) > 0, branch, lambda: tf.constant(table))

        return chosen(), tf.cond(n > 1, chosen, branch)

    model = fold(build)
    assert "MatMul" not in {*ops_of(model), *inside(model)}
    assert the(model, "If", "StatelessIf").inputs[1:] == ("n",)


def test_a_branch_inside_a_loop_is_chosen_too(fold):
    def build(x, n):
        def body(i, x):
            flag = tf.constant(2) * 2 > 3
            return i + 1, tf.cond(flag, lambda: tf.tanh(x), lambda: tf.sin(x))

        return tf.identity(tf.while_loop(lambda i, _: i < n, body, [0, x])[1], name="y")

    ops = inside(fold(build))
    assert "Tanh" in ops
    assert not {"Sin", "If", "StatelessIf"} & set(ops)


def test_a_call_that_is_an_output_keeps_its_name(fold):
    def build(x, n):
        def branch():
            return tf.exp(x), tf.sin(x)

        first, second = tf.cond(tf.constant(1) < 2, branch, lambda: (x, x), name="c")
        call = first.op.inputs[0]
        assert call.op.name == "c"
        return call, tf.identity(second, name="z")

    folded = fold(build)
    assert not folded.graph.functions
    assert folded.graph.nodes["c"].op == "Identity"


def test_a_loop_that_never_runs_goes(fold):
    def build(x, n):
        def never(i, x):
            return tf.constant(1.0) * 2.0 < 1.0

        y = tf.while_loop(never, lambda i, x: (i + 1, tf.exp(x)), [n, x])[1]
        return tf.negative(y, name="y")

    folded = fold(build)
    assert ops_of(folded) == ["Neg", "Placeholder", "Placeholder"]


def test_a_tf1_switch_with_a_constant_predicate(fold):
    def build(x, n):
        v1.disable_control_flow_v2()
        try:
            flag = tf.constant(2.0) * 2.0 > 3.0
            y = v1.cond(flag, lambda: tf.exp(x), lambda: tf.sin(x))
        finally:
            v1.enable_control_flow_v2()
        return tf.identity(y, name="y")

    assert ops_of(fold(build)) == ["Exp", "Identity", "Placeholder", "Placeholder"]


def test_an_assertion_in_a_branch_still_refuses(fold, tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 2], name="x")

        def then():
            check = tf.debugging.Assert(tf.reduce_all(x < 9), [x])
            with tf.control_dependencies([check]):
                return tf.identity(x), tf.exp(x)

        y = tf.cond(tf.reduce_sum(x) > 0, then, lambda: (-x, x))[0]
        y = tf.identity(y, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    given = StageInput(model=model, source=None)
    folded = STAGE.run(given, Params(), FakeContext(tmp_path)).model
    assert "Exp" not in inside(folded)
    feeds = {"x": weights(3, 2)}
    assert_same(run(model, feeds), run(folded, feeds))
    for one in (model, folded):
        with pytest.raises(tf.errors.InvalidArgumentError):
            run(one, {"x": np.full((2, 2), 10, np.float32)})


def test_shapes_reach_into_branches_and_loops(fold):
    def build(x, n):
        def rows(y):
            return tf.reshape(y, tf.stack([tf.shape(y)[0], tf.shape(y)[1]])) * 1.5

        y = tf.cond(n > 0, lambda: rows(x), lambda: -rows(x))
        z = tf.while_loop(lambda i, *_: i < n, lambda i, z: (i + 1, rows(z)), [0, x])[1]
        return tf.add(y, z, name="y")

    assert not {"Reshape", "Shape", "Pack"} & set(inside(fold(build)))


def test_a_shape_that_changes_in_a_loop_is_not_taken_for_certain(fold):
    def build(x, n):
        def body(i, y, z):
            size = tf.cast(tf.shape(y)[0], tf.float32)
            return i + 1, tf.concat([y, y], 0), tf.reshape(z * size, tf.shape(z))

        shapes = [tf.TensorShape([]), tf.TensorShape([None, 2]), tf.TensorShape([None, 2])]
        _, y, z = tf.while_loop(
            lambda i, *_: i < n, body, [0, tf.constant(weights(2, 2)), x], shape_invariants=shapes
        )
        return tf.reduce_sum(y, name="y"), tf.identity(z, name="z")

    ops = inside(fold(build))
    assert "Shape" in ops
    assert "Reshape" not in ops
