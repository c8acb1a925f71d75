"""Composite inputs and outputs, default values, several signatures at once; end to end."""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from freezeflow.engine.context import StepContext
from freezeflow.stages import export
from freezeflow.stages.stage import StageInput
from tests.constructs import harness
from tests.constructs.tf2_models import spec, weight

v1 = tf.compat.v1

RAGGED = tf.RaggedTensor.from_row_lengths(tf.constant([1.0, -2.0, 3.0, 0.5]), [1, 0, 3])
SPARSE = tf.sparse.from_dense([[0.0, 1.5, 0.0], [2.0, 0.0, -1.0]])
LABELS = tf.ragged.constant([["a", "b"], [], ["ü"]])


def parts(values):
    """Composite values as the frozen graph takes and gives them: a tensor for each component."""
    found = {}
    for key, value in values.items():
        if isinstance(value, tf.SparseTensor | tf.RaggedTensor):
            components = tf.nest.flatten(value, expand_composites=True)
            found.update({f"{key}.{n}": part.numpy() for n, part in enumerate(components)})
        else:
            found[key] = value.numpy()
    return found


def flat(values):
    """Composite values as a TF2 signature takes them: a key of its own for each component."""
    found = {}
    for key, value in values.items():
        for number, part in enumerate(tf.nest.flatten(value, expand_composites=True)):
            found[f"{key}_{number}" if number else key] = part
    return found


def arrays(values):
    return {key: value.numpy() for key, value in values.items()}


class Composite(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = weight(3, 2)
        self.scale = weight(name="scale")

    @tf.function(
        input_signature=[
            tf.RaggedTensorSpec([None, None], tf.float32),
            tf.SparseTensorSpec([None, 3], tf.float32),
            tf.RaggedTensorSpec([None, None], tf.string),
        ]
    )
    def serve(self, ragged, sparse, labels):
        return {
            "scaled": ragged * self.scale,
            "sums": tf.reduce_sum(ragged, axis=1) * self.scale,
            "product": tf.sparse.sparse_dense_matmul(sparse, self.w),
            "doubled": sparse * 2.0,
            "labels": tf.strings.join([labels, labels], separator="-"),
        }


def test_ragged_and_sparse_ends(tmp_path):
    model = Composite()
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.serve)
    call = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    given = flat({"ragged": RAGGED, "sparse": SPARSE, "labels": LABELS})
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    have = harness.run_frozen(frozen, "serving_default", arrays(given))
    harness.assert_same(parts(call(**given)), have)
    sparse = frozen.signatures["serving_default"].inputs["sparse"]
    assert (sparse.dtype.tf_name, sparse.shape) == ("int64", (None, 2))


def test_composite_ends_of_tf1(tmp_path):
    with tf.Graph().as_default(), v1.Session(config=harness.exact_config()) as session:
        sparse = v1.sparse_placeholder(tf.float32, [None, 3], name="sparse")
        rows = v1.ragged.placeholder(tf.float32, 1, value_shape=[], name="rows")
        w = v1.get_variable("w", [3, 2], use_resource=False)
        outputs = {"rows": rows * 2.0, "y": v1.sparse_tensor_dense_matmul(sparse, w)}
        inputs = {"sparse": sparse, "rows": rows}
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "model"), inputs, outputs)
        value = v1.SparseTensorValue(*(SPARSE.indices, SPARSE.values, SPARSE.dense_shape))
        fed = {
            sparse: v1.SparseTensorValue(*(np.asarray(part) for part in value)),
            rows: v1.ragged.RaggedTensorValue(RAGGED.values.numpy(), RAGGED.row_splits.numpy()),
        }
        want = session.run(outputs, fed)
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    given = {"sparse": SPARSE, "rows": RAGGED}
    have = harness.run_frozen(frozen, "serving_default", parts(given))
    harness.assert_same(
        {"y": want["y"], "rows.0": want["rows"].values, "rows.1": want["rows"].row_splits}, have
    )


