"""The validate stage against originals of every kind: each passes, and a wrong one is caught."""

import dataclasses
import io
import json

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.engine.context import StepContext
from freezeflow.errors import StageFailed, UsageError, ValidationFailed
from freezeflow.exports.manifest import manifest_bytes
from freezeflow.graph.storage import decode_model, encode_model, model_tensors
from freezeflow.proof.wishes import Random
from freezeflow.stages.stage import StageInput
from freezeflow.stages.validate import STAGE, Params
from freezeflow.values import ModelSource
from tests.constructs import harness, tf1_models, tf2_models
from tests.constructs.test_bind import batch_norm, batch_norm_tf2
from tests.constructs.test_tf1 import build, saved
from tests.constructs.test_tf2 import save
from tests.constructs.tf1_models import variable
from tests.sources.built import keras_model

v1 = tf.compat.v1
V1, V2 = v1.train.SaverDef.V1, v1.train.SaverDef.V2


def validate(model, source, scratch, **params):
    """The verdict on a model against a source."""
    scratch.mkdir(exist_ok=True)
    context = StepContext(scratch, scratch, None, io.StringIO())
    given = StageInput(model=model, source=source)
    return STAGE.run(given, Params(**params), context).facts["verdict"]


def frozen(source, tmp_path, **params):
    folder = tmp_path / "freeze"
    folder.mkdir(exist_ok=True)
    return harness.freeze_model(source, folder, **params)


def assert_proven(source, tmp_path, *, level="exact", **params):
    """Freezes and validates; the verdict must rest on calls that were answered."""
    model = frozen(source, tmp_path)
    verdict = validate(model, source, tmp_path / "validate", level=level, **params)
    assert verdict["equal"] is True
    for found in verdict["signatures"].values():
        assert found["calls"] > found["refused"]
        assert found["outputs"]
        assert not any(output["random"] for output in found["outputs"].values())
    return model


def other_values(session):
    for var in v1.global_variables():
        session.run(v1.assign(var, var * 2.0 + 1.0))


# ---------------------------------------------------------------- checkpoints


def checkpoint(folder, make, resource, *, change=None, **saver):
    """A checkpoint with its meta graph; ends are called x and out."""
    folder.mkdir()

    def named(resource):
        inputs, outputs = make(resource)
        return inputs, {"y": tf.identity(outputs["y"], name="out")}

    def write(session, inputs, outputs):
        if change is not None:
            change(session)
        v1.train.Saver(**saver).save(session, str(folder / "m"))

    build(named, resource, write)
    return ModelSource(kind="checkpoint", path=folder / "m", inputs=("x",), outputs=("out",))


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("version", [V1, V2], ids=["V1", "V2"])
def test_a_checkpoint_with_its_meta_graph(version, resource, tmp_path):
    make = tf1_models.cond_in_while
    source = checkpoint(tmp_path / "c", make, resource, write_version=version)
    model = assert_proven(source, tmp_path)
    other = checkpoint(tmp_path / "o", make, resource, write_version=version, change=other_values)
    with pytest.raises(ValidationFailed, match="not equal to the byte"):
        validate(model, other, tmp_path / "validate")


@pytest.mark.parametrize("version", [V1, V2], ids=["V1", "V2"])
def test_a_checkpoint_in_several_files(version, tmp_path):
    def make(resource):
        x = tf1_models.placeholder()
        with tf.device("/job:localhost/task:0"):
            a = variable("a", 3)
        with tf.device("/job:localhost/task:0/device:CPU:0"):
            b = variable("b", 3)
        return {"x": x}, {"y": x * a + b}

    source = checkpoint(tmp_path / "c", make, False, write_version=version, sharded=True)
    assert len(list((tmp_path / "c").glob("m*-of-00002"))) == 2
    assert_proven(source, tmp_path)


def test_a_checkpoint_without_a_name(tmp_path):
    source = checkpoint(tmp_path / "c", tf1_models.dense, False)
    for file in (tmp_path / "c").glob("m.*"):
        file.rename(file.with_name(file.name.removeprefix("m")))
    assert_proven(dataclasses.replace(source, path=tmp_path / "c"), tmp_path)


def test_a_checkpoint_as_served(tmp_path):
    source = checkpoint(tmp_path / "c", tf1_models.dense, True)
    assert_proven(source, tmp_path, level="served")


def test_a_graph_that_was_placed_on_other_devices(tmp_path):
    def make(resource):
        with tf.device("/job:worker/task:3/device:GPU:1"):
            return tf1_models.dense(resource)

    folder = tmp_path / "c"
    source = checkpoint(folder, tf1_models.dense, False)
    with tf.Graph().as_default() as graph:
        tf.identity(make(False)[1]["y"], name="out")
        saver = v1.train.Saver()
        (folder / "m.meta").unlink()
        saver.export_meta_graph(str(folder / "m.meta"))
    assert graph.get_operation_by_name("w").device
    assert_proven(source, tmp_path)


