"""Hostile graphs through the whole of a run: nothing is written, each ends within its limits."""

from __future__ import annotations

import time

import pytest
import tensorflow as tf

from freezeflow.api import load_plans
from freezeflow.engine.options import RunOptions
from freezeflow.engine.run import run_plans
from freezeflow.store.store import Store
from tests.stages.test_validate import writing_graph

v1 = tf.compat.v1

pytestmark = pytest.mark.slow

WRITING = ("DebugIdentity", "PrintV2", "WriteFile", "DatasetToTFRecord")
SECONDS = 20.0

RECIPE = """\
version: 1
model: {{{source}}}
stages:
  - load
  - freeze
  - strip
  - fold
  - validate: {{samples: 1, random: {{x: {{shape: []}}}}}}
  - export: build/{name}.pb
"""


def reading(target):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.string, [], name="x")
        tf.strings.join([x, tf.raw_ops.ReadFile(filename=str(target) + x)], name="y")
    return graph


def endless(target):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        y = tf.while_loop(lambda y: y > -1.0, lambda y: y * 1.0, [tf.abs(x)])
        tf.identity(y[0] if isinstance(y, (list, tuple)) else y, name="y")
    return graph


def filling(target):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        huge = tf.raw_ops.Fill(dims=tf.constant([2**40], tf.int64), value=1.0)
        tf.add(x, tf.reduce_sum(huge), name="y")
    return graph


def doubling(target):
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        piece = tf.constant([1.0, 2.0])
        for _ in range(40):
            piece = tf.concat([piece, piece], 0)
        tf.add(x, tf.reduce_sum(piece), name="y")
    return graph


def recursive(target):
    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def again(value):
        return value * 2.0

    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [], name="x")
        tf.identity(again.get_concrete_function()(x), name="y")
    graph_def = graph.as_graph_def()
    (function,) = graph_def.library.function
    for node in function.node_def:
        if node.op == "Mul":
            node.op = "PartitionedCall"
            node.input[:] = [function.signature.input_arg[0].name]
            node.attr.clear()
            node.attr["f"].func.name = function.signature.name
            for key in ("Tin", "Tout"):
                node.attr[key].list.type.append(tf.float32.as_datatype_enum)
        node.input[:] = [name.replace("mul:z", "mul:output") for name in node.input]
    return graph_def


def bad_op_that_nobody_calls(target):
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def bad(text):
        tf.io.write_file(str(target), text)
        return text

    with tf.Graph().as_default() as graph:
        bad.get_concrete_function().add_to_graph(graph)
        x = v1.placeholder(tf.float32, [], name="x")
        tf.add(x, 1.0, name="y")
    return graph


MAKERS = {
    "ReadFile": reading,
    "endless": endless,
    "filling": filling,
    "doubling": doubling,
    "recursive": recursive,
    "unused": bad_op_that_nobody_calls,
}


def by_a_checkpoint(folder, target):
    """A branch that writes, taken only if a variable says so."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.string, [], name="x")
        which = v1.get_variable("which", initializer=True, use_resource=True)

        def bad():
            with tf.control_dependencies([tf.io.write_file(str(target), x)]):
                return tf.identity(x)

        y = tf.identity(tf.cond(which, bad, lambda: x), name="y")
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Every model run in one go: name to its steps, the folder, and how long it took."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "pyproject.toml").touch()
    target = folder / "written"
    recipes = []
    for name in (*WRITING, *MAKERS, "checkpoint"):
        source = f"frozen_graph: {name}.pb, inputs: [x], outputs: [y]"
        if name == "checkpoint":
            by_a_checkpoint(folder / name, target)
            source = f"saved_model: {name}"
        else:
            graph = writing_graph(name, target) if name in WRITING else MAKERS[name](target)
            graph_def = graph.as_graph_def() if isinstance(graph, tf.Graph) else graph
            (folder / f"{name}.pb").write_bytes(graph_def.SerializeToString())
        recipe = folder / f"{name}.yaml"
        recipe.write_text(RECIPE.format(source=source, name=name))
        recipes.append(recipe)
    plans = [plan for path in recipes for plan in load_plans(path, cache_dir=folder / "cache")]
    options = RunOptions(keep_going=True, step_seconds=SECONDS, mem_limit=3 * 2**30)
    store = Store.open(folder / "cache")
    started = time.monotonic()
    result = run_plans(plans, store, options)
    seconds = time.monotonic() - started
    store.close()
    steps = {}
    for step in result.steps:
        steps.setdefault(step.ref.plan, {})[step.stage] = step
    return steps, folder, seconds


def test_nothing_is_written_and_nothing_published(ended):
    _, folder, _ = ended
    assert not list(folder.glob("written*"))
    assert [path.name for path in (folder / "build").iterdir() if path.suffix == ".pb"] == [
        "unused.pb"
    ]


@pytest.mark.parametrize("name", [*WRITING, "ReadFile"])
def test_ops_that_reach_outside_are_refused_by_name(ended, name):
    found = ended[0][name]
    assert found["fold"].status == "ran"
    assert found["validate"].status == "failed"
    assert found["validate"].error.exit_code == 5
    assert name in found["validate"].error.message
    assert "allow_ops" in found["validate"].error.hint


def test_a_branch_that_a_checkpoint_selects_is_seen(ended):
    error = ended[0]["checkpoint"]["validate"].error
    assert error.exit_code == 5
    assert "WriteFile" in error.message


def test_what_nobody_calls_does_not_matter(ended):
    assert ended[0]["unused"]["export"].status == "ran"


def test_a_function_that_calls_itself_is_refused(ended):
    failed = [step for step in ended[0]["recursive"].values() if step.status == "failed"]
    assert len(failed) == 1
    assert failed[0].error.exit_code == 5
    assert "calls itself" in failed[0].error.message


def test_an_endless_loop_is_ended(ended):
    error = ended[0]["endless"]["validate"].error
    assert f"ended after {SECONDS:g} seconds" in error.message or "SIGXCPU" in error.message
    assert ended[2] < 12 * SECONDS


@pytest.mark.parametrize("name", ["filling", "doubling"])
def test_sizes_are_bounded(ended, name):
    found = ended[0][name]
    assert found["fold"].status == "ran"
    assert found["fold"].facts["model_bytes"] < 1_000_000
    assert found["validate"].status == "failed"
    message = found["validate"].error.message
    # By what it ends depends on the machine's memory and speed; each is one of its limits.
    ends = ("refuses every input", "memory", "killed", "was ended after 20 seconds")
    assert any(end in message for end in ends), message
