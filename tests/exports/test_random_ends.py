"""Outputs that are random: by a seed TensorFlow draws the same again, another runtime does not."""

import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused, ValidationFailed
from freezeflow.exports.check import _different
from freezeflow.runtimes.onnx_runtime import RUNTIME
from freezeflow.runtimes.runtime import Names, Subject
from freezeflow.values import Signature
from tests.exports.running import Branches


class Noisy(tf.Module):
    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float32, name="x")])
    def serve(self, x):
        # Seeds as attributes: `tf.random.normal` would take one from `tf.random.set_seed`, too.
        noise = tf.raw_ops.RandomStandardNormal(shape=[2, 3], dtype=tf.float32, seed2=self.seed)
        return {"y": x + noise, "z": 2.0 * x}


@pytest.fixture
def ran(tmp_path):
    def ran(seed, **more):
        module = Noisy(seed)
        tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
        (tmp_path / "project").mkdir()
        exports = {"o": {"to": "m.onnx", "format": "onnx", **more}}
        return Branches(tmp_path / "project", exports, model=tmp_path / "model", jobs=1)

    return ran


@pytest.mark.slow
def test_numbers_from_a_seed_are_others_elsewhere(ran):
    branches = ran(seed=5)
    error = branches.error("o")
    assert isinstance(error, ModelRefused)
    assert "'y'" in error.message
    assert "RandomStandardNormal" in error.message
    assert not (branches.folder / "m.onnx").exists()


@pytest.mark.slow
def test_they_are_exported_without_a_check(ran):
    assert (ran(seed=5, check=False).folder / "m.onnx").exists()


@pytest.mark.slow
def test_without_a_seed_they_are_random_on_both_sides(ran):
    outputs = ran(seed=0).facts("o")["check"]["outputs"]
    assert {key: output["random"] for key, output in outputs.items()} == {"y": True, "z": False}


def test_an_output_that_is_wrong_is_named_before_one_that_is_random():
    subject = Subject(
        file=None,
        names=Names({}, {}),
        signature_name="s",
        signature=Signature({}, {}),
        random={"noise": "RandomStandardNormal (n)"},
    )
    wrong = {"bad_share": 0.5, "max_abs": 3.0, "atol_needed": 3.0, "call": "call 0"}
    bad = {"noise": {**wrong, "bad_share": 1.0}, "a": wrong, "b": {**wrong, "bad_share": 0.25}}
    error = _different(subject, RUNTIME, bad)
    assert isinstance(error, ValidationFailed)
    assert "'a'" in error.message
    assert isinstance(_different(subject, RUNTIME, {"noise": bad["noise"]}), ModelRefused)
    none = {"noise": {"problem": "the runtime does not give it", "call": "call 0"}}
    assert isinstance(_different(subject, RUNTIME, none), ValidationFailed)
