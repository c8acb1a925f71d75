"""Batch norms folded into weights: every form, and every case in which it would be wrong."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.graph.graph import called_functions
from freezeflow.stages.fold import STAGE, Params
from freezeflow.stages.stage import StageInput
from tests.tf.built import FakeContext, model_of, run

v1 = tf.compat.v1
RANDOM = np.random.default_rng(11)
LINEAR = ("Conv2D", "Conv2DBackpropInput", "Conv3D", "DepthwiseConv2dNative", "MatMul")
NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def fused(x, channels, version=3, data_format="NHWC", is_training=False):
    op = getattr(tf.raw_ops, NORMS[version - 1])
    given = {
        "x": x,
        "scale": weights(channels),
        "offset": weights(channels),
        "mean": weights(channels),
        "variance": np.abs(weights(channels)) + 0.1,
    }
    if is_training:
        given |= {"mean": np.zeros(0, np.float32), "variance": np.zeros(0, np.float32)}
    return op(epsilon=1e-3, is_training=is_training, data_format=data_format, **given)


def arithmetic(x, channels, add=tf.add, leading=()):
    """As Keras 3 writes it, constants for each channel."""
    scale, shift = weights(*leading, channels), weights(*leading, channels)
    return add(x * scale, shift)


def conv(x, outputs, kernel=3, padding="SAME"):
    return tf.nn.conv2d(x, weights(kernel, kernel, x.shape[-1], outputs), 1, padding)


def convolutions(kind, x):
    """An input of four (five) dimensions through a linear op with six channels."""
    if kind == "conv":
        return conv(x, 6)
    if kind == "depthwise":
        return tf.nn.depthwise_conv2d(x, weights(3, 3, 3, 2), [1, 1, 1, 1], "SAME")
    if kind == "transposed":
        size = tf.stack([tf.shape(x)[0], 10, 10, 6])
        return tf.nn.conv2d_transpose(x, weights(3, 3, 6, 3), size, 2)
    if kind == "conv3d":
        return tf.nn.conv3d(x, weights(2, 2, 2, 3, 6), [1] * 5, "SAME")
    if kind == "matmul":
        return tf.matmul(x, weights(3, 6))
    return tf.matmul(x, weights(6, 3), transpose_b=True)


SHAPES = {"conv3d": (4, 5, 5, 3), "matmul": (3,), "matmul_transposed": (3,)}


@pytest.fixture
def check(tmp_path):
    """Builds, folds, compares; gives back the outcome and the ops that are left."""

    def run_check(build, shape=(5, 5, 3), *, feeds=2, **params):
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, [None, *shape], name="x")
            built = build(x)
            outputs = {
                f"y{i}": tf.identity(y, name=f"y{i}")
                for i, y in enumerate(built if isinstance(built, tuple) else (built,))
            }
        model = model_of(graph, {"x": x}, outputs, tmp_path)
        stage_input = StageInput(model=model, source=None)
        settings = Params(**{"batch_norms": True, **params})
        outcome = STAGE.run(stage_input, settings, FakeContext(tmp_path))
        given = {"x": weights(feeds, *shape)}
        before, after = run(model, given), run(outcome.model, given)
        for key in before:
            np.testing.assert_allclose(after[key], before[key], rtol=2e-5, atol=2e-5)
        return outcome, sorted(node.op for node in outcome.model.graph.nodes.values())

    return run_check


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "transposed"])
def test_fused_norms_behind_convolutions(check, kind, version):
    outcome, ops = check(lambda x: tf.nn.relu(fused(convolutions(kind, x), 6, version)[0]))
    assert not set(ops) & set(NORMS)
    assert "BiasAdd" in ops
    assert outcome.facts["batch_norms_folded"] == 1
    assert outcome.facts["batch_norms_left"] == {}


@pytest.mark.parametrize(
    "kind", ["conv", "depthwise", "transposed", "conv3d", "matmul", "matmul_t"]
)
@pytest.mark.parametrize("add", [tf.add, tf.raw_ops.Add, tf.nn.bias_add, tf.subtract])
def test_multiplication_and_addition(check, kind, add):
    if add is tf.raw_ops.Add:

        def add(x, y):
            return tf.raw_ops.Add(x=x, y=y)

    shape = {"conv3d": (4, 5, 5, 3), "matmul": (3,), "matmul_t": (3,)}.get(kind, (5, 5, 3))
    _, ops = check(lambda x: arithmetic(convolutions(kind, x), 6, add), shape)
    assert "Mul" not in ops
    assert ops.count("Const") <= 6
    assert sum(op in ("Add", "AddV2", "BiasAdd", "Sub") for op in ops) == 1


@pytest.mark.parametrize("plus", [tf.nn.bias_add, tf.add, lambda x, b: tf.raw_ops.Add(x=x, y=b)])
@pytest.mark.parametrize("norm", [lambda x: fused(x, 6)[0], lambda x: arithmetic(x, 6)])
def test_a_bias_before_the_norm(check, plus, norm):
    _, ops = check(lambda x: norm(plus(conv(x, 6), weights(6))))
    assert sorted(set(ops) - {"Const", "Placeholder", "Identity"}) in (
        ["BiasAdd", "Conv2D"], ["Add", "Conv2D"], ["AddV2", "Conv2D"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "norm",
    [
        lambda x: (x - weights(6)) * weights(1, 1, 1, 6),
        lambda x: x / (np.abs(weights(6)) + 1) + 3.0,
        lambda x: weights(6) * x * 2.0 + weights(1, 1, 6),
    ],
)
def test_other_ways_to_write_it(check, norm):
    _, ops = check(lambda x: norm(tf.nn.bias_add(conv(x, 6), weights(6))))
    assert not {"Mul", "RealDiv", "Sub"} & set(ops)


def test_half_precision_keeps_its_dtype(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float16, [None, 3], name="x")
        y = tf.matmul(x, tf.constant(weights(3, 4), tf.float16))
        y = y * tf.constant(weights(4), tf.float16)
        y = tf.add(y, tf.constant(weights(4), tf.float16), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    params = Params(batch_norms=True)
    outcome = STAGE.run(StageInput(model=model, source=None), params, FakeContext(tmp_path))
    assert "Mul" not in {node.op for node in outcome.model.graph.nodes.values()}
    feeds = {"x": weights(5, 3).astype(np.float16)}
    before, after = run(model, feeds)["y"], run(outcome.model, feeds)["y"]
    np.testing.assert_allclose(after, before, rtol=1e-2, atol=1e-2)


def test_through_a_concat_along_the_channels(check):
    def build(x):
        parts = [conv(x, 4), tf.nn.bias_add(conv(x, 3), weights(3)), conv(x, 5)]
        return fused(tf.concat(parts, -1), 12)[0]

    outcome, ops = check(build)
    assert not set(ops) & set(NORMS)
    assert ops.count("BiasAdd") == 3
    assert outcome.facts["batch_norms_folded"] == 1


def test_a_concat_of_something_else_stays(check):
    outcome, ops = check(lambda x: fused(tf.concat([conv(x, 4), x], -1), 7)[0])
    assert "FusedBatchNormV3" in ops
    ((reason),) = outcome.facts["batch_norms_left"].values()
    assert reason == "no convolution or matrix product is before it"


def test_a_concat_along_another_axis_stays(check):
    _, ops = check(lambda x: fused(tf.concat([conv(x, 4), conv(x, 4)], 1), 4)[0])
    assert "FusedBatchNormV3" in ops


def test_a_shift_does_not_go_through_padding_but_a_scale_does(check):
    pads = [[0, 0], [1, 1], [2, 0], [0, 0]]
    outcome, ops = check(lambda x: fused(tf.pad(conv(x, 4), pads), 4)[0])
    assert "FusedBatchNormV3" in ops
    assert "padding" in next(iter(outcome.facts["batch_norms_left"].values()))
    _, ops = check(lambda x: tf.pad(conv(x, 4), pads) * weights(4))
    assert "Mul" not in ops
    _, ops = check(lambda x: tf.pad(conv(x, 4), pads, constant_values=1.0) * weights(4))
    assert "Mul" in ops


def test_through_the_blocks_of_a_dilated_convolution(check):
    def build(x):
        blocks = tf.raw_ops.SpaceToBatchND(input=x, block_shape=[2, 2], paddings=[[2, 3], [2, 3]])
        y = tf.raw_ops.BatchToSpaceND(
            input=conv(blocks, 4, padding="VALID"), block_shape=[2, 2], crops=[[0, 1], [0, 1]]
        )
        return fused(y, 4)[0]

    _, ops = check(build)
    assert "FusedBatchNormV3" not in ops


# ---------------------------------------------------------------- where TensorFlow's own tool is wrong


def test_a_convolution_with_two_consumers_is_left_alone(check):
    def build(x):
        y = conv(x, 4)
        return fused(y, 4)[0], tf.nn.relu(y)

    outcome, ops = check(build)
    assert "FusedBatchNormV3" in ops
    assert "used elsewhere" in next(iter(outcome.facts["batch_norms_left"].values()))


def test_a_convolution_that_is_an_output_is_left_alone(check):
    def build(x):
        y = conv(x, 4)
        return fused(y, 4)[0], y

    _, ops = check(build)
    assert "FusedBatchNormV3" in ops


def test_shared_weights_are_copied(check):
    kernel = weights(3, 3, 3, 4)

    def build(x):
        shared = tf.constant(kernel)
        first = tf.nn.conv2d(x, shared, 1, "SAME")
        second = tf.nn.conv2d(tf.nn.relu(x), shared, 1, "SAME")
        third = tf.nn.conv2d(tf.abs(x), shared, 1, "SAME")
        return fused(first, 4)[0], fused(second, 4)[0], third

    outcome, ops = check(build)
    assert "FusedBatchNormV3" not in ops
    assert outcome.facts["batch_norms_folded"] == 2
    assert outcome.facts["bytes_copied"] == 2 * kernel.nbytes
    assert "Mul" not in ops


def test_training_mode_is_refused(check):
    outcome, ops = check(lambda x: fused(conv(x, 4), 4, is_training=True)[0])
    assert "FusedBatchNormV3" in ops
    assert "training mode" in next(iter(outcome.facts["batch_norms_left"].values()))


def test_statistics_that_others_take(check):
    def build(x):
        found = fused(conv(x, 4), 4)
        return found[0], found[1]

    outcome, ops = check(build)
    assert "FusedBatchNormV3" in ops
    assert len(outcome.facts["batch_norms_left"]) == 1


def test_a_check_on_the_data_path_stays_and_keeps_the_norm(check):
    outcome, ops = check(lambda x: fused(tf.debugging.check_numerics(conv(x, 4), "!"), 4)[0])
    assert {"CheckNumerics", "FusedBatchNormV3"} <= set(ops)
    assert "CheckNumerics" in next(iter(outcome.facts["batch_norms_left"].values()))


def test_inside_a_function_of_the_library(check):
    def build(x):
        def branch():
            return fused(conv(x, 4), 4)[0]

        return tf.cond(tf.reduce_sum(x) > 0, branch, lambda: arithmetic(conv(x, 4), 4))

    outcome, _ = check(build)
    graph = outcome.model.graph
    called = {name for node in graph.nodes.values() for name in called_functions(node)}
    assert called <= set(graph.functions)
    inside = {node.op for name in called for node in graph.functions[name].nodes.values()}
    assert "Conv2D" in inside
    assert not inside & {"Mul", "FusedBatchNormV3"}


def test_factors_that_are_no_channels(check):
    for factor in (weights(5, 1), weights(2, 1, 1, 1)):
        _, ops = check(lambda x, factor=factor: conv(x, 4) * factor)
        assert "Mul" in ops


def test_a_norm_that_is_an_output_keeps_its_name(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        y = tf.multiply(tf.matmul(x, weights(3, 2)), weights(2), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    params = Params(batch_norms=True)
    outcome = STAGE.run(StageInput(model=model, source=None), params, FakeContext(tmp_path))
    assert outcome.model.graph.nodes["y"].op == "Identity"
    feeds = {"x": weights(4, 3)}
    np.testing.assert_allclose(run(outcome.model, feeds)["y"], run(model, feeds)["y"], rtol=1e-5)


def test_without_being_asked_no_norm_is_folded(check):
    _, ops = check(lambda x: fused(conv(x, 4), 4)[0], batch_norms=False)
    assert "FusedBatchNormV3" in ops


def test_an_addition_of_zeros_goes_too(check):
    zeros = np.zeros(4, np.float32)
    _, ops = check(lambda x: tf.nn.relu(tf.nn.bias_add(conv(x, 4) * weights(4), zeros)))
    assert sorted(ops) == ["Const", "Conv2D", "Identity", "Placeholder", "Relu"]


def test_channels_first(tmp_path):
    """TensorFlow's CPU kernels know no such convolution: the new weights are judged by arithmetic."""
    kernel = weights(1, 1, 3, 4)
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3, 5, 5], name="x")
        y = tf.raw_ops.Conv2D(
            input=x, filter=kernel, strides=[1] * 4, padding="VALID", data_format="NCHW"
        )
        norm = fused(y, 4, data_format="NCHW")[0]
        second = tf.raw_ops.Conv2D(
            input=norm, filter=weights(1, 1, 4, 2), strides=[1] * 4, padding="VALID",
            data_format="NCHW",
        )  # fmt: skip
        z = tf.identity(second * weights(2, 1, 1) + weights(1, 2, 1, 1), name="z")
    model = model_of(graph, {"x": x}, {"z": z}, tmp_path)
    params = Params(batch_norms=True)
    outcome = STAGE.run(StageInput(model=model, source=None), params, FakeContext(tmp_path))
    graph = outcome.model.graph
    assert sorted(n.op for n in graph.nodes.values() if n.op != "Const") == [
        "AddV2", "BiasAdd", "Conv2D", "Conv2D", "Identity", "Placeholder",
    ]  # fmt: skip
    given = weights(2, 3, 5, 5)
    before, after = by_arithmetic(model, given), by_arithmetic(outcome.model, given)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def by_arithmetic(model, x):
    """A chain of 1x1 convolutions and their norms, channels first, in NumPy."""
    from freezeflow.graph.write import graph_def_bytes

    graph_def = v1.GraphDef.FromString(graph_def_bytes(model.graph))
    values = {"x": x.astype(np.float64)}
    pending = [node for node in graph_def.node if node.name != "x"]
    while pending:
        node = pending.pop(0)
        if not all(name in values for name in node.input):
            pending.append(node)
            continue
        given = [values[name] for name in node.input]
        values[node.name] = KERNELS[node.op](node, *given)
    return values["z"]


