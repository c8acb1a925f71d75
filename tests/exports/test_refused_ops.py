"""Ops that a target does not take are named beforehand, with their nodes."""

import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from tests.exports.running import Branches

pytestmark = pytest.mark.slow

FORMATS = {
    "stablehlo": {"to": "m.mlirbc", "format": "stablehlo"},
    "coreml": {"to": "m.mlpackage", "format": "coreml"},
    "openvino": {"to": "m.xml", "format": "openvino"},
    "tflite": {"to": "m.tflite", "format": "tflite"},
}


class Through(tf.Module):
    """A number that goes through a string."""

    @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float32, name="x")])
    def serve(self, x):
        return {"y": tf.strings.to_number(tf.strings.as_string(x), name="number") + 1.0}


def test_ops_and_nodes_are_named(tmp_path):
    module = Through()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    (tmp_path / "p").mkdir()
    ran = Branches(tmp_path / "p", FORMATS, model=tmp_path / "model", jobs=1)
    for name in FORMATS:
        error = ran.error(name)
        assert isinstance(error, ModelRefused), name
        assert "does not take" in error.message, (name, error.message)
        op = "AsString (" if name == "openvino" else "StringToNumber (number)"
        assert op in error.message, (name, error.message)
        assert error.hint, name
