"""The validate stage: it passes what is equal, catches what is not, and runs nothing it should not."""

import dataclasses
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from freezeflow.errors import ModelRefused, StageFailed, ValidationFailed
from freezeflow.graph import attrs
from freezeflow.graph.constants import const
from freezeflow.graph.write import read_range
from freezeflow.proof.requests import Request, encode_requests, read_requests
from freezeflow.proof.wishes import Random
from freezeflow.sources.registry import source_files
from freezeflow.stages.stage import StageInput
from freezeflow.stages.validate import STAGE, Images, Params
from freezeflow.tf import apart
from freezeflow.values import DType, ModelSource, Signature
from tests.tf.built import FakeContext, model_of, run

v1 = tf.compat.v1
RANDOM = np.random.default_rng(5)


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


@dataclasses.dataclass
class Pair:
    """A SavedModel and a model that should be equal to it."""

    source: ModelSource
    model: object
    context: FakeContext

    def validate(self, model=None, **params):
        given = StageInput(model=model or self.model, source=self.source)
        return STAGE.run(given, Params(**params), self.context)

    def verdict(self, **params):
        return self.validate(**params).facts["verdict"]

    def with_node(self, node):
        graph = self.model.graph
        nodes = {**graph.nodes, node.name: node}
        return dataclasses.replace(self.model, graph=dataclasses.replace(graph, nodes=nodes))


def pair_of(tmp_path, graph, inputs, outputs):
    folder = tmp_path / "saved"
    builder = v1.saved_model.Builder(str(folder))
    with graph.as_default(), v1.Session() as session:
        signature = v1.saved_model.predict_signature_def(inputs, outputs)
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    model = model_of(graph, inputs, outputs, scratch)
    source = ModelSource(kind="saved_model", path=folder)
    return Pair(source, model, FakeContext(scratch, base=tmp_path))


@pytest.fixture
def dense(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 30], name="x")
        y = tf.matmul(x, tf.constant(weights(30, 10), name="kernel"))
        scores = tf.nn.bias_add(y, tf.constant(weights(10), name="bias"))
        best = tf.argmax(scores, axis=1)
    return pair_of(tmp_path, graph, {"x": x}, {"scores": scores, "best": best})


def changed_weight(pair, name, change):
    """The model with a changed copy of a constant."""
    node = pair.model.graph.nodes[name]
    if node.tensor is None:
        array = tf.make_ndarray(v1.AttrValue.FromString(node.attrs["value"]).tensor)
    else:
        data = read_range(node.tensor.location)
        array = np.frombuffer(data, np.float32).reshape(node.tensor.shape).copy()
    changed = np.ascontiguousarray(change(array))
    dtype = attrs.to_type(node.attrs["dtype"])
    return pair.with_node(const(name, dtype, changed.shape, changed.tobytes()))


def test_equal_models_pass_and_the_verdict_says_how(dense):
    outcome = dense.validate()
    assert outcome.model is dense.model
    verdict = outcome.facts["verdict"]
    assert verdict["equal"] is True
    assert verdict["level"] == "exact"
    found = verdict["signatures"]["serving_default"]
    assert found["calls"] == 4
    assert found["refused"] == 0
    assert found["outputs"]["scores"]["max_abs"] == 0
    assert found["outputs"]["scores"]["top1_agreement"] == 1
    assert found["outputs"]["best"]["equal"] is True
    assert verdict["settings"]["threads"] == 1
    assert verdict["settings"]["grappler"] is False
    assert verdict["settings"]["onednn"] == "0"
    assert verdict["settings"]["tensorflow"] == tf.__version__


def flipped_bit(array):
    bits = array.view(np.uint32)
    bits[3, 4] ^= 1
    return array


def one_ulp_more(array):
    return np.nextafter(array, np.float32(np.inf))


