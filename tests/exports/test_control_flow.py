"""Conditionals and loops, TF1's and TF2's, in each format's own runtime."""

import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from tests.exports.running import Branches

pytestmark = pytest.mark.slow

v1 = tf.compat.v1

FORMATS = {
    "onnx": {"to": "m.onnx", "format": "onnx"},
    "tflite": {"to": "m.tflite", "format": "tflite"},
    "openvino": {"to": "m.xml", "format": "openvino"},
    "stablehlo": {"to": "m.mlirbc", "format": "stablehlo", "batch": 2},
    "xla_aot": {"to": "aot", "format": "xla_aot", "batch": 2},
    "tfjs": {"to": "js", "format": "tfjs"},
}


def of_tf1(folder, build):
    """A SavedModel of TF1's control flow, with variables."""
    was = v1.control_flow_v2_enabled()
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            x = v1.placeholder(tf.float32, [None, 3], name="x")
            n = v1.placeholder(tf.int32, [], name="n")
            w = v1.get_variable("w", initializer=tf.constant([[0.1, 0.2, -0.3]] * 3))
            y = tf.identity(build(x, n, w), name="y")
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, str(folder), {"x": x, "n": n}, {"y": y})
    finally:
        if was:
            v1.enable_control_flow_v2()
    return folder


def nested(x, n, w):
    """A loop with conditionals in each other, under a conditional with a weight in one branch."""

    def more(i, y):
        odd = v1.cond(
            tf.reduce_sum(y) > 0.0,
            lambda: y @ w,
            lambda: v1.cond(n > 2, lambda: y + 1.0, lambda: y),
        )
        return i + 1, v1.cond(tf.equal(i % 2, 0), lambda: y * 0.5 + x, lambda: odd)

    y = v1.cond(n > 1, lambda: x @ w + 1.0, lambda: x - 1.0)
    return v1.while_loop(lambda i, _: i < n, more, [0, y])[1]


def until_large(x, n, w):
    """How often it goes round, the numbers tell; and a loop in it counts on its own."""

    def more(y):
        z = v1.while_loop(lambda i, _: i < n, lambda i, z: (i + 1, z + 0.5), [0, y])[1]
        return (tf.abs(z @ w) + 1.0 + y,)

    return v1.while_loop(lambda y: tf.reduce_sum(y) < 30.0, more, [x])


def branches(x, n, w):
    """One after the other, of one predicate."""
    y = v1.cond(n > 1, lambda: x @ w + 1.0, lambda: x - 1.0)
    return v1.cond(n > 1, lambda: y * 2.0, lambda: y @ w)


@pytest.mark.parametrize("build", [nested, until_large, branches], ids=lambda build: build.__name__)
def test_of_tensorflow_1(build, tmp_path, tfjs):
    (tmp_path / "p").mkdir()
    model = of_tf1(tmp_path / "model", build)
    wanted = {name: params for name, params in FORMATS.items() if tfjs or name != "tfjs"}
    before = ("freeze", "strip", "fold")
    ran = Branches(tmp_path / "p", wanted, model=model, jobs=1, before=before)
    for name in wanted:
        assert ran.facts(name)["check"]["outputs"]["y"]["max_abs"] < 1e-4, name


class Chosen(tf.Module):
    def __init__(self):
        super().__init__()
        self.experts = [tf.Variable(tf.fill([3, 2], k + 0.5)) for k in range(5)]

    @tf.function(input_signature=[
        tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([], tf.int32, "n")
    ])  # fmt: skip
    def __call__(self, x, n):
        return {"y": tf.switch_case(n, [lambda w=w: x @ w for w in self.experts])}


def test_one_of_many_branches(tmp_path, tfjs):
    (tmp_path / "p").mkdir()
    module = Chosen()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.__call__)
    wanted = {name: params for name, params in FORMATS.items() if tfjs or name != "tfjs"}
    ran = Branches(tmp_path / "p", wanted, model=tmp_path / "model", jobs=1)
    for name in wanted:
        assert ran.facts(name)["check"]["outputs"]["y"]["max_abs"] < 1e-5, name


def first_come(x, n, w):
    """What no function can say: what is always there, or what is there at times."""
    return tf.raw_ops.Merge(
        inputs=[x @ w, tf.raw_ops.Switch(data=x, pred=n > 99).output_true]
    ).output


def test_what_no_function_can_say(tmp_path):
    (tmp_path / "p").mkdir()
    model = of_tf1(tmp_path / "model", first_come)
    ran = Branches(tmp_path / "p", {"onnx": FORMATS["onnx"]}, model=model, jobs=1)
    error = ran.error("onnx")
    assert isinstance(error, ModelRefused)
    assert "ONNX does not take lowered control flow: Merge (Merge), Switch (" in error.message
