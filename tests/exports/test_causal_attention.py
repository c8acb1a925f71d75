"""Attention that looks back only is right in TensorFlow.js, whose own bands of matrices are not."""

import keras
import pytest
import tensorflow as tf

from tests.exports.running import Branches

pytestmark = pytest.mark.slow


def test_a_causal_mask_of_open_length(tmp_path, tfjs):
    if not tfjs:
        pytest.skip("TensorFlow.js cannot be had")
    keras.utils.set_random_seed(3)
    x = keras.layers.Input((None, 8), name="x")
    y = keras.layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    keras.Model(x, y).export(str(tmp_path / "model"), verbose=False)
    (tmp_path / "p").mkdir()
    wanted = {"tfjs": {"to": "js", "format": "tfjs", "check": {"sizes": [3, 2]}}}
    ran = Branches(tmp_path / "p", wanted, model=tmp_path / "model", jobs=1)
    assert ran.facts("tfjs")["check"]["calls"] > 0


def test_bands_of_all_widths(tmp_path, tfjs):
    if not tfjs:
        pytest.skip("TensorFlow.js cannot be had")
    module = tf.Module()
    spec = tf.TensorSpec([2, 3, 5], tf.float32, name="x")
    widths = [(-1, 0), (0, -1), (1, 2), (-1, -1), (0, 0)]
    module.serve = tf.function(
        lambda x: {
            f"y{number}": tf.linalg.band_part(x, *width) for number, width in enumerate(widths)
        },
        input_signature=[spec],
    )
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    (tmp_path / "p").mkdir()
    wanted = {"tfjs": {"to": "js", "format": "tfjs", "check": {"atol": 0.0, "rtol": 0.0}}}
    ran = Branches(tmp_path / "p", wanted, model=tmp_path / "model", jobs=1)
    assert len(ran.facts("tfjs")["check"]["outputs"]) == len(widths)