def two_rows_swapped(array):
    return array[[1, 0, *range(2, len(array))]]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("kernel", flipped_bit),
        ("kernel", one_ulp_more),
        ("kernel", two_rows_swapped),
        ("bias", one_ulp_more),
        ("bias", np.zeros_like),
        ("bias", two_rows_swapped),
    ],
)
def test_a_changed_weight_is_caught(dense, name, change):
    with pytest.raises(ValidationFailed, match=r"is not equal to the byte: .*max_abs") as caught:
        # The last bit of one weight of thirty shows only where a sum happens to round differently.
        dense.validate(changed_weight(dense, name, change), samples=64)
    assert caught.value.exit_code == 4
    assert caught.value.where == "serving_default"


@pytest.fixture
def one_process(monkeypatch):
    """Level B in this process: seconds faster, and without oneDNN."""
    monkeypatch.setattr(apart, "right_process", lambda *, exact: True)


@pytest.mark.usefixtures("one_process")
def test_swapped_outputs_are_caught(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        a, b = tf.sin(x, name="a"), tf.cos(x, name="b")
    pair = pair_of(tmp_path, graph, {"x": x}, {"a": a, "b": b})
    signature = pair.model.signatures["serving_default"]
    outputs = {"a": signature.outputs["b"], "b": signature.outputs["a"]}
    swapped = dataclasses.replace(
        pair.model, signatures={"serving_default": Signature(signature.inputs, outputs)}
    )
    pair.validate()
    with pytest.raises(ValidationFailed):
        pair.validate(swapped)
    with pytest.raises(ValidationFailed, match="within the tolerance"):
        pair.validate(swapped, level="served")


def test_served_runs_with_the_defaults_of_tensorflow(dense):
    verdict = dense.verdict(level="served")
    assert verdict["equal"] is True
    assert verdict["settings"]["onednn"] == "default"
    nearly = changed_weight(dense, "bias", lambda array: array + 1)
    with pytest.raises(ValidationFailed, match="within the tolerance"):
        dense.validate(nearly, level="served")
    with pytest.raises(StageFailed, match="refuses every input"):
        dense.validate(level="served", random={"x": Random(shape=(7, 7))})


@pytest.mark.usefixtures("one_process")
def test_served_has_a_tolerance_and_says_the_smallest_that_passes(dense):
    nearly = changed_weight(dense, "bias", lambda array: array + np.float32(1e-3))
    with pytest.raises(ValidationFailed, match="atol_needed"):
        dense.validate(nearly, level="served", rtol=0.0, atol=1e-4)
    verdict = dense.validate(nearly, level="served", rtol=0.0, atol=2e-3).facts["verdict"]
    scores = verdict["signatures"]["serving_default"]["outputs"]["scores"]
    assert scores["atol_needed"] == pytest.approx(1e-3, rel=1e-2)
    assert scores["rmse"] == pytest.approx(1e-3, rel=1e-2)
    assert verdict["settings"]["grappler"] is True
    needed = scores["atol_needed"]
    dense.validate(nearly, level="served", rtol=0.0, atol=needed * 1.0001)
    with pytest.raises(ValidationFailed):
        dense.validate(nearly, level="served", rtol=0.0, atol=needed * 0.99)


def test_random_outputs_are_found_and_said(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        noisy = tf.add(x, tf.random.uniform([]), name="noisy")
        calm = tf.multiply(x, 2.0, name="calm")
    pair = pair_of(tmp_path, graph, {"x": x}, {"noisy": noisy, "calm": calm})
    outputs = pair.verdict()["signatures"]["serving_default"]["outputs"]
    assert outputs["noisy"] == {"equal": True, "random": True, "compared": 3}
    assert pair.verdict()["random_ops"] == ["random_uniform/RandomUniform (RandomUniform)"]
    assert outputs["calm"]["random"] is False
    assert any("noisy" in line for line in pair.context.warnings)


def test_special_values_and_strings(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        s = v1.placeholder(tf.string, [None], name="s")
        y = tf.divide(x, 0.0, name="y")
        t = tf.strings.join([s, s], name="t")
    pair = pair_of(tmp_path, graph, {"x": x, "s": s}, {"y": y, "t": t})
    random = {
        "x": Random(shape=(64,), values=(0.0, -0.0, 1.0, math.nan, math.inf)),
        "s": Random(vocabulary=("a\0b", "", "é")),
    }
    outputs = pair.verdict(random=random)["signatures"]["serving_default"]["outputs"]
    assert outputs["y"]["nan_differ"] == outputs["y"]["inf_differ"] == 0
    assert outputs["t"]["bad_share"] == 0


def test_held_out_examples_with_labels(dense, tmp_path):
    images = weights(20, 30)
    scores = run(dense.model, {"x": images})["scores"]
    labels = scores.argmax(axis=1)
    labels[:5] = (labels[:5] + 1) % 10
    np.savez(tmp_path / "held_out.npz", x=images, labels=labels)
    verdict = dense.verdict(inputs="held_out.npz", labels="labels")
    found = verdict["signatures"]["serving_default"]
    assert found["calls"] == 1
    assert found["accuracy"] == {
        "output": "scores",
        "labels": 20,
        "original": 0.75,
        "result": 0.75,
    }
    both = dense.verdict(inputs="held_out.npz", labels="labels", samples=2)
    assert both["signatures"]["serving_default"]["calls"] == 3


def test_labels_of_several_files(dense, tmp_path):
    """All files count, each of their labels once."""
    images = weights(20, 30)
    labels = run(dense.model, {"x": images})["scores"].argmax(axis=1)
    labels[:5] = (labels[:5] + 1) % 10
    folder = tmp_path / "calls"
    folder.mkdir()
    np.savez(folder / "a.npz", x=images[:4], labels=labels[:4])
    np.savez(folder / "b.npz", x=images[4:], labels=labels[4:])
    np.savez(folder / "c.npz", x=images)
    found = dense.verdict(inputs="calls", labels="labels")["signatures"]["serving_default"]
    assert found["accuracy"] == {
        "output": "scores",
        "labels": 20,
        "original": 0.75,
        "result": 0.75,
    }


@pytest.mark.parametrize("shape", [(20, 1), (7,), (20, 10)])
def test_labels_that_belong_to_no_row_of_scores(dense, tmp_path, shape):
    labels = np.zeros(shape, np.int64)
    np.savez(tmp_path / "held_out.npz", x=weights(20, 30), labels=labels)
    with pytest.raises(StageFailed, match=r"do not belong to output 'scores' of float32\[20, 10\]"):
        dense.verdict(inputs="held_out.npz", labels="labels", scores="scores")
    with pytest.raises(StageFailed, match="not clear which output"):
        dense.verdict(inputs="held_out.npz", labels="labels")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 30))}, "float64"),
        ({"x": np.zeros((2, 31), np.float32)}, "shape"),
        ({"y": np.zeros(2)}, "no signature's inputs"),
        ({"x": np.array([None, {}], object)}, "allow_pickle"),
    ],
)
def test_files_that_do_not_fit_are_refused(dense, tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(StageFailed, match=message):
        dense.validate(inputs="bad.npz")


def test_a_file_that_is_none(dense, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(StageFailed, match=r"\.npz"):
        dense.validate(inputs="bad.npz")


def test_both_must_refuse_the_same_inputs(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.int32, [None], name="x")
        y = tf.gather(tf.constant(weights(3), name="table"), x, name="y")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    wide = {"x": Random(low=0, high=5)}
    found = pair.verdict(random=wide, samples=20)["signatures"]["serving_default"]
    assert 0 < found["refused"] < 20
    longer = pair.with_node(const("table", DType.FLOAT, (6,), bytes(24)))
    with pytest.raises(ValidationFailed, match="original refuses"):
        pair.validate(longer, random=wide, samples=20)
    with pytest.raises(StageFailed, match="refuses every input"):
        pair.validate(random={"x": Random(low=7, high=9)})


def test_a_loop_without_end_is_given_up_on_either_side(tmp_path):
    def halved(share):
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, [], name="x")
            more = tf.while_loop(lambda y: y > 1e-3, lambda y: y * share, [tf.abs(x) + 1.0])
            y = tf.identity(more[0] if isinstance(more, (list, tuple)) else more, name="y")
        return graph, {"x": x}, {"y": y}

    for folder in ("ends", "endless"):
        (tmp_path / folder).mkdir()
    ends = pair_of(tmp_path / "ends", *halved(0.5))
    endless = pair_of(tmp_path / "endless", *halved(1.0))
    with pytest.raises(
        StageFailed, match=r"the original gives no answer within 0\.5 seconds"
    ) as told:
        endless.validate(call_seconds=0.5)
    assert "call_seconds" in told.value.hint
    with pytest.raises(ValidationFailed, match="the result does not come to an end") as told:
        ends.validate(endless.model, call_seconds=0.5)
    assert told.value.exit_code == 4
    assert "It begins at" in told.value.hint
    assert ends.verdict(call_seconds=30.0)["settings"]["call_seconds"] == 30.0


def test_sizes_of_unknown_dimensions_are_taken_in_turn(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, None, 2], name="x")
        y = tf.shape(x, name="y")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    # A result that only agrees where the sizes are 2 is caught by the other sizes.
    wrong = pair.with_node(const("y", DType.INT32, (3,), np.int32([2, 2, 2]).tobytes()))
    pair.validate(wrong, sizes=(2,))
    with pytest.raises(ValidationFailed):
        pair.validate(wrong)


