"""One run of all formats on the demo's model: the tests look at what came of its branches."""

import pytest

from tests.exports.running import Branches

WISHES = {"inputs": "held_out.npz", "samples": 2}
NOTHING = {"atol": 0.0, "rtol": 0.0}

ONNX = {
    "onnx": {"to": "onnx/m.onnx", "format": "onnx", "check": WISHES},
    "onnx-unchecked": {"to": "unchecked/m.onnx", "format": "onnx", "check": False},
    "onnx-external": {
        "to": "external/m.onnx",
        "format": "onnx",
        "external_data": "always",
        "opset": 13,
        "batch": 5,
    },
    "onnx-strict": {"to": "strict/m.onnx", "format": "onnx", "check": NOTHING},
    "onnx-signature": {"to": "s.onnx", "format": "onnx", "signature": "gone"},
    "onnx-shapes": {"to": "h.onnx", "format": "onnx", "shapes": {"gone": [1]}},
    "onnx-random": {"to": "r.onnx", "format": "onnx", "check": {"random": {"gone": {}}}},
}

TFLITE = {
    "tflite": {"to": "tflite/m.tflite", "format": "tflite", "check": WISHES},
    "tflite-unchecked": {"to": "tflite/u.tflite", "format": "tflite", "check": False},
    "tflite-float16": {"to": "tflite/h.tflite", "format": "tflite", "precision": "float16"},
    "tflite-dynamic": {"to": "tflite/d.tflite", "format": "tflite", "precision": "dynamic_range"},
    "tflite-int8": {
        "to": "tflite/i.tflite",
        "format": "tflite",
        "precision": "int8",
        "representative": "held_out.npz",
        "check": {"inputs": "held_out.npz", "samples": 0},
    },
    "tflite-integer": {
        "to": "tflite/e.tflite",
        "format": "tflite",
        "precision": "int8",
        "representative": "held_out.npz",
        "representative_samples": 20,
        "integer_ends": True,
        "check": {"inputs": "held_out.npz", "samples": 0},
    },
    "tflite-strict": {
        "to": "tflite/strict.tflite",
        "format": "tflite",
        "precision": "dynamic_range",
        "check": NOTHING,
    },
}

OPENVINO = {
    "openvino": {"to": "ov/m.xml", "format": "openvino", "check": WISHES},
    "openvino-unchecked": {"to": "ov/unchecked/m.xml", "format": "openvino", "check": False},
    "openvino-float16": {"to": "ov/h.xml", "format": "openvino", "precision": "float16"},
    "openvino-strict": {"to": "ov/s.xml", "format": "openvino", "check": NOTHING},
}

PLAIN = {"plain": {"to": "plain.pb"}}


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    return Branches(tmp_path_factory.mktemp("exports"), {**PLAIN, **ONNX, **TFLITE, **OPENVINO})
