"""Variables that a function's body names itself, by their shared name, instead of taking a handle."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from freezeflow.stages import strip
from freezeflow.stages.stage import StageInput
from tests.constructs import harness
from tests.constructs.test_kept import assert_same_answers, exported
from tests.constructs.tf1_models import X, placeholder

v1 = tf.compat.v1


def by_name(name, shape):
    return tf.raw_ops.VarHandleOp(shared_name=name, dtype=tf.float32, shape=shape)


def saved(path, *, writes):
    with tf.Graph().as_default(), v1.Session(config=harness.exact_config()) as session:
        x = placeholder()
        v1.get_variable("w", initializer=np.array([2.0, 3.0, 5.0], np.float32), use_resource=True)
        v1.get_variable("count", initializer=np.float32(1.0), use_resource=True)

        @tf.function(autograph=False)
        def body(y):
            count = by_name("count", [])
            if writes:
                tf.raw_ops.AssignAddVariableOp(resource=count, value=1.0)
            w = tf.raw_ops.ReadVariableOp(resource=by_name("w", [3]), dtype=tf.float32)
            return y * w + tf.raw_ops.ReadVariableOp(resource=count, dtype=tf.float32)

        y = tf.identity(body(x), name="y")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(path), {"x": x}, {"y": y})
    return path


def test_frozen(tmp_path):
    path = saved(tmp_path / "model", writes=False)
    harness.assert_frozen_equals(path, tmp_path, {"x": X}, v1_loader=True)


def test_kept(tmp_path):
    path = saved(tmp_path / "model", writes=True)
    source = harness.saved_model(path)
    kept, variables = exported(source, tmp_path)
    assert variables == {"count"}
    assert_same_answers(path, kept, "tf1")
    assert_same_answers(path, kept, "tf1")


def test_a_kept_variable_survives_strip(tmp_path):
    source = harness.saved_model(saved(tmp_path / "model", writes=True))
    model = harness.freeze_model(source, tmp_path, written="keep")
    again = strip.STAGE.run(StageInput(model=model, source=source), strip.Params(), None).model
    assert set(again.variables) == {"count"}
    assert "count" in again.graph.nodes
