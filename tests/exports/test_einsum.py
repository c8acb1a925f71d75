"""Equations with an ellipsis, which most converters do not take, in every format."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from tests.exports.running import Branches

pytestmark = pytest.mark.slow

FORMATS = {
    "onnx": {"to": "m.onnx"},
    "tflite": {"to": "m.tflite"},
    "openvino": {"to": "m.xml"},
    "tfjs": {"to": "js"},
    "stablehlo": {"to": "m.mlirbc", "batch": 2},
    "xla_aot": {"to": "aot", "batch": 2},
    "coreml": {"to": "m.mlpackage"},
}
EXPORTS = {name: {"format": name, **told} for name, told in FORMATS.items()}


def weights(*shape):
    return tf.constant(np.random.default_rng(3).normal(size=shape).astype(np.float32))


class Products(tf.Module):
    """A layer with weights, one after the other, with weights that are stretched."""

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 3], tf.float32, name="x")])
    def serve(self, x):
        y = tf.einsum("...ij,jk->...ik", x, weights(3, 4))
        return {"y": tf.einsum("...ij,...jk->...ik", y, weights(1, 4, 2))}


class Both(tf.Module):
    """Two inputs of open batches, one of which may be stretched to the other."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 5, 3], tf.float32, name="x"),
            tf.TensorSpec([None, 3, 2], tf.float32, name="w"),
        ]
    )
    def serve(self, x, w):
        return {"y": tf.einsum("...ij,...jk->...ik", x, w, name="product")}


def exported(module, folder, exports):
    tf.saved_model.save(module, str(folder / "model"), signatures=module.serve)
    (folder / "p").mkdir()
    before = ("freeze", "strip", "fold")
    return Branches(folder / "p", exports, model=folder / "model", jobs=1, before=before)


def test_letters_in_place_of_an_ellipsis(tmp_path, tfjs):
    exports = {name: told for name, told in EXPORTS.items() if tfjs or name != "tfjs"}
    ran = exported(Products(), tmp_path, exports)
    for name in exports:
        assert ran.published(name), name


def test_what_may_be_stretched_is_refused(tmp_path, tfjs):
    open_ones = ("tflite", "tfjs") if tfjs else ("tflite",)
    exports = {name: EXPORTS[name] for name in open_ones}
    exports |= {
        f"fixed_{name}": {**EXPORTS[name], "to": f"2{EXPORTS[name]['to']}", "batch": 2}
        for name in open_ones
    }
    ran = exported(Both(), tmp_path, exports)
    for name in open_ones:
        error = ran.error(name)
        assert isinstance(error, ModelRefused)
        assert "ellipsis in Einsum" in error.message
        assert "product" in error.where
        assert "batch" in error.hint
        assert ran.published(f"fixed_{name}")