def _norm(node, x, scale, offset, mean, variance):
    root = scale / np.sqrt(variance + node.attr["epsilon"].f)
    return x * root[:, None, None] + (offset - mean * root)[:, None, None]


def _bias(node, x, bias):
    return x + (bias[:, None, None] if node.attr["data_format"].s == b"NCHW" else bias)


KERNELS = {
    "Const": lambda node: np.float64(tf.make_ndarray(node.attr["value"].tensor)),
    "Conv2D": lambda node, x, w: np.einsum("nihw,io->nohw", x, w[0, 0]),
    "FusedBatchNormV3": _norm,
    "BiasAdd": _bias,
    "Mul": lambda node, x, y: x * y,
    "AddV2": lambda node, x, y: x + y,
    "Identity": lambda node, x: x,
}


def conv1d(x, outputs, **options):
    return tf.nn.conv1d(x, weights(3, x.shape[-1], outputs), 1, "SAME", **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(), (1, 1)])
def test_behind_a_convolution_of_one_dimension(check, bias, leading):
    def build(x):
        y = conv1d(x, 6)
        y = tf.nn.bias_add(y, weights(6)) if bias else y
        y = tf.nn.relu(arithmetic(y, 6, leading=leading))
        sums = conv1d(y, 4) + weights(1, 4)
        return tf.nn.relu(sums), sums

    _, ops = check(build, (8, 3))
    assert "Mul" not in ops
    assert sum(op in ("AddV2", "BiasAdd") for op in ops) == 2


