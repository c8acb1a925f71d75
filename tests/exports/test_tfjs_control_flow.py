"""Branches and loops in TensorFlow.js under Node.js, as TensorFlow answers them."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.exports import tfjs as exported
from freezeflow.graph.canonical import canonical
from freezeflow.graph.inline import inline_model
from freezeflow.graph.profile import look
from freezeflow.graph.single import with_one_signature
from freezeflow.graph.stacked import stacked
from freezeflow.graph.tfjs_form import tfjs_form
from freezeflow.proof.saved_calls import load_calls, save_calls
from freezeflow.runtimes import browser
from freezeflow.runtimes.runtime import Names, Subject
from freezeflow.runtimes.tfjs_runtime import RUNTIME
from tests.exports.running import Branches
from tests.tf.built import model_of, run

pytestmark = pytest.mark.slow

# Rounds come closer to each other, so that what is rounded otherwise stays small.
W = 0.3 * np.random.default_rng(3).standard_normal((4, 4)).astype(np.float32)


def answered(model, calls, folder):
    """What TensorFlow.js gives for calls, in one process."""
    model, _ = stacked(model)
    look(model, exported.profile())
    formed = tfjs_form(model)
    ((name, signature),) = formed.signatures.items()
    (folder / "js").mkdir()
    exported._write_model(formed, folder / "js", "none")
    save_calls(folder / "calls", calls)
    ends = (signature.inputs, signature.outputs)
    names = Names(*({key: f"{spec.tensor}:0" for key, spec in side.items()} for side in ends))
    file = folder / "js" / exported.MAIN
    subject = Subject(file=file, names=names, signature_name=name, signature=signature)
    RUNTIME.answer(subject, folder / "calls", folder / "answers")
    return load_calls(folder / "answers")


def loop(condition, body, *start):
    return tf.while_loop(condition, body, start)


def up_to(number, body, *start):
    """`body` so many times, with what the rounds hand on."""
    return loop(lambda i, *_: i < number, lambda i, *v: (i + 1, *body(i, *v)), 0, *start)[1:]


def rounds_of(n):
    return tf.cast(n, tf.int32)[0]


def branch(x, n):
    return tf.cond(n[0] > 2, lambda: x @ W, lambda: x - 1.0)


def branch_of_constants(x, n):
    """Neither side takes anything from outside."""
    one, other = tf.constant(W[:1]), tf.constant(W[1:2])
    y, z = tf.cond(n[0] > 2, lambda: (one, one), lambda: (other, one * 2.0))
    return tf.concat([y, z, y], 0)


def branch_that_hands_on(x, n):
    y, z = tf.cond(n[0] > 2, lambda: (x, x), lambda: (x * 2.0, x))
    return y + 2.0 * z + x


def branch_that_gives_several(x, n):
    """Two results of one node, one of them twice, and the second output of an op."""

    def sorted_down():
        values, places = tf.nn.top_k(x, 2)
        return places, values, places

    def split():
        a, b = tf.split(x, 2, 1)
        return tf.cast(b, tf.int32), a, tf.cast(a, tf.int32)

    a, b, c = tf.cond(n[0] > 2, sorted_down, split)
    return tf.concat([tf.cast(a, tf.float32), b, tf.cast(c, tf.float32)], 1)


def branches_in_branches(x, n):
    def inner():
        return tf.cond(n[0] > 3, lambda: x * 3.0, lambda: tf.cond(n[0] > 2, lambda: -x, lambda: x))

    return tf.cond(n[0] > 1, inner, lambda: tf.zeros_like(x)) + tf.cond(n[0] > 3, inner, inner)


def simple_loop(x, n):
    return up_to(rounds_of(n), lambda i, v: (tf.tanh(v @ W),), x)[0]


def loop_that_never_runs(x, n):
    return up_to(0 * rounds_of(n), lambda i, v: (v @ W,), x)[0] + x


def loop_of_several(x, n):
    """What comes from outside stays as it is, values change places, one is used twice."""

    def body(i, a, b, c):
        return b + x, a * 0.5, c

    a, b, c = up_to(rounds_of(n), body, x, x + 1.0, x - 1.0)
    return a + b * c + b


def loop_of_constants(x, n):
    """A round gives constants alone."""
    y, z = up_to(rounds_of(n), lambda i, y, z: (tf.constant(W[:1]), y), x[:1], x[1:2])
    return tf.concat([y, z], 0)


def loop_by_value(x, n):
    goes_on = lambda v: tf.reduce_sum(tf.abs(v)) > 0.5  # noqa: E731
    return loop(goes_on, lambda v: (v * 0.5,), x)[0]


def loop_in_a_loop(x, n):
    def outer(i, v):
        inner = up_to(i, lambda j, u: (tf.sin(u) + tf.cast(i * j, tf.float32),), v)[0]
        return (inner + x,)

    return up_to(rounds_of(n), outer, x)[0]


def branch_in_a_loop(x, n):
    def body(i, v, w):
        even = tf.equal(i % 2, 0)
        return tf.cond(even, lambda: (v @ W, w), lambda: (v + x, v))

    return tf.add_n(up_to(rounds_of(n), body, x, x * 2.0))


def loop_in_a_branch(x, n):
    some = lambda: up_to(rounds_of(n), lambda i, v: (v * 0.5 + 1.0,), x)[0]  # noqa: E731
    return tf.cond(n[0] > 2, some, lambda: x)


def loops_one_behind_the_other(x, n):
    y = simple_loop(x, n)
    z = simple_loop(y, n)
    return up_to(rounds_of(n), lambda i, v: (v + y * z,), z)[0] + y


def functions_called_twice(x, n):
    @tf.function
    def twice(v):
        return tf.cond(n[0] > 2, lambda: v @ W, lambda: v)

    return twice(x) + twice(twice(x) * 2.0)


def whole_numbers_and_flags(x, n):
    def body(i, flag, total):
        return tf.logical_not(flag), tf.where(flag, total + i, total * 2)

    flag, total = up_to(rounds_of(n), body, tf.constant(True), tf.constant(1))
    return tf.cast(total, tf.float32) + tf.cast(flag, tf.float32) + x


def long_loop(x, n):
    """Many rounds, for what is disposed too early or never."""
    return up_to(rounds_of(n) * 50, lambda i, v: (tf.sin(v @ W) + x,), x)[0]


def steps_of_a_list(x, n):
    """As many rounds as the call tells, each of which sets an element of the call's batch."""
    length = rounds_of(n) + 1
    kept = tf.TensorArray(tf.float32, length, element_shape=(None, 4))
    state, kept = up_to(length, lambda i, v, kept: (tf.tanh(v @ W), kept.write(i, v)), x, kept)
    return state + tf.reduce_sum(kept.stack(), 0)


