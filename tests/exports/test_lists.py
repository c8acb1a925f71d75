"""Lists that loops carry, in the runtimes of the formats that get tensors in their place."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from tests.exports.running import Branches
from tests.graph.test_stacked import TAKEN, X, dynamic_size

pytestmark = pytest.mark.slow

FORMATS = {
    "tflite": {"to": "m.tflite", "format": "tflite"},
    "tfjs": {"to": "js", "format": "tfjs"},
    "stablehlo": {"to": "m.mlirbc", "format": "stablehlo", "shapes": {"x": [*X.shape]}},
    "xla_aot": {"to": "aot", "format": "xla_aot", "shapes": {"x": [*X.shape]}},
}


def saved(folder, serve):
    module = tf.Module()
    spec = tf.TensorSpec((None, None, 4), tf.float32, name="x")
    module.serve = tf.function(serve, input_signature=[spec])
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return folder


def test_as_the_original_answers(tmp_path, tfjs):
    model = saved(tmp_path / "model", lambda x: {make.__name__: make(x) for make in TAKEN})
    (tmp_path / "p").mkdir()
    np.savez(tmp_path / "p" / "x.npz", x=X)
    check = {"inputs": "x.npz", "samples": 0}
    names = [name for name in FORMATS if tfjs or name != "tfjs"]
    wanted = {name: {**FORMATS[name], "unroll": 0, "check": check} for name in names}
    ran = Branches(tmp_path / "p", wanted, model=model, jobs=1)
    for name in names:
        found = ran.facts(name)["check"]["outputs"]
        assert found.keys() == {make.__name__ for make in TAKEN}
        assert all(each["max_abs"] < 1e-5 for each in found.values())


def test_what_stays_a_list_is_refused_with_its_node(tmp_path, tfjs):
    model = saved(tmp_path / "model", lambda x: {"y": dynamic_size(x)})
    (tmp_path / "p").mkdir()
    names = [name for name in FORMATS if tfjs or name != "tfjs"]
    wanted = {name: {**FORMATS[name], "unroll": 0} for name in names}
    ran = Branches(tmp_path / "p", wanted, model=model, jobs=1)
    for name in names:
        error = ran.error(name)
        assert isinstance(error, ModelRefused)
        assert "TensorArrayV2" in error.message
        assert error.hint
        assert ("its length may change" in error.message) is (name != "tflite")
