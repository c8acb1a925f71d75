"""Networks that compute in bfloat16, for targets that have float32 only."""

import keras
import onnxruntime
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.exports.manifest import read_manifest
from freezeflow.values import DType
from tests.exports.running import Branches

pytestmark = pytest.mark.slow

EXPORTS = {"onnx": {"to": "m.onnx", "format": "onnx"}}


def exported(model, folder):
    (folder / "p").mkdir()
    return Branches(folder / "p", EXPORTS, model=model, jobs=1)


def test_a_network_in_mixed_precision(tmp_path):
    keras.utils.set_random_seed(5)
    policy = keras.DTypePolicy("mixed_bfloat16")
    layers = [
        keras.layers.Conv2D(4, 3, dtype=policy),
        keras.layers.BatchNormalization(dtype=policy),
        keras.layers.GlobalAveragePooling2D(dtype=policy),
        keras.layers.Dense(2, activation="softmax", dtype=policy),
    ]
    network = keras.Sequential([keras.layers.Input((8, 8, 3), name="x"), *layers])
    network.export(str(tmp_path / "model"), verbose=False)
    ran = exported(tmp_path / "model", tmp_path)
    check = ran.facts("onnx")["check"]
    assert check["precision"] == "bfloat16"
    ((_, signature),) = read_manifest(ran.published("onnx")[-1]).signatures.items()
    assert {spec.dtype for spec in signature.outputs.values()} == {DType.FLOAT}
    (output,) = onnxruntime.InferenceSession(str(ran.published("onnx")[0])).get_outputs()
    assert output.type == "tensor(float)"


class Ends(tf.Module):
    """An input and an output in bfloat16, and numbers that float16 does not hold."""

    @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.bfloat16, name="x")])
    def serve(self, x):
        large = tf.constant(1e30, tf.bfloat16)
        return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: x * large, lambda: x - large)}


class Bits(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float32, name="x")])
    def serve(self, x):
        return {"y": tf.bitcast(tf.cast(x, tf.bfloat16), tf.int16, name="bits")}


@pytest.mark.parametrize("module", [Ends(), Bits()])
def test_ends_in_bfloat16_and_its_bytes(tmp_path, module):
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    ran = exported(tmp_path / "model", tmp_path)
    if isinstance(module, Ends):
        assert ran.facts("onnx")["check"]["outputs"]["y"]["within"]
        return
    error = ran.error("onnx")
    assert isinstance(error, ModelRefused)
    assert "ONNX does not take" in error.message
    assert "(bits)" in error.message
