"""Ops that a converter or a runtime reads otherwise: written in others, or refused before anything runs."""

import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from tests.exports.running import Branches

pytestmark = pytest.mark.slow


def x_of(*shape, dtype=tf.float32):
    return tf.TensorSpec(shape, dtype, name="x")


def scattered_twice(x):
    return {"y": tf.scatter_nd([[0], [1], [0]], x, [3])}


def rows_chosen(x):
    return {"y": tf.raw_ops.Select(condition=tf.reduce_sum(x, 1) > 0, x=x, y=-x)}


def quantised_and_back(x):
    y = tf.quantization.quantize_and_dequantize_v2(x, -1.0, 1.0, name="rounded")
    return {"y": y}


def nothing(x):
    return {"y": x[:, :0], "z": x + 1.0}


def sum_of_nothing(x):
    return {"y": tf.reduce_sum(x, 0) + 1.0}


def exported(serve, spec, folder, **export):
    module = tf.Module()
    module.serve = tf.function(serve, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "model"), signatures=module.serve)
    (folder / "p").mkdir()
    return Branches(folder / "p", {"e": export}, model=folder / "model", jobs=1)


def test_what_is_scattered_to_one_place_is_added_in_onnx(tmp_path):
    ran = exported(scattered_twice, x_of(3), tmp_path, to="m.onnx", format="onnx")
    assert ran.published("e")


def test_a_vector_chooses_rows_in_tensorflow_js(tmp_path, tfjs):
    if not tfjs:
        pytest.skip("Node.js or npm is not here, or npm cannot install @tensorflow/tfjs")
    assert exported(rows_chosen, x_of(2, 3), tmp_path, to="js", format="tfjs").published("e")


def test_tensorflow_js_takes_an_input_without_elements(tmp_path, tfjs):
    if not tfjs:
        pytest.skip("Node.js or npm is not here, or npm cannot install @tensorflow/tfjs")
    ran = exported(sum_of_nothing, x_of(0, 3), tmp_path, to="js", format="tfjs")
    assert ran.facts("e")["check"]["outputs"]["y"]["max_abs"] == 0


REFUSED = {
    quantised_and_back: "TFLite does not take QuantizeAndDequantize",
    nothing: "TFLite takes no output without elements: 'y' is [2, 0]",
}


@pytest.mark.parametrize("serve", REFUSED, ids=lambda each: each.__name__)
def test_what_tflite_does_not_compute_is_refused_beforehand(tmp_path, serve):
    error = exported(serve, x_of(2, 3), tmp_path, to="m.tflite", format="tflite").error("e")
    assert isinstance(error, ModelRefused)
    assert REFUSED[serve] in error.message
    assert error.where
    assert error.hint
