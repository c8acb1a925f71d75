"""Random models: frozen, they equal the original to the byte."""

from __future__ import annotations

import os

import pytest
import tensorflow as tf

from tests import graph_generator
from tests.constructs import harness

FEW = range(20)
MANY = range(1000, 1000 + int(os.environ.get("FREEZEFLOW_TEST_SEEDS", "250")))


@pytest.fixture(scope="module", autouse=True)
def exact_runtime():
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


def check(seed, save, tmp_path, **how):
    save(seed, tmp_path / "model")
    for call in graph_generator.feeds(seed):
        harness.assert_frozen_equals(tmp_path / "model", tmp_path, call, **how)


@pytest.mark.parametrize("seed", FEW)
def test_tf2(seed, tmp_path):
    check(seed, graph_generator.save_tf2, tmp_path)


@pytest.mark.parametrize("seed", FEW)
def test_tf1(seed, tmp_path):
    check(seed, graph_generator.save_tf1, tmp_path, v1_loader=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_tf2(seed, tmp_path):
    check(seed, graph_generator.save_tf2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_tf1(seed, tmp_path):
    check(seed, graph_generator.save_tf1, tmp_path, v1_loader=True)
