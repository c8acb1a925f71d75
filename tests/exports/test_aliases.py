"""A signature of TensorFlow 1 that names a placeholder twice."""

import json

import onnxruntime
import pytest
import tensorflow as tf

from freezeflow.errors import RuntimeRefused
from freezeflow.exports.manifest import read_manifest
from freezeflow.graph.single import without_aliases
from freezeflow.values import DType
from tests.exports.running import Branches
from tests.graphs import graph, model, node, placeholder, spec

v1 = tf.compat.v1

EXPORTS = {
    "onnx": {"to": "m.onnx", "format": "onnx", "shapes": {"b": [3, 2]}},
    "openvino": {"to": "m.xml", "format": "openvino"},
    "coreml": {"to": "m.mlpackage", "format": "coreml"},
    "graph": {"to": "m.pb", "check": True},
    "saved_model": {"to": "sm", "format": "saved_model", "check": True},
    "unchecked": {"to": "unchecked", "format": "saved_model"},
}


def test_the_first_key_stays():
    x = spec("x", DType.FLOAT, (2,))
    made = model(
        graph(placeholder("x", DType.FLOAT, (2,)), node("y", "Identity", "x", T=DType.FLOAT)),
        {"a": x, "b": x, "c": x},
        {"y": spec("y", DType.FLOAT, (2,))},
    )
    alone, aliases = without_aliases(made)
    assert alone.signatures["serving_default"].inputs == {"a": x}
    assert aliases == {"b": "a", "c": "a"}
    assert without_aliases(alone) == (alone, {})


@pytest.mark.slow
def test_a_file_has_the_input_once(tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        z = v1.placeholder(tf.float32, [None, 2], "z")
        y = tf.subtract(2.0 * x, z, "y")
        inputs = {"a": x, "b": x, "z": z}
        v1.saved_model.simple_save(session, str(tmp_path / "model"), inputs, {"y": y})
    (tmp_path / "p").mkdir()
    ran = Branches(tmp_path / "p", EXPORTS, model=tmp_path / "model", jobs=1)
    for name in ("onnx", "openvino", "coreml"):
        manifest = read_manifest(ran.published(name)[-1])
        assert manifest.export["aliases"] == {"b": "a"}
        assert set(manifest.export["inputs"]) == {"a", "z"}
    assert ran.facts("onnx")["check"]["outputs"]["y"]["max_abs"] == 0
    given = onnxruntime.InferenceSession(str(ran.published("onnx")[0])).get_inputs()
    assert {each.name: each.shape[0] == 3 for each in given} == {"a": True, "z": False}
    assert ran.facts("graph")["checks"]
    error = ran.error("saved_model")
    assert isinstance(error, RuntimeRefused)
    assert "inputs 'a' and 'b' are one tensor" in error.message
    manifest = json.loads(ran.published("unchecked")[-1].read_text())
    inputs = manifest["signatures"]["serving_default"]["inputs"]
    assert {key: end["tensor"] for key, end in inputs.items()} == {
        "a": "a:0",
        "b": "a:0",
        "z": "z:0",
    }
