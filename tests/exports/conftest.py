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

PLAIN = {"plain": {"to": "plain.pb"}}


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    return Branches(tmp_path_factory.mktemp("exports"), {**PLAIN, **ONNX})
