"""What TensorFlow is told about an original: which op restores what, from where."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.sources.original import original_of
from freezeflow.tf.sessions import exact_config
from freezeflow.tf.sides import original_side
from freezeflow.values import ModelSource
from tests.sources import built
from tests.tf.built import FakeContext


@pytest.fixture
def context(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return FakeContext(folder)


def test_a_saved_model_is_restored_by_its_own_op(good, context):
    source, folder = good("tf2_module")
    original = original_of(source, context)
    assert original.message == "SavedModel"
    assert original.restore_op
    assert original.checkpoint == str(folder / "variables/variables")
    assert not original.assigned
    assert not original.tables


@pytest.mark.parametrize("kind", ["checkpoint", "checkpoint_v1"])
def test_a_checkpoint_is_restored_by_the_op_of_its_meta_graph(kind, good, context):
    source, folder = good(kind)
    original = original_of(source, context)
    assert original.message == "MetaGraphDef"
    assert original.file == folder / "model.ckpt.meta"
    assert original.restore_op == "save/restore_all"
    assert original.checkpoint == str(folder / "model.ckpt")
    assert "save/restore_all" in original.graph.nodes


def test_an_empty_prefix_ends_in_a_slash(tmp_path, context):
    source = built.checkpoint(tmp_path / "c")
    for file in (tmp_path / "c").glob("model.ckpt.*"):
        file.rename(file.with_name(file.name.removeprefix("model.ckpt")))
    original = original_of(dataclasses.replace(source, path=tmp_path / "c"), context)
    assert original.checkpoint == f"{tmp_path}/c/"


def test_other_weights_are_assigned_one_by_one(tmp_path, context, good):
    source, _ = good("checkpoint")
    other = built.checkpoint_v1(tmp_path / "o")
    original = original_of(dataclasses.replace(source, weights=other.path), context)
    assert original.restore_op == ""
    assert original.checkpoint == str(other.path)
    assert {handle: saved.key for handle, saved in original.assigned.items()} == {
        "w": "w",
        "b": "b",
    }
    # Neither is the own checkpoint's restore op run, nor is it there to be checked.
    assert not [name for name in original.graph.nodes if name.startswith("save/")]


def test_a_graph_without_variables_is_not_restored(good, context):
    source, _ = good("frozen_graph")
    original = original_of(source, context)
    assert (original.message, original.restore_op, original.checkpoint) == ("GraphDef", "", "")


def test_a_checkpoint_that_lacks_a_variable(tmp_path, context, good):
    source, _ = good("checkpoint")
    prefix = tf.train.Checkpoint(v=tf.Variable(1.0)).write(str(tmp_path / "other"))
    with pytest.raises(ModelRefused, match="has no 'w'"):
        original_of(dataclasses.replace(source, weights=tmp_path / prefix), context)


def functional():
    import keras

    first, second = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    dense = keras.layers.Dense(3)
    outputs = {"sum": dense(first) - second[:, :3], "drop": keras.layers.Dropout(0.5)(first)}
    return keras.Model({"zeta": first, "alpha": second}, outputs)


@pytest.mark.filterwarnings("ignore")  # Keras's own
def test_the_original_of_a_keras_file_answers_as_keras_does(tmp_path, context):
    model = functional()
    model.save(str(tmp_path / "model.keras"))
    source = ModelSource(kind="keras", path=tmp_path / "model.keras")
    original = original_of(source, context)
    inputs = {
        key: np.random.default_rng(seed).normal(size=(5, 4)).astype(np.float32)
        for seed, key in enumerate(("zeta", "alpha"))
    }
    (answer,) = original_side(original, {}, exact=True).call(
        [("serving_default", inputs)], exact_config(), None
    )
    want = model(inputs, training=False)
    assert answer.keys() == want.keys()
    for key, value in want.items():
        np.testing.assert_allclose(answer[key], value.numpy(), rtol=1e-6, atol=1e-6)
