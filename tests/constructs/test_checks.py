"""CheckNumerics and Assert: what the original refuses is refused, whoever needs what they look at.

Which checks run is TensorFlow's own answer, given by the original: in a function's body all do; of
the main graph what the outputs need, once If, Case and While are spelled out.
"""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import function

from freezeflow.graph.verify import verify
from freezeflow.stages import fold
from freezeflow.stages.stage import StageInput
from tests.constructs import harness
from tests.tf.built import FakeContext

v1 = tf.compat.v1
GOOD, BAD = np.array([1, 2], np.float32), np.array([1, np.nan], np.float32)


def check(x):
    return tf.debugging.check_numerics(x, "not a number")


@tf.function
def second(a, b):
    return b * 2


@tf.function
def both(a, b):
    return b * 2, a * 3


@tf.function
def exp(x):
    return tf.exp(x)


@tf.function
def one_of_a_branch(a, b):
    return tf.cond(a[0] > 0, lambda: (a * 2, b * 2), lambda: (a * 3, b * 3))[0]


def nobody_takes_it(x):
    check(x)
    return x * 2


def argument_that_is_not_needed(x):
    return second(check(x), x)


def result_that_is_not_taken(x):
    return both(check(x), x)[0]


def results_of_results(x):
    return second(both(check(x), x)[0], x)


def call_that_waits(x):
    with tf.control_dependencies([check(x)]):
        return exp(x)


def output_of_a_branch_that_is_not_taken(x):
    return one_of_a_branch(x, check(x))


def branch_of_a_constant_predicate(x):
    checked = check(x)
    branch = second.get_concrete_function(x, x)
    return tf.raw_ops.If(
        cond=tf.constant(True),
        input=[checked, x],
        Tout=[tf.float32],
        then_branch=branch,
        else_branch=branch,
    )[0]


def inside_a_branch_of_a_constant_predicate(x):
    def then():
        check(x)
        return x * 2

    return tf.cond(tf.constant(True), then, lambda: x * 3)


def argument_of_a_branch(x):
    checked = check(x)
    return tf.cond(x[0] > 0, lambda: (x * 2, checked * 2), lambda: (x * 3, checked * 3))[0]


def inside_a_branch(x):
    def then():
        check(x)
        return x * 2

    return tf.cond(x[0] > 0, then, lambda: x * 3)


def loop_variable(x):
    return tf.while_loop(
        lambda i, *_: i < 3, lambda i, a, b: (i + 1, a * 2, b * 2), [0, x, check(x)]
    )[1]


def loop_variable_inside(x):
    return tf.while_loop(lambda i, *_: i < 3, lambda i, a, b: (i + 1, a * 2, check(b)), [0, x, x])[
        1
    ]


def loop_that_never_runs(x):
    return tf.while_loop(lambda *_: False, lambda a, b: (a * 2, b * 2), [x, check(x)])[0]


def loop_that_waits(x):
    with tf.control_dependencies([check(x)]):
        return tf.while_loop(lambda i, _: i < 3, lambda i, a: (i + 1, a), [0, x])[1]


def assertion_before(x):
    with tf.control_dependencies([v1.Assert(tf.reduce_all(x == x), [x])]):
        return second(tf.identity(x), x)


def shape_of_it(x):
    return tf.cast(tf.shape(check(x)), tf.float32)


CASES = [
    nobody_takes_it,
    argument_that_is_not_needed,
    result_that_is_not_taken,
    results_of_results,
    call_that_waits,
    output_of_a_branch_that_is_not_taken,
    branch_of_a_constant_predicate,
    inside_a_branch_of_a_constant_predicate,
    argument_of_a_branch,
    inside_a_branch,
    loop_variable,
    loop_variable_inside,
    loop_that_never_runs,
    loop_that_waits,
    assertion_before,
    shape_of_it,
]


def save_in_tf2(compute, path):
    module = tf.Module()
    module.call = tf.function(lambda x: {"y": compute(x)})
    call = module.call.get_concrete_function(tf.TensorSpec([2], tf.float32, "x"))
    tf.saved_model.save(module, str(path), signatures=call)


def save_in_tf1(compute, path):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [2], name="x")
        y = tf.identity(compute(x), name="y")
        v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": y})


def refuses(run, *args):
    """Whether numbers pass and NaN does not."""
    run(*args, {"x": GOOD})
    try:
        run(*args, {"x": BAD})
    except tf.errors.InvalidArgumentError:
        return True
    return False


def assert_checked_alike(path, scratch):
    original = refuses(harness.run_original_v1, path, "serving_default")
    scratch.mkdir()
    source = harness.saved_model(path, signatures=("serving_default",))
    frozen = harness.freeze_model(source, scratch)
    assert refuses(harness.run_frozen, frozen, "serving_default") == original
    given = StageInput(model=frozen, source=None)
    folded = fold.STAGE.run(given, fold.Params(), FakeContext(scratch)).model
    assert not verify(folded)
    assert refuses(harness.run_frozen, folded, "serving_default") == original
    return original


@pytest.mark.parametrize("compute", CASES, ids=lambda compute: compute.__name__)
def test_in_a_function_every_check_runs(compute, tmp_path):
    save_in_tf2(compute, tmp_path / "model")
    assert assert_checked_alike(tmp_path / "model", tmp_path / "scratch")


@pytest.mark.parametrize("compute", CASES, ids=lambda compute: compute.__name__)
def test_in_a_main_graph_those_run_that_are_needed(compute, tmp_path):
    save_in_tf1(compute, tmp_path / "model")
    assert_checked_alike(tmp_path / "model", tmp_path / "scratch")


def test_a_function_without_control_results(tmp_path):
    @function.Defun(tf.float32, func_name="inner")
    def inner(a):
        check(a)
        return a * 2

    @function.Defun(tf.float32, func_name="outer")
    def outer(a):
        return inner(a) + 1

    save_in_tf1(outer, tmp_path / "model")
    assert assert_checked_alike(tmp_path / "model", tmp_path / "scratch")


@pytest.mark.parametrize("outside", [False, True], ids=["in the branch", "before it"])
def test_a_call_in_a_branch_of_tf1(outside, tmp_path):
    def compute(x):
        v1.disable_control_flow_v2()
        try:
            checked = check(x) if outside else None
            return v1.cond(
                x[0] > 0, lambda: second(checked if outside else check(x), x), lambda: x * 3
            )
        finally:
            v1.enable_control_flow_v2()

    save_in_tf1(compute, tmp_path / "model")
    assert assert_checked_alike(tmp_path / "model", tmp_path / "scratch")
