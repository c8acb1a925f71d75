"""Convolutions in groups are right in every format."""

import numpy as np
import pytest
import tensorflow as tf

from tests.exports.running import Branches

pytestmark = pytest.mark.slow

FORMATS = {
    "onnx": {"to": "m.onnx", "format": "onnx"},
    "tflite": {"to": "m.tflite", "format": "tflite"},
    "openvino": {"to": "m.xml", "format": "openvino"},
    "tfjs": {"to": "js", "format": "tfjs"},
    "stablehlo": {"to": "m.mlirbc", "format": "stablehlo"},
}


@tf.function(jit_compile=True)
def conv3d(x, filters):
    """As Keras does it: TensorFlow has no kernel for groups in three dimensions, but XLA has."""
    return tf.nn.conv3d(x, filters, [1] * 5, "SAME")


class Groups(tf.Module):
    """Two groups, as many groups as channels, and groups in three dimensions."""

    @tf.function(input_signature=[tf.TensorSpec([1, 5, 6, 4], tf.float32, name="x")])
    def serve(self, x):
        def filters(*shape):
            return tf.constant(np.random.default_rng(7).normal(size=shape).astype("float32"))

        return {
            "two": tf.nn.conv2d(x, filters(3, 3, 2, 6), 1, "SAME"),
            "each": tf.nn.conv2d(x, filters(3, 2, 1, 8), [1, 2, 1, 1], "VALID"),
            "deep": conv3d(x[None], filters(1, 3, 3, 2, 6)),
        }


def test_formats_compute_them(tmp_path, tfjs):
    module = Groups()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    (tmp_path / "p").mkdir()
    wanted = {name: params for name, params in FORMATS.items() if tfjs or name != "tfjs"}
    ran = Branches(tmp_path / "p", wanted, model=tmp_path / "model", jobs=1)
    for name in wanted:
        assert set(ran.facts(name)["check"]["outputs"]) == {"two", "each", "deep"}, name
