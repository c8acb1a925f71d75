"""Element types, and ends of all kinds: what a format takes is right, the rest is refused first."""

import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from tests.exports.running import Branches

pytestmark = pytest.mark.slow

FORMATS = {
    "openvino": {"to": "m.xml", "format": "openvino"},
    "tflite": {"to": "m.tflite", "format": "tflite"},
    "tfjs": {"to": "js", "format": "tfjs"},
    "stablehlo": {"to": "m.mlirbc", "format": "stablehlo"},
}


def exported(tmp_path, serve, specs, formats):
    module = tf.Module()
    module.serve = tf.function(serve, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    (tmp_path / "p").mkdir()
    wanted = {name: FORMATS[name] for name in formats}
    return Branches(tmp_path / "p", wanted, model=tmp_path / "model", jobs=1)


def test_brain_floats_at_the_ends(tmp_path, tfjs):
    def serve(b, x):
        scaled = b * tf.constant(3.0, tf.bfloat16) + tf.constant([1.0, 2.0, 3.0], tf.bfloat16)
        return {"same": b, "y": scaled, "z": tf.cast(scaled, tf.float32) + x}

    specs = [
        tf.TensorSpec([2, 3], tf.bfloat16, name="b"),
        tf.TensorSpec([2, 3], tf.float32, name="x"),
    ]
    formats = ["openvino", "tflite", *(["tfjs"] if tfjs else [])]
    ran = exported(tmp_path, serve, specs, formats)
    for name in formats:
        assert set(ran.facts(name)["check"]["outputs"]) == {"same", "y", "z"}, name


def test_ends_that_are_one_tensor_or_none(tmp_path, tfjs):
    def serve(x, i):
        constant = tf.constant([1.0, 2.0])
        return {"same": x, "again": x, "c": constant, "d": constant, "f": tf.cast(i, tf.float32)}

    specs = [
        tf.TensorSpec([2, 3], tf.float32, name="x"),
        tf.TensorSpec([2, 3], tf.int32, name="i"),
    ]
    formats = [name for name in FORMATS if tfjs or name != "tfjs"]
    ran = exported(tmp_path, serve, specs, formats)
    for name in formats:
        outputs = ran.facts(name)["check"]["outputs"]
        assert set(outputs) == {"same", "again", "c", "d", "f"}, name


def test_an_input_with_a_default_stays_an_input_of_openvino(tmp_path):
    folder = tmp_path / "model"
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        x = tf.compat.v1.placeholder(tf.float32, [2, 3], "x")
        scale = tf.compat.v1.placeholder_with_default(tf.constant(2.0), [], "scale")
        ends = {"x": x, "scale": scale}, {"y": x * scale}
        tf.compat.v1.saved_model.simple_save(session, str(folder), *ends)
    (tmp_path / "p").mkdir()
    ran = Branches(tmp_path / "p", {"openvino": FORMATS["openvino"]}, model=folder, jobs=1)
    assert ran.facts("openvino")["inputs"] == ["scale", "x"]


def test_complex_numbers_are_refused_by_openvino(tmp_path):
    specs = [tf.TensorSpec([2, 3], tf.float32, name="x")]

    def serve(x):
        return {"y": tf.math.real(tf.complex(x, x) * tf.constant(2j, tf.complex64, name="turn"))}

    error = exported(tmp_path, serve, specs, ["openvino"]).error("openvino")
    assert isinstance(error, ModelRefused)
    assert error.message == "OpenVINO has no complex64 constants"
    assert "turn" in error.where
    assert "float32" in error.hint


def test_xla_and_its_formats_name_the_type(tmp_path):
    specs = [
        tf.TensorSpec([2, 3], tf.float32, name="x"),
        tf.TensorSpec([2, 3], tf.uint8, name="i"),
    ]

    def serve(x, i):
        return {
            "y": x
            + tf.cast(tf.linalg.matmul(i, i, transpose_b=True, name="product")[0, 0], x.dtype)
        }

    error = exported(tmp_path, serve, specs, ["stablehlo"]).error("stablehlo")
    assert isinstance(error, ModelRefused)
    assert error.message.startswith("StableHLO does not take")
    assert "uint8" in error.message
    assert "product" in error.where


@pytest.mark.parametrize(
    ("serve", "text"),
    [
        (lambda x: {"y": tf.cast(x, tf.bfloat16)}, "StableHLO has no bfloat16 outputs: 'y'"),
        (lambda x: {"y": tf.constant(["a"]), "z": x}, "StableHLO has no string outputs: 'y'"),
        (lambda x: {"y": tf.where(x > 0, name="at")}, "StableHLO does not take Where (at)"),
    ],
)
def test_what_stablehlo_has_not_is_refused_before_it_converts(tmp_path, serve, text):
    specs = [tf.TensorSpec([2, 3], tf.float32, name="x")]
    error = exported(tmp_path, serve, specs, ["stablehlo"]).error("stablehlo")
    assert isinstance(error, ModelRefused)
    assert error.message == text
    assert error.hint


def test_the_ops_of_a_module_are_read(tmp_path):
    from tensorflow.compiler.mlir.tensorflow_to_stablehlo.python import (
        pywrap_tensorflow_to_stablehlo as converting,
    )

    from freezeflow.tf.to_stablehlo import op_names

    module = tf.Module()
    spec = tf.TensorSpec([2, 3], tf.float32, name="x")
    module.serve = tf.function(
        lambda x: {"y": tf.cast(tf.where(x > 0), tf.float32) + 1.0}, input_signature=[spec]
    )
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    found = op_names(
        converting.savedmodel_to_stablehlo(
            input_path=str(tmp_path / "model"),
            exported_model_signatures=["serving_default"],
            tag_names=["serve"],
        )
    )
    assert {"func", "return"} <= set(found["func"])
    assert {"compare", "constant"} <= set(found["stablehlo"])
    assert set(found) - {"builtin", "func", "stablehlo"}