def list_that_is_read_again(x, n):
    kept = tf.TensorArray(tf.float32, 6, element_shape=(4,), clear_after_read=False)
    kept = kept.write(0, x[0]).write(1, x[1])
    body = lambda i, kept: (kept.write(i + 2, kept.read(i) + kept.read(i + 1)),)  # noqa: E731
    return up_to(rounds_of(n), body, kept)[0].stack()


def mapped(x, n):
    flags = tf.map_fn(lambda row: row[0] > 0.0, x, fn_output_signature=tf.bool)
    places = tf.map_fn(lambda row: tf.argmax(row, output_type=tf.int32), x, tf.int32)
    return tf.cast(tf.stack([tf.cast(flags, tf.int32), places]), tf.float32) + n


def scattered(x, n):
    """What a scatter takes is read afterwards, and is a weight."""
    places = tf.cast(n, tf.int32)[:, tf.newaxis] % 2
    y = tf.tensor_scatter_nd_update(x, places, -x[:1])
    z = tf.tensor_scatter_nd_update(tf.constant(W), places, x[:1])
    return tf.concat([x, y, z], 0)


CASES = [
    branch,
    branch_of_constants,
    branch_that_hands_on,
    branch_that_gives_several,
    branches_in_branches,
    simple_loop,
    loop_that_never_runs,
    loop_of_several,
    loop_of_constants,
    loop_by_value,
    loop_in_a_loop,
    branch_in_a_loop,
    loop_in_a_branch,
    loops_one_behind_the_other,
    functions_called_twice,
    whole_numbers_and_flags,
    long_loop,
    steps_of_a_list,
    list_that_is_read_again,
    mapped,
    scattered,
]


def built(make, folder):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        n = tf.compat.v1.placeholder(tf.float32, (1,), name="n")
        y = tf.identity(make(x, n), name="y")
    model = model_of(graph, {"x": x, "n": n}, {"y": y}, folder)
    return with_one_signature(canonical(inline_model(model)), None)


@pytest.mark.parametrize("make", CASES)
def test_as_tensorflow_answers(make, tmp_path, tfjs):
    if not tfjs:
        pytest.skip("TensorFlow.js cannot be had")
    model = built(make, tmp_path)
    x = np.random.default_rng(5).standard_normal((2, 4)).astype(np.float32)
    calls = [{"x": x, "n": np.float32([n])} for n in (4, 0, 1, 2, 3, 4)]
    for call, given in zip(calls, answered(model, calls, tmp_path), strict=True):
        expected = run(model, call)["y"]
        np.testing.assert_allclose(given["y"], expected, rtol=1e-5, atol=1e-6)


def test_a_choice_that_is_no_bool_is_refused(tmp_path):
    def chosen(x, n):
        return tf.raw_ops.If(
            cond=n[0], input=[x], Tout=[tf.float32], then_branch=_twice, else_branch=_twice
        )[0]

    _twice = tf.function(lambda v: (v * 2.0,)).get_concrete_function(tf.TensorSpec((None, 4)))
    with pytest.raises(ModelRefused, match="does not take If with Tcond float32"):
        look(built(chosen, tmp_path), exported.profile())


@pytest.mark.skipif(browser.found() is None, reason="Chromium is not installed")
def test_a_page_answers_as_well(tmp_path, tfjs):
    """On the backend that it chooses there."""
    if not tfjs:
        pytest.skip("TensorFlow.js cannot be had")
    makes = (branch_in_a_loop, loop_in_a_loop, list_that_is_read_again, mapped, scattered)

    def serve(x):
        three = tf.reduce_sum(x * 0.0, [0, 1])[tf.newaxis] + 3.0
        return {make.__name__: make(x, three) for make in makes}

    module = tf.Module()
    spec = tf.TensorSpec((None, 4), name="x")
    module.serve = tf.function(serve, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    (tmp_path / "p").mkdir()
    check = {"sizes": [3, 2]}
    ran = Branches(
        tmp_path / "p",
        {"tfjs": {"to": "js", "format": "tfjs", "check": check}},
        model=tmp_path / "model",
        jobs=1,
        checks={"page": ("tfjs", {"runtime": "tfjs_browser", **check})},
    )
    assert ran.facts("tfjs")["check"]["calls"] > 0
    verdict = ran.facts("page")["runtime_verdicts"][0]
    assert verdict["outputs"].keys() == {make.__name__ for make in makes}