def test_behind_a_dilated_convolution_of_one_dimension(check):
    """Its blocks are put together again behind the Squeeze."""

    def build(x):
        return arithmetic(conv1d(x, 6, dilations=2), 6)

    _, ops = check(build, (8, 3))
    assert "Mul" not in ops


def test_a_squeeze_of_channels_or_with_other_users_stays_where_it_is(check):
    factor = weights(5)

    def of_channels(x):
        return tf.squeeze(conv(x, 1), [3]) * factor

    def used_twice(x):
        y = conv1d(tf.squeeze(x[:, :1], [1]), 5)
        return y * factor, tf.nn.relu(y)

    def grown(x):
        return conv1d(tf.squeeze(x[:, :1], [1]), 5) * weights(2, 1, 1, 5)

    for build in (of_channels, used_twice, grown):
        assert "Mul" in check(build)[1]


def test_grouped_and_dilated_convolutions(check):
    def grouped(x):
        return fused(tf.nn.conv2d(x, weights(3, 3, 3, 6), 1, "SAME"), 6)[0]

    def dilated(x):
        y = tf.nn.conv2d(x, weights(3, 3, 1, 6), 1, "VALID", dilations=2)
        return fused(y, 6)[0]

    for build in (grouped, dilated):
        for rows in (1, 3):
            _, ops = check(build, (7, 7, 3), feeds=rows)
            assert not set(ops) & set(NORMS)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
