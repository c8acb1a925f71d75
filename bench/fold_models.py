"""Builds the models that folding is measured on: ``python -m bench.fold_models NAME FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def application(name: str, folder: str, *, trained: bool) -> None:
    """An architecture of keras.applications, as it is before training or as if it were trained."""
    keras.utils.set_random_seed(11)
    model = getattr(keras.applications, name)(weights=None)
    if trained:
        as_if_trained(model)
    model.export(folder, verbose=False)


def as_if_trained(model: keras.Model) -> None:
    """Gives biases and the statistics of batch norms random values, as training would."""
    random = np.random.default_rng(5)
    for variable in model.weights:
        kind = variable.path.rsplit("/", 1)[-1]
        if kind in ("gamma", "beta", "bias", "moving_mean"):
            variable.assign(variable.numpy() + random.normal(size=variable.shape) * 0.05)
        elif kind == "moving_variance":
            variable.assign(random.uniform(0.8, 1.25, size=variable.shape))


def lstm(folder: str) -> None:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(500, 64),
            layers.Bidirectional(layers.LSTM(64, return_sequences=True)),
            layers.LSTM(64),
            layers.Dense(10, activation="softmax"),
        ]
    )
    as_if_trained(model)
    model.export(folder, verbose=False)


def transformer(folder: str) -> None:
    keras.utils.set_random_seed(4)
    layers = keras.layers
    tokens = keras.Input((32,), dtype="int32")
    x = layers.Embedding(500, 64)(tokens)
    for _ in range(4):
        attended = layers.MultiHeadAttention(4, 16)(x, x)
        x = layers.LayerNormalization()(x + attended)
        wide = layers.Dense(256, activation="gelu")(x)
        x = layers.LayerNormalization()(x + layers.Dense(64)(wide))
    model = keras.Model(tokens, layers.Dense(500)(x))
    as_if_trained(model)
    model.export(folder, verbose=False)


def tf1_network(folder: str) -> None:
    """A TF1 graph: batch norms by moments and arithmetic, dropout, a `cond` on a training flag."""
    v1.disable_control_flow_v2()
    v1.set_random_seed(7)
    with tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, [None, 32, 32, 3], name="image")
        training = v1.placeholder_with_default(False, [], name="training")
        x = image
        for number, width in enumerate((16, 32, 64)):
            with v1.variable_scope(f"block{number}"):
                x = _tf1_block(x, width, training)
        flat = tf.reshape(x, [tf.shape(x)[0], int(np.prod(x.shape[1:]))])
        weight = v1.get_variable("weight", [flat.shape[1], 10])
        scores = tf.nn.softmax(flat @ weight, name="scores")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, folder, {"image": image}, {"scores": scores})


def _tf1_block(x: tf.Tensor, width: int, training: tf.Tensor) -> tf.Tensor:
    def get(name: str, shape: list[int], start: float | None = None) -> tf.Tensor:
        initial = None if start is None else v1.constant_initializer(start)
        return v1.get_variable(name, shape, initializer=initial, use_resource=False)

    x = tf.nn.conv2d(x, get("kernel", [3, 3, x.shape[-1], width]), 2, "SAME")
    gamma, beta = get("gamma", [width], 1.1), get("beta", [width], 0.1)
    mean, variance = get("mean", [width], 0.2), get("variance", [width], 0.9)
    x, _, _ = v1.nn.fused_batch_norm(
        x, gamma, beta, mean=mean, variance=variance, is_training=False
    )
    x = tf.nn.relu(x)
    return v1.cond(training, lambda: tf.nn.dropout(x, rate=0.5), lambda: tf.identity(x))


def tf1_loop(folder: str) -> None:
    """A TF1 graph with a dynamic loop: a recurrent network written with `while_loop`."""
    v1.disable_control_flow_v2()
    v1.set_random_seed(8)
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 12, 8], name="x")
        weight = v1.get_variable("weight", [24, 16], use_resource=False)
        bias = v1.get_variable("bias", [16], use_resource=False)
        steps = tf.shape(x)[1]
        inputs = tf.transpose(x, [1, 0, 2])

        def body(i: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            joined = tf.concat([inputs[i], state], 1)
            return i + 1, tf.tanh(joined @ weight + bias)

        start = tf.zeros([tf.shape(x)[0], 16])
        shapes = [tf.TensorShape([]), tf.TensorShape([None, 16])]
        _, state = v1.while_loop(
            lambda i, _: i < steps, body, [tf.constant(0), start], shape_invariants=shapes
        )
        y = tf.identity(state, name="y")
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, folder, {"x": x}, {"y": y})


UNTRAINED = ", untrained"
MODELS: dict[str, Callable[[str], None]] = {
    "LSTM": lstm,
    "transformer": transformer,
    "TF1 network": tf1_network,
    "TF1 loop": tf1_loop,
}


def main() -> None:
    _, name, folder = sys.argv
    if name in MODELS:
        MODELS[name](folder)
    else:
        application(name.removesuffix(UNTRAINED), folder, trained=not name.endswith(UNTRAINED))


if __name__ == "__main__":
    main()
