"""The stage grappler: its passes run, what matters is kept, the machine is part of the key."""

import numpy as np
import pytest
import tensorflow as tf

from freezeflow import machine, plan
from freezeflow.errors import ModelRefused, StageFailed
from freezeflow.graph.canonical import canonical
from freezeflow.graph.verify import verify
from freezeflow.graph.write import graph_def_bytes
from freezeflow.stages.grappler import STAGE, Params
from freezeflow.stages.stage import StageInput
from tests.tf.built import FakeContext, model_of, run

v1 = tf.compat.v1
RANDOM = np.random.default_rng(23)


def weights(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def optimised(model, tmp_path, **params):
    given = StageInput(model=model, source=None)
    outcome = STAGE.run(given, Params(**params), FakeContext(tmp_path))
    assert not verify(outcome.model)
    return outcome


@pytest.fixture
def network(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 30], name="x")
        kernel = tf.identity(tf.constant(weights(30, 30), name="kernel"))
        y = tf.matmul(x, kernel * tf.sqrt(tf.constant(4.0))) + (x * 1.0 + 0.0)
        y = tf.cond(tf.reduce_sum(y) > 0, lambda: tf.exp(y * 0.01), lambda: tf.identity(y))
        y = tf.identity(tf.debugging.check_numerics(y, "!"), name="y")
        z = tf.identity(tf.matmul(x, kernel), name="z")
    return model_of(graph, {"x": x}, {"y": y, "z": z}, tmp_path)


def test_passes_run_and_the_result_is_canonical(network, tmp_path):
    outcome = optimised(network, tmp_path)
    assert outcome.facts["nodes_after"] < outcome.facts["nodes_before"]
    assert canonical(outcome.model) == outcome.model
    again = optimised(network, tmp_path).model
    assert graph_def_bytes(again.graph) == graph_def_bytes(outcome.model.graph)
    feeds = {"x": weights(4, 30)}
    before, after = run(network, feeds), run(outcome.model, feeds)
    for key in before:
        np.testing.assert_allclose(after[key], before[key], rtol=1e-4, atol=1e-5)


def test_a_weight_that_stays_is_not_copied(network, tmp_path):
    (before,) = (n.tensor for n in network.graph.nodes.values() if n.tensor is not None)
    after = [n.tensor for n in optimised(network, tmp_path).model.graph.nodes.values() if n.tensor]
    assert before in after
    assert all(tensor.location.path != str(tmp_path / "optimised.pb") for tensor in after)


def test_only_the_passes_that_were_asked_for_run(network, tmp_path):
    ops = {
        n.op for n in optimised(network, tmp_path, passes=("pruning",)).model.graph.nodes.values()
    }
    assert {"CheckNumerics", "Sqrt"} <= ops
    passes = ("debug_stripper", "constfold", "dependency")
    ops = {n.op for n in optimised(network, tmp_path, passes=passes).model.graph.nodes.values()}
    assert not {"CheckNumerics", "Sqrt"} & ops


def test_what_runs_once_before_use_is_kept(tmp_path):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string, [None], name="x")
        table = v1.raw_ops.HashTableV2(
            key_dtype=tf.string, value_dtype=tf.int64, shared_name="t", name="table"
        )
        keys, values = tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)
        init = tf.raw_ops.LookupTableImportV2(table_handle=table, keys=keys, values=values)
        found = tf.raw_ops.LookupTableFindV2(
            table_handle=table, keys=x, default_value=tf.constant(-1, tf.int64)
        )
        y = tf.identity(found, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path, init=[init.name])
    outcome = optimised(model, tmp_path)
    assert outcome.model.init == model.init
    feeds = {"x": np.array(["b", "q"], object)}
    assert run(outcome.model, feeds)["y"].tolist() == [2, -1]


def test_ops_that_write_are_refused(tmp_path):
    """Grappler's constant folding would run it: it is not marked as stateful."""
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        seen = tf.raw_ops.DebugIdentity(
            input=tf.constant(1.0), debug_urls=[f"file://{tmp_path}/written"]
        )
        y = tf.add(x, seen, name="y")
    model = model_of(graph, {"x": x}, {"y": y}, tmp_path)
    with pytest.raises(ModelRefused, match="DebugIdentity"):
        optimised(model, tmp_path)
    assert not (tmp_path / "written").exists()


def test_it_needs_a_frozen_model(tmp_path):
    with pytest.raises(StageFailed, match="no model"):
        STAGE.run(StageInput(model=None, source=None), Params(), FakeContext(tmp_path))


def test_the_key_names_the_machine(tmp_path, monkeypatch):
    (tmp_path / "graph.pb").touch()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\nmodel: {frozen_graph: graph.pb}\nstages: [load, grappler: [constfold]]\n"
    )
    (made,) = plan.compiled_plans(recipe, tmp_path / "plans")
    facts = machine.machine_facts()
    assert "cores" in facts
    assert {step.id: step.tools.get("machine") for step in made.steps} == {
        "load": None,
        "grappler": facts,
    }
    # On another machine the plan that was kept is no longer used.
    for module in (machine, plan):
        monkeypatch.setattr(module, "machine_facts", lambda: "another one")
    plan._digest_of_house.cache_clear()
    try:
        (other,) = plan.compiled_plans(recipe, tmp_path / "plans")
    finally:
        plan._digest_of_house.cache_clear()
    assert other.steps[1].tools["machine"] == "another one"
