"""Builds the models that are measured, with TensorFlow: ``python -m bench.models BYTES FOLDER``."""

from __future__ import annotations

import sys

import tensorflow as tf

_WIDTH = 4096
_LAYER_BYTES = _WIDTH * _WIDTH * 4


class Dense(tf.Module):
    """A chain of square matrix products; about as many bytes of weights as asked for."""

    def __init__(self, nbytes: int) -> None:
        super().__init__()
        count = max(1, round(nbytes / _LAYER_BYTES))
        width = _WIDTH if nbytes >= _LAYER_BYTES else 64
        self.weights = [tf.Variable(tf.random.uniform([width, width])) for _ in range(count)]
        self.width = width

    def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        for weight in self.weights:
            x = tf.nn.relu(tf.matmul(x, weight))
        return {"y": x}


def main() -> None:
    _, nbytes, folder = sys.argv
    model = Dense(int(nbytes))
    signature = tf.function(model.__call__).get_concrete_function(
        tf.TensorSpec([None, model.width], tf.float32, name="x")
    )
    tf.saved_model.save(model, folder, signatures=signature)


if __name__ == "__main__":
    main()
