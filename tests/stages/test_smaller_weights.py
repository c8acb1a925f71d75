"""The stages cast and quantize_weights: what is stored, what is computed, what is lost."""

import tracemalloc

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import StageFailed
from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.narrow import weights_of
from freezeflow.graph.verify import verify
from freezeflow.stages import cast, fold, quantize_weights
from freezeflow.stages.stage import StageInput
from freezeflow.values import Digest, DType, TensorRef
from tests import graphs
from tests.tf.built import FakeContext, assert_same, location_of, model_of, run

v1 = tf.compat.v1
RANDOM = np.random.default_rng(17)


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def network(tmp_path):
    """Every kind of op that has weights, in one model."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        y = tf.nn.relu(
            tf.nn.bias_add(tf.nn.conv2d(x, weights(3, 3, 3, 40), 1, "SAME"), weights(40))
        )
        y = tf.nn.depthwise_conv2d(y, weights(3, 3, 40, 2) * 0.1, [1] * 4, "SAME")
        size = tf.stack([tf.shape(x)[0], 16, 16, 12])
        y = tf.nn.conv2d_transpose(tf.nn.tanh(y), weights(3, 3, 12, 80) * 0.1, size, 2)
        y = tf.reshape(tf.nn.max_pool2d(y, 8, 8, "VALID"), [-1, 48])
        y = tf.matmul(tf.nn.sigmoid(y), weights(48, 30)) * 0.1
        y = tf.matmul(y, weights(50, 30), transpose_b=True)
        y = tf.nn.softmax(y, name="y")
        table = tf.constant(weights(60, 32))
        z = tf.gather(table, tf.argmax(y, 1), name="z")
    return model_of(graph, {"x": x}, {"y": y, "z": z}, tmp_path)


FEEDS = {"x": weights(4, 8, 8, 3)}


def run_stage(module, model, tmp_path, **params):
    given = StageInput(model=model, source=None)
    outcome = module.STAGE.run(given, module.Params(**params), FakeContext(tmp_path))
    assert not verify(outcome.model)
    return outcome


def dtypes_of_constants(model):
    found = {}
    for node in model.graph.nodes.values():
        if node.op == "Const" and node.tensor is not None:
            dtype = attrs.to_type(node.attrs["dtype"])
            found[dtype] = found.get(dtype, 0) + node.tensor.nbytes
    return found


@pytest.mark.parametrize(("to", "error"), [("float16", 4e-4), ("bfloat16", 3e-3)])
def test_weights_are_stored_narrow_and_computed_wide(tmp_path, to, error):
    model = network(tmp_path)
    outcome = run_stage(cast, model, tmp_path, to=to)
    stored = dtypes_of_constants(outcome.model)
    assert DType.FLOAT not in stored
    facts = outcome.facts
    assert facts["bytes_after"] * 2 == facts["bytes_before"]
    assert facts["tensors"] == 6
    assert 0 < facts["relative_error"] < error
    before, after = run(model, FEEDS), run(outcome.model, FEEDS)
    np.testing.assert_allclose(after["y"], before["y"], rtol=0.05, atol=0.01)
    # The very numbers that TensorFlow's own casts give.
    dtype = tf.as_dtype(to)
    originals = [w.data for w in weights_of(model.graph, 256)]
    exact = max(
        float(np.max(np.abs(w - tf.cast(tf.cast(w, dtype), tf.float32).numpy()))) for w in originals
    )
    assert facts["max_abs_error"] == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("to", ["float16", "bfloat16"])
def test_computed_in_half_when_asked(tmp_path, to):
    model = network(tmp_path)
    outcome = run_stage(cast, model, tmp_path, to=to, compute="half")
    half = DType.from_tf_name(to)
    ops = {n.op: n for n in outcome.model.graph.nodes.values()}
    for op in ("Conv2D", "MatMul", "DepthwiseConv2dNative", "Conv2DBackpropInput", "MaxPool"):
        assert attrs.to_type(ops[op].attrs["T"]) is half
    assert attrs.to_type(ops["Softmax"].attrs["T"]) is DType.FLOAT
    assert outcome.facts["nodes_in_half"] >= 12
    before, after = run(model, FEEDS), run(outcome.model, FEEDS)
    assert after["y"].dtype == before["y"].dtype == np.float32
    np.testing.assert_allclose(after["y"], before["y"], atol=0.05)
    again = run_stage(fold, outcome.model, tmp_path).model
    assert_same(after, run(again, FEEDS))


def test_in_half_every_op_of_the_list_runs(tmp_path):
    """What is claimed to compute in half has a kernel for it, for both dtypes."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [2, 4, 4, 6], name="x")
        y = tf.pad(tf.nn.leaky_relu(x), [[0, 0], [0, 2], [0, 0], [0, 0]])
        y = tf.nn.avg_pool2d(tf.nn.elu(tf.nn.relu6(y)), 2, 1, "SAME")
        parts = tf.split(tf.concat([y, -y], -1), 2, -1)
        y = tf.abs(parts[0] - parts[1]) / (tf.square(parts[1]) + 1.0)
        y = tf.stack([y[:, :4], tf.slice(y, [0, 2, 0, 0], [-1, 4, -1, -1])])
        y = tf.squeeze(tf.expand_dims(tf.transpose(y, [0, 1, 3, 2, 4]), 0), [0])
        y = tf.tile(tf.maximum(tf.minimum(y, 3.0), -3.0), [1, 1, 1, 1, 2])
        y = tf.matmul(tf.reshape(y, [-1, 4, 12]), tf.constant(weights(16, 12, 5)))
        vectors = [tf.constant(np.abs(weights(5))) for _ in range(4)]
        y = tf.reshape(y, [-1, 4, 4, 5])
        y = tf.raw_ops.FusedBatchNormV3(
            x=y, scale=vectors[0], offset=vectors[1], mean=vectors[2], variance=vectors[3],
            is_training=False,
        ).y  # fmt: skip
        y = tf.identity(y, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    feeds = {"x": weights(2, 4, 4, 6)}
    before = run(model, feeds)["y"]
    for to in ("float16", "bfloat16"):
        outcome = run_stage(cast, model, tmp_path, to=to, compute="half")
        wide = {
            n.op for n in outcome.model.graph.nodes.values()
            if "T" in n.attrs and attrs.kind(n.attrs["T"]) == "type"
            and attrs.to_type(n.attrs["T"]) is DType.FLOAT
        }  # fmt: skip
        assert wide <= {"Identity"}
        after = run(outcome.model, feeds)["y"]
        assert np.abs(after - before).max() < 0.1 * np.abs(before).max()


def test_in_half_functions_keep_their_signature(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 20], name="x")
        kernel = weights(20, 20) * 0.1

        def body(i, x):
            return i + 1, tf.nn.relu(tf.matmul(x, kernel))

        y = tf.identity(tf.while_loop(lambda i, _: i < 3, body, [0, x])[1], name="y")
    model = run_stage(fold, model_of(graph, {"x": x}, {"y": y}, tmp_path), tmp_path).model
    outcome = run_stage(cast, model, tmp_path, compute="half")
    assert outcome.facts["nodes_in_half"] >= 2
    feeds = {"x": weights(3, 20)}
    np.testing.assert_allclose(run(outcome.model, feeds)["y"], run(model, feeds)["y"], atol=0.02)


