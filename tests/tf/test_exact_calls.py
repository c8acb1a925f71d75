"""Without Grappler means: in the functions that a model calls, too."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tensorflow as tf

from freezeflow.engine.context import StepContext
from freezeflow.sources.original import original_of
from freezeflow.tf.sessions import exact_config
from freezeflow.tf.sides import original_side
from tests.constructs import harness, tf2_models
from tests.constructs.test_tf2 import save


def test_grappler_is_off_in_calls(tmp_path):
    """Grappler turns ``0 - x`` into ``Neg``, which does not know uint8: with it there is no answer."""
    x = np.array([1, 2, 250], np.uint8)
    answer = answer_of(lambda m, x: {"y": tf.zeros([3], tf.uint8) - x}, x, tmp_path)
    np.testing.assert_array_equal(answer["y"], np.array([255, 254, 6], np.uint8))


def test_a_single_string_keeps_its_zero_bytes(tmp_path):
    answer = answer_of(
        lambda m, x: {"y": tf.strings.join([tf.as_string(x), b"\xff\0"])}, np.int32(7), tmp_path
    )
    assert answer["y"].shape == ()
    assert answer["y"].item() == b"7\xff\0"


def answer_of(call, x, tmp_path):
    """What the original of a SavedModel of a call answers for an input."""
    spec = tf2_models.spec(x.shape, tf.as_dtype(x.dtype))
    model, function = tf2_models.build(call, [spec])
    save(model, function, tmp_path / "model")
    source = harness.saved_model(tmp_path / "model")
    context = StepContext(Path.cwd(), tmp_path, None, io.StringIO())
    side = original_side(original_of(source, context), {}, exact=True)
    (answer,) = side.call([("serving_default", {"x": x})], exact_config(), None)
    return answer
