"""The benchmark stage: figures of both sides, measured in turn, each in a process of its own."""

import pytest
import tensorflow as tf

from freezeflow.errors import StageFailed
from freezeflow.proof.requests import read_requests
from freezeflow.report.run import benchmark_line
from freezeflow.stages.benchmark import STAGE, Params
from freezeflow.stages.stage import StageInput
from freezeflow.values import Digest
from tests.stages.test_validate import pair_of, weights

v1 = tf.compat.v1


@pytest.fixture
def pair(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 30], name="x")
        y = tf.matmul(x, tf.constant(weights(30, 10), name="kernel"))
    return pair_of(tmp_path, graph, {"x": x}, {"y": y})


def benchmark(pair, **params):
    given = StageInput(model=pair.model, source=pair.source)
    return STAGE.run(given, Params(**params), pair.context)


@pytest.mark.slow
def test_both_sides_are_measured(pair):
    outcome = benchmark(pair, calls=9, threads=1)
    assert outcome.model is pair.model
    found = outcome.facts["benchmark"]
    assert found["samples"] == 9
    assert found["settings"]["threads"] == 1
    for side in ("original", "result"):
        figures = found[side]
        assert 0 < figures["p50_seconds"] <= figures["p90_seconds"] <= figures["p99_seconds"]
        assert figures["load_seconds"] > 0
        assert figures["first_call_seconds"] > 0
        assert figures["bytes"] > 1200
        assert figures["nodes"] >= 3
        assert figures["peak_bytes"] > figures["memory_bytes"] >= 0
    assert "9 calls each, in turn" in benchmark_line(found)


def test_what_cannot_be_measured(pair):
    with pytest.raises(StageFailed, match="no signature 'other'"):
        benchmark(pair, signature="other")
    with pytest.raises(StageFailed, match="no model"):
        STAGE.run(StageInput(model=None, source=pair.source), Params(), pair.context)


@pytest.mark.slow
def test_inputs_are_such_that_the_original_answers(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.int32, [None], name="x")
        y = tf.gather(tf.constant(weights(2, 4)), x)
    rows = pair_of(tmp_path, graph, {"x": x}, {"y": y})
    found = benchmark(rows, calls=5, size=40).facts["benchmark"]
    assert found["assumed"] == {"x": "from 0 to 1 (for GatherV2 at GatherV2)"}
    (kept,) = read_requests(tmp_path / "scratch" / Digest.parse(found["inputs"]).hex)
    assert kept.inputs["x"].shape == (40,)
    assert set(kept.inputs["x"]) == {0, 1}
