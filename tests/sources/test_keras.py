"""Keras files that are whole, damaged, or hold only weights."""

from __future__ import annotations

import random

import pytest

from freezeflow.errors import ModelRefused
from freezeflow.values import ModelSource
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
