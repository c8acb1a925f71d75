"""What ONNX, its converter, or its runtime has no op for, told by op, node and element type; and names."""

import onnxruntime
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.exports.manifest import read_manifest
from tests.exports.running import Branches

pytestmark = pytest.mark.slow


def x_of(*shape, dtype=tf.float32):
    return tf.TensorSpec(shape, dtype, name="x")


def sum_of_bytes(x):
    return {"y": tf.reduce_sum(x, 1, name="total")}


def doubles(x):
    return {"y": tf.nn.conv2d(x, tf.ones([3, 3, 2, 2], tf.float64), 1, "SAME", name="filtered")}


def complex_inside(x):
    return {"y": tf.abs(tf.signal.fft(tf.cast(x, tf.complex64, name="complex")))}


def strings_compared(x):
    return {"y": tf.cast(tf.equal(x, "a", name="same"), tf.float32)}


def means_of_areas(x):
    return {"y": tf.image.resize(x, [2, 2], "area")}


def of_any_rank(x):
    return {"y": x + 1.0}


REFUSED = {
    of_any_rank: (tf.TensorSpec(None, tf.float32, name="x"), "takes inputs of known rank only"),
    means_of_areas: (x_of(1, 4, 4, 2), "ONNX does not take ResizeArea ("),
    sum_of_bytes: (x_of(2, 3, dtype=tf.int8), "ONNX has no ReduceSum of int8 (total)"),
    doubles: (x_of(1, 6, 6, 2, dtype=tf.float64), "ONNX Runtime has no Conv of float64 (filtered)"),
    complex_inside: (x_of(8), "ONNX does not take complex64: Cast (complex)"),
    strings_compared: (x_of(3, dtype=tf.string), "ONNX does not take Equal with T string: same"),
}


def exported(serve, spec, folder, **more):
    module = tf.Module()
    module.serve = tf.function(serve, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "model"), signatures=module.serve)
    (folder / "p").mkdir()
    exports = {"o": {"to": "m.onnx", "format": "onnx", **more}}
    return Branches(folder / "p", exports, model=folder / "model", jobs=1)


@pytest.mark.parametrize("serve", REFUSED, ids=lambda each: each.__name__)
def test_op_node_and_type_are_named(tmp_path, serve):
    spec, told = REFUSED[serve]
    error = exported(serve, spec, tmp_path).error("o")
    assert isinstance(error, ModelRefused)
    assert told in error.message
    assert error.where
    assert error.hint


def test_a_rank_is_told_where_it_is_given(tmp_path):
    def serve(x):
        return {"y": tf.reduce_sum(x), "n": tf.rank(x)}

    spec = tf.TensorSpec(None, tf.float32, name="x")
    assert exported(serve, spec, tmp_path, shapes={"x": [2, 3, 2]}).published("o")


def test_what_only_the_runtime_lacks_is_written_unchecked(tmp_path):
    ran = exported(doubles, REFUSED[doubles][0], tmp_path, check=False)
    assert ran.published("o")


def test_an_output_with_the_key_of_an_input(tmp_path):
    ran = exported(lambda x: {"x": x + 1.0, "x_1": x * 2.0}, x_of(2, 3), tmp_path)
    file, manifest = ran.published("o")
    names = read_manifest(manifest).export["outputs"]
    assert names == {"x": "x_2", "x_1": "x_1"}
    session = onnxruntime.InferenceSession(str(file))
    assert {each.name for each in session.get_outputs()} == set(names.values())
    assert ran.facts("o")["check"]["outputs"]["x"]["max_abs"] == 0


def test_strings_are_text_to_the_runtime(tmp_path):
    ran = exported(lambda x: {"y": tf.reshape(x, [-1])}, x_of(2, 3, dtype=tf.string), tmp_path)
    assert ran.facts("o")["check"]["outputs"]["y"]["within"]
