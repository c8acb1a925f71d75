"""Inputs bound to a value, and writes: N4 and N5 of what TensorFlow's own freezer gets wrong."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused, UsageError
from tests.constructs import harness, tf1_models, tf2_models
from tests.constructs.test_tf1 import saved
from tests.constructs.test_tf2 import save
from tests.constructs.tf1_models import X, variable

v1 = tf.compat.v1


def batch_norm(resource):
    """TF1 batch norm with both sides of `is_training`; only one writes the moving mean."""
    x = tf1_models.placeholder()
    training = v1.placeholder_with_default(False, [], name="is_training")
    mean = variable("mean", 3, resource=resource)

    def train():
        batch_mean = tf.reduce_mean(x, 0)
        with tf.control_dependencies([v1.assign(mean, 0.9 * mean + 0.1 * batch_mean)]):
            return x - batch_mean

    return {"x": x, "is_training": training}, {"y": v1.cond(training, train, lambda: x - mean)}


def batch_norm_tf2():
    def run(m, x, training):
        def train():
            mean = tf.reduce_mean(x, 0)
            m.mean.assign(0.9 * m.mean + 0.1 * mean)
            return x - mean

        return {"y": tf.cond(training, train, lambda: x - m.mean)}

    signature = [tf2_models.spec([None, 3]), tf2_models.spec([], tf.bool, "training")]
    return tf2_models.build(run, signature, mean=tf2_models.weight(3, name="mean"))


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_batch_norm_of_tf1(resource, tmp_path):
    path = saved(batch_norm, resource, tmp_path / "model")
    with pytest.raises(ModelRefused, match="'mean' is written by Assign"):
        harness.freeze_model(harness.saved_model(path), tmp_path)
    model = harness.freeze_model(harness.saved_model(path), tmp_path, bind={"is_training": False})
    want = harness.run_original_v1(path, "serving_default", {"x": X, "is_training": False})
    harness.assert_same(want, harness.run_frozen(model, "serving_default", {"x": X}))
    assert list(model.signatures["serving_default"].inputs) == ["x"]
    assert not {n.op for n in model.graph.nodes.values()} & {"Switch", "Merge", "Assign"}


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_of_tf2(training, tmp_path):
    model, function = batch_norm_tf2()
    save(model, function, tmp_path / "model")
    with pytest.raises(ModelRefused, match="written by AssignVariableOp"):
        harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    frozen = harness.freeze_model(
        harness.saved_model(tmp_path / "model"), tmp_path, bind={"training": training}
    )
    feeds = {"x": X, "training": np.bool_(training)}
    want = harness.run_original(tmp_path / "model", "serving_default", feeds)
    harness.assert_same(want, harness.run_frozen(frozen, "serving_default", {"x": X}))
    assert not {n.op for n in frozen.graph.nodes.values()} & {"If", "StatelessIf"}


def constant_predicate(training):
    """Both sides of a condition that is settled; loops on both, a write on the one that is dead."""

    def make(resource):
        x = tf1_models.placeholder()
        mean, scale = (variable(name, 3, resource=resource) for name in ("mean", "scale"))

        def loop(step):
            start = [0, tf.ensure_shape(x, [None, 3])]
            return v1.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, step(y)), start)[1]

        def alive():
            return loop(lambda y: tf.ensure_shape(y * scale, [None, 3]))

        def dead():
            with tf.control_dependencies([v1.assign(mean, scale * 2.0)]):
                return loop(lambda y: tf.ensure_shape(y - mean, [None, 3]))

        predicate = tf.logical_not(tf.constant(not training))
        branches = (alive, dead) if training else (dead, alive)
        return {"x": x}, {"y": v1.cond(predicate, *branches) - mean}

    return make


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_a_write_on_a_branch_that_is_never_taken(resource, training, tmp_path):
    path = saved(constant_predicate(training), resource, tmp_path / "model")
    model = harness.assert_frozen_equals(path, tmp_path, {"x": X}, v1_loader=True)
    assert not {n.op for n in model.graph.nodes.values()} & {"Assign", "AssignVariableOp"}


def test_a_dropped_write_keeps_the_saved_value(tmp_path):
    model, function = batch_norm_tf2()
    save(model, function, tmp_path / "model")
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path, written="drop")
    for training in (True, False):
        feeds = {"x": X, "training": np.bool_(training)}
        have = harness.run_frozen(frozen, "serving_default", feeds)
        mean = X.mean(0) if training else model.mean.numpy()
        np.testing.assert_allclose(have["y"], X - mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("bind", "message"),
    [({"trainin": False}, "no input 'trainin'"), ({"training": 3}, "is bool; 3 is no such value")],
)
def test_a_wrong_binding(bind, message, tmp_path):
    model, function = batch_norm_tf2()
    save(model, function, tmp_path / "model")
    with pytest.raises(UsageError, match=message):
        harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path, bind=bind)