class Tempered(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = weight(3)

    @tf.function(
        input_signature=[
            spec([None, 3]),
            tf.TensorSpec([], tf.float32, name="temperature"),
            tf.TensorSpec([2], tf.string, name="tags"),
        ]
    )
    def serve(self, x, temperature, tags):
        return {"y": x * self.w / temperature, "tags": tags}


def with_default_values(path):
    """A SavedModel whose signature has defaults, as newer TensorFlow writes them."""
    model = Tempered()
    tf.saved_model.save(model, str(path), signatures=model.serve)
    file = path / "saved_model.pb"

    message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    defaults = message.meta_graphs[0].signature_def["serving_default"].defaults
    defaults["temperature"].CopyFrom(tf.make_tensor_proto(2.0))
    defaults["tags"].CopyFrom(tf.make_tensor_proto(["p", "q"]))
    file.write_bytes(message.SerializeToString())
    return harness.saved_model(path)


def test_default_values_of_inputs(tmp_path):
    source = with_default_values(tmp_path / "model")
    frozen = harness.freeze_model(source, tmp_path)
    x = np.array([[1.0, 2.0, 3.0]], np.float32)
    full = {"x": x, "temperature": np.float32(2.0), "tags": np.array(["p", "q"], object)}
    other = {**full, "temperature": np.float32(0.5)}
    for feeds in (full, other):
        want = harness.run_original(tmp_path / "model", "serving_default", feeds)
        harness.assert_same(want, harness.run_frozen(frozen, "serving_default", feeds))
    want = harness.run_original(tmp_path / "model", "serving_default", full)
    harness.assert_same(want, harness.run_frozen(frozen, "serving_default", {"x": x}))


def test_a_saved_model_keeps_default_values(tmp_path):

    source = with_default_values(tmp_path / "model")
    model = harness.freeze_model(source, tmp_path)
    context = StepContext(tmp_path, tmp_path, None, io.StringIO())
    given = StageInput(model=model, source=source)
    export.STAGE.run(given, export.STAGE.params(to="out", format="saved_model"), context)
    data = (tmp_path / "out/saved_model.pb").read_bytes()
    signature = saved_model_pb2.SavedModel.FromString(data).meta_graphs[0].signature_def
    defaults = signature["serving_default"].defaults
    assert tf.make_ndarray(defaults["temperature"]) == 2.0
    assert tf.make_ndarray(defaults["tags"]).tolist() == [b"p", b"q"]


class Several(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = weight(300, 4)

    @tf.function(input_signature=[spec([None], tf.int32, "ids")])
    def embed(self, ids):
        return {"y": tf.nn.embedding_lookup(self.w, ids)}

    @tf.function(input_signature=[spec([None, 4], name="x")])
    def score(self, x):
        return {"scores": tf.linalg.matmul(x, self.w, transpose_b=True), "x": x}

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.int32)])
    def pool(self, ids):
        return {"y": tf.reduce_sum(tf.nn.embedding_lookup(self.w, ids), axis=1)}

    @tf.function(input_signature=[])
    def info(self):
        return {"rows": tf.constant(300), "first": self.w[0]}


def test_all_signatures_at_once(tmp_path):
    model = Several()
    signatures = {name: getattr(model, name) for name in ("embed", "score", "pool", "info")}
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=signatures)
    source = harness.saved_model(tmp_path / "model", signatures=("all",))
    frozen = harness.freeze_model(source, tmp_path)
    large = [node for node in frozen.graph.nodes.values() if node.tensor is not None]
    assert len(large) == 1  # the weights are there once
    loaded = tf.saved_model.load(str(tmp_path / "model")).signatures
    given = {
        "embed": {"ids": tf.constant([0, 299])},
        "score": {"x": tf.ones([2, 4])},
        "pool": flat({"ids": tf.ragged.constant([[1, 2], [], [299]])}),
        "info": {},
    }
    assert set(frozen.signatures) == set(given)
    for name, feeds in given.items():
        want = parts(loaded[name](**feeds))
        harness.assert_same(want, harness.run_frozen(frozen, name, arrays(feeds)))
