"""Every TF1 construct, on reference and on resource variables, from SavedModels and checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.values import ModelSource
from tests.constructs import harness, tf1_models
from tests.constructs.tf1_models import X, variable

v1 = tf.compat.v1


def build(make, resource, save):
    """Builds in a graph of its own, initialises, and lets `save(session, inputs, outputs)` write."""
    with tf.Graph().as_default():
        v1.disable_control_flow_v2()
        try:
            inputs, outputs = make(resource)
        finally:
            v1.enable_control_flow_v2()
        with v1.Session(config=harness.exact_config()) as session:
            session.run(v1.global_variables_initializer())
            session.run(v1.get_collection("start"))
            save(session, inputs, outputs)


def saved(make, resource, path, **more):
    build(
        make, resource, lambda *given: v1.saved_model.simple_save(given[0], str(path), *given[1:])
    )
    return path


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("make", tf1_models.MODELS, ids=lambda make: make.__name__)
def test_saved_model_equal_to_the_byte(make, resource, tmp_path):
    path = saved(make, resource, tmp_path / "model")
    with tf.Graph().as_default():
        inputs, _ = make(resource)
    feeds = tf1_models.feeds_for(inputs)
    harness.assert_frozen_equals(path, tmp_path, feeds, v1_loader=True)


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("version", [v1.train.SaverDef.V1, v1.train.SaverDef.V2])
@pytest.mark.parametrize("prefix", ["model.ckpt", ""])
def test_checkpoint_with_meta_graph(version, prefix, resource, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    if not prefix and version == v1.train.SaverDef.V1:
        pytest.skip("a V1 checkpoint is itself a file and needs a name")
    want = {}

    def save(session, inputs, outputs):
        v1.train.Saver(write_version=version).save(session, f"{folder}/{prefix or 'named'}")
        want["y"] = session.run(outputs["y"], {inputs["x"]: X})
        names.update(x=inputs["x"].name, y=outputs["y"].name)

    names = {}
    build(tf1_models.cond_in_while, resource, save)
    if not prefix:
        for file in folder.glob("named.*"):
            file.rename(folder / file.name.removeprefix("named"))
    source = ModelSource(
        kind="checkpoint",
        path=folder / prefix if prefix else folder,
        inputs=(names["x"],),
        outputs=(names["y"],),
    )
    model = harness.freeze_model(source, tmp_path)
    (signature,) = model.signatures.values()
    feeds = dict.fromkeys(signature.inputs, X)
    (have,) = harness.run_frozen(model, "serving_default", feeds).values()
    harness.assert_same(want, {"y": have})


def test_legacy_variable_op(tmp_path):
    """The op of TensorFlow 0.x, which TensorFlow's own freezer leaves as it is."""
    want = {}

    def save(session, inputs, outputs):
        name, tensor = v1.get_collection("saved")[0]
        v1.train.Saver({name: tensor}).save(session, str(tmp_path / "model.ckpt"))
        want["y"] = session.run(outputs["y"], {inputs["x"]: X})

    def make(resource):
        inputs, outputs = tf1_models.legacy_variable_op(resource)
        return inputs, {"y": tf.identity(outputs["y"], name="out")}

    build(make, False, save)
    source = ModelSource(
        kind="checkpoint", path=tmp_path / "model.ckpt", inputs=("x",), outputs=("out",)
    )
    model = harness.freeze_model(source, tmp_path)
    harness.assert_same(want, {"y": harness.run_frozen(model, "serving_default", {"x": X})["out"]})


def test_two_handles_meet_in_a_merge(tmp_path):
    """N8: TensorFlow's freezer makes a graph of this that does not import."""

    def make(resource):
        x = tf1_models.placeholder()
        a, b = variable("a", 3, resource=True), variable("b", 3, resource=True)
        positive = tf.reduce_sum(x) > 0
        _, a_live = tf.raw_ops.Switch(data=a.handle, pred=positive)
        b_live, _ = tf.raw_ops.Switch(data=b.handle, pred=positive)
        handle = tf.raw_ops.Merge(inputs=[b_live, a_live])[0]
        return {"x": x}, {"y": x * tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)}

    path = saved(make, True, tmp_path / "model")
    for feeds in ({"x": X}, {"x": -X}):
        harness.assert_frozen_equals(path, tmp_path, feeds, v1_loader=True)