def test_the_inputs_are_kept_and_can_be_used_again(dense, tmp_path):
    verdict = dense.verdict(edges=True)
    found = verdict["signatures"]["serving_default"]
    assert found["kinds"] == {"seeded": 4, "edge": 13}
    assert found["refused"] == 0
    kept = dense.context.scratch / verdict["inputs"].removeprefix("blake3:")
    kept.rename(tmp_path / "again.tfrecord")
    again = dense.verdict(inputs="again.tfrecord")
    assert again["signatures"]["serving_default"]["calls"] == 17
    assert again["signatures"]["serving_default"]["kinds"] == {"file": 17}


def test_a_difference_leaves_evidence(dense):
    wrong = changed_weight(dense, "bias", one_ulp_more)
    with pytest.raises(ValidationFailed, match=r"\(seeded: call 0\)"):
        dense.validate(wrong)
    folder = dense.context.scratch / "evidence"
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["equal"] is False
    scores = verdict["signatures"]["serving_default"]["outputs"]["scores"]
    assert scores["call"] == "seeded: call 0"
    assert len(read_requests(folder / "inputs.tfrecord")) == 4


def test_edges_find_what_seeded_inputs_do_not(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        y = tf.maximum(x, tf.constant(-1e30, name="least"), name="y")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    wrong = pair.with_node(const("least", DType.FLOAT, (), np.float32(-1e37).tobytes()))
    pair.validate(wrong)
    with pytest.raises(ValidationFailed, match="edge: lowest"):
        pair.validate(wrong, edges=True)


def test_warmup_requests_of_the_saved_model_are_made(dense):
    requests = [Request("serving_default", {"x": weights(5, 30)}, "")]
    folder = dense.source.path / "assets.extra"
    folder.mkdir()
    (folder / "tf_serving_warmup_requests").write_bytes(encode_requests(requests))
    found = dense.verdict()["signatures"]["serving_default"]
    assert found["kinds"] == {"warmup": 1, "seeded": 4}
    assert dense.verdict(warmup=False)["signatures"]["serving_default"]["calls"] == 4
    assert folder / "tf_serving_warmup_requests" in source_files(dense.source)


def test_pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4, 4, 3], name="x")
        k = v1.placeholder(tf.float32, [None], name="k")
        y = tf.reduce_sum(x, axis=[1, 2, 3]) * k
    pair = pair_of(tmp_path, graph, {"x": x, "k": k}, {"y": y})
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        image.new("RGB", (8, 9), (ord(name), 2, 3)).save(tmp_path / "pictures" / f"{name}.png")
    verdict = pair.verdict(images=Images(folder="pictures", batch=2))
    assert verdict["signatures"]["serving_default"]["kinds"] == {"pictures": 2}
    assert verdict["settings"]["pillow"]
    with pytest.raises(StageFailed, match="not clear which input"):
        pair.verdict(images=Images(folder="pictures", input="z"))


