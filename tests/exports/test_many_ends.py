"""Ends of one type are not taken for each other; one input has no effect, one output is called as an op."""

import json

import pytest
import tensorflow as tf

from freezeflow.runtimes import compiled
from tests.exports.running import Branches

KEYS = ("my_input_1", "my_input_2", "a", "z")
FORMATS = {
    "frozen_graph": {"to": "m.pb", "check": True},
    "onnx": {"to": "m.onnx"},
    "openvino": {"to": "m.xml"},
    "saved_model": {"to": "saved_model", "check": True},
    "stablehlo": {"to": "m.mlirbc"},
    "tflite": {"to": "m.tflite"},
}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    class Ends(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([2], tf.float32, name=key) for key in KEYS])
        def serve(self, my_input_1, my_input_2, a, z):
            return {
                "my_output_1": 2.0 * my_input_1 - my_input_2,
                "my_output_2": my_input_2 * 3.0,
                "b": tf.identity(a),
                "neg": tf.negative(my_input_2, name="Neg"),
            }

    folder = tmp_path_factory.mktemp("ends") / "model"
    ends = Ends()
    tf.saved_model.save(ends, str(folder), signatures=ends.serve)
    return folder


def branches(folder, saved_model, formats):
    exports = {name: {**params, "format": name} for name, params in formats.items()}
    return Branches(folder, exports, model=saved_model, jobs=1)


def check_answers(ran, name):
    facts = ran.facts(name)
    for check in facts["checks"] if "checks" in facts else [facts["check"]]:
        outputs = check["outputs"]
        assert outputs.keys() == {"my_output_1", "my_output_2", "b", "neg"}
        assert all(output["max_abs"] < 1e-6 for output in outputs.values())


@pytest.fixture(scope="module")
def ran(tmp_path_factory, saved_model):
    return branches(tmp_path_factory.mktemp("ran"), saved_model, FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_each_end_is_what_it_is_called(ran, name):
    check_answers(ran, name)


def test_the_manifest_numbers_the_ends_of_stablehlo(ran):
    export = json.loads(ran.published("stablehlo")[-1].read_text())["export"]
    assert sorted(export["inputs"].values()) == [f"argument {place}" for place in range(4)]
    assert sorted(export["outputs"].values()) == [f"result {place}" for place in range(4)]


@pytest.mark.slow
@pytest.mark.skipif(compiled.compiler() is None, reason="there is no C++ compiler")
def test_the_compiler_numbers_ends_by_name(tmp_path, saved_model):
    ran = branches(tmp_path, saved_model, {"xla_aot": {"to": "aot"}})
    check_answers(ran, "xla_aot")
    export = json.loads((tmp_path / "aot" / "freezeflow.manifest.json").read_text())["export"]
    assert export["inputs"] == {"a": "arg0", "my_input_1": "arg1", "my_input_2": "arg2"}
    assert export["outputs"]["b"] == "result0"


@pytest.mark.parametrize(("dtype", "name"), [("float16", "float16"), ("bfloat16", "bfloat16")])
def test_a_model_is_no_more_exact_than_its_own_numbers(tmp_path, dtype, name):
    """OpenVINO and XLA round in other places than TensorFlow where numbers are short."""

    class Short(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([3, 8], tf.float32, name="x")])
        def serve(self, x):
            y = tf.cast(x, dtype)
            for _ in range(4):
                y = y * tf.cast(1.1, dtype) + tf.cast(0.3, dtype)
            return {"y": tf.cast(y, tf.float32)}

    short = Short()
    tf.saved_model.save(short, str(tmp_path / "model"), signatures=short.serve)
    folder = tmp_path / "p"
    folder.mkdir()
    ran = branches(folder, tmp_path / "model", {"stablehlo": {"to": "m.mlirbc"}})
    check = ran.facts("stablehlo")["check"]
    assert check["precision"] == name
