"""Constructs that coremltools reads wrongly, or not at all, as they stand in a graph."""

import json

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from tests.exports.running import Branches

pytestmark = pytest.mark.slow

F32 = tf.float32
EXPORTS = {"coreml": {"to": "m.mlpackage", "format": "coreml"}}


def saved(serve, specs, folder):
    module = tf.Module()
    module.serve = tf.function(serve, input_signature=specs)
    tf.saved_model.save(module, str(folder / "model"), signatures=module.serve)
    return module.serve


def exported(folder):
    (folder / "p").mkdir()
    return Branches(folder / "p", EXPORTS, model=folder / "model", jobs=1)


def x_of(*shape, name="x", dtype=F32):
    return tf.TensorSpec(shape, dtype, name=name)


def one_tensor_twice(x):
    """One branch gives a tensor twice, the other two of them; one node takes both."""
    a, b = tf.cond(tf.reduce_sum(x) > 0, lambda: (x + 1.0, x + 1.0), lambda: (x * 2.0, x - 5.0))
    return {"y": a - 3.0 * b, "b": b}


def in_each_other(x):
    def inner(v):
        return tf.cond(tf.reduce_max(v) > 0.5, lambda: (v * 2.0, v), lambda: (v, v * 3.0))

    a, b = tf.cond(tf.reduce_sum(x) > 0, lambda: inner(x + 1.0), lambda: inner(x - 1.0))
    return {"y": a - 2.0 * b}


def with_the_same_branches(x):
    """Two branches with the same functions."""

    def chosen(v):
        return tf.cond(tf.reduce_sum(v) > 0, lambda: v + 1.0, lambda: v * 2.0)

    return {"y": chosen(x) - 3.0 * chosen(-x)}


def scalars(x, n):
    return {"y": x * tf.cast(n, F32) + 1.0, "n": n, "x": tf.identity(x)}


def names(x):
    return {
        "scope/out": x + 1.0,
        "scope_out": x - 1.0,
        "1st": x * 2.0,
        "true": -1.0 * x,
        "x": x + 5.0,
    }


def norm_in_training(x):
    made = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=[2.0, 0.5], offset=[1.0, -1.0], mean=[], variance=[], is_training=True
    )
    return {"y": made.y}


def long_integers_and_truth_values(n, flag):
    """At both ends, one of each handed on."""
    picked = tf.where(flag, n, -n)
    return {
        "y": picked + 1,
        "positive": picked > 0,
        "flag": tf.identity(flag),
        "n": tf.identity(n),
    }


CASES = {
    long_integers_and_truth_values: [
        x_of(2, 3, name="n", dtype=tf.int64),
        x_of(name="flag", dtype=tf.bool),
    ],
    norm_in_training: [x_of(2, 3, 3, 2)],
    one_tensor_twice: [x_of(2, 3)],
    in_each_other: [x_of(2, 3)],
    with_the_same_branches: [x_of(2, 3)],
    scalars: [x_of(), x_of(name="n", dtype=tf.int32)],
    names: [x_of(2, 3)],
}


@pytest.mark.parametrize("serve", CASES, ids=lambda each: each.__name__)
def test_the_program_computes_what_the_model_does(tmp_path, serve):
    from tests.exports.mil import answer

    run = saved(serve, CASES[serve], tmp_path)
    *_, manifest = exported(tmp_path).published("coreml")
    told = json.loads(manifest.read_text())["export"]
    for seed in range(4):
        made = np.random.default_rng(seed)
        given = {
            each.name: np.asarray(made.integers(-9, 9, each.shape) / 4).astype(
                each.dtype.as_numpy_dtype
            )
            for each in CASES[serve]
        }
        wanted = {key: value.numpy() for key, value in run(**given).items()}
        fed = {told["inputs"][key]: np.atleast_1d(value) for key, value in given.items()}
        found = answer(manifest.parent, fed)
        assert set(found) == set(told["outputs"].values())
        for key, value in wanted.items():
            have = found[told["outputs"][key]]
            assert have.shape == value.shape, key
            np.testing.assert_allclose(have, value, rtol=1e-5, atol=1e-5, err_msg=key)


def constant(x):
    return {"y": x + 1.0, "labels": tf.constant([1.0, 2.0])}


def loop(x):
    return {"y": tf.while_loop(lambda v: tf.reduce_sum(v) < 9.0, lambda v: (v + 1.0,), (x,))[0]}


def of_any_rank(x):
    return {"y": x + 1.0}


REFUSED = {
    constant: ([x_of(2)], "no output that no input reaches: 'labels'"),
    loop: ([x_of(2)], "functional control flow: StatelessWhile (while)"),
    of_any_rank: ([tf.TensorSpec(None, F32, name="x")], "inputs of known rank only"),
}


@pytest.mark.parametrize("serve", REFUSED, ids=lambda each: each.__name__)
def test_what_it_does_not_take_is_refused_beforehand(tmp_path, serve):
    specs, told = REFUSED[serve]
    saved(serve, specs, tmp_path)
    error = exported(tmp_path).error("coreml")
    assert isinstance(error, ModelRefused)
    assert told in error.message
    assert error.where
    assert error.hint


def test_a_network_with_open_length_in_bfloat16_and_an_unused_input(tmp_path):
    def serve(x, unused):
        return {"y": tf.cast(tf.nn.relu(tf.cast(x, tf.bfloat16)), F32)}

    saved(serve, [x_of(None, 3), x_of(2, name="unused")], tmp_path)
    ran = exported(tmp_path)
    *_, manifest = ran.published("coreml")
    assert json.loads(manifest.read_text())["export"]["inputs"] == {"x": "x"}
    assert ran.facts("coreml")["structure"]["kind"] == "mlProgram"
