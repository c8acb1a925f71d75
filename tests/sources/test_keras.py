"""Keras files that are whole, damaged, or hold only weights."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from freezeflow.errors import ModelRefused
from freezeflow.values import ModelSource
from tests.constructs import harness
from tests.sources import built
from tests.sources.damage import attempt, damaged, frozen_bytes

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_whole_and_damaged(ending, tmp_path):
    source = built.keras_archive(tmp_path / f"model{ending}")
    good = source.path.read_bytes()
    (tmp_path / "scratch").mkdir()
    assert b"MatMul" in frozen_bytes(source, tmp_path / "scratch")
    rng = random.Random(ending)
    for data in (good[: len(good) // 2], b"", b"\0" * 3000, damaged(good, rng), damaged(good, rng)):
        scratch = tmp_path / str(rng.random())
        scratch.mkdir()
        source.path.write_bytes(data)
        attempt(source, scratch)
    source.path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ModelRefused, match="this is no"):
        frozen_bytes(source, tmp_path / "scratch")


def test_weights_alone(tmp_path):
    built.keras_model().save_weights(str(tmp_path / "model.weights.h5"))
    source = ModelSource(kind="keras", path=tmp_path / "model.weights.h5")
    with pytest.raises(ModelRefused, match="only weights") as refused:
        frozen_bytes(source, tmp_path)
    assert refused.value.hint


def test_augmentation_and_tables_that_rest_at_inference(tmp_path):
    words = keras.Input([1], dtype="string", name="words")
    picture = keras.Input([8, 8, 3], name="picture")
    moved = keras.layers.RandomTranslation(0.4, 0.4)(keras.layers.RandomFlip()(picture))
    noisy = keras.layers.GaussianNoise(0.5)(keras.layers.RandomZoom(0.5)(moved))
    known = keras.layers.StringLookup(vocabulary=["a", "b"])(words)
    path = tmp_path / "model.keras"
    model = keras.Model([picture, words], [keras.layers.Conv2D(2, 3)(noisy), known])
    model.save(path)
    feeds = {
        "picture": np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32),
        "words": np.array([["b"], ["zz"]], object),
    }
    frozen = harness.freeze_model(ModelSource(kind="keras", path=path), tmp_path)
    have = harness.run_frozen(frozen, "serving_default", feeds)
    want = model([tf.constant(feeds["picture"]), tf.constant(feeds["words"])], training=False)
    assert np.allclose(have["output_0"], want[0].numpy(), rtol=0, atol=1e-6)
    assert have["output_1"].tolist() == want[1].numpy().tolist() == [[2], [0]]
