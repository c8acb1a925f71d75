"""A runtime that refuses a call for its sizes: the message says which were tried, and what helps."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import RuntimeRefused
from tests.exports.running import Branches

pytestmark = pytest.mark.slow


class Wide(tf.Module):
    """A convolution that gives nothing of small images, which OpenVINO does not compute."""

    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 4], tf.float32, name="x")])
    def serve(self, x):
        filters = tf.constant(np.random.default_rng(7).normal(size=(3, 3, 4, 8)).astype("float32"))
        return {"y": tf.nn.conv2d(x, filters, 2, "VALID")}


def test_other_sizes_help(tmp_path):
    module = Wide()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    (tmp_path / "p").mkdir()
    exports = {
        "small": {"to": "s.xml", "format": "openvino"},
        "large": {"to": "l.xml", "format": "openvino", "check": {"sizes": [7, 4]}},
    }
    ran = Branches(tmp_path / "p", exports, model=tmp_path / "model", jobs=1)
    error = ran.error("small")
    assert isinstance(error, RuntimeRefused)
    assert "(x) and got the sizes 2, 3, 1 in turn" in error.hint
    assert ran.facts("large")["check"]["calls"] > 0