def vocabulary_model(path, legacy):
    vocabulary = path.parent / "words.txt"
    vocabulary.write_text("apple\nbanana\r\ncherry\n")
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [None], name="words")
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(vocabulary)))
        (asset,) = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            2,
        )  # fmt: skip
        ids = table.lookup(words)
        session.run(v1.tables_initializer())
        builder = v1.saved_model.Builder(str(path))
        ends = {"words": v1.saved_model.build_tensor_info(words)}
        results = {"ids": v1.saved_model.build_tensor_info(ids)}
        init = {"legacy_init_op" if legacy else "main_op": v1.tables_initializer()}
        builder.add_meta_graph_and_variables(
            session, ["serve"],
            {"serving_default": v1.saved_model.build_signature_def(ends, results, "predict")},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS), **init,
        )  # fmt: skip
        builder.save()


@pytest.mark.parametrize("legacy", [False, True])
def test_vocabulary_file_is_in_the_graph(legacy, tmp_path):
    vocabulary_model(tmp_path / "model", legacy)
    feeds = {"words": np.array(["banana", "cherry", "nothing", "apple"], object)}
    model = harness.assert_frozen_equals(tmp_path / "model", tmp_path, feeds, v1_loader=True)
    assert model.init and not model.assets
    assert not any(
        str(tmp_path).encode() in data
        for n in model.graph.nodes.values()
        for data in n.attrs.values()
    )


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_a_counter_is_refused(resource, tmp_path):
    def make(resource):
        x = tf1_models.placeholder()
        count = variable("count", resource=resource)
        return {"x": x}, {"y": x + v1.assign_add(count, 1.0)}

    saved(make, resource, tmp_path / "model")
    with pytest.raises(ModelRefused, match="'count' is written by Assign"):
        harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)


def test_tag_sets(tmp_path):
    """Two meta graphs of one SavedModel, and one without any tag, as hub modules have."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf1_models.placeholder()
        y = x * variable("w", 3)
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.Builder(str(tmp_path / "model"))
        builder.add_meta_graph_and_variables(session, [], {"default": signature})
        builder.add_meta_graph(["train", "gpu"], {"other": signature})
        builder.save()
    for tags, name in (((), "default"), (("gpu", "train"), "other")):
        model = harness.freeze_model(harness.saved_model(tmp_path / "model", tags=tags), tmp_path)
        assert list(model.signatures) == [name]
    with pytest.raises(ModelRefused, match="no meta graph has the tags serve"):
        harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)


def test_names_that_are_nearly_right(tmp_path):
    saved(tf1_models.dense, False, tmp_path / "model")
    meta = v1.saved_model.loader.maybe_saved_model_directory(str(tmp_path / "model"))
    assert meta
    from tensorflow.core.protobuf import saved_model_pb2

    parsed = saved_model_pb2.SavedModel.FromString((tmp_path / "model/saved_model.pb").read_bytes())
    (tmp_path / "graph.pb").write_bytes(parsed.meta_graphs[0].graph_def.SerializeToString())
    source = ModelSource(
        kind="frozen_graph", path=tmp_path / "graph.pb", inputs=("x",), outputs=("adds",)
    )
    with pytest.raises(ModelRefused, match="no tensor 'adds'") as refused:
        harness.freeze_model(source, tmp_path)
    assert "'add'" in refused.value.hint


def test_tensors_of_a_saved_model_by_their_names(tmp_path):
    """Outputs that no signature has: named as for a graph file."""
    path = saved(tf1_models.dense, False, tmp_path / "model")
    source = harness.saved_model(path, inputs=("x",), outputs=("matmul:0",))
    model = harness.freeze_model(source, tmp_path)
    with tf.Graph().as_default(), v1.Session(config=harness.exact_config()) as session:
        v1.saved_model.loader.load(session, ["serve"], str(path))
        want = session.run("matmul:0", {"x:0": X})
    have = harness.run_frozen(model, "serving_default", {"x": X})
    harness.assert_same({"matmul": want}, have)


def test_what_lies_behind_a_fed_tensor_is_not_needed(tmp_path):
    def make(resource):
        python = v1.py_func(lambda: np.ones([2, 3], np.float32), [], tf.float32)
        lost = variable("lost", 3, resource=resource)
        fed = tf.reshape(python + lost, [2, 3], name="fed")
        return {"x": fed}, {"y": tf.identity(fed * variable("w", 3, resource=resource), "y")}

    def save(session, inputs, outputs):
        (kept,) = [v for v in v1.global_variables() if v.op.name == "w"]
        v1.train.Saver([kept]).save(session, str(tmp_path / "model.ckpt"))
        want.update(session.run(outputs, {inputs["x"]: X}))

    want: dict[str, np.ndarray] = {}
    build(make, True, save)
    names = {"inputs": ("fed:0",), "outputs": ("y:0",)}
    source = ModelSource(kind="checkpoint", path=tmp_path / "model.ckpt", **names)
    frozen = harness.freeze_model(source, tmp_path)
    have = harness.run_frozen(frozen, "serving_default", {"fed": X})
    assert have["y"].tobytes() == want["y"].tobytes()