def test_params_that_contradict_each_other():
    def named(**params):
        return [name for name, _ in STAGE.problems(Params(**params))]

    assert named() == []
    assert named(labels="labels") == ["labels"]
    assert named(scores="y") == ["scores"]
    assert named(sizes=()) == ["sizes"]
    assert named(images=Images(folder="f", std=(0.0,), size=(0, 3))) == ["images", "images"]
    assert named(images=Images(folder="f", mean=(1.0, 2.0))) == ["images"]
    assert named(allow_ops={"ReadFile": " "}) == ["allow_ops"]


# ---------------------------------------------------------------- hostile graphs


def writing_graph(kind, target):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string, [], name="x")
        if kind == "PrintV2":
            effect = tf.raw_ops.PrintV2(input=x, output_stream=f"file://{target}")
        elif kind == "WriteFile":
            effect = tf.raw_ops.WriteFile(filename=str(target), contents=x)
        elif kind == "DatasetToTFRecord":
            dataset = tf.raw_ops.TensorDataset(components=[x], output_shapes=[[]])
            effect = tf.raw_ops.DatasetToTFRecord(
                input_dataset=dataset, filename=str(target), compression_type=""
            )
        else:
            x = tf.raw_ops.DebugIdentity(
                input=x, tensor_name="t:0", debug_urls=[f"file://{target}"]
            )
            effect = tf.no_op()
        with tf.control_dependencies([effect]):
            tf.identity(x, name="y")
    return graph


