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
    model, function = tf2_models.build(
        lambda m, x: {"y": tf.zeros([3], tf.uint8) - x}, [tf2_models.spec([3], tf.uint8)]
    )
    save(model, function, tmp_path / "model")
    source = harness.saved_model(tmp_path / "model")
    context = StepContext(Path.cwd(), tmp_path, None, io.StringIO())
    side = original_side(original_of(source, context), {}, exact=True)
    x = np.array([1, 2, 250], np.uint8)
    (answer,) = side.call([("serving_default", {"x": x})], exact_config())
    np.testing.assert_array_equal(answer["y"], np.array([255, 254, 6], np.uint8))
