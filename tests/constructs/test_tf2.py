"""Every TF2 construct: built by TensorFlow, frozen by freezeflow, equal to the byte."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf

from freezeflow.engine.context import StepContext
from freezeflow.errors import ModelRefused
from freezeflow.stages import freeze, load
from freezeflow.stages.stage import StageInput
from tests.constructs import harness, tf2_models


@pytest.fixture(scope="module", autouse=True)
def exact_runtime():
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


def save(model, function, path):
    tf.saved_model.save(model, str(path), signatures=function)
    return path


@pytest.mark.parametrize("make", tf2_models.MODELS, ids=lambda make: make.__name__)
def test_equal_to_the_byte(make, tmp_path):
    (model, function), feeds = make()
    save(model, function, tmp_path / "model")
    frozen = harness.assert_frozen_equals(tmp_path / "model", tmp_path, feeds)
    ops = {node.op for node in frozen.graph.nodes.values()}
    for body in frozen.graph.functions.values():
        ops |= {node.op for node in body.nodes.values()}
    assert not {op for op in ops if op.startswith(("VarHandle", "ReadVariable", "Assign"))}


@pytest.mark.parametrize(
    "make",
    [tf2_models.while_captures, tf2_models.embedding_in_while, tf2_models.cond_captures],
    ids=lambda make: make.__name__,
)
def test_functional_control_flow_stays_functional(make, tmp_path):
    (model, function), feeds = make()
    save(model, function, tmp_path / "model")
    frozen = harness.assert_frozen_equals(tmp_path / "model", tmp_path, feeds)
    ops = {node.op for node in frozen.graph.nodes.values()}
    assert ops & {"While", "StatelessWhile", "If", "StatelessIf"}
    assert not ops & {"Switch", "Merge", "Enter", "Exit"}


def test_names_come_from_the_signature(tmp_path):
    (model, function), _ = tf2_models.dense()
    save(model, function, tmp_path / "model")
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    signature = frozen.signatures["serving_default"]
    assert {spec.tensor for spec in signature.inputs.values()} == {"x"}
    assert {spec.tensor for spec in signature.outputs.values()} == {"y"}


def test_all_signatures_share_the_weights(tmp_path):
    (model, function), feeds = tf2_models.large_dense()
    other = tf.function(
        lambda x: {"z": model.serve(x)["y"] * 2.0}, input_signature=[tf2_models.spec([None, 3])]
    )
    tf.saved_model.save(model, str(tmp_path / "model"), signatures={"one": function, "two": other})
    frozen = harness.freeze_model(
        harness.saved_model(tmp_path / "model", signatures=("all",)), tmp_path
    )
    assert set(frozen.signatures) == {"one", "two"}
    assert sum(node.tensor is not None for node in frozen.graph.nodes.values()) == 1
    for name in ("one", "two"):
        original = harness.run_original(tmp_path / "model", name, feeds)
        harness.assert_same(original, harness.run_frozen(frozen, name, feeds))


def counter(m, x):
    m.count.assign_add(1.0)
    return {"y": x + m.count}


def counter_in_a_branch(m, x):
    return {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: m.count.assign_add(1.0) + x, lambda: x)}


def counter_in_a_loop(m, x):
    def body(i, y):
        m.count.assign_add(1.0)
        return i + 1, y + m.count

    return {"y": tf.while_loop(lambda i, y: i < 3, body, [0, x])[1]}


@pytest.mark.parametrize("function", [counter, counter_in_a_branch, counter_in_a_loop])
def test_a_write_that_an_output_sees_is_refused(function, tmp_path):
    model, serve = tf2_models.build(
        function, [tf2_models.spec([None, 3])], count=tf.Variable(0.0, name="count")
    )
    save(model, serve, tmp_path / "model")
    with pytest.raises(ModelRefused, match="written by AssignAddVariableOp") as refused:
        harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    assert refused.value.where and refused.value.hint


def test_python_code_is_refused(tmp_path):
    model, serve = tf2_models.build(
        lambda m, x: {"y": tf.numpy_function(lambda v: v * 2, [x], tf.float32)},
        [tf2_models.spec([None, 3])],
    )
    save(model, serve, tmp_path / "model")
    with pytest.raises(ModelRefused, match="calls Python code"):
        harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)


def test_an_assertion_still_fails(tmp_path):
    (model, function), _ = tf2_models.assertion_and_print()
    save(model, function, tmp_path / "model")
    frozen = harness.freeze_model(harness.saved_model(tmp_path / "model"), tmp_path)
    with pytest.raises(tf.errors.InvalidArgumentError):
        harness.run_frozen(frozen, "serving_default", {"x": np.full([1, 3], 1000, np.float32)})


def test_two_branches_choose_between_handles(tmp_path):
    """A variable's handle comes out of a cond as its result."""

    def run(m, x):
        handle = tf.raw_ops.If(
            cond=tf.reduce_sum(x) > 0,
            input=[m.a.handle, m.b.handle],
            Tout=[tf.resource],
            then_branch=first.get_concrete_function(),
            else_branch=second.get_concrete_function(),
        )[0]
        return {"y": x * tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)}

    handles = [tf.TensorSpec([], tf.resource)] * 2
    first = tf.function(lambda a, b: [a], input_signature=handles)
    second = tf.function(lambda a, b: [b], input_signature=handles)
    model, serve = tf2_models.build(
        run, [tf2_models.spec([None, 3])], a=tf2_models.weight(3), b=tf2_models.weight(3)
    )
    save(model, serve, tmp_path / "model")
    for feeds in (tf2_models.X, {"x": -tf2_models.X["x"]}):
        harness.assert_frozen_equals(tmp_path / "model", tmp_path, feeds)


def test_a_function_marked_for_compilation_is_inlined_with_a_warning(tmp_path):
    """XLA's kernels round otherwise, so the result is close, not equal to the byte."""
    (model, function), feeds = tf2_models.jit_compiled()
    save(model, function, tmp_path / "model")
    context = StepContext(tmp_path, tmp_path, None, io.StringIO())
    source = harness.saved_model(tmp_path / "model")
    loaded = load.STAGE.run(StageInput(model=None, source=source), load.Params(), context)
    given = StageInput(model=loaded.model, source=source)
    frozen = freeze.STAGE.run(given, freeze.Params(), context).model
    assert not frozen.graph.functions
    (warning,) = context.warnings
    assert "jit_compile" in warning
    original = harness.run_original(tmp_path / "model", "serving_default", feeds)
    have = harness.run_frozen(frozen, "serving_default", feeds)
    np.testing.assert_allclose(have["y"], original["y"], rtol=1e-5)
