"""Builds the models that are measured, with TensorFlow.

``python -m bench.models BYTES FOLDER [VARIABLES]``; without a number of variables they have 64 MB each.
"""

from __future__ import annotations

import sys

import tensorflow as tf

_WIDTH = 4096
_SMALL_WIDTH = 64
_LAYER_BYTES = _WIDTH * _WIDTH * 4


def save_dense(nbytes: int, folder: str, variables: int = 0) -> None:
    """Saves a chain of square matrix products with about as many bytes of weights as asked for."""
    width = _WIDTH if nbytes >= _LAYER_BYTES else _SMALL_WIDTH
    count = max(1, round(nbytes / _LAYER_BYTES))
    if variables:
        count, width = variables, round((nbytes / variables / 4) ** 0.5)
    model = tf.Module()
    model.weights = [tf.Variable(tf.random.uniform([width, width])) for _ in range(count)]

    def call(x: tf.Tensor) -> dict[str, tf.Tensor]:
        for weight in model.weights:
            x = tf.nn.relu(tf.matmul(x, weight))
        return {"y": x}

    signature = tf.function(call).get_concrete_function(
        tf.TensorSpec([None, width], tf.float32, name="x")
    )
    tf.saved_model.save(model, folder, signatures=signature)


def main() -> None:
    _, nbytes, folder, *variables = sys.argv
    save_dense(int(nbytes), folder, *map(int, variables))


if __name__ == "__main__":
    main()
