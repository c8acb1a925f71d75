"""Five small models of different kinds, for the tests of reproducibility."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.cli.conftest import ROOT
from tests.constructs import tf1_models, tf2_models

v1 = tf.compat.v1


def write_all(folder: Path) -> None:
    """Writes ``cnn``, ``rnn``, ``table``, ``tf1``, ``two`` (signatures): SavedModels."""
    shutil.copytree(ROOT / "pipelines" / "digits" / "model", folder / "cnn")
    _rnn(folder / "rnn")
    _table(folder / "table")
    _tf1(folder / "tf1")
    _two_signatures(folder / "two")


def _rnn(folder: Path) -> None:
    import keras

    keras.utils.set_random_seed(5)
    inputs = keras.Input((6, 4), name="x")
    hidden = keras.layers.LSTM(16)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    model.export(str(folder), verbose=False)


def _table(folder: Path) -> None:
    (module, function), _ = tf2_models.static_table()
    tf.saved_model.save(module, str(folder), signatures=function)


def _tf1(folder: Path) -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        inputs, outputs = tf1_models.while_loop(resource=False)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), inputs, outputs)


class _Two(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        start = np.random.default_rng(9).normal(size=(3, 700)).astype(np.float32)
        self.w = tf.Variable(start)
        self.scale = tf.Variable(0.5)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def embed(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x @ self.w * tf.math.rsqrt(self.scale + 1.0)}

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def norm(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"n": tf.norm(x @ self.w, axis=1)}


def _two_signatures(folder: Path) -> None:
    module = _Two()
    signatures = {"embed": module.embed, "norm": module.norm}
    tf.saved_model.save(module, str(folder), signatures=signatures)
