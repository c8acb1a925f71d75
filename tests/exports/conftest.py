"""One run of all formats on the demo's model: the tests look at what came of its branches."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from freezeflow.runtimes import tfjs_runtime
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

TFJS = {
    "tfjs": {"to": "js/m", "format": "tfjs", "check": WISHES},
    "tfjs-float16": {"to": "js/h", "format": "tfjs", "quantize": "float16"},
    "tfjs-uint16": {"to": "js/s", "format": "tfjs", "quantize": "uint16"},
    "tfjs-uint8": {"to": "js/b", "format": "tfjs", "quantize": "uint8"},
    "tfjs-strict": {"to": "js/t", "format": "tfjs", "check": NOTHING},
}
TFJS_UNCHECKED = {"tfjs-unchecked": {"to": "js/unchecked/m", "format": "tfjs", "check": False}}

PLAIN = {"plain": {"to": "plain.pb"}}


STABLEHLO = {
    "stablehlo": {"to": "h/m.mlirbc", "format": "stablehlo", "batch": 4},
    "stablehlo-unchecked": {
        "to": "h/u.mlirbc",
        "format": "stablehlo",
        "batch": 4,
        "check": False,
    },
    "stablehlo-strict": {
        "to": "h/s.mlirbc",
        "format": "stablehlo",
        "batch": 4,
        "check": NOTHING,
    },
    "stablehlo-open": {"to": "h/o.mlirbc", "format": "stablehlo"},
}
XLA_AOT = {
    "xla_aot": {"to": "aot/m", "format": "xla_aot", "batch": 4, "check": False},
    "xla_aot-again": {
        "to": "aot/again",
        "format": "xla_aot",
        "batch": 4,
        "check": False,
    },
    "xla_aot-open": {"to": "aot/o", "format": "xla_aot", "check": False},
}
XLA_AOT_CHECKED = {"xla_aot": {"to": "aot/m", "format": "xla_aot", "batch": 4}}

COREML = {
    "coreml": {"to": "cm/m.mlpackage", "format": "coreml", "batch": 1},
    "coreml-again": {"to": "cm/a.mlpackage", "format": "coreml", "batch": 1},
}

# Each looks at the file of an export again.
VALIDATED = {
    "validated": ("onnx", {"runtime": "onnxruntime", "samples": 2}),
    "validated-strict": ("onnx", {"runtime": "onnxruntime", "atol": 0.0, "rtol": 0.0}),
    "validated-labels": (
        "tflite-int8",
        {
            "runtime": "litert",
            "inputs": "held_out.npz",
            "labels": "labels",
        },
    ),
    "validated-openvino": ("openvino-float16", {"runtime": "openvino"}),
    "validated-edges": ("onnx", {"runtime": "onnxruntime", "edges": True}),
    "validated-xla": ("stablehlo-unchecked", {"runtime": "xla"}),
}
VALIDATED_TFJS = {
    "tfjs-validated": ("tfjs-float16", {"runtime": "tfjs", "inputs": "held_out.npz"}),
}

# TensorFlow.js for the tests, installed once into the environment.
NPM_FOLDER = Path(sys.prefix) / "share" / "freezeflow-tests"


@pytest.fixture(scope="session")
def tfjs():
    """TensorFlow.js where Node.js finds it; whether it could be had."""
    modules = NPM_FOLDER / "node_modules"
    before = os.environ.get("NODE_PATH", "")
    os.environ["NODE_PATH"] = os.pathsep.join(filter(None, [before, str(modules)]))
    if tfjs_runtime.missing() and shutil.which("npm"):
        NPM_FOLDER.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        command += ["--prefix", str(NPM_FOLDER), "@tensorflow/tfjs@4.22.0"]
        subprocess.run(command, check=False, capture_output=True)
    yield not tfjs_runtime.missing()
    os.environ["NODE_PATH"] = before


@pytest.fixture(scope="session")
def ran(tmp_path_factory, tfjs):
    exports = {
        **PLAIN,
        **ONNX,
        **TFLITE,
        **OPENVINO,
        **STABLEHLO,
        **TFJS_UNCHECKED,
        **(TFJS if tfjs else {}),
    }
    checks = {**VALIDATED, **(VALIDATED_TFJS if tfjs else {})}
    return Branches(tmp_path_factory.mktemp("exports"), exports, checks=checks)


@pytest.fixture(scope="session")
def ran_slowly(tmp_path_factory):
    """The same for formats whose converters take their time."""
    return Branches(tmp_path_factory.mktemp("slow-exports"), {**XLA_AOT, **COREML})
