"""Networks that were frozen in training mode: their batch norms take mean and variance from the batch."""

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


class Norm(tf.Module):
    """A batch norm as ``is_training`` leaves it."""

    @tf.function(input_signature=[tf.TensorSpec([3, 4, 5, 2], tf.float32, name="x")])
    def serve(self, x):
        scale, offset = [2.0, 0.5], [0.25, -1.0]
        y = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=[], variance=[], is_training=True
        )
        # Keras 2 computes layer norms so.
        first = tf.raw_ops.FusedBatchNormV3(
            x=tf.reshape(x, [1, 6, 20, 1]),
            scale=[1.0, 2.0, 3.0, 1.0, 2.0, 3.0],
            offset=[0.5] * 6,
            mean=[],
            variance=[],
            is_training=True,
            data_format="NCHW",
            epsilon=0.01,
        )
        return {"y": y.y, "first": first.y}


def test_formats_compute_them(tmp_path, tfjs):
    module = Norm()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    (tmp_path / "p").mkdir()
    wanted = {name: params for name, params in FORMATS.items() if tfjs or name != "tfjs"}
    ran = Branches(tmp_path / "p", wanted, model=tmp_path / "model", jobs=1)
    for name in wanted:
        for output in ran.facts(name)["check"]["outputs"].values():
            assert output["max_abs"] < 1e-5, name