@pytest.mark.parametrize("kind", ["PrintV2", "WriteFile", "DatasetToTFRecord", "DebugIdentity"])
def test_ops_that_write_files_are_refused(tmp_path, kind):
    target = tmp_path / "written"
    graph = writing_graph(kind, target)
    ends = {"x": graph.get_tensor_by_name("x:0")}, {"y": graph.get_tensor_by_name("y:0")}
    pair = pair_of(tmp_path, graph, *ends)
    with pytest.raises(ModelRefused, match=kind) as caught:
        pair.validate()
    assert kind in caught.value.where
    assert not target.exists()


def test_an_op_can_be_allowed_by_name(tmp_path):
    target = tmp_path / "written"
    graph = writing_graph("WriteFile", target)
    ends = {"x": graph.get_tensor_by_name("x:0")}, {"y": graph.get_tensor_by_name("y:0")}
    pair = pair_of(tmp_path, graph, *ends)
    verdict = pair.verdict(allow_ops={"WriteFile": "a test"})
    assert verdict["allowed_ops"] == {"WriteFile": "a test"}
    assert target.exists()


def test_printing_to_the_terminal_is_fine(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string, [], name="x")
        with tf.control_dependencies([tf.raw_ops.PrintV2(input=x, output_stream="stderr")]):
            y = tf.identity(x, name="y")
    assert pair_of(tmp_path, graph, {"x": x}, {"y": y}).verdict()["equal"] is True


def test_a_bad_op_inside_a_function_is_found(tmp_path):
    target = tmp_path / "written"

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def write(text):
        tf.io.write_file(str(target), text)
        return text

    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string, [], name="x")
        y = tf.identity(write.get_concrete_function()(x), name="y")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    with pytest.raises(ModelRefused, match="WriteFile") as caught:
        pair.validate()
    assert "write" in caught.value.where
    assert not target.exists()


