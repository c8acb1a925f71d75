"""Recurrent layers of Keras, which exports them as loops with lists, in every format's own runtime."""

import keras
import pytest

from tests.exports.running import Branches

pytestmark = pytest.mark.slow

FORMATS = {
    "onnx": {"to": "o/m.onnx", "format": "onnx"},
    "onnx-fixed": {"to": "f/m.onnx", "format": "onnx", "batch": 2},
    "tflite": {"to": "m.tflite", "format": "tflite"},
    "openvino": {"to": "m.xml", "format": "openvino"},
    "stablehlo": {"to": "m.mlirbc", "format": "stablehlo", "batch": 2},
    "coreml": {"to": "m.mlpackage", "format": "coreml", "batch": 1},
    "tfjs": {"to": "js", "format": "tfjs"},
}


def exported(folder, length):
    """A bidirectional LSTM under a GRU."""
    layers = keras.layers
    keras.utils.set_random_seed(11)
    x = layers.Input((length, 4), name="x")
    y = layers.GRU(3)(layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x))
    keras.Model(x, layers.Dense(2)(y)).export(str(folder), verbose=False)
    return folder


def formats(tfjs):
    return {name: params for name, params in FORMATS.items() if tfjs or name != "tfjs"}


def test_a_fixed_length(tmp_path, tfjs):
    (tmp_path / "p").mkdir()
    model = exported(tmp_path / "model", 6)
    before = ("freeze", "strip", "fold")
    ran = Branches(tmp_path / "p", formats(tfjs), model=model, jobs=1, before=before)
    for name in formats(tfjs):
        facts = ran.facts(name)
        if name != "coreml":
            assert facts["check"]["outputs"]["output_0"]["max_abs"] < 1e-5


def test_an_open_length(tmp_path, tfjs):
    """As a loop, with its lists or with tensors in their place."""
    (tmp_path / "p").mkdir()
    model = exported(tmp_path / "model", None)
    names = ("onnx", "openvino", "tflite", *(["tfjs"] if tfjs else []))
    wanted = {name: {**FORMATS[name], "check": {"sizes": [3, 2]}} for name in names}
    before = ("freeze", "strip", "fold")
    ran = Branches(tmp_path / "p", wanted, model=model, jobs=1, before=before)
    for name in names:
        verdict = ran.facts(name)["check"]
        assert verdict["calls"] > 1
        assert verdict["outputs"]["output_0"]["max_abs"] < 1e-5


def test_more_rounds_than_are_unrolled(tmp_path, tfjs):
    (tmp_path / "p").mkdir()
    model = exported(tmp_path / "model", 6)
    names = ("tflite", "stablehlo", "xla_aot", *(["tfjs"] if tfjs else []))
    known = {**FORMATS, "xla_aot": {"to": "aot", "format": "xla_aot", "batch": 2}}
    wanted = {name: {**known[name], "unroll": 5} for name in names}
    before = ("freeze", "strip", "fold")
    ran = Branches(tmp_path / "p", wanted, model=model, jobs=1, before=before)
    for name in names:
        assert ran.facts(name)["check"]["outputs"]["output_0"]["max_abs"] < 1e-5
