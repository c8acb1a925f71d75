"""All formats from one frozen graph: a diamond, side by side, twice."""

import hashlib
import shutil

import pytest

from freezeflow.exports.registry import FORMATS
from freezeflow.runtimes import compiled
from tests.exports.running import Branches

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiled.compiler() is None, reason="there is no C++ compiler"),
]

EXPORTS = {
    "frozen_graph": {"to": "m.pb"},
    "saved_model": {"to": "saved", "format": "saved_model"},
    "onnx": {"to": "m.onnx", "format": "onnx"},
    "tflite": {"to": "m.tflite", "format": "tflite"},
    "openvino": {"to": "m.xml", "format": "openvino"},
    "tfjs": {"to": "js", "format": "tfjs"},
    "stablehlo": {"to": "m.mlirbc", "format": "stablehlo", "batch": 2},
    "xla_aot": {"to": "aot", "format": "xla_aot", "batch": 2},
    "coreml": {"to": "m.mlpackage", "format": "coreml", "batch": 1},
}
UNCHECKED = {
    name: {**params, "check": False}
    if name not in ("frozen_graph", "saved_model", "coreml")
    else params
    for name, params in EXPORTS.items()
}


def digests(ran, exports):
    """Path below the project to SHA-256, of every file that does not tell of the recipe or vary."""
    found = {}
    for name in exports:
        varies = set(ran.facts(name).get("varies", ()))
        for path in ran.published(name):
            if path.name not in varies and "manifest.json" not in path.name:
                data = path.read_bytes()
                found[str(path.relative_to(ran.folder))] = hashlib.sha256(data).hexdigest()
    return found


def test_each_branch_once_each_by_its_runtime_and_the_same_bytes_elsewhere(tmp_path, tfjs):
    assert set(EXPORTS) == set(FORMATS)
    names = [name for name in EXPORTS if tfjs or name != "tfjs"]
    (tmp_path / "one").mkdir()
    (tmp_path / "another").mkdir()
    ran = Branches(tmp_path / "one", {name: EXPORTS[name] for name in names}, jobs=2)
    assert [step for step in ran.steps if step not in names] == ["load", "freeze", "strip"]
    for name in names:
        assert ran.plan_step(name).needs == ("strip",)
        check = ran.facts(name).get("check")
        if name not in ("frozen_graph", "saved_model", "coreml"):
            assert check["outputs"]["probabilities"]["max_abs"] < 1e-5
    first = digests(ran, names)
    again = Branches(tmp_path / "another", {name: UNCHECKED[name] for name in names}, jobs=2)
    assert digests(again, names) == first
    shutil.rmtree(tmp_path)
