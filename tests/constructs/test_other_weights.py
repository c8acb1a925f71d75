"""Weights from a newer checkpoint, and moving averages."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused, UsageError
from freezeflow.values import ModelSource
from tests.constructs import harness, tf1_models, tf2_models
from tests.constructs.test_tf1 import build
from tests.constructs.test_tf2 import save
from tests.constructs.tf1_models import X

v1 = tf.compat.v1


@pytest.mark.parametrize("wrapped", [False, True], ids=["the model", "an object that holds it"])
def test_newer_weights_into_the_same_graph(wrapped, tmp_path):
    (model, function), feeds = tf2_models.large_dense()
    save(model, function, tmp_path / "model")
    model.w.assign(model.w * 3.0)
    want = {"y": function(tf.constant(feeds["x"]))["y"].numpy()}
    checkpoint = tf.train.Checkpoint(net=model) if wrapped else tf.train.Checkpoint(model)
    prefix = checkpoint.write(str(tmp_path / "newer"))
    source = dataclasses.replace(harness.saved_model(tmp_path / "model"), weights=tmp_path / prefix)
    frozen = harness.freeze_model(source, tmp_path)
    harness.assert_same(want, harness.run_frozen(frozen, "serving_default", feeds))


def test_weights_of_another_model(tmp_path):
    (model, function), _ = tf2_models.dense()
    save(model, function, tmp_path / "model")
    other = tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / "other"))
    source = dataclasses.replace(harness.saved_model(tmp_path / "model"), weights=tmp_path / other)
    with pytest.raises(ModelRefused, match="the checkpoint has no 'b"):
        harness.freeze_model(source, tmp_path)


@pytest.mark.parametrize("averages", [False, True])
def test_moving_averages(averages, tmp_path):
    want = {}

    def make(resource):
        inputs, outputs = tf1_models.dense(resource)
        ema = v1.train.ExponentialMovingAverage(0.5)
        variables = v1.trainable_variables()
        ema.apply(variables)
        for variable in variables:
            v1.add_to_collection("start", v1.assign(ema.average(variable), variable * 2.0 + 1.0))
        return inputs, {"y": tf.identity(outputs["y"], name="out")}

    def write(session, inputs, outputs):
        v1.train.Saver().save(session, str(tmp_path / "model"))
        if averages:
            for variable in v1.trainable_variables():
                session.run(v1.assign(variable, variable * 2.0 + 1.0))
        want["y"] = session.run(outputs["y"], {inputs["x"]: X})

    build(make, False, write)
    source = ModelSource(
        kind="checkpoint",
        path=tmp_path / "model",
        inputs=("x",),
        outputs=("out",),
        averages=averages,
    )
    model = harness.freeze_model(source, tmp_path)
    harness.assert_same(want, {"y": harness.run_frozen(model, "serving_default", {"x": X})["out"]})


def test_averages_that_are_not_there(tmp_path):
    build(
        tf1_models.dense,
        True,
        lambda session, *_: v1.train.Saver().save(session, str(tmp_path / "m")),
    )
    source = ModelSource(
        kind="checkpoint", path=tmp_path / "m", inputs=("x",), outputs=("add",), averages=True
    )
    with pytest.raises(ModelRefused, match="holds no moving averages"):
        harness.freeze_model(source, tmp_path)


@pytest.mark.parametrize("with_saver", [True, False], ids=["with restore ops", "by names"])
@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_a_graph_and_a_checkpoint_without_meta_graph(resource, with_saver, tmp_path):
    """What `freeze_graph` takes; N16: with resource variables TensorFlow's ends in an IndexError."""
    want = {}

    def write(session, inputs, outputs):
        graph_def = session.graph.as_graph_def()
        v1.train.Saver().save(session, str(tmp_path / "w"), write_meta_graph=False)
        if with_saver:
            graph_def = session.graph.as_graph_def()
        v1.train.write_graph(graph_def, str(tmp_path), "graph.pbtxt", as_text=True)
        want["y"] = session.run(outputs["y"], {inputs["x"]: X})

    build(tf1_models.dense, resource, write)
    source = ModelSource(
        kind="frozen_graph",
        path=tmp_path / "graph.pbtxt",
        inputs=("x",),
        outputs=("add",),
        weights=tmp_path / "w",
    )
    model = harness.freeze_model(source, tmp_path)
    harness.assert_same(want, {"y": harness.run_frozen(model, "serving_default", {"x": X})["add"]})


def test_a_graph_with_variables_and_no_checkpoint(tmp_path):
    def write(session, inputs, outputs):
        v1.train.write_graph(session.graph, str(tmp_path), "graph.pb", as_text=False)

    build(tf1_models.dense, False, write)
    source = ModelSource(kind="frozen_graph", path=tmp_path / "graph.pb", outputs=("add",))
    with pytest.raises(ModelRefused, match="has no value"):
        harness.freeze_model(source, tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (ModelSource(kind="keras", path=Path("m.keras"), averages=True), "its own weights"),
        (ModelSource(kind="keras", path=Path("m.keras"), weights=Path("w")), "its own weights"),
        (ModelSource(kind="frozen_graph", path=Path("g.pb"), averages=True), "no moving averages"),
    ],
)
def test_other_weights_where_there_are_none(source, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        harness.freeze_model(source, tmp_path)
