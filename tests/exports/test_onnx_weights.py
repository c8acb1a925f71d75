"""ONNX models whose weights lie in a file of their own: streamed, and never in the converter's hands."""

import contextlib
import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx.numpy_helper import to_array

from freezeflow.engine.cached import cached_model
from freezeflow.errors import ModelRefused
from freezeflow.exports.onnx import PROFILE
from freezeflow.graph.constants import const as made_const
from freezeflow.runtimes.runtime import Names
from freezeflow.store.store import Store
from freezeflow.tf.to_onnx import to_onnx
from freezeflow.values import Digest, DType, Location, TensorRef
from tests.exports.running import Branches
from tests.graphs import const, graph, model, node, placeholder, spec

PAGE = 4096
WIDTH = 512  # A square matrix has 1 MiB: tf2onnx gets a stand-in for it.


class Net(tf.Module):
    """Weights of all kinds: transposed or not, or both, in a loop, twice the same, convolved, half."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(0)

        def weight(*shape, dtype="float32"):
            scale = np.prod(shape[:-1]) ** -0.5
            return tf.Variable((scale * random.standard_normal(shape)).astype(dtype))

        self.table = weight(700, WIDTH)
        self.plain = weight(WIDTH, WIDTH)
        self.turned = weight(WIDTH, WIDTH)
        self.looped = weight(WIDTH, WIDTH)
        self.once, self.again = (tf.Variable(self.plain * 2) for _ in range(2))
        self.kernel = weight(3, 3, 256, 256)
        self.half = weight(1024, WIDTH, dtype="float16")
        self.small = weight(WIDTH, 8)
        self.numbers = tf.Variable(random.integers(0, 700, [1 << 18], np.int32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="ids")])
    def __call__(self, ids):
        x = tf.gather(self.table, tf.gather(self.numbers, ids))
        x = tf.matmul(tf.matmul(x, self.plain), self.turned, transpose_b=True)
        x = tf.nn.relu(tf.matmul(x, self.once)) + tf.matmul(x, self.again)
        for _ in tf.range(tf.reduce_max(ids) % 3 + 1):
            x = tf.nn.tanh(tf.matmul(x, self.looped))
        image = tf.reshape(x, [-1, 1, 2, 256])
        image = tf.nn.conv2d(image, self.kernel, 1, "SAME")
        x = tf.reshape(image, [-1, WIDTH])
        words = tf.matmul(x, self.table, transpose_b=True)
        halves = tf.cast(tf.gather(self.half, ids), tf.float32)
        return {"words": words, "halves": halves, "small": tf.matmul(x, self.small)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    net = Net()
    tf.saved_model.save(net, folder / "model", signatures=net.__call__)
    check = {"random": {"ids": {"low": 0, "high": 1000}}}
    exports = {
        "inside": {"to": "inside/m.onnx", "format": "onnx", "check": check},
        "outside": {
            "to": "outside/m.onnx",
            "format": "onnx",
            "external_data": "always",
            "check": check,
        },
    }
    return Branches(folder, exports, model=folder / "model", jobs=1)


def answer(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.array([3, 999, 41], np.int32)})


def test_the_same_answers_as_with_weights_inside(exported):
    assert not exported.facts("inside")["external_data"]
    assert exported.facts("outside")["external_data"]
    folder = exported.folder
    inside, outside = answer(folder / "inside" / "m.onnx"), answer(folder / "outside" / "m.onnx")
    for one, other in zip(inside, outside, strict=True):
        assert np.abs(one).max() > 0.01
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_what_lies_where(exported):
    path = exported.folder / "outside" / "m.onnx"
    found = onnx.load(path, load_external_data=False)
    assert path.stat().st_size < 30_000
    places = {}
    for tensor in found.graph.initializer:
        if tensor.external_data:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == "m.onnx.data"
            assert int(entries["offset"]) % PAGE == 0
            places.setdefault(int(entries["offset"]), []).append(tensor.name)
    assert sorted(map(len, places.values()))[-2:] == [
        1,
        2,
    ]  # the same weights twice, once in the file
    data = path.with_name("m.onnx.data").stat().st_size
    weights = 4 * (700 * 512 + 4 * 512 * 512 + 9 * 256 * 256 + (1 << 18)) + 2 * 1024 * 512
    assert weights < data < weights + 40_000
    assert {given.name for given in found.graph.input} == {"ids"}


def test_only_a_weight_that_is_taken_both_ways_is_transposed_at_run_time(exported):
    path = exported.folder / "outside" / "m.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    turned = [n.input[0] for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]
    assert len(turned) == 1
    assert any(node.op_type == "Gather" and node.input[0] == turned[0] for node in graph.node)


def test_weights_that_the_converter_does_not_see_may_lie_inside(exported, tmp_path, monkeypatch):
    """From some size on it does not get them, though all fit into one message."""
    monkeypatch.setattr("freezeflow.tf.to_onnx._WHOLE_BYTES", 1 << 20)
    with contextlib.closing(Store.open(exported.folder / "cache")) as store:
        made = cached_model(exported.plan, "strip", store)
    (signature,) = made.signatures.values()
    nodes = Names(*({key: key for key in side} for side in (signature.inputs, signature.outputs)))
    facts = to_onnx(made, nodes, nodes, PROFILE, tmp_path / "m.onnx", 17, "auto", True)
    assert not facts["external_data"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    outside = exported.folder / "outside" / "m.onnx"
    for one, other in zip(answer(tmp_path / "m.onnx"), answer(outside), strict=True):
        np.testing.assert_array_equal(one, other)
    found = [onnx.load(path).graph.initializer for path in (tmp_path / "m.onnx", outside)]
    one, other = ({tensor.name: to_array(tensor) for tensor in tensors} for tensors in found)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_too_much_that_has_to_go_through_the_converter(tmp_path):
    place = Location(str(tmp_path / "gone"), 0, 1_600_000_000, 0, 1_600_000_000, 0)
    tensor = TensorRef(Digest.of(b""), DType.BFLOAT16, (800_000_000,), place)
    types = {"Tparams": DType.BFLOAT16, "Tindices": DType.INT32, "Taxis": DType.INT32}
    made = model(
        graph(
            placeholder("x", DType.INT32, (None,)),
            made_const("w", DType.BFLOAT16, tensor.shape, tensor),
            const("axis", 0, DType.INT32),
            node("g", "GatherV2", "w", "x", "axis", batch_dims=0, **types),
            node("y", "Cast", "g", SrcT=DType.BFLOAT16, DstT=DType.FLOAT, Truncate=False),
        ),
        {"x": spec("x", DType.INT32, (None,))},
        {"y": spec("y", DType.FLOAT, (None,))},
    )
    names = Names({"x": "x"}, {"y": "y"})
    # As an export that does not know of ONNX's element types would hand it on.
    profile = dataclasses.replace(PROFILE, dtypes=frozenset(DType), lacks={})
    with pytest.raises(ModelRefused, match=r"1\.6 GB of constants that cannot be left out"):
        to_onnx(made, names, names, profile, tmp_path / "m.onnx", 17, "auto", True)