def test_a_checkpoint_that_is_cut_after_it_was_frozen(tmp_path):
    source = checkpoint(tmp_path / "c", tf1_models.dense, False)
    model = frozen(source, tmp_path)
    data = tmp_path / "c" / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(StageFailed, match="cannot restore"):
        validate(model, source, tmp_path / "validate")


# ---------------------------------------------------------------- graph files


def constant_graph(file, factor):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 3], name="x")
        weights = np.arange(600, dtype=np.float32).reshape(3, 200) * np.float32(factor)
        tf.matmul(tf.nn.relu(x), tf.constant(weights), name="y")
    v1.train.write_graph(graph, str(file.parent), file.name, as_text=file.suffix == ".pbtxt")
    return ModelSource(kind="frozen_graph", path=file)


@pytest.mark.parametrize("ending", ["pb", "pbtxt"])
@pytest.mark.parametrize(
    "names", [{}, {"inputs": ("x:0",), "outputs": ("y:0",)}], ids=["", "named"]
)
def test_a_frozen_graph(names, ending, tmp_path):
    source = constant_graph(tmp_path / f"graph.{ending}", 0.1)
    model = assert_proven(dataclasses.replace(source, **names), tmp_path)
    other = constant_graph(tmp_path / f"other.{ending}", 0.2)
    with pytest.raises(ValidationFailed):
        validate(model, dataclasses.replace(other, **names), tmp_path / "validate")


def test_a_frozen_graph_as_served(tmp_path):
    assert_proven(constant_graph(tmp_path / "graph.pb", 0.1), tmp_path, level="served")


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("make", [tf1_models.dense, tf1_models.partitioned_embedding])
def test_a_graph_with_a_checkpoint(make, resource, tmp_path):
    def write(session, inputs, outputs):
        saver = v1.train.Saver()
        v1.train.write_graph(session.graph, str(tmp_path), "graph.pb", as_text=False)
        names.append(outputs["y"].name)
        saver.save(session, str(tmp_path / "w"), write_meta_graph=False)
        other_values(session)
        saver.save(session, str(tmp_path / "o"), write_meta_graph=False)

    names = []
    build(make, resource, write)
    source = ModelSource(
        kind="frozen_graph",
        path=tmp_path / "graph.pb",
        inputs=("x",),
        outputs=(names[0],),
        weights=tmp_path / "w",
    )
    model = assert_proven(source, tmp_path)
    with pytest.raises(ValidationFailed):
        validate(model, dataclasses.replace(source, weights=tmp_path / "o"), tmp_path / "validate")


# ---------------------------------------------------------------- Keras files


@pytest.mark.parametrize(
    ("ending", "level"), [("keras", "exact"), ("h5", "exact"), ("keras", "served")]
)
@pytest.mark.filterwarnings("ignore")  # Keras's own
def test_a_keras_file(ending, level, tmp_path):
    model = keras_model()
    model.save(str(tmp_path / f"model.{ending}"))
    source = ModelSource(kind="keras", path=tmp_path / f"model.{ending}")
    result = assert_proven(source, tmp_path, level=level)
    for weight in model.weights:
        weight.assign(weight * 1.5 + 0.5)
    model.save(str(tmp_path / f"other.{ending}"))
    other = ModelSource(kind="keras", path=tmp_path / f"other.{ending}")
    with pytest.raises(ValidationFailed):
        validate(result, other, tmp_path / "again", level=level)


# ---------------------------------------------------------------- other weights


@pytest.mark.parametrize("wrapped", [False, True], ids=["the model", "an object that holds it"])
def test_newer_weights(wrapped, tmp_path):
    (module, function), _ = tf2_models.large_dense()
    save(module, function, tmp_path / "model")
    module.w.assign(module.w * 3.0)
    newer = tf.train.Checkpoint(net=module) if wrapped else tf.train.Checkpoint(module)
    prefix = newer.write(str(tmp_path / "newer"))
    own = harness.saved_model(tmp_path / "model")
    source = dataclasses.replace(own, weights=tmp_path / prefix)
    model = assert_proven(source, tmp_path)
    with pytest.raises(ValidationFailed):
        validate(model, own, tmp_path / "validate")


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("version", [V1, V2], ids=["V1", "V2"])
def test_slices_of_newer_weights(version, resource, tmp_path):
    make = tf1_models.partitioned_embedding
    own = checkpoint(tmp_path / "c", make, resource)
    newer = checkpoint(tmp_path / "n", make, resource, change=other_values, write_version=version)
    source = dataclasses.replace(own, weights=newer.path)
    model = assert_proven(source, tmp_path)
    with pytest.raises(ValidationFailed):
        validate(model, own, tmp_path / "validate")