@pytest.mark.parametrize("norm", ["fused", "arithmetic"])
def test_other_dtypes(tmp_path, dtype, norm):
    if norm == "fused" and dtype == tf.float64:
        pytest.skip("FusedBatchNorm knows no float64")

    def cast(*shape):
        return tf.constant(weights(*shape), dtype)

    with tf.Graph().as_default() as graph:
        x = v1.placeholder(dtype, [None, 5, 5, 3], name="x")
        y = tf.nn.bias_add(tf.nn.conv2d(x, cast(3, 3, 3, 4), 1, "SAME"), cast(4))
        y = fused(y, 4)[0] if norm == "fused" else y * cast(4) + cast(1, 1, 1, 4)
        y = tf.identity(y, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    given = StageInput(model=model, source=None)
    outcome = STAGE.run(given, Params(batch_norms=True), FakeContext(tmp_path))
    ops = {node.op for node in outcome.model.graph.nodes.values()}
    assert not ops & {*NORMS, "Mul"}
    feeds = {"x": weights(2, 5, 5, 3).astype(dtype.as_numpy_dtype)}
    before, after = (np.float64(run(m, feeds)["y"]) for m in (model, outcome.model))
    error = np.abs(after - before).max() / np.abs(before).max()
    assert error < {tf.float16: 0.02, tf.bfloat16: 0.1, tf.float64: 1e-14}[dtype]


def test_as_tf1_code_writes_it(tmp_path):
    """Reference variables turned constants, moments kept, ``batch_normalization`` by arithmetic."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, None, None, 3], name="x")
        y = x
        for width in (4, 5):
            y = tf.nn.conv2d(y, weights(3, 3, y.shape[-1], width), 2, "SAME")
            moments = weights(width), np.abs(weights(width)) + 0.1
            y = tf.nn.batch_normalization(y, *moments, weights(width), weights(width), 1e-3)
            y = tf.nn.relu6(y)
        flat = tf.reduce_mean(y, [1, 2])
        y = tf.nn.batch_normalization(
            tf.matmul(flat, weights(5, 2)), weights(2), np.abs(weights(2)) + 1, None, None, 1e-3
        )
        y = tf.identity(y, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    given = StageInput(model=model, source=None)
    outcome = STAGE.run(given, Params(batch_norms=True), FakeContext(tmp_path))
    ops = {node.op for node in outcome.model.graph.nodes.values()}
    assert not ops & {"Mul", "RealDiv", "Sub", "Rsqrt"}
    for shape in ((1, 8, 8, 3), (3, 5, 7, 3), (0, 8, 8, 3)):
        feeds = {"x": weights(*shape)}
        before, after = run(model, feeds)["y"], run(outcome.model, feeds)["y"]
        np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5)


def old_norm(tmp_path, scaled):
    """A convolution and a batch norm of 2016, which TensorFlow takes in graphs of that time only."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 5, 5, 3], name="x")
        y = tf.identity(conv(x, 4), name="conv")
        for name in ("mean", "beta", "gamma"):
            tf.constant(weights(4), name=name)
        tf.constant(np.abs(weights(4)) + 0.1, name="variance")
        z = tf.nn.relu(y, name="z")
    graph_def = graph.as_graph_def()
    graph_def.versions.producer = 8
    norm = graph_def.node.add(name="norm", op="BatchNormWithGlobalNormalization")
    norm.input.extend(["conv", "mean", "variance", "beta", "gamma"])
    norm.attr["T"].type = tf.float32.as_datatype_enum
    norm.attr["variance_epsilon"].f = 1e-3
    norm.attr["scale_after_normalization"].b = scaled
    for node in graph_def.node:
        node.attr.pop("_output_shapes", None)
        if node.name == "z":
            node.input[:] = ["norm"]
    return model_of(graph_def, {"x": x}, {"z": z}, tmp_path)


@pytest.mark.parametrize("scaled", [True, False])
def test_the_norm_of_old_graphs(tmp_path, scaled):
    model = old_norm(tmp_path, scaled)
    params = Params(batch_norms=True)
    outcome = STAGE.run(StageInput(model=model, source=None), params, FakeContext(tmp_path))
    assert outcome.facts["batch_norms_folded"] == 1
    assert sorted(node.op for node in outcome.model.graph.nodes.values()) == [
        "BiasAdd", "Const", "Const", "Conv2D", "Placeholder", "Relu",
    ]  # fmt: skip
    feeds = {"x": weights(2, 5, 5, 3)}
    before, after = run(model, feeds)["z"], run(outcome.model, feeds)["z"]
    np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5)