def test_what_does_not_fit_and_what_is_named_stays(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 20], name="x")
        large, named = weights(20, 20), weights(20, 20)
        large[3, 3] = 70_000
        y = tf.matmul(
            tf.matmul(x, tf.constant(large, name="large")), tf.constant(named, name="a/b")
        )
        y = tf.identity(y, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = run_stage(cast, model, tmp_path, keep=("a/*",))
    assert outcome.facts["tensors"] == 0
    assert "float16 cannot hold" in outcome.facts["left"]["large"]
    assert outcome.model.graph.nodes["a/b"].op == "Const"
    assert run_stage(cast, model, tmp_path, to="bfloat16").facts["tensors"] == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0, 1e-42])
@pytest.mark.parametrize("to", ["float16", "bfloat16"])
def test_special_values_are_cast_as_tensorflow_does(tmp_path, value, to):
    data = np.full(400, value, np.float32)
    data[::7] = 1.5
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [400], name="x")
        y = tf.concat([x, tf.constant(data)], 0, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = run_stage(cast, model, tmp_path, to=to)
    found = run(outcome.model, {"x": np.zeros(400, np.float32)})["y"][400:]
    expected = tf.cast(tf.cast(data, tf.as_dtype(to)), tf.float32).numpy()
    np.testing.assert_array_equal(found, expected)
    assert (np.signbit(found) == np.signbit(expected)).all()


def test_weights_become_int8_with_a_scale_for_each_channel(tmp_path):
    model = network(tmp_path)
    outcome = run_stage(quantize_weights, model, tmp_path, min_elements=500)
    stored = dtypes_of_constants(outcome.model)
    assert stored[DType.INT8] > 10_000
    facts = outcome.facts
    assert facts["tensors"] == 6
    assert facts["bytes_after"] < 0.3 * facts["bytes_before"]
    assert 0 < facts["relative_error"] < 0.02
    assert facts["worst"]["relative_error"] >= facts["relative_error"]
    before, after = run(model, FEEDS), run(outcome.model, FEEDS)
    np.testing.assert_allclose(after["y"], before["y"], atol=0.05)
    # Each weight as the graph makes it is no more than half a step off.
    for weight in weights_of(model.graph, 500):
        name = weight.node.name
        made = run_tensor(outcome.model, name)
        scale = run_tensor(outcome.model, f"{name}/scale")
        assert np.all(np.abs(made - weight.data) <= scale * 0.5001)
        assert scale.size in (40, 80, 12, 30, 50, 60)
    assert facts["max_abs_error"] == pytest.approx(
        max(
            float(np.max(np.abs(run_tensor(outcome.model, w.node.name) - w.data)))
            for w in weights_of(model.graph, 500)
        ),
        rel=1e-6,
    )


def run_tensor(model, name):
    from freezeflow.graph.write import graph_def_bytes

    graph = tf.Graph()
    with graph.as_default():
        data = graph_def_bytes(model.graph)
        tf.graph_util.import_graph_def(v1.GraphDef.FromString(data), name="")
    with v1.Session(graph=graph) as session:
        return session.run(f"{name}:0")


def test_folding_afterwards_does_not_undo_it(tmp_path):
    for stage in (cast, quantize_weights):
        smaller = run_stage(stage, network(tmp_path), tmp_path, min_elements=500).model
        again = run_stage(fold, smaller, tmp_path, max_growth=1_000_000).model
        assert dtypes_of_constants(again) == dtypes_of_constants(smaller)
        assert_same(run(smaller, FEEDS), run(again, FEEDS))


def test_what_cannot_be_quantised_stays(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 40], name="x")
        bad, plain = weights(40, 40), weights(40)
        bad[0, 0] = np.inf
        y = tf.matmul(x, tf.constant(bad, name="bad")) + tf.tile(tf.constant(plain), [1])
        y = tf.matmul(y, tf.constant(np.zeros((40, 40), np.float32) + 1e-41, name="small"))
        y = tf.identity(y * tf.constant(weights(40, 40)), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = run_stage(quantize_weights, model, tmp_path, min_elements=100)
    assert outcome.facts["left"] == {"bad": "it has values that are not finite"}
    assert not np.isnan(run_tensor(outcome.model, "small")).any()


def test_a_model_with_variables_is_refused(tmp_path):
    from dataclasses import replace

    model = network(tmp_path)
    with_variables = replace(model, variables={"x": model.graph.nodes["x"]})
    for stage in (cast, quantize_weights):
        with pytest.raises(StageFailed, match="freeze"):
            given = StageInput(model=with_variables, source=None)
            stage.STAGE.run(given, stage.Params(), FakeContext(tmp_path))
        with pytest.raises(StageFailed, match="no model"):
            given = StageInput(model=None, source=None)
            stage.STAGE.run(given, stage.Params(), FakeContext(tmp_path))


@pytest.mark.parametrize("stage", [cast, quantize_weights])
def test_memory_stays_bounded(tmp_path, stage):
    """A weight of 200 MB goes through blocks of a few megabytes."""
    path = tmp_path / "weight"
    with open(path, "wb") as file:
        file.truncate(200_000_000)
    place = location_of(path, 0, 200_000_000)
    tensor = TensorRef(Digest("0" * 64), DType.FLOAT, (50_000, 1000), place)
    made = graphs.graph(
        graphs.placeholder("x", DType.FLOAT, (None, 50_000)),
        const("w", DType.FLOAT, tensor.shape, tensor),
        graphs.node("y", "MatMul", "x", "w", T=DType.FLOAT, transpose_a=False, transpose_b=False),
    )
    whole = graphs.model(made, {"x": graphs.spec("x")}, {"y": graphs.spec("y")})
    tracemalloc.start()
    try:
        outcome = run_stage(stage, whole, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.facts["tensors"] == 1
    assert peak < 60_000_000


def in_a_loop_and_a_branch(tmp_path):
    """A matrix in a loop's body, one in a branch, and a table that is looked up and multiplied by."""
    inside, chosen, table = weights(40, 40) * 0.1, weights(40, 30), weights(50, 40)
    with tf.Graph().as_default() as graph:
        ids = v1.placeholder(tf.int32, [None], name="ids")
        shared = tf.constant(table, name="table")
        x = tf.gather(shared, ids)
        _, x = tf.while_loop(
            lambda i, _: i < 3, lambda i, y: (i + 1, tf.tanh(tf.matmul(y, inside))), [0, x]
        )
        logits = tf.matmul(x, shared, transpose_b=True, name="logits")
        y = tf.cond(tf.shape(ids)[0] > 1, lambda: tf.matmul(x, chosen), lambda: tf.zeros([1, 30]))
        y = tf.identity(y, name="y")
    return model_of(graph, {"ids": ids}, {"logits": logits, "y": y}, tmp_path)


@pytest.mark.parametrize(
    ("stage", "share", "error"),
    [(cast, 0.5, 0.01), (quantize_weights, 0.25, 0.1)],
    ids=["cast", "quantize_weights"],
)
def test_weights_in_functions_and_shared_ones(tmp_path, stage, share, error):
    from freezeflow.graph.write import graph_def_bytes

    model = run_stage(fold, in_a_loop_and_a_branch(tmp_path), tmp_path).model
    outcome = run_stage(stage, model, tmp_path, min_elements=500)
    assert outcome.facts["tensors"] == 3
    ratio = outcome.facts["bytes_after"] / outcome.facts["bytes_before"]
    assert share <= ratio < share + 0.03
    files = [len(graph_def_bytes(m.graph)) for m in (outcome.model, model)]
    assert files[0] - files[1] < -0.9 * (1 - ratio) * outcome.facts["bytes_before"]
    for ids in ([3], [0, 49, 7]):
        feeds = {"ids": np.array(ids, np.int32)}
        before, after = run(model, feeds), run(outcome.model, feeds)
        for key, value in before.items():
            np.testing.assert_allclose(after[key], value, atol=error * max(1, np.abs(value).max()))


def test_channels_of_zeros_stay_zeros(tmp_path):
    weight = weights(40, 30)
    weight[:, 3] = 0
    weight[:, 4] = -0.0
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 40], name="x")
        y = tf.matmul(x, tf.constant(weight, name="w"), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = run_stage(quantize_weights, model, tmp_path, min_elements=100)
    made = run_tensor(outcome.model, "w")
    assert not made[:, 3:5].any()
    assert np.all(np.isfinite(made))


@pytest.mark.parametrize(
    ("value", "to", "stays"),
    [(65520.0, "float16", True), (65519.0, "float16", False), (65520.0, "bfloat16", False),
     (3.4e38, "bfloat16", True)],
)  # fmt: skip
def test_a_weight_that_would_overflow_is_left_as_it_is_and_named(tmp_path, value, to, stays):
    weight = weights(20, 20)
    weight[1, 2] = value
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 20], name="x")
        y = tf.matmul(x, tf.constant(weight, name="w"), name="y")
    outcome = run_stage(cast, model_of(graph, {"x": x}, {"y": y}, tmp_path), tmp_path, to=to)
    assert ("w" in outcome.facts["left"]) is stays
    assert np.all(np.isfinite(run_tensor(outcome.model, "w")))
