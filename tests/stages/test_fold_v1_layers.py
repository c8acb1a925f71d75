"""Batch norms as `tf.compat.v1.layers` writes them, with a training placeholder and without, channels
last and first, from a SavedModel to the folded graph, against the session that the model came from.
"""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

import freezeflow
from freezeflow.graph.write import graph_def_bytes
from freezeflow.stages.fold import STAGE, Params
from freezeflow.stages.stage import StageInput
from tests.tf.built import FakeContext, full_name

v1 = tf.compat.v1
pytest.importorskip("tf_keras")  # without it there is no tf.compat.v1.layers any more
pytestmark = pytest.mark.slow

# argv: folder, data format, fused or not, how the network is told that it does not train.
BUILD = """
    import sys
    import numpy as np
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_v2_behavior()
    folder, layout, fused, told = sys.argv[1:]
    last = layout == "channels_last"
    here = {"data_format": layout}
    axis = -1 if last else 1
    x = v1.placeholder(tf.float32, [None, 8, 8, 3] if last else [None, 3, 8, 8], name="x")
    training = {
        "placeholder": lambda: v1.placeholder(tf.bool, [], name="training"),
        "default": lambda: v1.placeholder_with_default(False, [], name="training"),
        "constant": lambda: False,
    }[told]()

    def norm(y, axis=axis, **options):
        return v1.layers.batch_normalization(
            y, axis=axis, training=training, fused=fused == "fused", **options
        )

    y = tf.nn.relu(norm(v1.layers.conv2d(x, 6, 3, padding="same", **here)))
    y = norm(v1.layers.conv2d(y, 4, 3, use_bias=False, strides=2, **here), scale=False)
    y = tf.nn.relu6(y) + norm(v1.layers.conv2d(y, 4, 1, **here), center=False)
    parts = [v1.layers.conv2d(y, n, 1, use_bias=bool(n % 2), **here) for n in (3, 4)]
    y = tf.nn.elu(norm(tf.concat(parts, axis)))
    if last:
        y = norm(v1.layers.separable_conv2d(y, 5, 3, padding="same"))
        y = tf.nn.relu(norm(v1.layers.conv2d_transpose(y, 4, 3, strides=2)))
    y = tf.reduce_mean(y, [1, 2] if last else [2, 3])
    y = v1.layers.batch_normalization(v1.layers.dense(y, 5), training=training)
    y = tf.identity(v1.layers.dense(tf.nn.relu(y), 2), name="y")

    rng = np.random.default_rng(4)
    config = v1.ConfigProto()
    config.graph_options.rewrite_options.cpu_layout_conversion = 1
    inputs = {"x": x} | ({"training": training} if told == "placeholder" else {})
    given = rng.standard_normal([5, *x.shape[1:].as_list()]).astype(np.float32)
    with v1.Session(config=config) as session:
        for variable in v1.global_variables():
            values = rng.standard_normal(variable.shape.as_list()) * 0.5
            if "variance" in variable.name:
                values = np.abs(values) + 0.5
            variable.load(values, session)
        v1.saved_model.simple_save(session, folder + "/model", inputs, {"y": y})
        feeds = {x: given} | ({training: False} if told == "placeholder" else {})
        np.savez(folder + "/calls.npz", x=given, y=session.run(y, feeds))
"""


def run(model, x):
    """What a model answers; channels first, TensorFlow turns the convolutions round for the CPU."""
    signature = model.signatures["serving_default"]
    config = v1.ConfigProto()
    config.graph_options.rewrite_options.cpu_layout_conversion = 1
    config.graph_options.rewrite_options.min_graph_nodes = -1
    with tf.Graph().as_default() as graph:
        data = v1.GraphDef.FromString(graph_def_bytes(model.graph))
        tf.graph_util.import_graph_def(data, name="")
    with v1.Session(graph=graph, config=config) as session:
        tensors = signature.outputs["y"].tensor, signature.inputs["x"].tensor
        return session.run(full_name(tensors[0]), {full_name(tensors[1]): x})


@pytest.mark.parametrize("told", ["placeholder", "default", "constant"])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("fused", ["fused", "unfused"])
def test_layers_of_tf1(tmp_path, fused, layout, told):
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BUILD), tmp_path, layout, fused, told],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )
    bound = {} if told == "constant" else {"training": False}
    model = freezeflow.freeze(tmp_path / "model", bind=bound)
    given = StageInput(model=model, source=None)
    outcome = STAGE.run(given, Params(batch_norms=True), FakeContext(tmp_path))
    assert outcome.facts["batch_norms_left"] == {}
    before, ops = ({n.op for n in m.graph.nodes.values()} for m in (model, outcome.model))
    assert ("FusedBatchNormV3" in before) is (fused == "fused")
    assert {"Mul", "Sub", "Rsqrt"} <= before
    assert not {"FusedBatchNormV3", "Mul", "Sub", "Rsqrt", "Switch", "Merge", "If"} & ops
    calls = np.load(tmp_path / "calls.npz")
    for frozen in (model, outcome.model):
        np.testing.assert_allclose(run(frozen, calls["x"]), calls["y"], rtol=1e-4, atol=1e-4)