def test_a_function_that_calls_itself_is_refused_before_it_is_imported(tmp_path):
    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def double(value):
        return value * 2.0

    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        y = tf.identity(double.get_concrete_function()(x), name="y")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    path = pair.source.path / "saved_model.pb"
    message = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (function,) = message.meta_graphs[0].graph_def.library.function
    for node in function.node_def:
        if node.op == "Mul":
            node.op, node.name = "PartitionedCall", "again"
            node.input[:] = [function.signature.input_arg[0].name]
            node.attr.clear()
            node.attr["f"].func.name = function.signature.name
            for key in ("Tin", "Tout"):
                node.attr[key].list.type.append(tf.float32.as_datatype_enum)
        node.input[:] = [name.replace("mul:z", "again:output") for name in node.input]
    path.write_bytes(message.SerializeToString())
    with pytest.raises(ModelRefused, match="circle"):
        pair.validate()


def test_a_bad_op_in_a_branch_that_a_value_selects_is_found(tmp_path):
    target = tmp_path / "written"
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string, [], name="x")

        def bad():
            with tf.control_dependencies([tf.io.write_file(str(target), x)]):
                return tf.identity(x)

        never = tf.constant(1) > 2
        y = tf.identity(tf.cond(never, bad, lambda: x), name="y")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    with pytest.raises(ModelRefused, match="WriteFile"):
        pair.validate()


# Each dtype that a file can hold as it lies in memory, in an op's input and output.
_IN_FILES = (
    *(tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128, tf.bool),
    *(tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64),
)


def test_large_weights_are_mapped_on_both_sides(tmp_path):
    """Of every dtype, in the main graph and in the body of a loop; and a change of the last one shows."""
    count = 128 * 1024
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None], name="x")
        outputs = {}
        for seed, dtype in enumerate(_IN_FILES):
            raw = np.random.default_rng(seed).integers(0, 2, count * dtype.size, np.uint8)
            array = np.frombuffer(raw.tobytes(), dtype.as_numpy_dtype)
            large = v1.constant(array, dtype, name=dtype.name)
            outputs[dtype.name] = tf.identity(large[-3:], name=f"last_{dtype.name}")
        kernel = tf.constant(weights(count), name="kernel")

        def body(i, total):
            return i + 1, total + x[0] * tf.reduce_sum(kernel * tf.constant(weights(count)))

        _, total = tf.while_loop(lambda i, total: i < 3, body, (0, 0.0), name="loop")
        outputs["total"] = tf.identity(total, name="total")
    pair = pair_of(tmp_path, graph, {"x": x}, outputs)
    verdict = pair.verdict()
    assert verdict["equal"]
    assert verdict["settings"]["weights"] == "mapped"
    mapped = [len(list(f.iterdir())) for f in pair.context.scratch.glob("weights-*")]
    # TensorFlow writes some dtypes otherwise than they lie in memory.
    original, result = sorted(mapped)
    assert len(_IN_FILES) - 4 <= original <= result

    def nudge(array):
        changed = array.copy()
        changed.view(np.uint32)[-1] ^= 1
        return changed

    with pytest.raises(ValidationFailed, match=r"begins at float32 \(Const\)"):
        pair.validate(changed_weight(pair, "float32", nudge))
    assert pair.verdict(level="served")["settings"]["weights"] == "in the graph"


def test_memory_is_stated_and_refused_before_anything_starts(tmp_path, monkeypatch):
    """A model that says that it is large; nothing of it is there."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 30], name="x")
        y = tf.identity(tf.linalg.matmul(x, tf.constant(weights(30, 30))), name="y")
    pair = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    pair.validate()
    assert any(line.startswith("needs about 0.3 GB of memory") for line in pair.context.lines)
    pair.validate(level="served")
    assert any(line.startswith("needs about 0.7 GB of memory") for line in pair.context.lines)
    (large,) = (n for n in pair.model.graph.nodes.values() if n.tensor is not None)
    place = large.tensor.location._replace(length=300_000_000_000)
    model = pair.with_node(large._replace(tensor=large.tensor._replace(location=place)))
    with pytest.raises(StageFailed, match=r"would need about 660\.3 GB of memory") as caught:
        pair.validate(model)
    assert "300.0 GB of weights" in caught.value.hint