def test_a_table_in_newer_weights(tmp_path):
    """A mutable table's contents are in the checkpoint, too."""
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    table.insert(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64))
    module, function = tf2_models.build(
        lambda m, x: {"y": m.table.lookup(x)}, [tf2_models.spec([None], tf.string)], table=table
    )
    save(module, function, tmp_path / "model")
    table.insert(tf.constant(["b", "c"]), tf.constant([7, 8], tf.int64))
    prefix = tf.train.Checkpoint(module).write(str(tmp_path / "newer"))
    own = harness.saved_model(tmp_path / "model")
    source = dataclasses.replace(own, weights=tmp_path / prefix)
    known = {"x": Random(vocabulary=("a", "b", "c"), shape=(20,))}
    model = assert_proven(source, tmp_path, random=known)
    with pytest.raises(ValidationFailed):
        validate(model, own, tmp_path / "validate", random=known)


@pytest.mark.parametrize("resource", [False, True], ids=["ref", "resource"])
def test_moving_averages(resource, tmp_path):
    def make(resource):
        inputs, outputs = tf1_models.dense(resource)
        averages = v1.train.ExponentialMovingAverage(0.5)
        trained = v1.trainable_variables()
        averages.apply(trained)
        for var in trained:
            v1.add_to_collection("start", v1.assign(averages.average(var), var * 2.0 + 1.0))
        return inputs, outputs

    own = checkpoint(tmp_path / "c", make, resource)
    source = dataclasses.replace(own, averages=True)
    model = assert_proven(source, tmp_path)
    with pytest.raises(ValidationFailed):
        validate(model, own, tmp_path / "validate")


# ---------------------------------------------------------------- bound inputs


@pytest.mark.parametrize("training", [False, True])
def test_a_bound_input_of_a_signature(training, tmp_path):
    module, function = batch_norm_tf2()
    save(module, function, tmp_path / "model")
    source = harness.saved_model(tmp_path / "model")
    model = frozen(source, tmp_path, bind={"training": training})
    assert model.bound == {"training": training}
    assert validate(model, source, tmp_path / "validate")["equal"] is True
    turned = dataclasses.replace(model, bound={"training": not training})
    with pytest.raises(ValidationFailed):
        validate(turned, source, tmp_path / "validate")


@pytest.mark.parametrize(("name", "level"), [("is_training", "exact"), ("is_training:0", "served")])
def test_a_bound_input_by_its_tensor(name, level, tmp_path):
    def make(resource):
        inputs, outputs = batch_norm(resource)
        return {"x": inputs["x"]}, outputs

    path = saved(make, False, tmp_path / "model")
    source = harness.saved_model(path)
    model = frozen(source, tmp_path, bind={name: False})
    assert validate(model, source, tmp_path / "validate", level=level)["equal"] is True
    with pytest.raises(ValidationFailed):
        validate(dataclasses.replace(model, bound={name: True}), source, tmp_path / "validate")
    with pytest.raises(UsageError, match="no input 'gone'"):
        validate(dataclasses.replace(model, bound={"gone": 1}), source, tmp_path / "validate")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(tf.int32, 3), (tf.float64, 0.1), (tf.float16, 2.5), (tf.string, "a"), (tf.float32, 2)],
)
def test_bound_values_of_every_kind(dtype, value, tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(dtype, [None], name="x")
        bound = v1.placeholder(dtype, [], name="bound")
        tf.add(x, bound, name="y")
    v1.train.write_graph(graph, str(tmp_path), "graph.pb", as_text=False)
    source = ModelSource(kind="frozen_graph", path=tmp_path / "graph.pb", outputs=("y",))
    model = frozen(source, tmp_path, bind={"bound": value})
    assert list(model.signatures["serving_default"].inputs) == ["x"]
    assert validate(model, source, tmp_path / "validate")["equal"] is True


def test_what_was_bound_is_kept_and_published(tmp_path):
    path = saved(batch_norm, False, tmp_path / "model")
    model = frozen(harness.saved_model(path), tmp_path, bind={"is_training": False})
    locations = {tensor.digest: tensor.location for tensor in model_tensors(model)}
    kept = decode_model(*encode_model(model)[:2], locations)
    assert kept.bound == {"is_training": False}
    assert json.loads(manifest_bytes(kept, {}, None))["bound"] == {"is_training": False}
    unbound = dataclasses.replace(kept, bound={})
    assert "bound" not in json.loads(manifest_bytes(unbound, {}, None))


# ---------------------------------------------------------------- dropped writes


def test_a_dropped_write_is_named_where_it_shows(tmp_path):
    def run(module, x):
        module.mean.assign(module.mean + tf.reduce_mean(x, 0))
        return {"y": x - module.mean}

    signature = [tf2_models.spec([None, 3])]
    module, function = tf2_models.build(run, signature, mean=tf2_models.weight(3, name="mean"))
    save(module, function, tmp_path / "model")
    source = harness.saved_model(tmp_path / "model")
    model = frozen(source, tmp_path, written="drop")
    assert len(model.writes_dropped) == 1
    assert decode_model(*encode_model(model)[:2], {}).writes_dropped == model.writes_dropped
    with pytest.raises(ValidationFailed) as caught:
        validate(model, source, tmp_path / "validate", random={"x": Random(low=1, high=2)})
    assert "`freeze` dropped AssignVariableOp" in caught.value.hint
    assert "written: drop" in caught.value.hint
