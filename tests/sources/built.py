"""Small good models of every kind that is read, built by TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from freezeflow.values import ModelSource

v1 = tf.compat.v1
F32 = tf.float32


class Dense(tf.Module):
    """A condition, a loop, a call and a table around a weight that stays out of line."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(5)
        self.w = tf.Variable(rng.normal(size=(3, 100)).astype(np.float32))
        self.b = tf.Variable(np.arange(100, dtype=np.float32))
        self.names = tf.Variable(["zero", "one", "two"])
        keys = tf.constant([0, 1], tf.int64)
        initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.constant(["a", "b"]))
        self.table = tf.lookup.StaticHashTable(initializer, "?")

    @tf.function(input_signature=[tf.TensorSpec([None, 3], F32, name="x")])
    def serve(self, x):
        y = tf.cond(tf.reduce_sum(x) > 0, lambda: x @ self.w, lambda: x @ self.w + self.b)
        y = tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, y * self.b), [0, y])[1]
        return {
            "y": y,
            "name": self.names[1],
            "letter": self.table.lookup(tf.constant([1, 7], tf.int64)),
        }


def tf2_module(folder: Path) -> ModelSource:
    model = Dense()
    tf.saved_model.save(model, str(folder), signatures=model.serve)
    return ModelSource(kind="saved_model", path=folder)


def keras_model():
    import keras

    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(80, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(hidden))


def keras_export(folder: Path) -> ModelSource:
    keras_model().export(str(folder), verbose=False)
    return ModelSource(kind="saved_model", path=folder)


def keras_archive(file: Path) -> ModelSource:
    keras_model().save(str(file))
    return ModelSource(kind="keras", path=file)


def _tf1_graph(resource):
    x = v1.placeholder(F32, [None, 3], name="x")
    start = np.random.default_rng(6).normal(size=(3, 100)).astype(np.float32)
    w = v1.get_variable("w", initializer=start, use_resource=resource)
    b = v1.get_variable("b", initializer=np.ones(100, np.float32), use_resource=resource)
    v1.disable_control_flow_v2()
    try:
        y = v1.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: x @ w + b)
        y = v1.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, y * b), [0, y])[1]
    finally:
        v1.enable_control_flow_v2()
    return x, tf.identity(y, name="y")


def tf1_saved_model(folder: Path) -> ModelSource:
    vocabulary = folder.parent / "words.txt"
    vocabulary.write_text("apple\nbanana\ncherry\n")
    with tf.Graph().as_default(), v1.Session() as session:
        x, y = _tf1_graph(resource=False)
        asset = tf.constant(str(vocabulary))
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            2,
        )  # fmt: skip
        ids = table.lookup(tf.constant(["banana", "plum"]))
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": v1.saved_model.predict_signature_def({"x": x}, {"y": y, "i": ids})},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        builder.save()
    return ModelSource(kind="saved_model", path=folder)


def checkpoint(folder: Path, version=v1.train.SaverDef.V2) -> ModelSource:
    folder.mkdir()
    with tf.Graph().as_default(), v1.Session() as session:
        _tf1_graph(resource=version == v1.train.SaverDef.V2)
        session.run(v1.global_variables_initializer())
        v1.train.Saver(write_version=version).save(session, str(folder / "model.ckpt"))
    return ModelSource(kind="checkpoint", path=folder / "model.ckpt", outputs=("y",))


def checkpoint_v1(folder: Path) -> ModelSource:
    return checkpoint(folder, v1.train.SaverDef.V1)


def frozen_graph(folder: Path) -> ModelSource:
    folder.mkdir()

    @tf.function
    def inner(x):
        return tf.nn.relu(x) + tf.constant(np.arange(3, dtype=np.float32))

    with tf.Graph().as_default() as graph:
        x = v1.placeholder(F32, [None, 3], name="x")
        w = tf.constant(np.random.default_rng(7).normal(size=(3, 200)).astype(np.float32))
        step = lambda i, y: (i + 1, inner(y))  # noqa: E731
        y = tf.while_loop(lambda i, _: i < 3, step, [0, x])[1]
        tf.matmul(y, w, name="y")
    (folder / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return ModelSource(kind="frozen_graph", path=folder / "graph.pb", outputs=("y",))
