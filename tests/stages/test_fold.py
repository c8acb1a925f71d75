"""The fold stage: what it folds, what it leaves alone, and that no bit changes."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.graph.graph import called_functions
from freezeflow.stages.fold import STAGE, Params
from freezeflow.stages.stage import StageInput
from freezeflow.values import ModelSource
from tests.tf.built import FakeContext, assert_same, model_of, run

v1 = tf.compat.v1
RANDOM = np.random.default_rng(3)


@pytest.fixture
def fold(tmp_path):
    def run_stage(model, **params):
        source = ModelSource(kind="saved_model", path=tmp_path)
        context = FakeContext(tmp_path)
        return STAGE.run(StageInput(model=model, source=source), Params(**params), context)

    return run_stage


def ops_of(model):
    return sorted(node.op for node in model.graph.nodes.values())


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_batch_norm_arithmetic_is_computed_exactly(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 6, 6, 3], name="x")
        y = tf.nn.conv2d(x, weights(3, 3, 3, 400), 1, "SAME")
        scale = tf.math.rsqrt(tf.abs(tf.constant(weights(400))) + 1e-3) * weights(400)
        y = tf.identity(y * scale + (weights(400) - weights(400) * scale), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert ops_of(outcome.model) == sorted(
        ["AddV2", "Const", "Const", "Const", "Conv2D", "Identity", "Mul", "Placeholder"]
    )
    feeds = {"x": weights(2, 6, 6, 3)}
    assert_same(run(model, feeds), run(outcome.model, feeds))
    assert outcome.facts["bytes_after"] < outcome.facts["bytes_before"]
    assert outcome.facts["nodes_folded"] == 6
    assert outcome.facts["nodes_after"] == 8


def test_a_large_weight_is_pointed_at_not_copied(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 50], name="x")
        kernel = tf.identity(tf.squeeze(tf.reshape(tf.constant(weights(1000)), [50, 1, 20])))
        y = tf.matmul(x, kernel, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    (before,) = (n.tensor for n in model.graph.nodes.values() if n.tensor is not None)
    files = set(tmp_path.iterdir())
    outcome = fold(model)
    (after,) = (n.tensor for n in outcome.model.graph.nodes.values() if n.tensor is not None)
    assert after.location == before.location
    assert after.shape == (50, 20)
    assert set(tmp_path.iterdir()) == files
    feeds = {"x": weights(3, 50)}
    assert_same(run(model, feeds), run(outcome.model, feeds))


def test_a_reshape_stays_where_it_would_store_a_weight_twice(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 50], name="x")
        kernel = tf.constant(weights(50, 20))
        y = tf.matmul(tf.matmul(x, kernel), tf.reshape(kernel, [20, 50]), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    assert "Reshape" in ops_of(fold(model).model)
    assert "Reshape" not in ops_of(fold(model, max_growth=5000).model)


def test_strings_are_folded(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string, [None], name="x")
        words = tf.strings.upper(tf.constant(["a\0b", "", "zo\xff"]))
        y = tf.equal(x[:, None], tf.strings.join([words, words], "-"), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert "StringJoin" not in ops_of(outcome.model)
    assert "StringUpper" not in ops_of(outcome.model)
    feeds = {"x": np.array([b"A\0B-A\0B", b"-", "ZO\xff-ZO\xff".encode(), b"x"], object)}
    result = run(outcome.model, feeds)
    assert result["y"].sum() == 3
    assert_same(run(model, feeds), result)


STRING_OPS = {
    "AsString": lambda s: tf.strings.as_string(tf.constant([1.5, -0.0, np.nan, 1e30]), precision=2),
    "EncodeBase64": lambda s: tf.io.encode_base64(s, pad=True),
    "DecodeBase64": lambda s: tf.io.decode_base64(tf.constant(["YWI", "", "_-8"])),
    "DecodeRaw": lambda s: tf.io.decode_raw(tf.constant(["abcd", "efgh"]), tf.int32),
    "ReduceJoin": lambda s: tf.strings.reduce_join(s, separator="--"),
    "RegexReplace": lambda s: tf.raw_ops.RegexReplace(
        input=s, pattern="[a-c]*", rewrite=r"<\\0\\0>"
    ),
    "StaticRegexReplace": lambda s: tf.strings.regex_replace(s, "b?", r"[\\0]"),
    "StaticRegexFullMatch": lambda s: tf.strings.regex_full_match(s, "a.*"),
    "StringSplitV2": lambda s: tf.strings.split(s, "b").values,
    "StringToHashBucket": lambda s: tf.compat.v1.string_to_hash_bucket(s, 100),
    "StringToHashBucketStrong": lambda s: tf.strings.to_hash_bucket_strong(s, 100, [3, 7]),
    "StringToNumber": lambda s: tf.strings.to_number(tf.constant(["1.5", "-0", "inf"])),
    "UnicodeTranscode": lambda s: tf.strings.unicode_transcode(s, "UTF-8", "UTF-16-BE"),
}


def test_every_string_op(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.int32, [], name="x")
        words = tf.constant(["abc", "", "b\0b", "zä", "aabbcc" * 5])
        ends = {}
        for op, make in STRING_OPS.items():
            made = make(words)
            assert any(op == found.type for found in graph.get_operations()), op
            ends[op] = tf.tile(tf.reshape(made, [-1]), tf.reshape(x, [1]), name=op)
    model = model_of(graph, {"x": x}, ends, tmp_path)
    outcome = fold(model, max_growth=100_000)
    assert not set(STRING_OPS) & set(ops_of(outcome.model))
    for times in (1, 2):
        feeds = {"x": np.int32(times)}
        assert_same(run(model, feeds), run(outcome.model, feeds))


def test_a_string_of_enormous_width_is_left_alone(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string, [], name="x")
        wide = tf.strings.as_string(tf.constant(1.0), width=2_000_000_000)
        y = tf.equal(x, wide, name="y")
    outcome = fold(model_of(graph, {"x": x}, {"y": y}, tmp_path))
    assert "AsString" in ops_of(outcome.model)


def test_several_outputs_and_results_that_only_values_size(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        first, second, third = tf.split(tf.constant(weights(9)), 3)
        places = tf.where(tf.constant([True, False, True]))
        y = x + tf.reduce_sum(first * third)
        z = tf.identity(tf.gather_nd(second, places) + x, name="z")
    model = model_of(graph, {"x": x}, {"y": y, "z": z}, tmp_path)
    outcome = fold(model)
    assert "Split" not in ops_of(outcome.model)
    assert "Where" not in ops_of(outcome.model)
    feeds = {"x": weights(2)}
    assert_same(run(model, feeds), run(outcome.model, feeds))


def test_only_the_outputs_in_use_become_constants(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 1], name="x")
        parts = tf.split(tf.constant(weights(9)), 3)
        y = tf.identity(x * parts[1] + x * parts[2], name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert ops_of(outcome.model).count("Const") == 2
    feeds = {"x": weights(2, 1)}
    assert_same(run(model, feeds), run(outcome.model, feeds))


def test_signature_tensors_keep_their_names(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.identity(x, name="y")
        z = tf.identity(tf.constant([1.0, 2.0]) * 2, name="z")
    model = model_of(graph, {"x": x}, {"y": y, "z": z}, tmp_path)
    outcome = fold(model)
    assert outcome.model.signatures == model.signatures
    assert ops_of(outcome.model) == ["Const", "Identity", "Placeholder"]
    feeds = {"x": weights(2)}
    assert_same(run(model, feeds), run(outcome.model, feeds))


def test_an_output_with_a_number_stays_what_it_is(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.split(tf.constant(weights(6)) * 2, 2, name="y")[1]
    model = model_of(graph, {"x": x}, {"x": x, "y": y}, tmp_path)
    outcome = fold(model)
    assert outcome.model.graph.nodes["y"].op == "Split"
    feeds = {"x": weights(2)}
    assert_same(run(model, feeds), run(outcome.model, feeds))


def test_a_fed_constant_is_no_constant(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = tf.constant([1.0, 2.0], name="x")
        y = tf.multiply(x, 2.0, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert run(outcome.model, {"x": np.float32([5, 6])})["y"].tolist() == [10, 12]


def test_assertions_stay_awaited(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        check = tf.debugging.Assert(tf.reduce_all(x > 0), [x])
        with tf.control_dependencies([check]):
            limit = tf.constant(3.0) * 2.0
        y = tf.identity(limit * 2.0, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert outcome.model.graph.nodes["y"].op == "Const"
    assert run(outcome.model, {"x": np.float32([1])})["y"] == 12
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(outcome.model, {"x": np.float32([-1])})


def test_tf1_branches_stay_alive_or_dead(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        v1.disable_control_flow_v2()
        try:
            flag = v1.placeholder(tf.bool, [], name="flag")
            y = v1.cond(
                flag, lambda: tf.constant(2.0) * 3.0, lambda: tf.identity(tf.constant(1.0)) - 4.0
            )
            y = tf.identity(y, name="y")
        finally:
            v1.enable_control_flow_v2()
    model = model_of(graph, {"flag": flag}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert "Mul" not in ops_of(outcome.model)
    assert run(outcome.model, {"flag": np.bool_(True)})["y"] == 6
    assert run(outcome.model, {"flag": np.bool_(False)})["y"] == -3


def test_tf1_loops_keep_their_frame(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        v1.disable_control_flow_v2()
        try:
            n = v1.placeholder(tf.int32, [], name="n")

            def body(i, total):
                return i + tf.constant(3) // 2, total + tf.sqrt(tf.constant(16.0)) / 2.0

            _, total = v1.while_loop(lambda i, _: i < n, body, [0, 0.0])
            y = tf.identity(total, name="y")
        finally:
            v1.enable_control_flow_v2()
    model = model_of(graph, {"n": n}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert "Sqrt" not in ops_of(outcome.model)
    assert run(outcome.model, {"n": np.int32(5)})["y"] == 10
    assert run(outcome.model, {"n": np.int32(0)})["y"] == 0


def test_function_bodies_are_folded_too(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        n = v1.placeholder(tf.int32, [], name="n")
        x = v1.placeholder(tf.float32, [2], name="x")

        def body(i, value):
            shift = tf.sqrt(tf.constant([16.0, 4.0])) / 2.0
            return i + 1, tf.cond(value[0] > 5, lambda: value + shift, lambda: value * 2 * shift)

        _, value = tf.while_loop(lambda i, _: i < n, body, [0, x])
        y = tf.identity(value, name="y")
    model = model_of(graph, {"n": n, "x": x}, {"y": y}, tmp_path)
    outcome = fold(model)
    bodies = outcome.model.graph.functions
    assert bodies
    left = {node.op for function in bodies.values() for node in function.nodes.values()}
    assert "Sqrt" not in left
    called = {c for f in bodies.values() for n in f.nodes.values() for c in called_functions(n)}
    assert called <= set(bodies)
    for count in (0, 1, 7):
        feeds = {"n": np.int32(count), "x": weights(2)}
        assert_same(run(model, feeds), run(outcome.model, feeds))


def test_the_graph_never_grows_unless_asked(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 20_000], name="x")
        y = tf.add(x, tf.cast(tf.range(20_000), tf.float32), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    kept = fold(model)
    assert "Range" in ops_of(kept.model)
    assert kept.facts["nodes_left"] == 2
    assert kept.facts["bytes_after"] <= kept.facts["bytes_before"]
    asked = fold(model, max_growth=100_000)
    assert ops_of(asked.model) == ["AddV2", "Const", "Placeholder"]
    assert asked.facts["bytes_after"] - asked.facts["bytes_before"] <= 100_000


def test_what_fails_at_run_time_still_does(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        bad = tf.gather(tf.constant([1.0, 2.0]), tf.constant([7, 8]) * 2) * 3.0
        good = tf.constant([1.0, 2.0]) * 5.0
        y = tf.identity(x + bad, name="y")
        z = tf.identity(x + good, name="z")
    model = model_of(graph, {"x": x}, {"y": y, "z": z}, tmp_path)
    outcome = fold(model)
    assert "GatherV2" in ops_of(outcome.model)
    assert outcome.facts["nodes_left"] == 2
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(outcome.model, {"x": weights(2)})


@pytest.mark.parametrize("shape", [[], [1], [2, 1]])
def test_zero_bytes_at_the_end_of_a_string_stay(tmp_path, fold, shape):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string, [], name="x")
        word = tf.strings.join([tf.fill(shape, b"a\xff\0"), b"\0\0"])
        y = tf.strings.join([x, word], name="y")
        z = tf.identity(word, name="z")
    model = model_of(graph, {"x": x}, {"y": y, "z": z}, tmp_path)
    outcome = fold(model)
    assert ops_of(outcome.model).count("StringJoin") == 1
    feeds = {"x": np.array(b"x", object)}
    expected = run(model, feeds)
    assert np.array(expected["z"], object).ravel()[0] == b"a\xff\0\0\0"
    assert_same(expected, run(outcome.model, feeds))


def test_what_fails_with_a_message_that_is_no_text_still_does(tmp_path, fold):
    """The kernel quotes the string; Python cannot read the quotation."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        y = tf.add(x, tf.strings.to_number(tf.constant(b"\xff")), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert "StringToNumber" in ops_of(outcome.model)
    with pytest.raises(UnicodeDecodeError):
        run(outcome.model, {"x": np.float32(1)})


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float64", "int8", "uint16", "int64", "bool", "complex64"]
)
def test_every_dtype(tmp_path, fold, dtype):
    kind = tf.as_dtype(dtype)
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(kind, [None], name="x")
        table = tf.constant(np.arange(700) % 2, kind)
        y = tf.concat([x, tf.reverse(table, [0])], 0, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    # Typed values of small numbers take fewer bytes in a file than the plain content.
    outcome = fold(model, max_growth=2000)
    assert "ReverseV2" not in ops_of(outcome.model)
    feeds = {"x": np.zeros(2, kind.as_numpy_dtype)}
    assert_same(run(model, feeds), run(outcome.model, feeds))


def test_folding_twice_changes_nothing_more(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        y = tf.identity(x * tf.sqrt(tf.constant([1.0, 2.0, 3.0, 4.0])), name="y")
    once = fold(model_of(graph, {"x": x}, {"y": y}, tmp_path)).model
    assert fold(once).model == once


def test_what_is_known_only_once_something_is_taken_out_is_used(tmp_path, fold):
    """No rule tells the shape of AccumulateNV2; where it is gone, the promise is seen to be kept."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        only = tf.raw_ops.AccumulateNV2(inputs=[tf.abs(x)], shape=[None, 4])
        y = tf.negative(tf.ensure_shape(only, [None, 4]), name="y")
    once = fold(model_of(graph, {"x": x}, {"y": y}, tmp_path)).model
    assert ops_of(once) == ["Abs", "Neg", "Placeholder"]
    assert fold(once).model == once


# ---------------------------------------------------------------- hostile graphs


def test_an_enormous_fill_is_left_alone(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        huge = tf.fill([2**20, 2**20], tf.constant(1.0))
        y = tf.add(x, tf.reduce_sum(tf.sqrt(huge) * 2.0), name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert outcome.facts["nodes_folded"] == 0
    assert "Fill" in ops_of(outcome.model)


def test_an_enormous_constant_of_few_bytes_is_left_alone(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        small = tf.constant(1.0, shape=[4], name="small")
        y = tf.add(x, tf.reduce_sum(small * 2.0), name="y")
    graph_def = graph.as_graph_def()
    for node in graph_def.node:
        if node.name == "small":
            node.attr["value"].tensor.tensor_shape.dim[0].size = 2**40
    model = model_of(graph_def, {"x": x}, {"y": y}, tmp_path)
    outcome = fold(model)
    assert "small" in outcome.model.graph.nodes


@pytest.mark.parametrize("strings", [False, True])
def test_doubling_stops_at_the_bound(tmp_path, fold, strings):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string if strings else tf.int32, [], name="x")
        value = tf.constant("ab") if strings else tf.constant([1, 2])
        for _ in range(40):
            value = tf.strings.join([value, value]) if strings else tf.concat([value, value], 0)
        y = tf.equal(x, value, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    outcome = fold(model, max_bytes=2**20)
    assert outcome.facts["bytes_after"] <= outcome.facts["bytes_before"]
    assert ops_of(outcome.model).count("StringJoin" if strings else "ConcatV2") > 15


def test_ops_with_effects_are_not_run(tmp_path, fold):
    target = tmp_path / "written"
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.int32, [None], name="x")
        sizes = tf.raw_ops.DebugIdentity(
            input=tf.constant([2, 3]) * 2, tensor_name="t:0", debug_urls=[f"file://{target}"]
        )
        y = tf.add(tf.reduce_sum(tf.ones(sizes, tf.int32)), x, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    # TensorFlow itself has run the op already, to infer a shape.
    shutil.rmtree(target, ignore_errors=True)
    outcome = fold(model)
    assert "DebugIdentity" in ops_of(outcome.model)
    assert not target.exists()


def test_a_function_that_calls_itself_is_refused(tmp_path, fold):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        inner = tf.function(lambda v: v * 2.0).get_concrete_function(tf.TensorSpec([], tf.float32))
        y = tf.identity(inner(x), name="y")
    graph_def = graph.as_graph_def()
    (function,) = graph_def.library.function
    for node in function.node_def:
        if node.op == "Mul":
            node.op = "PartitionedCall"
            node.input[:] = [function.signature.input_arg[0].name]
            node.attr.clear()
            node.attr["f"].func.name = function.signature.name
            for key in ("Tin", "Tout"):
                node.attr[key].list.type.append(tf.float32.as_datatype_enum)
            node.name = "again"
        node.input[:] = [name.replace("mul:z", "again:output") for name in node.input]
    model = model_of(graph_def, {"x": x}, {"y": y}, tmp_path)
    with pytest.raises(ModelRefused, match="circle"):
        fold(model)
